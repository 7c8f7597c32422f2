//! The config of a model from the metadata of its GGUF file alone.
//! Sources: llama.cpp, `gguf-py/gguf/constants.py` and `src/llama-model.cpp`; bitnet.cpp for "bitnet-b1.58".

use std::path::Path;

use serde_json::{Value, json};

use super::config::{Config, TextConfig};
use super::llama_config::LlamaConfig;
use super::rope::RopeScaling;
use crate::EdgeError;
use crate::gguf::{self, GgufFile};

/// Architectures that are read, and whether each is a BitNet.
const ARCHITECTURES: [(&str, bool); 5] =
    [("gpt2", false), ("llama", false), ("bitnet", true), ("bitnet-25", true), ("bitnet-b1.58", true)];

impl TextConfig {
    /// The config of the model in `file`, a GPT-2, Llama or BitNet, with the architecture's name.
    ///
    /// Errors: [`EdgeError::Unsuited`] for another architecture; [`EdgeError::Format`] for metadata that is missing or does not
    /// go together.
    pub(crate) fn from_gguf<'a>(file: &'a GgufFile, path: &Path) -> Result<(Self, &'a str), EdgeError> {
        let keys = Keys { file };
        let architecture = keys.text("general.architecture").unwrap_or_default();
        let Some((_, is_bitnet)) = ARCHITECTURES.iter().find(|(name, _)| *name == architecture) else {
            let names = ARCHITECTURES.map(|(name, _)| format!("{name:?}")).join(", ");
            return Err(EdgeError::unsuited(
                path,
                format!("general.architecture of {names}"),
                format!("{architecture:?}"),
            ));
        };
        if architecture == "gpt2" {
            return Ok((gpt2(&keys, path)?, architecture));
        }
        Ok((Self::Llama(Box::new(llama(&keys, architecture, *is_bitnet, path)?)), architecture))
    }
}

fn gpt2(keys: &Keys<'_>, path: &Path) -> Result<TextConfig, EdgeError> {
    let get = |name: &str| keys.number(&format!("gpt2.{name}"));
    let config = json!({
        "model_type": "gpt2",
        "vocab_size": keys.vocab_size(),
        "n_positions": get("context_length"),
        "n_embd": get("embedding_length"),
        "n_inner": get("feed_forward_length"),
        "n_layer": get("block_count"),
        "n_head": get("attention.head_count"),
        "layer_norm_epsilon": get("attention.layer_norm_epsilon"),
    });
    match Config::from_json(&config, path)? {
        Config::Text(config) => Ok(config),
        Config::Image(_) => Err(EdgeError::format(path, "a language model", "an image model")),
    }
}

