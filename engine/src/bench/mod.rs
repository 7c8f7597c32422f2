//! Speed of training: forward passes and full steps of known models, ours and, in turns with them, PyTorch's.
//!
//! Invariant: what is compared computes the same thing. Both sides get the same weights and the same batch, and their
//! losses are compared before their times are.

mod case;
mod error;
mod markdown;
mod measure;
mod peer;
mod result;
#[cfg(test)]
mod tests;
mod turn;

pub use case::{BenchModel, BenchSize};
pub use error::BenchError;
pub use measure::{TrainBenchPlan, bench_train};
pub use peer::{PeerPlan, PeerPython, TORCH_REQUIREMENT, TorchVariant};
pub use result::{CaseSpeed, PeerOutcome, PeerSpeed, ScalePoint, TrainSpeed, TurnTimes};
