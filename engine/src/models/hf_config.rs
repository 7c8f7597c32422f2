//! `config.json` of Hugging Face transformers, for the families that exist there.

use serde_json::{Map, Value, json};

use super::{Gpt2Config, LlamaConfig, ModelConfig, ModelError};
use foretrain_ops::GateActivation;

/// transformers' name of the family.
const BITNET: &str = "bitnet";

/// What transformers' `LlamaConfig` takes for absent keys.
const LLAMA_DEFAULTS: LlamaConfig = LlamaConfig {
    vocab_size: 32_000,
    max_position_embeddings: 2048,
    hidden_size: 4096,
    intermediate_size: 11_008,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 32,
    rms_norm_eps: 1e-6,
    rope_theta: 10_000.0,
    tie_word_embeddings: false,
    initializer_range: 0.02,
    hidden_act: GateActivation::Silu,
    sub_norms: false,
};

/// What transformers' `BitNetConfig` takes for absent keys.
const BITNET_DEFAULTS: LlamaConfig = LlamaConfig {
    vocab_size: 128_256,
    max_position_embeddings: 2048,
    hidden_size: 2560,
    intermediate_size: 6912,
    num_hidden_layers: 30,
    num_attention_heads: 20,
    num_key_value_heads: 5,
    rms_norm_eps: 1e-5,
    rope_theta: 500_000.0,
    tie_word_embeddings: false,
    initializer_range: 0.02,
    hidden_act: GateActivation::Relu2,
    sub_norms: true,
};

/// `config` as transformers' `GPT2Config`, `LlamaConfig` or `BitNetConfig` writes it.
/// Errors: [`ModelError::Config`] for image models, which transformers does not know in our form.
pub fn to_json(config: &ModelConfig) -> Result<Value, ModelError> {
    match config {
        ModelConfig::Gpt2(c) => Ok(json!({
            "activation_function": "gelu_new",
            "architectures": ["GPT2LMHeadModel"],
            "attn_pdrop": 0.0,
            "bos_token_id": null,
            "embd_pdrop": 0.0,
            "eos_token_id": null,
            "initializer_range": c.initializer_range,
            "layer_norm_epsilon": c.layer_norm_epsilon,
            "model_type": "gpt2",
            "n_ctx": c.n_positions,
            "n_embd": c.n_embd,
            "n_head": c.n_head,
            "n_inner": null,
            "n_layer": c.n_layer,
            "n_positions": c.n_positions,
            "reorder_and_upcast_attn": false,
            "resid_pdrop": 0.0,
            "scale_attn_by_inverse_layer_idx": false,
            "scale_attn_weights": true,
            "tie_word_embeddings": true,
            "torch_dtype": "float32",
            "use_cache": true,
            "vocab_size": c.vocab_size,
        })),
        ModelConfig::Llama(c) => Ok(json!({
            "architectures": [if c.sub_norms { "BitNetForCausalLM" } else { "LlamaForCausalLM" }],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": null,
            "eos_token_id": null,
            "head_dim": c.hidden_size / c.num_attention_heads.max(1),
            "hidden_act": c.hidden_act.label(),
            "hidden_size": c.hidden_size,
            "initializer_range": c.initializer_range,
            "intermediate_size": c.intermediate_size,
            "max_position_embeddings": c.max_position_embeddings,
            "mlp_bias": false,
            "model_type": if c.sub_norms { BITNET } else { "llama" },
            "num_attention_heads": c.num_attention_heads,
            "num_hidden_layers": c.num_hidden_layers,
            "num_key_value_heads": c.num_key_value_heads,
            "pretraining_tp": 1,
            "rms_norm_eps": c.rms_norm_eps,
            "rope_scaling": null,
            "rope_theta": c.rope_theta,
            "tie_word_embeddings": c.tie_word_embeddings,
            "torch_dtype": "float32",
            "use_cache": true,
            "vocab_size": c.vocab_size,
        })),
        ModelConfig::Mlp(_) | ModelConfig::Cnn(_) | ModelConfig::ResNet(_) => Err(ModelError::Config {
            what: "only gpt2, llama and bitnet models have a config.json of transformers".to_owned(),
        }),
    }
}

