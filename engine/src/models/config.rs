//! Model configs: every number that shapes a network, and the presets by name.

use serde::{Deserialize, Serialize};

use super::ModelError;
use foretrain_ops::GateActivation;

/// What a dataset asks of a model's two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataShape {
    /// Images (channels, height, width) with a class each.
    Images {
        /// Color channels.
        channels: usize,
        /// Pixels.
        height: usize,
        /// Pixels.
        width: usize,
        /// Number of classes.
        num_classes: usize,
    },
    /// Token sequences.
    Text {
        /// Number of distinct tokens.
        vocab_size: usize,
    },
}

impl DataShape {
    /// Classes, or distinct tokens, that a model tells apart.
    #[must_use]
    pub fn num_classes(self) -> usize {
        match self {
            Self::Images { num_classes, .. } => num_classes,
            Self::Text { vocab_size } => vocab_size,
        }
    }

    /// True when a model that reads this can read `data`: the same images, or text of no more different tokens. A
    /// vocabulary is often padded to a round number for speed.
    #[must_use]
    pub fn takes(self, data: Self) -> bool {
        match (self, data) {
            (Self::Text { vocab_size }, Self::Text { vocab_size: found }) => found <= vocab_size,
            (Self::Images { .. } | Self::Text { .. }, _) => self == data,
        }
    }
}

impl std::fmt::Display for DataShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Images { channels, height, width, num_classes } => {
                let color = if channels == 1 { "1 channel".to_owned() } else { format!("{channels} channels") };
                write!(f, "images of {width}x{height} pixels with {color} in {num_classes} classes")
            }
            Self::Text { vocab_size } => write!(f, "text of {vocab_size} different tokens"),
        }
    }
}

/// Nonlinearity of a multilayer perceptron or a transformer's feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Activation {
    /// max(0, x)
    #[default]
    Relu,
    /// x·Φ(x), in the tanh form that GPT-2 uses (`gelu_new` in transformers).
    Gelu,
}

/// Fully connected classifier on flattened images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlpConfig {
    /// Color channels of the input.
    pub in_channels: usize,
    /// Height and width of the input in pixels.
    pub image_size: (usize, usize),
    /// Width of each hidden layer.
    pub hidden_sizes: Vec<usize>,
    /// Number of classes.
    pub num_classes: usize,
    /// Nonlinearity between layers.
    pub activation: Activation,
}

/// Small convolutional classifier: 3x3 convolutions with ReLU and 2x2 max pooling, then two linear layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CnnConfig {
    /// Color channels of the input.
    pub in_channels: usize,
    /// Height and width of the input in pixels.
    pub image_size: (usize, usize),
    /// Output channels of each convolution; a 2x2 max pool follows each.
    pub channels: Vec<usize>,
    /// Width of the linear layer before the classifier.
    pub hidden_size: usize,
    /// Number of classes.
    pub num_classes: usize,
}

/// Residual network with basic blocks and the CIFAR stem (one 3x3 convolution, no pooling).
/// Source: He et al. 2015, arXiv 1512.03385, section 4.2 (ResNet-20) and table 1 (ResNet-18).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResNetConfig {
    /// Color channels of the input.
    pub num_channels: usize,
    /// Height and width of the input in pixels.
    pub image_size: (usize, usize),
    /// Channels after the stem.
    pub embedding_size: usize,
    /// Channels of each stage; each stage after the first halves height and width.
    pub hidden_sizes: Vec<usize>,
    /// Basic blocks in each stage.
    pub depths: Vec<usize>,
    /// Number of classes.
    pub num_classes: usize,
}

/// GPT-2: learned positions, pre-layer-norm, GELU, head tied to the token embedding.
/// Field names follow transformers' `GPT2Config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpt2Config {
    /// Number of tokens.
    pub vocab_size: usize,
    /// Longest sequence.
    pub n_positions: usize,
    /// Width.
    pub n_embd: usize,
    /// Blocks.
    pub n_layer: usize,
    /// Attention heads; divides `n_embd`.
    pub n_head: usize,
    /// Added to the variance in layer norm.
    pub layer_norm_epsilon: f64,
    /// Standard deviation of the initial weights.
    pub initializer_range: f64,
}

