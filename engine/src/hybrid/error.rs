//! What can go wrong in a training step.

use crate::models::ModelError;
use crate::optim::OptimError;

/// Errors of this room. A divergence is not one of them: the guard answers it.
#[derive(Debug, thiserror::Error)]
pub enum HybridError {
    /// A tier or recipe number out of its range.
    #[error("hybrid setting {name}: expected {expected}, found {found}")]
    Config {
        /// The setting.
        name: &'static str,
        /// Its range.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A tier file that does not parse.
    #[error("reading tier {name:?}: {source}. A tier lists every number with `value` and `why`")]
    Tier {
        /// The tier's name.
        name: String,
        /// What the parser said.
        source: Box<ron::error::SpannedError>,
    },
    /// A batch whose parts do not fit together.
    #[error("training on a batch: expected {expected}, found {found}")]
    Batch {
        /// What fits.
        expected: &'static str,
        /// What came.
        found: String,
    },
    /// A saved trainer state that is not one.
    #[error("restoring the trainer's control state: {source}. Was the checkpoint written by another version?")]
    Control {
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A step after the guard ended the run.
    #[error(
        "training step {step}: the guard ended this run. The last good weights are in place; resume it to go on at the lower learning rate it had come to"
    )]
    Stopped {
        /// The step refused.
        step: u64,
    },
    /// Quantization-aware training failed, or a setting of it is out of range.
    #[error(transparent)]
    Quant(#[from] crate::quant::QuantError),
    /// The network failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The optimizer failed.
    #[error(transparent)]
    Optim(#[from] OptimError),
    /// The tensor library failed.
    #[error("computing a training step: {0}")]
    Tensor(#[from] candle_core::Error),
}
