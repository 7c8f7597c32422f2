//! What is measured: models with batches of a usual size, on made-up data.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::BenchError;
use crate::data::Batch;
use crate::hybrid::{HybridConfig, HybridTrainer, TrainerSetup};
use crate::models::ops::Precision;
use crate::models::{
    DataShape, Forward, Mode, ModelConfig, ModelPreset, Network, ParamStore, Params, initial_params, ops,
};
use crate::optim::{OptimizerConfig, OptimizerKind, Schedule, StatePlace, StatePrecision};

/// A model to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the documentation; `label` spells them out")]
pub enum BenchModel {
    Gpt2Char,
    Gpt2_11M,
    Gpt2_124M,
    MnistCnn,
    ResNet20,
    ResNet18,
}

/// Size of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BenchSize {
    /// Images or sequences.
    pub batch: usize,
    /// Tokens of a sequence; 0 for images.
    pub tokens: usize,
}

impl BenchSize {
    /// Images, or tokens, in a batch.
    #[must_use]
    pub fn examples(self) -> usize {
        self.batch * self.tokens.max(1)
    }
}

impl BenchModel {
    /// All, smallest first by kind.
    pub const ALL: [Self; 6] =
        [Self::Gpt2Char, Self::Gpt2_11M, Self::Gpt2_124M, Self::MnistCnn, Self::ResNet20, Self::ResNet18];

    /// The name to show and to type.
    #[must_use]
    pub fn label(self) -> &'static str {
        self.preset().label()
    }

    /// The model called `label`.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|model| model.label() == label)
    }

    /// The batch that steps are measured with.
    #[must_use]
    pub fn size(self) -> BenchSize {
        let (batch, tokens) = match self {
            Self::Gpt2Char => (16, 128),
            Self::Gpt2_11M => (8, 256),
            Self::Gpt2_124M => (2, 256),
            Self::MnistCnn => (128, 0),
            Self::ResNet20 => (64, 0),
            Self::ResNet18 => (32, 0),
        };
        BenchSize { batch, tokens }
    }

    /// What it counts: "tokens" or "images".
    #[must_use]
    pub fn unit(self) -> &'static str {
        if self.preset().reads_images() { "images" } else { "tokens" }
    }

    /// Can its matrix products be in bf16?
    #[must_use]
    pub fn has_bf16_products(self) -> bool {
        !self.preset().reads_images()
    }

    fn preset(self) -> ModelPreset {
        match self {
            Self::Gpt2Char => ModelPreset::Gpt2Char,
            Self::Gpt2_11M => ModelPreset::Gpt2_11M,
            Self::Gpt2_124M => ModelPreset::Gpt2_124M,
            Self::MnistCnn => ModelPreset::MnistCnn,
            Self::ResNet20 => ModelPreset::ResNet20,
            Self::ResNet18 => ModelPreset::ResNet18,
        }
    }

    fn data(self) -> DataShape {
        match self {
            // As many characters as Shakespeare uses.
            Self::Gpt2Char | Self::Gpt2_11M => DataShape::Text { vocab_size: 65 },
            Self::Gpt2_124M => DataShape::Text { vocab_size: 50_257 },
            Self::MnistCnn => DataShape::Images { channels: 1, height: 28, width: 28, num_classes: 10 },
            Self::ResNet20 | Self::ResNet18 => {
                DataShape::Images { channels: 3, height: 32, width: 32, num_classes: 10 }
            }
        }
    }
}

/// A model with its weights, ready to be stepped.
#[derive(Debug)]
pub(super) struct Case {
    pub model: BenchModel,
    network: Arc<Network>,
    /// Weights as drawn, for forward passes and for the other side.
    store: ParamStore,
    trainer: HybridTrainer,
    precision: Precision,
}