/// The model that a `config.json` describes. A key that is absent has transformers' default.
/// Errors: [`ModelError::Config`] for another architecture, a variant that we do not build, or a value of another type.
pub fn from_json(json: &Value) -> Result<ModelConfig, ModelError> {
    let Some(keys) = json.as_object() else {
        return Err(wrong("config.json: expected an object of settings".to_owned()));
    };
    let keys = Keys(keys);
    match keys.0.get("model_type").and_then(Value::as_str) {
        Some("gpt2") => gpt2(&keys).map(ModelConfig::Gpt2),
        Some("llama") => llama(&keys, &LLAMA_DEFAULTS).map(ModelConfig::Llama),
        Some(BITNET) => llama(&keys, &BITNET_DEFAULTS).map(ModelConfig::Llama),
        Some(other) => {
            Err(wrong(format!("config.json: expected model_type \"gpt2\", \"llama\" or \"{BITNET}\", found {other:?}")))
        }
        None => {
            let expected = format!("a model_type (\"gpt2\", \"llama\" or \"{BITNET}\")");
            Err(wrong(format!("config.json: expected {expected}, found none")))
        }
    }
}

fn gpt2(keys: &Keys<'_>) -> Result<Gpt2Config, ModelError> {
    keys.require("activation_function", &[json!("gelu_new"), json!("gelu_pytorch_tanh")])?;
    keys.require("scale_attn_weights", &[json!(true)])?;
    keys.require("scale_attn_by_inverse_layer_idx", &[json!(false)])?;
    keys.require("add_cross_attention", &[json!(false)])?;
    keys.require("tie_word_embeddings", &[json!(true)])?;
    let config = Gpt2Config {
        vocab_size: keys.size("vocab_size", 50_257)?,
        n_positions: keys.size("n_positions", 1024)?,
        n_embd: keys.size("n_embd", 768)?,
        n_layer: keys.size("n_layer", 12)?,
        n_head: keys.size("n_head", 12)?,
        layer_norm_epsilon: keys.number("layer_norm_epsilon", 1e-5)?,
        initializer_range: keys.number("initializer_range", 0.02)?,
    };
    keys.require("n_inner", &[Value::Null, json!(config.n_embd.saturating_mul(4))])?;
    Ok(config)
}

fn llama(keys: &Keys<'_>, default: &LlamaConfig) -> Result<LlamaConfig, ModelError> {
    let acts = GateActivation::ALL.map(|act| json!(act.label()));
    keys.require("hidden_act", if default.sub_norms { &acts } else { acts.get(..1).unwrap_or_default() })?;
    let named = keys.present("hidden_act").and_then(Value::as_str);
    let named = GateActivation::ALL.into_iter().find(|act| Some(act.label()) == named);
    keys.require("attention_bias", &[json!(false)])?;
    keys.require("mlp_bias", &[json!(false)])?;
    let num_attention_heads = keys.size("num_attention_heads", default.num_attention_heads)?;
    let hidden_size = keys.size("hidden_size", default.hidden_size)?;
    // A Llama of other width has a key for each query, unless it says otherwise.
    let kv_heads = if default.sub_norms { default.num_key_value_heads } else { num_attention_heads };
    // Newer files keep the rotary settings in a table of their own.
    let rope_theta = match keys.0.get("rope_parameters").and_then(Value::as_object) {
        Some(rope) => {
            let rope = Keys(rope);
            rope.require("rope_type", &[json!("default")])?;
            rope.number("rope_theta", default.rope_theta)?
        }
        None => {
            keys.require("rope_scaling", &[Value::Null])?;
            keys.number("rope_theta", default.rope_theta)?
        }
    };
    let head_size = hidden_size.checked_div(num_attention_heads).unwrap_or(0);
    keys.require("head_dim", &[Value::Null, json!(head_size)])?;
    Ok(LlamaConfig {
        vocab_size: keys.size("vocab_size", default.vocab_size)?,
        max_position_embeddings: keys.size("max_position_embeddings", default.max_position_embeddings)?,
        hidden_size,
        intermediate_size: keys.size("intermediate_size", default.intermediate_size)?,
        num_hidden_layers: keys.size("num_hidden_layers", default.num_hidden_layers)?,
        num_attention_heads,
        num_key_value_heads: keys.size("num_key_value_heads", kv_heads)?,
        rms_norm_eps: keys.number("rms_norm_eps", default.rms_norm_eps)?,
        rope_theta,
        tie_word_embeddings: match keys.present("tie_word_embeddings") {
            None => false,
            Some(Value::Bool(tied)) => *tied,
            Some(other) => return Err(mistyped("tie_word_embeddings", "true or false", other)),
        },
        initializer_range: keys.number("initializer_range", default.initializer_range)?,
        hidden_act: named.unwrap_or(default.hidden_act),
        sub_norms: default.sub_norms,
    })
}

