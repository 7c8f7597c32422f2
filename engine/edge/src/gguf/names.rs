//! Tensor names of llama.cpp and those of Hugging Face transformers, each for the other.
//! Source: llama.cpp, `gguf-py/gguf/tensor_mapping.py`, architectures gpt2, llama and bitnet.

/// (transformers, llama.cpp); `{}` stands for the block's number.
type Table = [(&'static str, &'static str)];

const GPT2: [(&str, &str); 10] = [
    ("transformer.wte", "token_embd"),
    ("transformer.wpe", "position_embd"),
    ("transformer.ln_f", "output_norm"),
    ("lm_head", "output"),
    ("transformer.h.{}.ln_1", "blk.{}.attn_norm"),
    ("transformer.h.{}.ln_2", "blk.{}.ffn_norm"),
    ("transformer.h.{}.attn.c_attn", "blk.{}.attn_qkv"),
    ("transformer.h.{}.attn.c_proj", "blk.{}.attn_output"),
    ("transformer.h.{}.mlp.c_fc", "blk.{}.ffn_up"),
    ("transformer.h.{}.mlp.c_proj", "blk.{}.ffn_down"),
];

/// With the two norms that a BitNet has besides.
const LLAMA: [(&str, &str); 14] = [
    ("model.embed_tokens", "token_embd"),
    ("model.norm", "output_norm"),
    ("lm_head", "output"),
    ("model.layers.{}.input_layernorm", "blk.{}.attn_norm"),
    ("model.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"),
    ("model.layers.{}.self_attn.attn_sub_norm", "blk.{}.attn_sub_norm"),
    ("model.layers.{}.mlp.ffn_sub_norm", "blk.{}.ffn_sub_norm"),
    ("model.layers.{}.self_attn.q_proj", "blk.{}.attn_q"),
    ("model.layers.{}.self_attn.k_proj", "blk.{}.attn_k"),
    ("model.layers.{}.self_attn.v_proj", "blk.{}.attn_v"),
    ("model.layers.{}.self_attn.o_proj", "blk.{}.attn_output"),
    ("model.layers.{}.mlp.gate_proj", "blk.{}.ffn_gate"),
    ("model.layers.{}.mlp.up_proj", "blk.{}.ffn_up"),
    ("model.layers.{}.mlp.down_proj", "blk.{}.ffn_down"),
];

fn table(architecture: &str) -> Option<&'static Table> {
    match architecture {
        "gpt2" => Some(&GPT2),
        "llama" | "bitnet" | "bitnet-25" | "bitnet-b1.58" => Some(&LLAMA),
        _ => None,
    }
}

/// llama.cpp's name of transformers' tensor `name` in a model of `architecture` ("gpt2", "llama", "bitnet"); `None` for one that it
/// does not have.
#[must_use]
pub fn llama_cpp_name(architecture: &str, name: &str) -> Option<String> {
    translated(name, table(architecture)?.iter().copied())
}

/// The reverse of [`llama_cpp_name`].
#[must_use]
pub fn hugging_face_name(architecture: &str, name: &str) -> Option<String> {
    translated(name, table(architecture)?.iter().map(|&(hugging_face, llama_cpp)| (llama_cpp, hugging_face)))
}

fn translated<'a>(name: &str, mut pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Option<String> {
    let (stem, kind) = name.rsplit_once('.')?;
    pairs.find_map(|(from, to)| match from.split_once("{}") {
        None => (stem == from).then(|| format!("{to}.{kind}")),
        Some((before, after)) => {
            let number = stem.strip_prefix(before)?.strip_suffix(after)?;
            let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| format!("{}.{kind}", to.replace("{}", number)))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(architecture: &str, hugging_face: &str, llama_cpp: &str) {
        assert_eq!(llama_cpp_name(architecture, hugging_face).as_deref(), Some(llama_cpp), "{architecture}");
        assert_eq!(hugging_face_name(architecture, llama_cpp).as_deref(), Some(hugging_face), "{architecture}");
    }

    #[test]
    fn names_both_ways() {
        check("gpt2", "transformer.h.11.attn.c_attn.bias", "blk.11.attn_qkv.bias");
        check("gpt2", "transformer.wte.weight", "token_embd.weight");
        check("llama", "model.layers.0.mlp.gate_proj.weight", "blk.0.ffn_gate.weight");
        check("llama", "lm_head.weight", "output.weight");
        check("bitnet", "model.layers.3.mlp.ffn_sub_norm.weight", "blk.3.ffn_sub_norm.weight");
    }

    #[test]
    fn strangers_have_none() {
        for (architecture, name) in [
            ("llama", "transformer.wte.weight"),
            ("gpt2", "transformer.h.x.ln_1.weight"),
            ("gpt2", "transformer.h..ln_1.weight"),
            ("bloom", "transformer.wte.weight"),
        ] {
            assert_eq!(llama_cpp_name(architecture, name), None, "{architecture} {name}");
        }
        for (architecture, name) in [
            ("llama", "rope_freqs.weight"),
            ("llama", "attn_q.weight"),
            ("llama", "blk.x.attn_q.weight"),
            ("bloom", "token_embd.weight"),
        ] {
            assert_eq!(hugging_face_name(architecture, name), None, "{architecture} {name}");
        }
    }
}
