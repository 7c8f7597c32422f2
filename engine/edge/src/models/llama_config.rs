//! The numbers of a Llama or BitNet, checked.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::config::{TokenIds, check, check_built, check_epsilon, fields};
use super::rope::RopeScaling;
use crate::EdgeError;

/// Widest head: its frequencies are computed before any weight shows that it is there.
const MAX_HEAD_DIM: usize = 1 << 16;
/// transformers' name of max(0, x)².
const RELU_SQUARED: &str = "relu2";

/// What the gate of a Llama's feed-forward part goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LlamaGate {
    /// x · sigmoid(x).
    Silu,
    /// max(0, x)².
    ReluSquared,
}

/// Fields of transformers' `LlamaConfig` that change the computation.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct LlamaConfig {
    pub(crate) vocab_size: usize,
    pub(crate) max_position_embeddings: usize,
    pub(crate) hidden_size: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) num_attention_heads: usize,
    #[serde(default)]
    num_key_value_heads: Option<usize>,
    #[serde(default)]
    head_dim: Option<usize>,
    #[serde(default = "default_rms_epsilon")]
    pub(crate) rms_norm_eps: f32,
    #[serde(default)]
    rope_theta: Option<f32>,
    #[serde(default)]
    rope_parameters: Option<RopeParameters>,
    #[serde(default)]
    rope_scaling: Option<RopeParameters>,
    #[serde(default)]
    hidden_act: Option<String>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    pub(crate) tie_word_embeddings: bool,
    /// Set for BitNet models.
    #[serde(skip)]
    has_sub_norms: bool,
    #[serde(default)]
    eos_token_id: TokenIds,
}

/// transformers' `rope_parameters`, `rope_scaling` in earlier versions.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
struct RopeParameters {
    rope_theta: Option<f32>,
    rope_type: Option<String>,
    /// The earlier name of that; some files have both.
    #[serde(rename = "type")]
    older_type: Option<String>,
    factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    attention_factor: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    /// DeepSeek's own growth of sines and cosines, which is not built here.
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
    truncate: Option<bool>,
}

fn default_rms_epsilon() -> f32 {
    1e-6
}

impl LlamaConfig {
    /// The config with these fields, checked.
    ///
    /// Errors: [`EdgeError::Format`] for fields that are missing or do not go together.
    pub(super) fn from_json(json: &Value, has_sub_norms: bool, path: &Path) -> Result<Self, EdgeError> {
        checked_llama(Self { has_sub_norms, ..fields(json, path)? }, path)
    }

    /// Key and value heads.
    pub(crate) fn kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Width of a head.
    pub(crate) fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// True for BitNet: norms before the output of attention and of the feed-forward part.
    pub(crate) fn has_sub_norms(&self) -> bool {
        self.has_sub_norms
    }

