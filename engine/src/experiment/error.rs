//! What can keep an experiment from its result.

use crate::data::DataError;
use crate::device::{Cancelled, ComputeError};
use crate::evaluation::EvaluationError;
use crate::hybrid::HybridError;
use crate::models::ModelError;
use crate::offload::OffloadError;
use crate::quant::QuantError;

/// Errors of this room: mostly those of the rooms below, as they are.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the variants carry the documented errors of other rooms")]
pub enum ExperimentError {
    /// Every learning rate of the grid diverged.
    #[error(
        "tuning {contender}: all {tried} settings of its grid diverged. Lower the recipe's learning rate, or widen the grid downwards"
    )]
    AllDiverged {
        /// Whose.
        contender: String,
        /// How many settings were tried.
        tried: usize,
    },
    /// A plan without a seed, a grid without a rate.
    #[error("planning an experiment: expected {expected}, found {found}")]
    Plan {
        /// What it needs.
        expected: &'static str,
        /// What it has.
        found: String,
    },
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Compute(#[from] ComputeError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Hybrid(#[from] HybridError),
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    #[error(transparent)]
    Quant(#[from] QuantError),
    #[error(transparent)]
    Offload(#[from] OffloadError),
}
