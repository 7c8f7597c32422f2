//! `config.json`: which network, and its numbers, checked.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::llama_config::LlamaConfig;
use crate::EdgeError;

/// Largest image, in pixels: a config that asks for more would make us allocate what no weight justifies.
const MAX_PIXELS: usize = 1 << 20;
/// Most numbers in one layer's output (1 GiB): an image of any size passes through the same weights, so that no weight
/// justifies how much memory it takes on the way.
const MAX_ACTIVATION: usize = 1 << 28;
/// Most color channels.
const MAX_CHANNELS: usize = 64;

/// A checked config.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Config {
    /// An image classifier.
    Image(ImageConfig),
    /// A language model.
    Text(TextConfig),
}

/// What every image classifier has, and its network.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ImageConfig {
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Names in class order.
    pub(crate) classes: Vec<String>,
    /// Per channel, of pixel / 255.
    pub(crate) mean: Vec<f32>,
    /// Per channel, of pixel / 255.
    pub(crate) std: Vec<f32>,
    pub(crate) network: ImageNetwork,
}

/// The layers of an image classifier.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ImageNetwork {
    Mlp { hidden_sizes: Vec<usize>, is_gelu: bool },
    Cnn { channels: Vec<usize>, hidden_size: usize },
    ResNet { embedding_size: usize, hidden_sizes: Vec<usize>, depths: Vec<usize> },
}

/// A language model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TextConfig {
    Gpt2(Gpt2Config),
    Llama(Box<LlamaConfig>),
}

/// Fields of transformers' `GPT2Config` that change the computation.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Gpt2Config {
    pub(crate) vocab_size: usize,
    pub(crate) n_positions: usize,
    pub(crate) n_embd: usize,
    pub(crate) n_layer: usize,
    pub(crate) n_head: usize,
    #[serde(default)]
    pub(crate) n_inner: Option<usize>,
    #[serde(default = "default_epsilon")]
    pub(crate) layer_norm_epsilon: f32,
    #[serde(default)]
    activation_function: Option<String>,
    #[serde(default)]
    eos_token_id: TokenIds,
}

/// One token, several or none.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(untagged)]
pub(super) enum TokenIds {
    One(u32),
    Several(Vec<u32>),
    #[default]
    None,
}

impl TokenIds {
    pub(super) fn to_vec(&self) -> Vec<u32> {
        match self {
            Self::One(token) => vec![*token],
            Self::Several(tokens) => tokens.clone(),
            Self::None => Vec::new(),
        }
    }
}

fn default_epsilon() -> f32 {
    1e-5
}

#[derive(Deserialize)]
struct ImageFields {
    #[serde(alias = "num_channels")]
    in_channels: usize,
    image_size: (usize, usize),
    num_classes: usize,
    image_mean: Vec<f32>,
    image_std: Vec<f32>,
    #[serde(default)]
    id2label: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct MlpFields {
    hidden_sizes: Vec<usize>,
    #[serde(default)]
    activation: Option<String>,
}

#[derive(Deserialize)]
struct CnnFields {
    channels: Vec<usize>,
    hidden_size: usize,
}

#[derive(Deserialize)]
struct ResNetFields {
    embedding_size: usize,
    hidden_sizes: Vec<usize>,
    depths: Vec<usize>,
}

impl ImageConfig {
    /// Numbers in the largest output of a layer, the image included; `None` past what can be counted.
    fn largest_activation(&self) -> Option<usize> {
        let count = |channels: usize, height: usize, width: usize| channels.checked_mul(height)?.checked_mul(width);
        let (mut height, mut width) = (self.height, self.width);
        let mut largest = count(self.channels, height, width)?;
        match &self.network {
            ImageNetwork::Mlp { hidden_sizes, .. } => largest = hidden_sizes.iter().copied().fold(largest, usize::max),
            ImageNetwork::Cnn { channels, hidden_size } => {
                largest = largest.max(*hidden_size);
                for &channels in channels {
                    largest = largest.max(count(channels, height, width)?);
                    (height, width) = (height / 2, width / 2);
                }
            }
            ImageNetwork::ResNet { embedding_size, hidden_sizes, .. } => {
                largest = largest.max(count(*embedding_size, height, width)?);
                for (stage, &channels) in hidden_sizes.iter().enumerate() {
                    if stage > 0 {
                        (height, width) = (height.div_ceil(2), width.div_ceil(2));
                    }
                    largest = largest.max(count(channels, height, width)?);
                }
            }
        }
        Some(largest)
    }
}

impl Gpt2Config {
    /// The tokens that end a text.
    pub(crate) fn end_tokens(&self) -> Vec<u32> {
        self.eos_token_id.to_vec()
    }

