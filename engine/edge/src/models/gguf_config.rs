//! The config of a model from the metadata of its GGUF file alone.

use std::path::Path;

use serde_json::{Value, json};

use super::config::{LlamaConfig, TextConfig};
use crate::EdgeError;
use crate::gguf::{self, GgufFile};

impl TextConfig {
    /// The config of the model in `file`, whose architecture is "llama" or "bitnet", with the architecture's name.
    ///
    /// Errors: [`EdgeError::Format`] for another architecture, and for metadata that is missing or does not go together.
    pub(crate) fn from_gguf<'a>(file: &'a GgufFile, path: &Path) -> Result<(Self, &'a str), EdgeError> {
        let text = |key: &str| file.metadata().get(key).and_then(gguf::Value::as_str);
        let architecture = text("general.architecture").unwrap_or_default();
        if !["llama", "bitnet"].contains(&architecture) {
            let expected = "general.architecture \"llama\" or \"bitnet\"";
            return Err(EdgeError::format(path, expected, format!("{architecture:?}")));
        }
        let key = |name: &str| format!("{architecture}.{name}");
        let get = |name: &str| match file.metadata().get(&key(name)) {
            Some(gguf::Value::F32(number)) => json!(number),
            Some(value) => value.as_u64().map_or(Value::Null, Value::from),
            None => Value::Null,
        };
        let scaling = text(&key("rope.scaling.type")).filter(|kind| *kind != "none");
        let is_scaled = scaling.is_some() && get("rope.scaling.factor").as_f64() != Some(1.0);
        let vocab_size = file.tensors().get("token_embd.weight").and_then(|table| table.shape.first());
        let config = json!({
            "vocab_size": vocab_size,
            "max_position_embeddings": get("context_length"),
            "hidden_size": get("embedding_length"),
            "intermediate_size": get("feed_forward_length"),
            "num_hidden_layers": get("block_count"),
            "num_attention_heads": get("attention.head_count"),
            "num_key_value_heads": get("attention.head_count_kv"),
            "head_dim": get("attention.key_length"),
            "rms_norm_eps": get("attention.layer_norm_rms_epsilon"),
            "rope_theta": get("rope.freq_base"),
            "rope_scaling": if is_scaled { json!(scaling) } else { Value::Null },
            "tie_word_embeddings": !file.tensors().contains_key("output.weight"),
        });
        let config = LlamaConfig::from_json(&config, architecture == "bitnet", path)?;
        Ok((Self::Llama(config), architecture))
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
    fn what_is_missing_or_unknown_is_refused() {
        assert!(config("falcon", &NUMBERS, true).unwrap_err().contains("falcon"));
        assert!(config("llama", &NUMBERS[1..], true).unwrap_err().contains("model.gguf"));
        assert!(config("llama", &[&NUMBERS[..], &[("attention.key_length", 3)]].concat(), true).is_err());
        let scaled = [&NUMBERS[..], &[("rope.scaling.factor", 4)]].concat();
        assert!(config("llama", &scaled, true).is_ok(), "a factor without a type scales nothing");
    }
}