impl Case {
    /// `model` with weights drawn from a fixed seed, moved by AdamW without prediction, with products in `precision`.
    /// Errors: the model's.
    pub fn new(model: BenchModel, vanilla: &HybridConfig, precision: Precision) -> Result<Self, BenchError> {
        let network = Arc::new(Network::new(&model.preset().config(model.data())?)?);
        let draw = || -> Result<ParamStore, BenchError> {
            let (weights, buffers) = initial_params(&network, 1, &Device::Cpu)?;
            Ok(ParamStore::new(weights, buffers, &Device::Cpu)?)
        };
        let trainer = HybridTrainer::new(TrainerSetup {
            network: Arc::clone(&network),
            store: draw()?,
            hybrid: vanilla.clone(),
            optimizer: optimizer(),
            schedule: Schedule::Cosine { warmup_fraction: 0.0, final_fraction: 1.0 },
            qat: None,
            num_steps: 1_000_000,
            num_micro_batches: 1,
            precision,
            seed: 1,
        })?;
        Ok(Self { model, store: draw()?, network, trainer, precision })
    }

    /// Of our products.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    pub fn num_params(&self) -> u64 {
        self.network.num_params() as u64
    }

    pub fn config(&self) -> &ModelConfig {
        self.network.config()
    }

    /// The weights as drawn, by name.
    pub fn weights(&self) -> Params {
        self.store.detached()
    }

    /// A batch of made-up examples, the same for the same size.
    pub fn batch(&self, size: BenchSize) -> Result<Batch, BenchError> {
        let device = &Device::Cpu;
        // Odd multipliers walk through all values without a pattern that a cache would like.
        let scattered = |index: usize| index.wrapping_mul(2_654_435_761) >> 7;
        match self.model.data() {
            DataShape::Text { vocab_size } => {
                let ids = |salt: usize| {
                    let id = |index: usize| (scattered(index + salt) % vocab_size) as u32;
                    Tensor::from_iter((0..size.examples()).map(id), device)?.reshape((size.batch, size.tokens))
                };
                Ok(Batch { inputs: ids(1)?, targets: ids(2)? })
            }
            DataShape::Images { channels, height, width, num_classes } => {
                let count = size.batch * channels * height * width;
                let pixel = |index: usize| (scattered(index + 1) % 1024) as f32 / 512.0 - 1.0;
                let inputs = Tensor::from_iter((0..count).map(pixel), device)?;
                let class = |index: usize| (index % num_classes) as u32;
                Ok(Batch {
                    inputs: inputs.reshape((size.batch, channels, height, width))?,
                    targets: Tensor::from_iter((0..size.batch).map(class), device)?,
                })
            }
        }
    }

    /// Mean loss of `batch` with the weights as drawn, nats; a forward pass that keeps nothing for a backward one.
    pub fn forward(&self, batch: &Batch) -> Result<f64, BenchError> {
        let params = self.store.detached();
        let pass = Forward::new(&params, Mode::Train).in_precision(self.precision);
        let logits = self.network.forward(&pass, &batch.inputs)?;
        let targets = batch.targets.flatten_all()?;
        let rows = logits.reshape((targets.elem_count(), ()))?;
        Ok(f64::from(ops::cross_entropy(&rows, &targets)?.mean_all()?.to_scalar::<f32>()?))
    }

    /// A full training step: forward, backward, gradient norm and clipping, AdamW.
    pub fn step(&mut self, batch: &Batch) -> Result<(), BenchError> {
        Ok(self.trainer.vanilla_step(batch)?)
    }
}

/// What both sides move weights by; the other side's script has the same numbers.
fn optimizer() -> OptimizerConfig {
    OptimizerConfig {
        kind: OptimizerKind::AdamW,
        learning_rate: 1e-4,
        adam_learning_rate: 1e-4,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.1,
        momentum: 0.9,
        newton_schulz_steps: 3,
        clip_norm: Some(1.0),
        states: StatePrecision::F32,
        state_place: StatePlace::WithWeights,
    }
}
