//! What can go wrong with a network.

/// Errors of this room.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A forward pass or a file asked for a tensor that is not there.
    #[error("tensor {name:?} is missing. Was the checkpoint made by another model?")]
    MissingTensor {
        /// The tensor's name.
        name: String,
    },
    /// A tensor has another shape than the config says.
    #[error("tensor {name:?}: expected shape {expected:?}, found {found:?}. Was the checkpoint made by another model?")]
    Shape {
        /// The tensor's name.
        name: String,
        /// Shape by the config.
        expected: Vec<usize>,
        /// Shape found.
        found: Vec<usize>,
    },
    /// A config whose numbers do not go together.
    #[error("model config: {what}")]
    Config {
        /// What does not fit, and what would.
        what: String,
    },
    /// A token sequence longer than the model has positions for.
    #[error("reading {found} tokens: this model has positions for {limit}. Shorten the sequence")]
    TooLong {
        /// Tokens given.
        found: usize,
        /// Positions there are.
        limit: usize,
    },
    /// The tensor library failed.
    #[error("computing: {0}")]
    Tensor(#[from] candle_core::Error),
}
