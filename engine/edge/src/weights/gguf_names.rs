//! Tensor names of llama.cpp in the words of Hugging Face transformers.
//! Source: the tensor name tables of llama.cpp for the architectures gpt2, llama and bitnet.

/// The Hugging Face name of `name` in a GGUF file of `architecture`; `None` for one that we do not use.
pub(super) fn hugging_face_name(architecture: &str, name: &str) -> Option<String> {
    let table: &[(&str, &str)] = match architecture {
        "gpt2" => &GPT2,
        "llama" | "bitnet" => &LLAMA,
        _ => return None,
    };
    let (stem, kind) = name.rsplit_once('.')?;
    let (pattern, block) = match stem.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some((block, part)) => (part, Some(block)),
        None => (stem, None),
    };
    let is_block = block.is_some();
    let (_, target) = table.iter().find(|(from, to)| *from == pattern && to.contains("{}") == is_block)?;
    Some(format!("{}.{kind}", target.replace("{}", block.unwrap_or_default())))
}

const GPT2: [(&str, &str); 10] = [
    ("token_embd", "transformer.wte"),
    ("position_embd", "transformer.wpe"),
    ("attn_norm", "transformer.h.{}.ln_1"),
    ("attn_qkv", "transformer.h.{}.attn.c_attn"),
    ("attn_output", "transformer.h.{}.attn.c_proj"),
    ("ffn_norm", "transformer.h.{}.ln_2"),
    ("ffn_up", "transformer.h.{}.mlp.c_fc"),
    ("ffn_down", "transformer.h.{}.mlp.c_proj"),
    ("output_norm", "transformer.ln_f"),
    ("output", "lm_head"),
];

const LLAMA: [(&str, &str); 14] = [
    ("token_embd", "model.embed_tokens"),
    ("attn_norm", "model.layers.{}.input_layernorm"),
    ("attn_q", "model.layers.{}.self_attn.q_proj"),
    ("attn_k", "model.layers.{}.self_attn.k_proj"),
    ("attn_v", "model.layers.{}.self_attn.v_proj"),
    ("attn_output", "model.layers.{}.self_attn.o_proj"),
    ("attn_sub_norm", "model.layers.{}.self_attn.attn_sub_norm"),
    ("ffn_norm", "model.layers.{}.post_attention_layernorm"),
    ("ffn_sub_norm", "model.layers.{}.mlp.ffn_sub_norm"),
    ("ffn_gate", "model.layers.{}.mlp.gate_proj"),
    ("ffn_up", "model.layers.{}.mlp.up_proj"),
    ("ffn_down", "model.layers.{}.mlp.down_proj"),
    ("output_norm", "model.norm"),
    ("output", "lm_head"),
];

#[cfg(test)]
mod tests {
    use super::hugging_face_name;

    #[test]
    fn names() {
        let check = |architecture, name, expected: Option<&str>| {
            assert_eq!(hugging_face_name(architecture, name).as_deref(), expected, "{architecture} {name}");
        };
        check("gpt2", "blk.11.attn_qkv.bias", Some("transformer.h.11.attn.c_attn.bias"));
        check("gpt2", "token_embd.weight", Some("transformer.wte.weight"));
        check("llama", "blk.0.ffn_gate.weight", Some("model.layers.0.mlp.gate_proj.weight"));
        check("llama", "output.weight", Some("lm_head.weight"));
        check("bitnet", "blk.3.ffn_sub_norm.weight", Some("model.layers.3.mlp.ffn_sub_norm.weight"));
        check("llama", "rope_freqs.weight", None);
        check("llama", "attn_q.weight", None);
        check("bloom", "token_embd.weight", None);
    }
}
