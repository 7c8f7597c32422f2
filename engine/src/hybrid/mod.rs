//! The hybrid predictive trainer: phases Warmup, Full, Predict and Correct, the gate that opens
//! Predict, the loss forecaster, the confidence that keeps it open, the guard that ends it.
//!
//! Invariant: hybrid never reads a file, a clock or a channel.

mod config;
mod control;
mod error;
mod exact;
pub mod forecast;
mod gate;
mod guard;
mod ladder;
pub(crate) mod nullable;
mod passes;
mod phases;
mod report;
mod sampler;
mod state;
#[cfg(test)]
mod synthetic;
mod tiers;
mod trainer;
#[cfg(test)]
mod trainer_tests;

pub use config::{Explained, HybridConfig, TierPreset};
pub use error::HybridError;
pub use forecast::ForecastModel;
pub use report::{
    Correction, Divergence, DivergenceKind, Forecast, GuardSignals, HybridEvent, Interval, Phase, Recovery, StepReport,
};
pub use state::TrainerState;
pub use trainer::{HybridTrainer, TrainerSetup};