/// Llama: RMS norm, rotary positions, SwiGLU, grouped-query attention; with sub-norms, a BitNet.
/// Field names follow transformers' `LlamaConfig` and `BitNetConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LlamaConfig {
    /// Number of tokens.
    pub vocab_size: usize,
    /// Longest sequence.
    pub max_position_embeddings: usize,
    /// Width.
    pub hidden_size: usize,
    /// Width of the feed-forward part.
    pub intermediate_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Query heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Added to the mean square in RMS norm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// The head shares the token embedding.
    pub tie_word_embeddings: bool,
    /// Standard deviation of the initial weights.
    pub initializer_range: f64,
    /// The gate of the feed-forward part.
    #[serde(default)]
    pub hidden_act: GateActivation,
    /// RMS norms before the output and the down projection, which make it a BitNet.
    #[serde(default)]
    pub sub_norms: bool,
}

impl LlamaConfig {
    /// The family's name to show.
    #[must_use]
    pub fn family(&self) -> &'static str {
        if self.sub_norms { "BitNet" } else { "Llama" }
    }
}

/// Any model we build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ModelConfig {
    /// Fully connected.
    Mlp(MlpConfig),
    /// Small convolutional network.
    Cnn(CnnConfig),
    /// Residual network.
    ResNet(ResNetConfig),
    /// GPT-2 family.
    Gpt2(Gpt2Config),
    /// Llama family.
    Llama(LlamaConfig),
}

/// Models by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the documentation; `label` spells them out")]
pub enum ModelPreset {
    Mlp,
    MnistCnn,
    ResNet20,
    ResNet18,
    Gpt2Char,
    Gpt2_11M,
    Gpt2_124M,
    Gpt2_350M,
    Gpt2_774M,
    Gpt2_1500M,
    Llama11M,
    Llama110M,
    Llama1100M,
    Llama7B,
    BitNet11M,
    BitNet2400M,
}

impl ModelPreset {
    /// All presets, in the order in which to offer them.
    pub const ALL: [Self; 16] = [
        Self::Mlp,
        Self::MnistCnn,
        Self::ResNet20,
        Self::ResNet18,
        Self::Gpt2Char,
        Self::Gpt2_11M,
        Self::Gpt2_124M,
        Self::Gpt2_350M,
        Self::Gpt2_774M,
        Self::Gpt2_1500M,
        Self::Llama11M,
        Self::Llama110M,
        Self::Llama1100M,
        Self::Llama7B,
        Self::BitNet11M,
        Self::BitNet2400M,
    ];

