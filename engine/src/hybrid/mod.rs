//! The hybrid predictive trainer: phases Warmup, Full, Predict and Correct, the gate that opens
//! Predict, the loss forecaster, the confidence that keeps it open, the guard that ends it.
//!
//! Invariant: hybrid never reads a file, a clock or a channel.

#[cfg(test)]
pub(crate) mod composed_tests;
mod config;
mod control;
mod error;
mod exact;
pub mod forecast;
mod gate;
mod guard;
mod ladder;
mod lens;
mod loss_scale;
pub(crate) mod nullable;
mod passes;
mod phases;
mod pilot;
#[cfg(test)]
mod qat_tests;
mod report;
mod sampler;
mod state;
mod step_costs;
mod step_part;
mod strategy;
#[cfg(test)]
mod synthetic;
mod tiers;
mod trainer;
#[cfg(test)]
mod trainer_tests;
mod words;

pub use config::{Explained, GateRule, HybridConfig, TierPreset};
pub use error::HybridError;
pub use forecast::ForecastModel;
pub use gate::StepCosts;
pub use pilot::Pilot;
pub use report::{
    Correction, Divergence, DivergenceKind, Forecast, ForecastBias, GuardSignals, HybridEvent, Interval, Phase,
    Recovery, StepReport,
};
pub use state::TrainerState;
pub use step_costs::measure_step_costs;
pub use step_part::{Mark, StepPart};
pub use strategy::{Strategy, Trajectory};
pub use trainer::{HybridTrainer, TrainerSetup};

pub(crate) use control::MAX_SLICE;
pub(crate) use passes::{Seen, even_weights, weights_of_rows};
pub(crate) use pilot::{Backward, Good, Outcome, StepOrder};
pub(crate) use sampler::Sample;
