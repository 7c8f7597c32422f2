//! What one contender trains with: everything but data, seed and place.

use std::sync::Arc;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::ExperimentError;
use crate::data::{Augmentation, BatchConfig, BatchSource, Dataset};
use crate::hybrid::{HybridConfig, HybridTrainer, TrainerSetup};
use crate::models::ops::Precision;
use crate::models::{Network, ParamStore, initial_params};
use crate::optim::{OptimizerConfig, Schedule};
use crate::quant::QatConfig;

/// How a contender trains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialRecipe {
    /// How it predicts.
    pub hybrid: HybridConfig,
    /// How weights move.
    pub optimizer: OptimizerConfig,
    /// Learning rate over the run.
    pub schedule: Schedule,
    /// Quantization-aware training; contenders are then measured with quantized weights. Reports of earlier versions
    /// have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qat: Option<QatConfig>,
    /// Optimizer steps.
    pub num_steps: u64,
    /// Images or sequences per step.
    pub batch_size: usize,
    /// Parts that a batch is cut into; 1 computes it whole.
    pub num_micro_batches: usize,
    /// Of matrix products in training. Reports of earlier versions have none: f32.
    #[serde(default, skip_serializing_if = "Precision::is_full")]
    pub precision: Precision,
    /// Tokens per sequence; unused for images.
    pub sequence_length: usize,
    /// Changes to training images; unused for text.
    pub augmentation: Augmentation,
}

impl TrialRecipe {
    /// The same with all learning rates times `factor`.
    #[must_use]
    pub fn with_rate(mut self, factor: f64) -> Self {
        self.optimizer.learning_rate *= factor;
        self.optimizer.adam_learning_rate *= factor;
        self
    }

    /// A trainer before its first step, and the batches it learns from.
    /// Errors: settings out of range, a dataset too small, a device without room.
    pub fn begin(
        &self,
        network: &Arc<Network>,
        dataset: &Arc<Dataset>,
        seed: u64,
        device: Device,
    ) -> Result<(HybridTrainer, BatchSource), ExperimentError> {
        let (weights, buffers) = initial_params(network, seed, &device)?;
        self.begin_with(ParamStore::new(weights, buffers, &device)?, network, dataset, seed, device)
    }

    /// [`Self::begin`] from weights and buffers that are there already, on `device`.
    pub fn begin_with(
        &self,
        store: ParamStore,
        network: &Arc<Network>,
        dataset: &Arc<Dataset>,
        seed: u64,
        device: Device,
    ) -> Result<(HybridTrainer, BatchSource), ExperimentError> {
        let trainer = HybridTrainer::new(TrainerSetup {
            network: Arc::clone(network),
            store,
            hybrid: self.hybrid.clone(),
            optimizer: self.optimizer.clone(),
            schedule: self.schedule,
            qat: self.qat,
            num_steps: self.num_steps,
            num_micro_batches: self.num_micro_batches,
            precision: self.precision,
            seed,
        })?;
        Ok((trainer, self.batches(dataset, seed, device)?))
    }

    /// The batches that it learns from. Errors: a dataset too small.
    pub(super) fn batches(
        &self,
        dataset: &Arc<Dataset>,
        seed: u64,
        device: Device,
    ) -> Result<BatchSource, ExperimentError> {
        let config = BatchConfig {
            batch_size: self.batch_size,
            sequence_length: self.sequence_length,
            augmentation: self.augmentation,
            seed,
            device,
        };
        Ok(BatchSource::new(Arc::clone(dataset), config)?)
    }
}
