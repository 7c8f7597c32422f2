//! Optimizers, learning-rate schedules, gradient clipping, weight averaging.
//!
//! Invariants: state is a set of named tensors that can be saved and restored exactly; an update
//! is a function of (weights, gradients, state, learning rate) alone; sums have one order, so that
//! equal inputs give equal bits whatever the threads do.

mod average;
mod buffer;
mod coded;
mod config;
mod error;
mod gradients;
mod kernels;
mod moment;
mod muon;
mod optimizer;
mod schedule;
mod state;
#[cfg(test)]
mod tests;
mod usual_rate;

pub use average::WeightAverage;
pub(crate) use coded::groups;
pub use config::{OptimizerConfig, OptimizerKind, Schedule, StatePlace, StatePrecision};
pub use error::OptimError;
pub use gradients::Gradients;
pub(crate) use kernels::{AdamWNumbers, adamw_coded_chunk, axpby};
pub use optimizer::Optimizer;
pub use usual_rate::usual_learning_rate;
