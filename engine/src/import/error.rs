//! What can go wrong with a model that somebody else wrote.

use std::path::PathBuf;

use crate::device::Cancelled;
use crate::export::ExportError;
use crate::models::ModelError;

/// Errors of this room.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file or folder that holds no model we read.
    #[error("importing a model: expected {expected}, found {found}. {hint} {path:?}")]
    NotAModel {
        /// What would be one.
        expected: String,
        /// What is there.
        found: String,
        /// What to do.
        hint: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// A config that describes no network of ours.
    #[error("importing a model: {source}. {path:?}")]
    Config {
        /// Which key, expected and found.
        source: ModelError,
        /// The file.
        path: PathBuf,
    },
    /// A tensor that is missing, of another shape or type, or not a number.
    #[error("importing tensor {name:?}: expected {expected}, found {found}. {hint} {path:?}")]
    Tensor {
        /// Its name, as the network calls it.
        name: String,
        /// What the config asks for.
        expected: String,
        /// What the file has.
        found: String,
        /// What to do.
        hint: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A file that cannot be read or is not what it says.
    #[error(transparent)]
    File(ExportError),
    /// A GGUF file or a package that is not what it says.
    #[error(transparent)]
    Edge(#[from] foretrain_edge::EdgeError),
    /// The user asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The tensor library failed.
    #[error("computing: {0}")]
    Tensors(#[from] candle_core::Error),
}

impl From<ExportError> for ImportError {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            other => Self::File(other),
        }
    }
}