fn wrong(what: String) -> ModelError {
    ModelError::Config { what }
}

fn mistyped(key: &str, expected: &str, found: &Value) -> ModelError {
    wrong(format!("config.json: {key}: expected {expected}, found {found}"))
}

struct Keys<'a>(&'a Map<String, Value>);

impl Keys<'_> {
    /// The value of `key` unless absent or null.
    fn present(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn size(&self, key: &str, default: usize) -> Result<usize, ModelError> {
        let Some(value) = self.present(key) else {
            return Ok(default);
        };
        // No model has sizes beyond 32 bits; products of such sizes stay within 64.
        match value.as_u64().and_then(|size| u32::try_from(size).ok()).filter(|&size| size > 0) {
            Some(size) => Ok(size as usize),
            None => Err(mistyped(key, "a positive whole number", value)),
        }
    }

    fn number(&self, key: &str, default: f64) -> Result<f64, ModelError> {
        let Some(value) = self.present(key) else {
            return Ok(default);
        };
        match value.as_f64().filter(|number| number.is_finite() && *number > 0.0) {
            Some(number) => Ok(number),
            None => Err(mistyped(key, "a positive number", value)),
        }
    }

    /// Errors when `key` is there with a value that is none of `allowed`.
    fn require(&self, key: &str, allowed: &[Value]) -> Result<(), ModelError> {
        match self.0.get(key) {
            Some(value) if !allowed.contains(value) => {
                let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
                let what = format!("config.json: {key}: expected {}, found {value}", allowed.join(" or "));
                Err(wrong(format!("{what}. That variant is not built here")))
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::models::{DataShape, ModelPreset, Network};

    /// A config file outside the repository, when the machine has it.
    fn real_config(name: &str) -> Option<Value> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/model-configs");
        let fallback = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/model-configs");
        let file = [folder, fallback].iter().map(|folder| folder.join(name)).find(|path| path.exists());
        let Some(file) = file else {
            eprintln!("SKIPPED: {name} is not on this machine");
            return None;
        };
        Some(serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap())
    }

    #[test]
    fn text_presets_survive_the_round_trip() {
        for preset in ModelPreset::ALL.into_iter().filter(|preset| !preset.reads_images()) {
            let config = preset.config(DataShape::Text { vocab_size: 321 }).unwrap();
            assert_eq!(from_json(&to_json(&config).unwrap()).unwrap(), config, "{}", preset.label());
        }
    }

    #[test]
    fn published_gpt2() {
        let Some(json) = real_config("gpt2-config.json") else {
            return;
        };
        let config = from_json(&json).unwrap();
        assert_eq!(config, ModelPreset::Gpt2_124M.config(DataShape::Text { vocab_size: 50_257 }).unwrap());
        assert_eq!(Network::new(&config).unwrap().num_params(), 124_439_808);
        let ours = to_json(&config).unwrap();
        for key in ["model_type", "architectures", "n_ctx", "n_inner", "activation_function", "vocab_size"] {
            assert_eq!(ours[key], json[key], "{key}");
        }
    }

    #[test]
    fn published_tiny_llama() {
        let Some(json) = real_config("tinyllama-1.1b-config.json") else {
            return;
        };
        let config = from_json(&json).unwrap();
        assert_eq!(config, ModelPreset::Llama1100M.config(DataShape::Text { vocab_size: 32_000 }).unwrap());
        let ours = to_json(&config).unwrap();
        for key in ["model_type", "architectures", "head_dim", "hidden_act", "rope_theta", "num_key_value_heads"] {
            assert_eq!(ours[key], json[key], "{key}");
        }
    }

    #[test]
    fn a_bitnet_keeps_its_gate_and_has_its_own_defaults() {
        let read = |json: Value| match from_json(&json).unwrap() {
            ModelConfig::Llama(config) => config,
            other => panic!("expected a bitnet, found {other:?}"),
        };
        assert_eq!(read(json!({"model_type": "bitnet"})), BITNET_DEFAULTS);
        let silu = read(json!({"model_type": "bitnet", "hidden_act": "silu"}));
        assert_eq!((silu.hidden_act, silu.sub_norms), (GateActivation::Silu, true));
        let written = to_json(&ModelConfig::Llama(silu.clone())).unwrap();
        assert_eq!(
            (&written["architectures"][0], &written["hidden_act"]),
            (&json!("BitNetForCausalLM"), &json!("silu"))
        );
        assert_eq!(read(written), silu);
    }

    #[test]
    fn other_models_are_refused_by_name() {
        let refusal = |json: Value| from_json(&json).unwrap_err().to_string();
        assert!(refusal(json!({"model_type": "mamba"})).contains("\"mamba\""));
        assert!(refusal(json!({})).contains("model_type"));
        assert!(refusal(json!([1])).contains("object"));
        assert!(refusal(json!({"model_type": "gpt2", "activation_function": "relu"})).contains("relu"));
        assert!(refusal(json!({"model_type": "llama", "rope_scaling": {"type": "linear"}})).contains("rope_scaling"));
        assert!(refusal(json!({"model_type": "gpt2", "n_embd": -3})).contains("n_embd"));
        assert!(refusal(json!({"model_type": "gpt2", "n_layer": 1e40})).contains("n_layer"));
        assert!(refusal(json!({"model_type": "llama", "rms_norm_eps": "small"})).contains("rms_norm_eps"));
        assert!(refusal(json!({"model_type": "llama", "head_dim": 7})).contains("head_dim"));
        assert!(refusal(json!({"model_type": "llama", "hidden_act": "relu2"})).contains("relu2"));
        assert!(refusal(json!({"model_type": "bitnet", "hidden_act": "gelu"})).contains("gelu"));
    }

    #[test]
    fn absent_keys_have_the_defaults_of_transformers() {
        let ModelConfig::Llama(llama) = from_json(&json!({"model_type": "llama"})).unwrap() else {
            panic!("expected a llama");
        };
        assert_eq!((llama.hidden_size, llama.num_key_value_heads, llama.rms_norm_eps), (4096, 32, 1e-6));
        let newer = json!({"model_type": "llama", "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}});
        let ModelConfig::Llama(llama) = from_json(&newer).unwrap() else {
            panic!("expected a llama");
        };
        assert_eq!(llama.rope_theta, 500_000.0);
    }

    #[test]
    fn image_models_have_no_such_file() {
        let data = DataShape::Images { channels: 1, height: 28, width: 28, num_classes: 10 };
        assert!(to_json(&ModelPreset::Mlp.config(data).unwrap()).is_err());
    }
}