    /// Width of the feed-forward part.
    pub(crate) fn inner(&self) -> usize {
        self.n_inner.unwrap_or(self.n_embd.saturating_mul(4))
    }
}

impl Config {
    /// Parses `text`, the content of the file at `path`.
    ///
    /// Errors: [`EdgeError::Unsuited`] for a model that is not built here; [`EdgeError::Format`] for JSON that is no config, or
    /// numbers that do not go together.
    pub(crate) fn parse(text: &[u8], path: &Path) -> Result<Self, EdgeError> {
        let json: Value =
            serde_json::from_slice(text).map_err(|error| EdgeError::format(path, "JSON", error.to_string()))?;
        Self::from_json(&json, path)
    }

    /// The config with these fields. Errors: as [`Config::parse`].
    pub(super) fn from_json(json: &Value, path: &Path) -> Result<Self, EdgeError> {
        let model_type = json.get("model_type").and_then(Value::as_str).unwrap_or_default().to_owned();
        match model_type.as_str() {
            "gpt2" => Ok(Self::Text(TextConfig::Gpt2(checked_gpt2(fields(json, path)?, path)?))),
            "llama" | "bitnet" => {
                let config = LlamaConfig::from_json(json, model_type == "bitnet", path)?;
                Ok(Self::Text(TextConfig::Llama(Box::new(config))))
            }
            "mlp" | "cnn" | "resnet" => {
                let network = image_network(&model_type, json, path)?;
                Ok(Self::Image(checked_image(fields(json, path)?, network, path)?))
            }
            _ => Err(EdgeError::unsuited(
                path,
                "model_type \"mlp\", \"cnn\", \"resnet\", \"gpt2\", \"llama\" or \"bitnet\"",
                json.get("model_type").map_or_else(|| "none".to_owned(), Value::to_string),
            )),
        }
    }
}

pub(super) fn fields<T: serde::de::DeserializeOwned>(json: &Value, path: &Path) -> Result<T, EdgeError> {
    T::deserialize(json).map_err(|error| EdgeError::format(path, "the fields of a config", error.to_string()))
}

/// Fails with `found`, which is not built here, unless `is_fine`.
pub(super) fn check_built(
    is_fine: bool,
    path: &Path,
    expected: &str,
    found: impl std::fmt::Debug,
) -> Result<(), EdgeError> {
    if is_fine { Ok(()) } else { Err(EdgeError::unsuited(path, expected, format!("{found:?}"))) }
}

/// Fails with `found` unless `is_fine`.
pub(super) fn check(is_fine: bool, path: &Path, expected: &str, found: impl std::fmt::Debug) -> Result<(), EdgeError> {
    if is_fine { Ok(()) } else { Err(EdgeError::format(path, expected, format!("{found:?}"))) }
}

pub(super) fn check_epsilon(epsilon: f32, path: &Path) -> Result<(), EdgeError> {
    check(epsilon.is_finite() && epsilon >= 0.0, path, "a norm epsilon of at least 0", epsilon)
}

fn image_network(model_type: &str, json: &Value, path: &Path) -> Result<ImageNetwork, EdgeError> {
    match model_type {
        "mlp" => {
            let MlpFields { hidden_sizes, activation } = fields(json, path)?;
            let is_gelu = activation.as_deref() == Some("Gelu");
            let is_known = is_gelu || matches!(activation.as_deref(), None | Some("Relu"));
            check_built(is_known, path, "activation \"Relu\" or \"Gelu\"", &activation)?;
            Ok(ImageNetwork::Mlp { hidden_sizes, is_gelu })
        }
        "cnn" => {
            let CnnFields { channels, hidden_size } = fields(json, path)?;
            check(!channels.is_empty(), path, "at least one convolution", &channels)?;
            Ok(ImageNetwork::Cnn { channels, hidden_size })
        }
        _ => {
            let ResNetFields { embedding_size, hidden_sizes, depths } = fields(json, path)?;
            let is_fine = !depths.is_empty() && depths.len() == hidden_sizes.len() && !depths.contains(&0);
            check(is_fine, path, "a depth of at least 1 for each of hidden_sizes", &depths)?;
            Ok(ImageNetwork::ResNet { embedding_size, hidden_sizes, depths })
        }
    }
}

fn checked_image(fields: ImageFields, network: ImageNetwork, path: &Path) -> Result<ImageConfig, EdgeError> {
    let ImageFields { in_channels: channels, image_size: (height, width), num_classes, .. } = fields;
    check((1..=MAX_CHANNELS).contains(&channels), path, "1 to 64 color channels", channels)?;
    let is_fine = height > 0 && width > 0 && height.checked_mul(width).is_some_and(|pixels| pixels <= MAX_PIXELS);
    check(is_fine, path, "an image_size of 1 to 1048576 pixels", (height, width))?;
    let is_fine = fields.image_mean.len() == channels && fields.image_mean.iter().all(|m| m.is_finite());
    check(is_fine, path, "a finite image_mean per channel", &fields.image_mean)?;
    let is_fine = fields.image_std.len() == channels && fields.image_std.iter().all(|s| s.is_finite() && *s > 0.0);
    check(is_fine, path, "a positive image_std per channel", &fields.image_std)?;
    // A class needs a row in the last matrix, so that a lie about their number is found there; here it only must not
    // make us allocate.
    check((1..=1 << 16).contains(&num_classes), path, "1 to 65536 classes", num_classes)?;
    let class_name = |class: usize| fields.id2label.get(&class.to_string()).cloned();
    let classes = (0..num_classes).map(|class| class_name(class).unwrap_or_else(|| class.to_string())).collect();
    let (mean, std) = (fields.image_mean, fields.image_std);
    let config = ImageConfig { channels, height, width, classes, mean, std, network };
    let largest = config.largest_activation();
    if largest.is_some_and(|largest| largest <= MAX_ACTIVATION) {
        return Ok(config);
    }
    let found = largest.map_or_else(|| "more".to_owned(), |largest| largest.to_string());
    let expected = format!("at most {MAX_ACTIVATION} numbers (1 GiB) in a layer's output at this image_size");
    Err(EdgeError::format(path, expected, found))
}

fn checked_gpt2(config: Gpt2Config, path: &Path) -> Result<Gpt2Config, EdgeError> {
    let divides = config.n_head > 0 && config.n_embd > 0 && config.n_embd.is_multiple_of(config.n_head);
    check(divides, path, "n_head that divides n_embd", (config.n_head, config.n_embd))?;
    check(config.n_positions > 0, path, "n_positions of at least 1", config.n_positions)?;
    check_epsilon(config.layer_norm_epsilon, path)?;
    let activation = config.activation_function.as_deref().unwrap_or("gelu_new");
    let is_known = matches!(activation, "gelu_new" | "gelu_pytorch_tanh");
    check_built(is_known, path, "activation_function \"gelu_new\"", activation)?;
    Ok(config)
}
