//! Metadata of a GGUF file: the network's numbers under llama.cpp's keys.
//! Source: llama.cpp, `gguf-py/gguf/constants.py` and the converter's classes GPT2Model, LlamaModel and
//! BitnetModel; bitnet.cpp for "bitnet-b1.58".

use foretrain_edge::gguf::Value;

use super::{ExportError, ModelCard};
use crate::data::{DatasetSpec, TokenizerSpec};
use crate::models::{GateActivation, ModelConfig};
use crate::quant::QuantScheme;

/// llama.cpp's name of the family. Errors: [`ExportError::Runtime`] for image models.
pub(super) fn architecture(card: &ModelCard) -> Result<&'static str, ExportError> {
    match &card.model {
        ModelConfig::Gpt2(_) => Ok("gpt2"),
        ModelConfig::Llama(config) => Ok(match (config.sub_norms, config.hidden_act) {
            (false, _) => "llama",
            (true, GateActivation::Silu) => "bitnet",
            // bitnet.cpp's name; llama.cpp's "bitnet" has SwiGLU.
            (true, GateActivation::Relu2) => "bitnet-b1.58",
        }),
        ModelConfig::Mlp(_) | ModelConfig::Cnn(_) | ModelConfig::ResNet(_) => Err(ExportError::Runtime {
            tried: "composing model.gguf",
            what: "image models have no architecture in llama.cpp; take a safetensors target".to_owned(),
        }),
    }
}

/// Why llama.cpp does not run this model, in a sentence without its full stop; `None` where it does.
pub(super) fn unknown_to_llama_cpp(card: &ModelCard) -> Option<String> {
    let ModelConfig::Llama(config) = &card.model else { return None };
    let reason = match (config.hidden_act, config.tie_word_embeddings) {
        _ if !config.sub_norms => return None,
        (GateActivation::Silu, true) => return None,
        (GateActivation::Relu2, _) => "its BitNet has SwiGLU, this one a squared ReLU",
        (GateActivation::Silu, false) => "its BitNet shares the embedding with the head, this one does not",
    };
    Some(format!("llama.cpp does not run it: {reason}. foretrain-edge does"))
}

/// Number of tokens; 0 for image models.
pub(super) fn vocab_size(card: &ModelCard) -> usize {
    match &card.model {
        ModelConfig::Gpt2(config) => config.vocab_size,
        ModelConfig::Llama(config) => config.vocab_size,
        ModelConfig::Mlp(_) | ModelConfig::Cnn(_) | ModelConfig::ResNet(_) => 0,
    }
}

/// Everything but `general.architecture` and the vocabulary.
pub(super) fn metadata(card: &ModelCard, scheme: QuantScheme) -> Result<Vec<(String, Value)>, ExportError> {
    let architecture = architecture(card)?;
    let count = |number: usize| {
        u32::try_from(number).map(Value::U32).map_err(|_| ExportError::Runtime {
            tried: "composing model.gguf",
            what: format!("{number} does not fit the format's 32 bits"),
        })
    };
    // `llama_ftype`: what most tensors are.
    let file_type = match scheme {
        QuantScheme::F32 => 0,
        QuantScheme::F16 => 1,
        QuantScheme::Int4 => 2,
        QuantScheme::Int8 => 7,
        QuantScheme::Int4K => 14,
        QuantScheme::Bf16 => 32,
        QuantScheme::TernaryBase3 => 36,
        QuantScheme::Ternary => 37,
    };
    let mut metadata = vec![
        ("general.name".to_owned(), Value::from(card.name.as_str())),
        ("general.file_type".to_owned(), Value::U32(file_type)),
        ("general.quantization_version".to_owned(), Value::U32(2)),
    ];
    let mut add = |key: &str, value: Value| metadata.push((format!("{architecture}.{key}"), value));
    match &card.model {
        ModelConfig::Gpt2(config) => {
            add("context_length", count(config.n_positions)?);
            add("embedding_length", count(config.n_embd)?);
            add("block_count", count(config.n_layer)?);
            add("feed_forward_length", count(4 * config.n_embd)?);
            add("attention.head_count", count(config.n_head)?);
            add("attention.layer_norm_epsilon", Value::F32(config.layer_norm_epsilon as f32));
            add("vocab_size", count(config.vocab_size)?);
        }
        ModelConfig::Llama(config) => {
            add("context_length", count(config.max_position_embeddings)?);
            add("embedding_length", count(config.hidden_size)?);
            add("block_count", count(config.num_hidden_layers)?);
            add("feed_forward_length", count(config.intermediate_size)?);
            add("attention.head_count", count(config.num_attention_heads)?);
            add("attention.head_count_kv", count(config.num_key_value_heads)?);
            add("attention.layer_norm_rms_epsilon", Value::F32(config.rms_norm_eps as f32));
            add("rope.dimension_count", count(config.hidden_size / config.num_attention_heads.max(1))?);
            add("rope.freq_base", Value::F32(config.rope_theta as f32));
            add("vocab_size", count(config.vocab_size)?);
        }
        ModelConfig::Mlp(_) | ModelConfig::Cnn(_) | ModelConfig::ResNet(_) => {}
    }
    Ok(metadata)
}

/// Bytes of the vocabulary in the metadata, by what the recipe says about the tokenizer: for a BPE, GPT-2's averages of
/// 6.5 bytes per token and 9 per merge, each after a length of 8 bytes, and 4 bytes for the token's type.
pub(super) fn predicted_vocabulary_bytes(card: &ModelCard) -> u64 {
    let is_bpe = match &card.data {
        DatasetSpec::Text { tokenizer, .. } | DatasetSpec::Jsonl { tokenizer, .. } => match tokenizer {
            TokenizerSpec::Gpt2 { .. } | TokenizerSpec::File { .. } => true,
            TokenizerSpec::Byte | TokenizerSpec::Char => false,
        },
        DatasetSpec::Glyphs
        | DatasetSpec::Grammar
        | DatasetSpec::Rounds
        | DatasetSpec::Idx { .. }
        | DatasetSpec::Cifar10 { .. }
        | DatasetSpec::ImageFolder { .. } => false,
    };
    if is_bpe { vocab_size(card) as u64 * 71 / 2 } else { 0 }
}