fn llama(keys: &Keys<'_>, architecture: &str, is_bitnet: bool, path: &Path) -> Result<LlamaConfig, EdgeError> {
    let key = |name: &str| format!("{architecture}.{name}");
    let get = |name: &str| keys.number(&key(name));
    // "bitnet" says its activation by a key that early files lack; the others always square.
    let squares = architecture != "bitnet" || keys.text(&key("hidden_activation")) == Some("relu2");
    let (heads, width) = (get("attention.head_count"), get("embedding_length"));
    let head_dim = match get("attention.key_length").as_u64() {
        Some(length) => Some(length),
        None => width.as_u64().zip(heads.as_u64()).and_then(|(width, heads)| width.checked_div(heads)),
    };
    for name in ["rope.dimension_count", "attention.value_length"] {
        if let Some(found) = get(name).as_u64().filter(|found| Some(*found) != head_dim) {
            let expected = format!("{} of {}", key(name), head_dim.unwrap_or_default());
            return Err(EdgeError::format(path, expected, found.to_string()));
        }
    }
    if let Some(experts) = get("expert_count").as_u64().filter(|experts| *experts > 0) {
        return Err(EdgeError::unsuited(path, "a model without experts", format!("{experts} of them")));
    }
    let theta = get("rope.freq_base");
    let config = json!({
        "vocab_size": keys.vocab_size(),
        "max_position_embeddings": get("context_length"),
        "hidden_size": width,
        "intermediate_size": get("feed_forward_length"),
        "num_hidden_layers": get("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": get("attention.head_count_kv"),
        "head_dim": head_dim,
        "rms_norm_eps": get("attention.layer_norm_rms_epsilon"),
        "rope_theta": if theta.is_null() { json!(10_000.0) } else { theta },
        "rope_scaling": rope_scaling(keys, architecture),
        "hidden_act": if is_bitnet && squares { "relu2" } else { "silu" },
        "tie_word_embeddings": !keys.file.tensors().contains_key("output.weight"),
    });
    LlamaConfig::from_json(&config, is_bitnet, path)
}

/// As transformers writes it. Llama 3's is a tensor of its own.
fn rope_scaling(keys: &Keys<'_>, architecture: &str) -> Value {
    let key = |name: &str| format!("{architecture}.rope.{name}");
    let get = |name: &str| keys.number(&key(name));
    let factor = match get("scaling.factor").as_f64() {
        Some(factor) => factor,
        // The key of early files.
        None => get("scale_linear").as_f64().unwrap_or(1.0),
    };
    let kind = keys.text(&key("scaling.type"));
    let kind = kind.unwrap_or(if get("scale_linear").is_null() { "none" } else { "linear" });
    if kind == "none" || factor == 1.0 {
        return Value::Null;
    }
    let growth = get("scaling.attn_factor").as_f64().or(get("scaling.yarn_attn_factor").as_f64()).unwrap_or(1.0);
    let mut scaling = json!({"rope_type": kind, "factor": factor});
    if kind == "yarn" {
        scaling["original_max_position_embeddings"] = get("scaling.original_context_length");
        scaling["attention_factor"] = json!(growth * RopeScaling::yarn_magnitude(factor));
        scaling["beta_fast"] = get("scaling.yarn_beta_fast");
        scaling["beta_slow"] = get("scaling.yarn_beta_slow");
    }
    scaling
}

/// Metadata as JSON.
struct Keys<'a> {
    file: &'a GgufFile,
}

