//! Everything that decides a run. Written into its folder, read back to resume it.

use serde::{Deserialize, Serialize};

use crate::data::{Augmentation, DatasetSpec};
use crate::device::ComputeDevice;
use crate::hybrid::{HybridConfig, TierPreset};
use crate::memory::MemorySettings;
use crate::models::ops::{Kept, Precision};
use crate::models::{ModelConfig, ModelError, Network};
use crate::optim::{OptimizerConfig, Schedule};
use crate::quant::QatConfig;

/// A run's recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Name to show; becomes part of the folder's name.
    pub name: String,
    /// What it learns from.
    pub data: DatasetSpec,
    /// What learns; its two ends are fitted to the data at start.
    pub model: ModelConfig,
    /// The model whose weights training starts from: a checkpoint or run folder, a folder of transformers, or a GGUF
    /// file; `None` draws them from the seed. `model` and the tokenizer in `data` are that model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_from: Option<std::path::PathBuf>,
    /// Name of the tier that `hybrid` came from.
    pub tier: String,
    /// How it predicts.
    pub hybrid: HybridConfig,
    /// How weights move.
    pub optimizer: OptimizerConfig,
    /// Learning rate over the run.
    pub schedule: Schedule,
    /// Quantization-aware training; `None` trains in full precision throughout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qat: Option<QatConfig>,
    /// Optimizer steps.
    pub num_steps: u64,
    /// Images or sequences per optimizer step.
    pub batch_size: usize,
    /// Parts that a batch is cut into for gradient accumulation; 1 computes it whole.
    pub num_micro_batches: usize,
    /// Of matrix products in training, on the processor; evaluation is in f32. Recipes of earlier versions have none.
    #[serde(default, skip_serializing_if = "Precision::is_full")]
    pub precision: Precision,
    /// What transformer layers keep for the backward pass: all that it reads, or their input alone (activation
    /// checkpointing).
    #[serde(default, skip_serializing_if = "keeps_activations")]
    pub kept: Kept,
    /// Tokens per sequence; unused for images.
    pub sequence_length: usize,
    /// Changes to training images; unused for text.
    pub augmentation: Augmentation,
    /// Seed of everything random.
    pub seed: u64,
    /// Steps between two validations.
    pub validation_interval: u64,
    /// Most validation images, or sequences, per validation, the same each time; the last one also measures all.
    pub max_validation_examples: usize,
    /// Steps between two checkpoints.
    pub checkpoint_interval: u64,
    /// Checkpoints kept, beside the best one.
    pub keep_last: usize,
    /// Processor threads; 0 uses all.
    pub num_threads: usize,
    /// Where to compute.
    pub device: ComputeDevice,
    /// Most memory the run may use, bytes; 0 takes 80% of the machine's.
    pub memory_budget_bytes: u64,
    /// Most of a GPU's memory that the run may take, bytes; 0 takes what is free when it starts. Unused on the processor.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub vram_limit_bytes: u64,
    /// Folder in which the run's own folder is made; not part of the recipe.
    #[serde(skip)]
    pub runs_folder: std::path::PathBuf,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

fn keeps_activations(kept: &Kept) -> bool {
    *kept == Kept::Activations
}

impl RunConfig {
    /// The network to train. Errors: as [`Network::keeping`].
    pub fn network(&self) -> Result<Network, ModelError> {
        Network::keeping(&self.model, self.kept)
    }

    /// Goes over to settings that a memory plan proposes.
    pub fn take_memory_settings(&mut self, settings: MemorySettings) {
        self.num_micro_batches = settings.num_micro_batches;
        self.kept = settings.kept;
        (self.optimizer.states, self.optimizer.state_place) = (settings.states, settings.state_place);
    }

    /// The tier, and the strategy where that is not the tier's own: "conservative, frozen".
    #[must_use]
    pub fn tier_label(&self) -> String {
        let strategy = self.hybrid.strategy;
        match TierPreset::named(&self.tier) {
            Some(tier) if tier.strategy.value != strategy => format!("{}, {}", self.tier, strategy.label()),
            Some(_) | None => self.tier.clone(),
        }
    }
}
