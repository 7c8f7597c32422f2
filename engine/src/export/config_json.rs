//! `config.json` and its companions, in the words of Hugging Face transformers where the family exists there.

use serde_json::{Value, json};

use super::document_end::document_end;
use super::{ExportError, ModelCard, Preprocessing};
use crate::models::{ModelConfig, TensorKind, hf_config};
use crate::quant::{QuantScheme, QuantizedWeights, Storage, TensorPlan};

/// The content of `config.json`; `tokenizer` is the parsed `tokenizer.json` of a language model.
pub(super) fn config_json(
    card: &ModelCard,
    weights: &QuantizedWeights,
    tokenizer: Option<&Value>,
) -> Result<Value, ExportError> {
    let end = tokenizer.and_then(document_end).map(|end| end.id);
    Ok(match &card.model {
        ModelConfig::Mlp(config) => image_config("mlp", config, &card.preprocessing)?,
        ModelConfig::Cnn(config) => image_config("cnn", config, &card.preprocessing)?,
        ModelConfig::ResNet(config) => image_config("resnet", config, &card.preprocessing)?,
        ModelConfig::Gpt2(_) | ModelConfig::Llama(_) => language_config(&card.model, weights, end)?,
    })
}

/// The content of `generation_config.json`: how transformers generates by default.
pub(super) fn generation_config_json(tokenizer: Option<&Value>) -> Value {
    let end = tokenizer.and_then(document_end).map(|end| end.id);
    json!({ "do_sample": true, "temperature": 0.8, "top_k": 40, "bos_token_id": end, "eos_token_id": end })
}

/// The content of `tokenizer_config.json`: tells transformers to take `tokenizer.json` as it is, whatever the model.
pub(super) fn tokenizer_config_json(card: &ModelCard, tokenizer: Option<&Value>) -> Value {
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": card.model.max_positions(),
        "clean_up_tokenization_spaces": false,
    });
    if let Some(end) = tokenizer.and_then(document_end) {
        config["bos_token"] = end.token.into();
        config["eos_token"] = end.token.into();
    }
    config
}

fn image_config(kind: &str, config: &impl serde::Serialize, input: &Preprocessing) -> Result<Value, ExportError> {
    let json_error = |source| ExportError::Json { what: "the model config", source, path: "config.json".into() };
    let mut value = serde_json::to_value(config).map_err(json_error)?;
    value["model_type"] = kind.into();
    match input {
        Preprocessing::Images { mean, std, classes } => {
            let names = classes.iter().enumerate().map(|(id, name)| (id.to_string(), Value::from(name.as_str())));
            value["id2label"] = Value::Object(names.collect());
            value["image_mean"] = json!(mean);
            value["image_std"] = json!(std);
            Ok(value)
        }
        Preprocessing::Text => Err(ExportError::NotACheckpoint {
            expected: format!("preprocessing of images for a {kind}"),
            found: "preprocessing of text".to_owned(),
            path: ModelCard::FILE.into(),
        }),
    }
}

/// The float type that transformers should compute in.
fn torch_type(scheme: QuantScheme) -> &'static str {
    match scheme {
        QuantScheme::F32 => "float32",
        QuantScheme::Bf16 => "bfloat16",
        // What is quantized here has half-precision floats beside it.
        QuantScheme::F16
        | QuantScheme::Int8
        | QuantScheme::Int4
        | QuantScheme::Int4K
        | QuantScheme::Ternary
        | QuantScheme::TernaryBase3 => "float16",
    }
}

/// transformers' `BitNetQuantConfig`, where tensors are stored as it asks: `AutoBitLinear` multiplies with ternary weights
/// and then with their scale, and rounds its inputs to 8 bits as foretrain-edge does.
fn bitnet_config(weights: &QuantizedWeights) -> Option<Value> {
    let plans = || weights.tensors().iter().map(|tensor| &tensor.plan);
    if !plans().any(|plan| plan.storage == Storage::BitnetRows) {
        return None;
    }
    let is_linear = |plan: &&TensorPlan| matches!(plan.kind, TensorKind::Matrix | TensorKind::Head);
    let kept = plans().filter(is_linear).filter(|plan| plan.storage != Storage::BitnetRows);
    let mut kept: Vec<&str> = kept.map(|plan| plan.name.trim_end_matches(".weight")).collect();
    if !kept.contains(&"lm_head") {
        // Tied to the embedding, it is no tensor of its own.
        kept.push("lm_head");
    }
    Some(json!({
        "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline",
        "modules_to_not_convert": kept,
    }))
}

/// transformers' own config, with what only the package knows.
fn language_config(model: &ModelConfig, weights: &QuantizedWeights, end: Option<u32>) -> Result<Value, ExportError> {
    let mut value = hf_config::to_json(model)?;
    value["torch_dtype"] = torch_type(weights.scheme()).into();
    if let Some(quantization) = bitnet_config(weights) {
        value["quantization_config"] = quantization;
    }
    value["bos_token_id"] = json!(end);
    value["eos_token_id"] = json!(end);
    Ok(value)
}