    /// Names of this architecture in GGUF files; llama.cpp's "bitnet" has either gate.
    pub(crate) fn gguf_architectures(&self) -> &'static [&'static str] {
        match (self.has_sub_norms, self.gate()) {
            (false, _) => &["llama"],
            (true, LlamaGate::Silu) => &["bitnet"],
            (true, LlamaGate::ReluSquared) => &["bitnet-b1.58", "bitnet-25", "bitnet"],
        }
    }

    /// What the feed-forward gate goes through.
    pub(crate) fn gate(&self) -> LlamaGate {
        match self.hidden_act.as_deref() {
            Some(RELU_SQUARED) => LlamaGate::ReluSquared,
            None if self.has_sub_norms => LlamaGate::ReluSquared,
            _ => LlamaGate::Silu,
        }
    }

    /// The tokens that end a text.
    pub(crate) fn end_tokens(&self) -> Vec<u32> {
        self.eos_token_id.to_vec()
    }

    /// How rotary frequencies are stretched.
    ///
    /// Errors: [`EdgeError::Unsuited`] for another way than the four built here; [`EdgeError::Format`] for numbers that are
    /// missing or senseless; `path` is named.
    pub(crate) fn rope_scaling(&self, path: &Path) -> Result<RopeScaling, EdgeError> {
        let newer = self.rope_parameters.as_ref().filter(|parameters| parameters.rope_type.is_some());
        let Some(parameters) = self.rope_scaling.as_ref().or(newer) else { return Ok(RopeScaling::None) };
        let kind = parameters.rope_type.as_ref().or(parameters.older_type.as_ref()).map_or("default", String::as_str);
        let positive = |name: &str, number: Option<f64>| {
            let number = number.filter(|number| number.is_finite() && *number > 0.0);
            number.ok_or_else(|| EdgeError::format(path, format!("a positive {name} of {kind:?} positions"), "none"))
        };
        let factor = || positive("factor", parameters.factor);
        let length = parameters.original_max_position_embeddings;
        match kind {
            "none" | "default" => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor: factor()? }),
            "llama3" => {
                let low_freq_factor = positive("low_freq_factor", parameters.low_freq_factor)?;
                let high_freq_factor = positive("high_freq_factor", parameters.high_freq_factor)?;
                let is_fine = low_freq_factor < high_freq_factor;
                check(is_fine, path, "low_freq_factor below high_freq_factor", (low_freq_factor, high_freq_factor))?;
                let original_positions = positive("original_max_position_embeddings", length)?;
                Ok(RopeScaling::Llama3 { factor: factor()?, low_freq_factor, high_freq_factor, original_positions })
            }
            "yarn" => {
                let is_plain = parameters.mscale.is_none()
                    && parameters.mscale_all_dim.is_none()
                    && parameters.truncate != Some(false);
                check_built(is_plain, path, "\"yarn\" positions without mscale, truncated", parameters)?;
                let factor = factor()?;
                let length = length.or(Some(self.max_position_embeddings as f64));
                let magnitude = parameters.attention_factor.unwrap_or_else(|| RopeScaling::yarn_magnitude(factor));
                Ok(RopeScaling::Yarn {
                    factor,
                    original_positions: positive("original_max_position_embeddings", length)?,
                    beta_fast: positive("beta_fast", parameters.beta_fast.or(Some(32.0)))?,
                    beta_slow: positive("beta_slow", parameters.beta_slow.or(Some(1.0)))?,
                    magnitude: positive("attention_factor", Some(magnitude))?,
                })
            }
            _ => Err(EdgeError::unsuited(path, "rope_type \"linear\", \"llama3\" or \"yarn\"", format!("{kind:?}"))),
        }
    }

    /// Base of the rotary frequencies.
    pub(crate) fn theta(&self) -> f32 {
        let nested = self.rope_parameters.as_ref().and_then(|parameters| parameters.rope_theta);
        self.rope_theta.or(nested).unwrap_or(if self.has_sub_norms { 500_000.0 } else { 10_000.0 })
    }
}

fn checked_llama(config: LlamaConfig, path: &Path) -> Result<LlamaConfig, EdgeError> {
    let (heads, kv_heads) = (config.num_attention_heads, config.kv_heads());
    let is_fine = heads > 0 && kv_heads > 0 && heads.is_multiple_of(kv_heads);
    check(is_fine, path, "num_key_value_heads that divides num_attention_heads", (kv_heads, heads))?;
    let is_fine = config.head_dim.is_some() || config.hidden_size.is_multiple_of(heads);
    check(is_fine, path, "num_attention_heads that divides hidden_size", (heads, config.hidden_size))?;
    let head_dim = config.head_dim();
    let is_fine = (2..=MAX_HEAD_DIM).contains(&head_dim) && head_dim.is_multiple_of(2);
    let is_fine = is_fine && head_dim.checked_mul(heads).is_some();
    check(is_fine, path, "heads of an even width, at most 65536", head_dim)?;
    check(config.max_position_embeddings > 0, path, "max_position_embeddings of at least 1", 0)?;
    check_epsilon(config.rms_norm_eps, path)?;
    check(config.theta().is_finite() && config.theta() > 0.0, path, "a positive rope_theta", config.theta())?;
    config.rope_scaling(path)?;
    let activation = config.hidden_act.as_deref().unwrap_or("silu");
    check_built(["silu", RELU_SQUARED].contains(&activation), path, "hidden_act \"silu\" or \"relu2\"", activation)?;
    check_built(!config.attention_bias && !config.mlp_bias, path, "no attention_bias and no mlp_bias", "one of them")?;
    Ok(config)
}