    /// The name to show and to type on a command line.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Mlp => "mlp",
            Self::MnistCnn => "mnist-cnn",
            Self::ResNet20 => "resnet-20",
            Self::ResNet18 => "resnet-18",
            Self::Gpt2Char => "gpt2-char",
            Self::Gpt2_11M => "gpt2-11m",
            Self::Gpt2_124M => "gpt2-124m",
            Self::Gpt2_350M => "gpt2-350m",
            Self::Gpt2_774M => "gpt2-774m",
            Self::Gpt2_1500M => "gpt2-1.5b",
            Self::Llama11M => "llama-11m",
            Self::Llama110M => "llama-110m",
            Self::Llama1100M => "llama-1.1b",
            Self::Llama7B => "llama-7b",
            Self::BitNet11M => "bitnet-11m",
            Self::BitNet2400M => "bitnet-2.4b",
        }
    }

    /// The preset called `label`.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.label() == label)
    }

    /// True for the presets that read images, false for those that read tokens.
    #[must_use]
    pub fn reads_images(self) -> bool {
        match self {
            Self::Mlp | Self::MnistCnn | Self::ResNet20 | Self::ResNet18 => true,
            Self::Gpt2Char
            | Self::Gpt2_11M
            | Self::Gpt2_124M
            | Self::Gpt2_350M
            | Self::Gpt2_774M
            | Self::Gpt2_1500M
            | Self::Llama11M
            | Self::Llama110M
            | Self::Llama1100M
            | Self::Llama7B
            | Self::BitNet11M
            | Self::BitNet2400M => false,
        }
    }

    /// The config of this preset with its two ends fitted to `data`.
    /// Errors: [`ModelError::Config`] when an image model meets text or the reverse.
    pub fn config(self, data: DataShape) -> Result<ModelConfig, ModelError> {
        match (data, self.reads_images()) {
            (DataShape::Images { channels, height, width, num_classes }, true) => {
                Ok(self.image_config(channels, (height, width), num_classes))
            }
            (DataShape::Text { vocab_size }, false) => Ok(self.text_config(vocab_size)),
            (DataShape::Text { .. }, true) => Err(ModelError::Config {
                what: format!(
                    "{} reads images, the dataset holds text; choose a gpt2, llama or bitnet model",
                    self.label()
                ),
            }),
            (DataShape::Images { .. }, false) => Err(ModelError::Config {
                what: format!("{} reads text, the dataset holds images; choose mlp, mnist-cnn or resnet", self.label()),
            }),
        }
    }

    fn image_config(self, channels: usize, image_size: (usize, usize), num_classes: usize) -> ModelConfig {
        match self {
            Self::Mlp => ModelConfig::Mlp(MlpConfig {
                in_channels: channels,
                image_size,
                hidden_sizes: vec![256, 128],
                num_classes,
                activation: Activation::Relu,
            }),
            Self::ResNet20 => ModelConfig::ResNet(ResNetConfig {
                num_channels: channels,
                image_size,
                embedding_size: 16,
                hidden_sizes: vec![16, 32, 64],
                depths: vec![3, 3, 3],
                num_classes,
            }),
            Self::ResNet18 => ModelConfig::ResNet(ResNetConfig {
                num_channels: channels,
                image_size,
                embedding_size: 64,
                hidden_sizes: vec![64, 128, 256, 512],
                depths: vec![2, 2, 2, 2],
                num_classes,
            }),
            // The remaining image preset; text presets never reach this function.
            _ => ModelConfig::Cnn(CnnConfig {
                in_channels: channels,
                image_size,
                channels: vec![16, 32],
                hidden_size: 64,
                num_classes,
            }),
        }
    }

    fn text_config(self, vocab_size: usize) -> ModelConfig {
        let gpt2 = |n_layer, n_head, n_embd, n_positions| {
            ModelConfig::Gpt2(Gpt2Config {
                vocab_size,
                n_positions,
                n_embd,
                n_layer,
                n_head,
                layer_norm_epsilon: 1e-5,
                initializer_range: 0.02,
            })
        };
        let llama_config = |layers, heads, kv_heads, hidden, intermediate, positions, tied| LlamaConfig {
            vocab_size,
            max_position_embeddings: positions,
            hidden_size: hidden,
            intermediate_size: intermediate,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            tie_word_embeddings: tied,
            initializer_range: 0.02,
            hidden_act: GateActivation::Silu,
            sub_norms: false,
        };
        let llama = |layers, heads, kv_heads, hidden, intermediate, positions, tied| {
            ModelConfig::Llama(llama_config(layers, heads, kv_heads, hidden, intermediate, positions, tied))
        };
        match self {
            Self::Gpt2_11M => gpt2(6, 6, 384, 256),
            Self::Gpt2_124M => gpt2(12, 12, 768, 1024),
            Self::Gpt2_350M => gpt2(24, 16, 1024, 1024),
            Self::Gpt2_774M => gpt2(36, 20, 1280, 1024),
            Self::Gpt2_1500M => gpt2(48, 25, 1600, 1024),
            Self::Llama11M => llama(6, 6, 2, 384, 1280, 256, false),
            // 110M with a vocabulary of 32,000: its embedding is 25M, shared with the head.
            Self::Llama110M => llama(12, 12, 6, 768, 2304, 1024, true),
            // The shape of TinyLlama 1.1B.
            Self::Llama1100M => llama(22, 32, 4, 2048, 5632, 2048, false),
            // The shape of Llama 2 7B.
            Self::Llama7B => llama(32, 32, 32, 4096, 11008, 4096, false),
            // SwiGLU and a shared embedding, as in the first b1.58 models (Ma et al. 2024, arXiv 2402.17764), are what
            // llama.cpp runs.
            Self::BitNet11M => {
                ModelConfig::Llama(LlamaConfig { sub_norms: true, ..llama_config(6, 6, 2, 384, 1280, 256, true) })
            }
            // The shape of BitNet b1.58 2B4T, which has 128,256 tokens.
            Self::BitNet2400M => ModelConfig::Llama(LlamaConfig {
                sub_norms: true,
                hidden_act: GateActivation::Relu2,
                rope_theta: 500_000.0,
                ..llama_config(30, 20, 5, 2560, 6912, 4096, true)
            }),
            // The remaining text preset; image presets never reach this function.
            _ => gpt2(4, 4, 128, 256),
        }
    }
}

