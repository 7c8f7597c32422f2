//! The network that a GGUF file's metadata describe.
//! Source: llama.cpp, `gguf-py/gguf/constants.py`; the keys are those that our export writes.

use std::path::Path;

use foretrain_edge::gguf::{GgufFile, Value};

use super::ImportError;
use crate::models::{GateActivation, Gpt2Config, LlamaConfig, ModelConfig};

/// What transformers draws first weights with; a file of weights does not say.
const INITIALIZER_RANGE: f64 = 0.02;

/// The network of `file`, and llama.cpp's name of its family.
/// Errors: [`ImportError::NotAModel`] for another architecture, a variant that is not built here, or a key that is
/// missing or of another type.
pub(super) fn read_config(file: &GgufFile, path: &Path) -> Result<(ModelConfig, &'static str), ImportError> {
    let keys = Keys { file, path };
    match keys.text("general.architecture") {
        Some("gpt2") => Ok((ModelConfig::Gpt2(gpt2(&keys)?), "gpt2")),
        Some("llama") => Ok((ModelConfig::Llama(llama(&keys, "llama")?), "llama")),
        Some("bitnet") => Ok((ModelConfig::Llama(llama(&keys, "bitnet")?), "bitnet")),
        Some("bitnet-b1.58") => Ok((ModelConfig::Llama(llama(&keys, "bitnet-b1.58")?), "bitnet-b1.58")),
        other => Err(keys.refuse(
            "general.architecture",
            "\"gpt2\", \"llama\", \"bitnet\" or \"bitnet-b1.58\"",
            other.map_or_else(|| "none".to_owned(), |other| format!("{other:?}")),
        )),
    }
}

fn gpt2(keys: &Keys<'_>) -> Result<Gpt2Config, ImportError> {
    let n_embd = keys.size("gpt2.embedding_length")?;
    keys.require_size("gpt2.feed_forward_length", n_embd.saturating_mul(4))?;
    Ok(Gpt2Config {
        vocab_size: keys.vocab_size()?,
        n_positions: keys.size("gpt2.context_length")?,
        n_embd,
        n_layer: keys.size("gpt2.block_count")?,
        n_head: keys.size("gpt2.attention.head_count")?,
        layer_norm_epsilon: keys.number("gpt2.attention.layer_norm_epsilon")?,
        initializer_range: INITIALIZER_RANGE,
    })
}

/// A Llama, or a BitNet, whose keys are the same but for the architecture's name before them.
fn llama(keys: &Keys<'_>, architecture: &str) -> Result<LlamaConfig, ImportError> {
    let key = |name: &str| format!("{architecture}.{name}");
    let (hidden_size, heads) = (keys.size(&key("embedding_length"))?, keys.size(&key("attention.head_count"))?);
    let head_size = hidden_size.checked_div(heads).unwrap_or(0);
    for name in ["rope.dimension_count", "attention.key_length", "attention.value_length"] {
        keys.require_size(&key(name), head_size)?;
    }
    keys.require_size(&key("expert_count"), 0)?;
    if let Some(scaling) = keys.text(&key("rope.scaling.type")).filter(|scaling| *scaling != "none") {
        return Err(keys.refuse(&key("rope.scaling.type"), "\"none\"", format!("{scaling:?}")));
    }
    let (kv_heads, rope_theta) = (&key("attention.head_count_kv"), &key("rope.freq_base"));
    // "bitnet" says its activation by a key that early files lack; "bitnet-b1.58" always squares.
    let squares = architecture == "bitnet-b1.58" || keys.text(&key("hidden_activation")) == Some("relu2");
    Ok(LlamaConfig {
        vocab_size: keys.vocab_size()?,
        max_position_embeddings: keys.size(&key("context_length"))?,
        hidden_size,
        intermediate_size: keys.size(&key("feed_forward_length"))?,
        num_hidden_layers: keys.size(&key("block_count"))?,
        num_attention_heads: heads,
        num_key_value_heads: if keys.has(kv_heads) { keys.size(kv_heads)? } else { heads },
        rms_norm_eps: keys.number(&key("attention.layer_norm_rms_epsilon"))?,
        rope_theta: if keys.has(rope_theta) { keys.number(rope_theta)? } else { 10_000.0 },
        tie_word_embeddings: !keys.file.tensors().contains_key("output.weight"),
        initializer_range: INITIALIZER_RANGE,
        hidden_act: if squares { GateActivation::Relu2 } else { GateActivation::Silu },
        sub_norms: architecture != "llama",
    })
}

struct Keys<'a> {
    file: &'a GgufFile,
    path: &'a Path,
}

impl Keys<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.file.metadata().get(key)
    }

    fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    fn refuse(&self, key: &str, expected: &str, found: String) -> ImportError {
        ImportError::NotAModel {
            expected: format!("metadata {key:?} {expected}"),
            found,
            hint: "That variant is not built here",
            path: self.path.to_owned(),
        }
    }

    fn found(&self, key: &str) -> String {
        self.get(key).map_or_else(|| "none".to_owned(), ToString::to_string)
    }

    fn size(&self, key: &str) -> Result<usize, ImportError> {
        // No model has sizes beyond 32 bits; products of such sizes stay within 64.
        let size =
            self.get(key).and_then(Value::as_u64).and_then(|size| u32::try_from(size).ok()).filter(|size| *size > 0);
        size.map(|size| size as usize).ok_or_else(|| self.refuse(key, "a positive whole number", self.found(key)))
    }

    /// Errors when `key` is there and says something else.
    fn require_size(&self, key: &str, expected: usize) -> Result<(), ImportError> {
        match self.get(key).map(Value::as_u64) {
            None => Ok(()),
            Some(Some(found)) if found == expected as u64 => Ok(()),
            Some(_) => Err(self.refuse(key, &expected.to_string(), self.found(key))),
        }
    }

    fn number(&self, key: &str) -> Result<f64, ImportError> {
        let number = match self.get(key) {
            // By way of its digits, so that 1e-5 in 32 bits is 1e-5 in 64.
            Some(Value::F32(number)) => number.to_string().parse().ok(),
            Some(Value::F64(number)) => Some(*number),
            _ => None,
        };
        let number = number.filter(|number: &f64| number.is_finite() && *number > 0.0);
        number.ok_or_else(|| self.refuse(key, "a positive number", self.found(key)))
    }

    /// Rows of the embedding: what every token has.
    fn vocab_size(&self) -> Result<usize, ImportError> {
        let rows = self.file.tensors().get("token_embd.weight").and_then(|tensor| tensor.shape.first().copied());
        rows.ok_or_else(|| ImportError::NotAModel {
            expected: "a tensor \"token_embd.weight\"".to_owned(),
            found: "none".to_owned(),
            hint: "Is this a language model?",
            path: self.path.to_owned(),
        })
    }
}
