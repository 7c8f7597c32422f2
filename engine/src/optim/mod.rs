//! Optimizers, learning-rate schedules, gradient clipping, weight averaging.
//!
//! Invariants: state is a set of named tensors that can be saved and restored exactly; an update
//! is a function of (weights, gradients, state, learning rate) alone.

mod config;

pub use config::{OptimizerConfig, OptimizerKind, Schedule};
