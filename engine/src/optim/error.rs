//! What can go wrong while weights move.

use candle_core::DType;

use super::StatePrecision;

/// Errors of this room.
#[derive(Debug, thiserror::Error)]
pub enum OptimError {
    /// A weight got no gradient.
    #[error(
        "collecting gradients: none for {name:?}. Is the tensor used by the forward pass, through tracked weights?"
    )]
    MissingGradient {
        /// The weight's name.
        name: String,
    },
    /// A tensor that the optimizer was built for is not among the weights.
    #[error("moving weights: {name:?} is missing. Was the optimizer built for another model?")]
    MissingWeight {
        /// The weight's name.
        name: String,
    },
    /// A saved state lacks a tensor.
    #[error("restoring optimizer state: {name:?} is missing. Was it saved by another model or optimizer?")]
    MissingState {
        /// The state tensor's name.
        name: String,
    },
    /// A tensor has another shape than its weight.
    #[error("{tried} {name:?}: expected shape {expected:?}, found {found:?}. Was it made for another model?")]
    Shape {
        /// What was tried: "moving", "restoring".
        tried: &'static str,
        /// The tensor's name.
        name: String,
        /// Shape of the weight.
        expected: Vec<usize>,
        /// Shape found.
        found: Vec<usize>,
    },
    /// A tensor has a number type that is not computed with.
    #[error("{tried} {name:?}: expected {expected}, found {found:?}. Convert the weights first")]
    NumberType {
        /// What was tried.
        tried: &'static str,
        /// The tensor's name.
        name: String,
        /// Types that work.
        expected: &'static str,
        /// Type found.
        found: DType,
    },
    /// States of 8 bits are asked for where the processor does not compute.
    #[error(
        "moving weights: 8-bit optimizer states are the processor's; on a GPU keep them in f32, or in the machine's memory (--optimizer-offload)"
    )]
    NoEightBitStates,
    /// A saved state whose numbers are of another type than the optimizer keeps.
    #[error("restoring optimizer state {name:?}: expected {} numbers, found {found:?}. Was it saved with other --optimizer-states?", .expected.label())]
    StatePrecision {
        /// The state tensor's name.
        name: String,
        /// What the optimizer keeps.
        expected: StatePrecision,
        /// Type found.
        found: DType,
    },
    /// Two sets of gradients that do not belong together.
    #[error("combining gradients: the two sets differ at {name:?}. Were they made by the same model?")]
    Mismatch {
        /// The first name that only one set has.
        name: String,
    },
    /// A setting outside its range.
    #[error("optimizer setting {key}: expected {expected}, found {found}")]
    Setting {
        /// The setting's key.
        key: &'static str,
        /// Values that work.
        expected: &'static str,
        /// Value found.
        found: f64,
    },
    /// The tensor library failed.
    #[error("moving weights: {0}")]
    Tensor(#[from] candle_core::Error),
}