impl<'a> Keys<'a> {
    fn text(&self, key: &str) -> Option<&'a str> {
        self.file.metadata().get(key).and_then(gguf::Value::as_str)
    }

    /// Null for a key that is missing or no number.
    fn number(&self, key: &str) -> Value {
        match self.file.metadata().get(key) {
            Some(gguf::Value::F32(number)) => json!(number),
            Some(gguf::Value::F64(number)) => json!(number),
            Some(value) => value.as_u64().map_or(Value::Null, Value::from),
            None => Value::Null,
        }
    }

    /// Rows of the embedding: what every token has.
    fn vocab_size(&self) -> Option<usize> {
        self.file.tensors().get("token_embd.weight")?.shape.first().copied()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::gguf::{GgufWriter, TensorType};

    /// The config of a file with these numbers under their llama.cpp names.
    fn config(architecture: &str, numbers: &[(&str, u32)], has_output: bool) -> Result<TextConfig, String> {
        let mut writer = GgufWriter::new(architecture);
        for (name, number) in numbers {
            writer.add_metadata(&format!("{architecture}.{name}"), *number).unwrap();
        }
        writer.add_metadata(&format!("{architecture}.attention.layer_norm_rms_epsilon"), 1e-5_f32).unwrap();
        writer.add_metadata(&format!("{architecture}.rope.freq_base"), 5e5_f32).unwrap();
        for name in if has_output { &["token_embd.weight", "output.weight"][..] } else { &["token_embd.weight"] } {
            writer.add_tensor(name, TensorType::F32, &[7, 8], vec![0; 7 * 8 * 4]).unwrap();
        }
        let mut bytes = Vec::new();
        writer.write(&mut bytes).unwrap();
        let path = Path::new("model.gguf");
        let file = GgufFile::parse(bytes.into(), path).unwrap();
        TextConfig::from_gguf(&file, path).map(|(config, _)| config).map_err(|error| error.to_string())
    }

    const NUMBERS: [(&str, u32); 6] = [
        ("context_length", 64),
        ("embedding_length", 8),
        ("feed_forward_length", 16),
        ("block_count", 3),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
    ];

    #[test]
    fn numbers_arrive_where_they_belong() {
        for (architecture, has_output) in [("llama", true), ("bitnet", false)] {
            let TextConfig::Llama(config) = config(architecture, &NUMBERS, has_output).unwrap() else {
                panic!("expected a Llama");
            };
            let sizes =
                (config.vocab_size, config.max_position_embeddings, config.hidden_size, config.intermediate_size);
            assert_eq!(sizes, (7, 64, 8, 16));
            let heads = (config.num_hidden_layers, config.num_attention_heads, config.kv_heads(), config.head_dim());
            assert_eq!(heads, (3, 4, 2, 2));
            assert_eq!((config.theta(), config.rms_norm_eps), (5e5, 1e-5));
            assert_eq!((config.tie_word_embeddings, config.has_sub_norms()), (!has_output, architecture == "bitnet"));
        }
    }

    #[test]
    fn rotary_scaling_arrives_as_it_is_meant() {
        let scaling = |kind: &str, more: &[(&str, f32)]| {
            let mut writer = GgufWriter::new("llama");
            for (name, number) in NUMBERS {
                writer.add_metadata(&format!("llama.{name}"), number).unwrap();
            }
            writer.add_metadata("llama.attention.layer_norm_rms_epsilon", 1e-5_f32).unwrap();
            if !kind.is_empty() {
                writer.add_metadata("llama.rope.scaling.type", kind).unwrap();
            }
            for (name, number) in more {
                writer.add_metadata(&format!("llama.rope.{name}"), *number).unwrap();
            }
            writer.add_tensor("token_embd.weight", TensorType::F32, &[7, 8], vec![0; 7 * 8 * 4]).unwrap();
            let mut bytes = Vec::new();
            writer.write(&mut bytes).unwrap();
            let path = Path::new("model.gguf");
            let file = GgufFile::parse(bytes.into(), path).unwrap();
            match TextConfig::from_gguf(&file, path).map_err(|error| error.to_string())? {
                (TextConfig::Llama(config), _) => config.rope_scaling(path).map_err(|error| error.to_string()),
                (TextConfig::Gpt2(_), _) => Err("a GPT-2".to_owned()),
            }
        };
        assert_eq!(scaling("", &[]), Ok(RopeScaling::None));
        assert_eq!(scaling("none", &[("scaling.factor", 4.0)]), Ok(RopeScaling::None));
        assert_eq!(scaling("linear", &[("scaling.factor", 4.0)]), Ok(RopeScaling::Linear { factor: 4.0 }));
        assert_eq!(scaling("", &[("scale_linear", 2.0)]), Ok(RopeScaling::Linear { factor: 2.0 }));
        let yarn = |original_positions: f64, growth: f64| RopeScaling::Yarn {
            factor: 4.0,
            original_positions,
            beta_fast: 32.0,
            beta_slow: 1.0,
            magnitude: growth * (0.1 * 4.0_f64.ln() + 1.0),
        };
        // Without a length of its own, the model's.
        assert_eq!(scaling("yarn", &[("scaling.factor", 4.0)]), Ok(yarn(64.0, 1.0)));
        let more = [("scaling.factor", 4.0), ("scaling.original_context_length", 16.0), ("scaling.attn_factor", 0.5)];
        assert_eq!(scaling("yarn", &more), Ok(yarn(16.0, 0.5)));
        assert!(scaling("longrope", &[("scaling.factor", 4.0)]).unwrap_err().contains("longrope"));
        assert!(scaling("linear", &[("scaling.factor", -4.0)]).unwrap_err().contains("factor"));
    }

    #[test]
    fn what_is_missing_or_unknown_is_refused() {
        assert!(config("falcon", &NUMBERS, true).unwrap_err().contains("falcon"));
        assert!(config("llama", &NUMBERS[1..], true).unwrap_err().contains("model.gguf"));
        assert!(config("llama", &[&NUMBERS[..], &[("attention.key_length", 3)]].concat(), true).is_err());
        let scaled = [&NUMBERS[..], &[("rope.scaling.factor", 4)]].concat();
        assert!(config("llama", &scaled, true).is_ok(), "a factor without a type scales nothing");
        assert!(config("llama", &[&NUMBERS[..], &[("rope.dimension_count", 1)]].concat(), true).is_err());
        assert!(config("llama", &[&NUMBERS[..], &[("expert_count", 8)]].concat(), true).is_err());
    }
}
