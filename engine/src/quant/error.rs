//! What can go wrong with a quantization.

/// Errors of this room.
#[derive(Debug, thiserror::Error)]
pub enum QuantError {
    /// NaN or infinity among the weights.
    #[error(
        "quantizing {tensor:?}: expected finite numbers, found {found} at index {index}. Did the training diverge? Take an earlier checkpoint"
    )]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// The number found.
        found: f32,
        /// Its place in the flattened tensor.
        index: usize,
    },
    /// A number that the scheme cannot hold.
    #[error("quantizing {tensor:?}: {scheme} holds magnitudes up to {limit}, found {found}. Take bf16 or f32 instead")]
    Range {
        /// The tensor.
        tensor: String,
        /// The scheme.
        scheme: &'static str,
        /// Its largest magnitude.
        limit: f32,
        /// The number found.
        found: f32,
    },
    /// The ternary packer refused.
    #[error("quantizing {tensor:?}: {source}")]
    Ternary {
        /// The tensor.
        tensor: String,
        /// The packer's own words.
        source: foretrain_ternary::TernaryError,
    },
    /// The packer of Q8_0 blocks refused.
    #[error("quantizing {tensor:?}: {what}")]
    Blocks {
        /// The tensor.
        tensor: String,
        /// The packer's own words.
        what: String,
    },
    /// A setting of post-training quantization.
    #[error("quantizing, {setting}: expected {expected}, found {found}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// Its range.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A setting of quantization-aware training.
    #[error("quantization-aware training, {setting}: expected {expected}, found {found}")]
    Training {
        /// The setting.
        setting: &'static str,
        /// Its range.
        expected: String,
        /// What it is.
        found: String,
    },
    /// Examples that nothing can be calibrated on.
    #[error("calibrating: expected {expected}, found {found}. Choose the data that the model was trained on")]
    Calibration {
        /// What a calibration needs.
        expected: String,
        /// What there is.
        found: String,
    },
    /// The user asked to stop.
    #[error(transparent)]
    Cancelled(#[from] crate::device::Cancelled),
    /// A tensor is missing or has another shape.
    #[error(transparent)]
    Model(#[from] crate::models::ModelError),
    /// The tensor library failed.
    #[error("computing: {0}")]
    Tensor(#[from] candle_core::Error),
}
