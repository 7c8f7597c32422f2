//! The hybrid predictive trainer: phases Warmup, Full, Predict and Correct, the gate that opens
//! Predict, the loss forecaster, the confidence that keeps it open, the guard that ends it.
//!
//! Invariant: hybrid never reads a file, a clock or a channel.

mod config;
mod report;

pub use config::{Explained, HybridConfig, TierPreset};
pub use report::{
    Correction, Divergence, DivergenceKind, Forecast, GuardSignals, HybridEvent, Phase, Recovery, StepReport,
};
