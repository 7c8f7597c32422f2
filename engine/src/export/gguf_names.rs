//! Tensor names of llama.cpp for those of Hugging Face transformers.
//! Source: llama.cpp, `gguf-py/gguf/tensor_mapping.py`, architectures gpt2 and llama.

/// (transformers, llama.cpp); `{}` stands for the block's number.
const GPT2: [(&str, &str); 9] = [
    ("transformer.wte", "token_embd"),
    ("transformer.wpe", "position_embd"),
    ("transformer.ln_f", "output_norm"),
    ("transformer.h.{}.ln_1", "blk.{}.attn_norm"),
    ("transformer.h.{}.ln_2", "blk.{}.ffn_norm"),
    ("transformer.h.{}.attn.c_attn", "blk.{}.attn_qkv"),
    ("transformer.h.{}.attn.c_proj", "blk.{}.attn_output"),
    ("transformer.h.{}.mlp.c_fc", "blk.{}.ffn_up"),
    ("transformer.h.{}.mlp.c_proj", "blk.{}.ffn_down"),
];

const LLAMA: [(&str, &str); 12] = [
    ("model.embed_tokens", "token_embd"),
    ("model.norm", "output_norm"),
    ("lm_head", "output"),
    ("model.layers.{}.input_layernorm", "blk.{}.attn_norm"),
    ("model.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"),
    ("model.layers.{}.self_attn.q_proj", "blk.{}.attn_q"),
    ("model.layers.{}.self_attn.k_proj", "blk.{}.attn_k"),
    ("model.layers.{}.self_attn.v_proj", "blk.{}.attn_v"),
    ("model.layers.{}.self_attn.o_proj", "blk.{}.attn_output"),
    ("model.layers.{}.mlp.gate_proj", "blk.{}.ffn_gate"),
    ("model.layers.{}.mlp.up_proj", "blk.{}.ffn_up"),
    ("model.layers.{}.mlp.down_proj", "blk.{}.ffn_down"),
];

/// llama.cpp's name of tensor `name` in a model of `architecture` ("gpt2", "llama"); `None` for one it does not have.
pub(super) fn llama_cpp_name(architecture: &str, name: &str) -> Option<String> {
    let table: &[(&str, &str)] = match architecture {
        "gpt2" => &GPT2,
        "llama" => &LLAMA,
        _ => return None,
    };
    let (stem, kind) = name.rsplit_once('.')?;
    table.iter().find_map(|(from, to)| match from.split_once("{}") {
        None => (stem == *from).then(|| format!("{to}.{kind}")),
        Some((before, after)) => {
            let number = stem.strip_prefix(before)?.strip_suffix(after)?;
            let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| format!("{}.{kind}", to.replace("{}", number)))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::llama_cpp_name;

    #[track_caller]
    fn check(architecture: &str, name: &str, expected: Option<&str>) {
        assert_eq!(llama_cpp_name(architecture, name).as_deref(), expected, "{architecture} {name}");
    }

    #[test]
    fn names() {
        check("gpt2", "transformer.h.11.attn.c_attn.bias", Some("blk.11.attn_qkv.bias"));
        check("gpt2", "transformer.wte.weight", Some("token_embd.weight"));
        check("llama", "model.layers.0.mlp.gate_proj.weight", Some("blk.0.ffn_gate.weight"));
        check("llama", "lm_head.weight", Some("output.weight"));
        check("llama", "transformer.wte.weight", None);
        check("gpt2", "transformer.h.x.ln_1.weight", None);
        check("bloom", "transformer.wte.weight", None);
    }
}
