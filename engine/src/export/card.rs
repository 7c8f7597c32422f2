//! The model card: where a checkpoint comes from and what it is worth.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ExportError;
use crate::data::{Dataset, DatasetSpec, SplitRecord};
use crate::device::atomic_file::{self, WriteError};
use crate::models::ModelConfig;
use crate::optim::OptimizerConfig;
use crate::quant::{QatConfig, QuantScheme};

/// How raw input becomes what the network reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Preprocessing {
    /// Pixels: (pixel / 255 - mean) / std, per channel.
    Images {
        /// Mean of pixel/255 per channel.
        mean: Vec<f32>,
        /// Standard deviation of pixel/255 per channel.
        std: Vec<f32>,
        /// Class names in label order.
        classes: Vec<String>,
    },
    /// Text: by the `tokenizer.json` beside the weights.
    Text,
}

impl Preprocessing {
    /// What `dataset` asks for.
    #[must_use]
    pub fn of(dataset: &Dataset) -> Self {
        match dataset {
            Dataset::Images(images) => {
                Self::Images { mean: images.mean.clone(), std: images.std.clone(), classes: images.classes.clone() }
            }
            Dataset::Text(_) => Self::Text,
        }
    }
}

/// How a run came to its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CardRecipe {
    /// What moved them.
    pub optimizer: OptimizerConfig,
    /// Images or sequences per optimizer step.
    pub batch_size: usize,
    /// Seed of everything random.
    pub seed: u64,
    /// The bits that they were trained for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qat: Option<QatConfig>,
    /// Name of the file or folder of the model whose weights they started from; earlier versions wrote its whole path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_from: Option<PathBuf>,
}

/// Written as `card.json` into every checkpoint; goes into every package as its provenance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCard {
    /// Name of the run.
    pub name: String,
    /// The network.
    pub model: ModelConfig,
    /// Trainable numbers.
    pub num_params: u64,
    /// What it learned from, as the recipe names it.
    pub data: DatasetSpec,
    /// The same as the dataset calls itself.
    pub dataset_name: String,
    /// How raw input becomes what the network reads.
    pub preprocessing: Preprocessing,
    /// How the data was split.
    pub split: SplitRecord,
    /// Tokens per training sequence; later positions were never trained. `None` for images.
    #[serde(default)]
    pub sequence_length: Option<usize>,
    /// Tier of the trainer.
    pub tier: String,
    /// How it was trained; `None` for a model of others, and for checkpoints of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<CardRecipe>,
    /// Optimizer steps behind these weights.
    pub step: u64,
    /// Optimizer steps the recipe asks for.
    pub num_steps: u64,
    /// The scheme whose quantized weights these are, as quantization-aware training came to them: storing them by it
    /// changes nothing. `None` for full-precision weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trained_for: Option<QuantScheme>,
    /// Measured validation loss of these weights, nats.
    pub validation_loss: Option<f64>,
    /// Measured validation accuracy of these weights, share of 1.
    pub validation_accuracy: Option<f64>,
    /// Version of Foretrain that wrote it.
    pub version: String,
}

impl ModelCard {
    /// The tier of a model that was read from others' files: nothing is known of how it was trained.
    pub const IMPORTED: &'static str = "imported";
    /// File name within a checkpoint.
    pub const FILE: &'static str = "card.json";

    /// Reads `card.json` of a checkpoint folder. Errors: [`ExportError::Read`], [`ExportError::Json`].
    pub fn read(checkpoint: &Path) -> Result<Self, ExportError> {
        let path = checkpoint.join(Self::FILE);
        let text = std::fs::read(&path).map_err(|source| ExportError::read(&path, source))?;
        serde_json::from_slice(&text).map_err(|source| ExportError::Json { what: "the model card", source, path })
    }

    /// Writes `card.json` into a checkpoint folder.
    pub fn write(&self, checkpoint: &Path) -> Result<(), WriteError> {
        let path = checkpoint.join(Self::FILE);
        atomic_file::write(&path, |file| Ok(serde_json::to_writer_pretty(file, self)?))
    }

    /// Size in words: "0.82M parameters".
    #[must_use]
    pub fn size_label(&self) -> String {
        let count = self.num_params as f64;
        if count >= 1e9 {
            format!("{:.2}B parameters", count / 1e9)
        } else if count >= 1e6 {
            format!("{:.2}M parameters", count / 1e6)
        } else {
            format!("{:.1}K parameters", count / 1e3)
        }
    }

    /// The model family in words.
    #[must_use]
    pub fn family(&self) -> &'static str {
        match &self.model {
            ModelConfig::Mlp(_) => "MLP",
            ModelConfig::Cnn(_) => "CNN",
            ModelConfig::ResNet(_) => "ResNet",
            ModelConfig::Gpt2(_) => "GPT-2",
            ModelConfig::Llama(config) => config.family(),
        }
    }

    /// The metric to show first: "accuracy" (share of 1) of images, "loss" (nats per token) of text.
    #[must_use]
    pub fn metric(&self) -> &'static str {
        if self.is_language_model() { "loss" } else { "accuracy" }
    }

    /// What counts of examples count: "images" or "tokens".
    #[must_use]
    pub fn example_unit(&self) -> &'static str {
        if self.is_language_model() { "tokens" } else { "images" }
    }

    /// True for models that read text.
    #[must_use]
    pub fn is_language_model(&self) -> bool {
        match &self.model {
            ModelConfig::Mlp(_) | ModelConfig::Cnn(_) | ModelConfig::ResNet(_) => false,
            ModelConfig::Gpt2(_) | ModelConfig::Llama(_) => true,
        }
    }
}