impl ModelConfig {
    /// What data this model reads.
    #[must_use]
    pub fn data_shape(&self) -> DataShape {
        let images = |channels, (height, width): (usize, usize), num_classes| DataShape::Images {
            channels,
            height,
            width,
            num_classes,
        };
        match self {
            Self::Mlp(c) => images(c.in_channels, c.image_size, c.num_classes),
            Self::Cnn(c) => images(c.in_channels, c.image_size, c.num_classes),
            Self::ResNet(c) => images(c.num_channels, c.image_size, c.num_classes),
            Self::Gpt2(c) => DataShape::Text { vocab_size: c.vocab_size },
            Self::Llama(c) => DataShape::Text { vocab_size: c.vocab_size },
        }
    }

    /// Do its matrix products follow [`super::Forward::precision`]?
    #[must_use]
    pub fn has_bf16_products(&self) -> bool {
        match self {
            Self::Gpt2(_) | Self::Llama(_) => true,
            Self::Mlp(_) | Self::Cnn(_) | Self::ResNet(_) => false,
        }
    }

    /// This config with its two ends fitted to `data`: channels, image size, classes, vocabulary.
    /// Errors: [`ModelError::Config`] when an image model meets text or the reverse.
    pub fn fitted_to(&self, data: DataShape) -> Result<Self, ModelError> {
        let mut fitted = self.clone();
        match (&mut fitted, data) {
            (Self::Mlp(c), DataShape::Images { channels, height, width, num_classes }) => {
                (c.in_channels, c.image_size, c.num_classes) = (channels, (height, width), num_classes);
            }
            (Self::Cnn(c), DataShape::Images { channels, height, width, num_classes }) => {
                (c.in_channels, c.image_size, c.num_classes) = (channels, (height, width), num_classes);
            }
            (Self::ResNet(c), DataShape::Images { channels, height, width, num_classes }) => {
                (c.num_channels, c.image_size, c.num_classes) = (channels, (height, width), num_classes);
            }
            (Self::Gpt2(c), DataShape::Text { vocab_size }) => c.vocab_size = vocab_size,
            (Self::Llama(c), DataShape::Text { vocab_size }) => c.vocab_size = vocab_size,
            (Self::Mlp(_) | Self::Cnn(_) | Self::ResNet(_), DataShape::Text { .. }) => {
                return Err(ModelError::Config {
                    what: "this model reads images, the dataset holds text; choose a gpt2, llama or bitnet model"
                        .to_owned(),
                });
            }
            (Self::Gpt2(_) | Self::Llama(_), DataShape::Images { .. }) => {
                return Err(ModelError::Config {
                    what: "this model reads text, the dataset holds images; choose mlp, mnist-cnn or resnet".to_owned(),
                });
            }
        }
        Ok(fitted)
    }

    /// True for language models whose head is not their token embedding.
    #[must_use]
    pub fn has_head_of_its_own(&self) -> bool {
        match self {
            Self::Llama(c) => !c.tie_word_embeddings,
            Self::Gpt2(_) | Self::Mlp(_) | Self::Cnn(_) | Self::ResNet(_) => false,
        }
    }

    /// Longest token sequence; `None` for image models.
    #[must_use]
    pub fn max_positions(&self) -> Option<usize> {
        match self {
            Self::Gpt2(c) => Some(c.n_positions),
            Self::Llama(c) => Some(c.max_position_embeddings),
            Self::Mlp(_) | Self::Cnn(_) | Self::ResNet(_) => None,
        }
    }
}
