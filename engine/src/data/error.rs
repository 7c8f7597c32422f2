//! What can go wrong with data: what was tried, what was expected, what was found, what to do.

use std::path::{Path, PathBuf};

use crate::device::Cancelled;

/// A dataset that cannot be had, or a batch that cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The operating system said no.
    #[error("{tried} {path:?}: {source}. {hint}")]
    Io {
        /// What was tried: "opening".
        tried: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// A file that is not what its place or name says.
    #[error("reading {what}: expected {expected}, found {found}. {hint}: {path:?}")]
    Format {
        /// Which part: "MNIST-style images".
        what: &'static str,
        /// What the format asks for.
        expected: String,
        /// What the file holds.
        found: String,
        /// What to do.
        hint: &'static str,
        /// The file or folder.
        path: PathBuf,
    },
    /// A tokenizer that cannot be read or that refuses a text.
    #[error("{tried} the tokenizer of {path:?}: {reason}. {hint}")]
    Tokenizer {
        /// What was tried: "reading", "encoding text with".
        tried: &'static str,
        /// Where the tokenizer came from.
        path: PathBuf,
        /// What the tokenizer library said.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// Batches that this dataset cannot give.
    #[error("drawing batches from {dataset}: expected {expected}, found {found}. {hint}")]
    Batch {
        /// The dataset's name.
        dataset: String,
        /// What batches need.
        expected: String,
        /// What there is.
        found: String,
        /// What to do.
        hint: &'static str,
    },
    /// A mean and standard deviation that do not fit the data.
    #[error("normalizing {dataset}: expected {expected}, found {found}. Does the model read such images?")]
    Normalization {
        /// The dataset's name.
        dataset: String,
        /// What the data needs.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A tensor could not be made.
    #[error("moving a batch to the compute device: {0}. Is there enough memory on it?")]
    Tensor(#[from] candle_core::Error),
    /// The user ended it.
    #[error("loading data: {0}")]
    Cancelled(#[from] Cancelled),
}

impl DataError {
    /// Wraps an i/o error with a hint that fits its kind.
    pub(crate) fn io(tried: &'static str, path: &Path, source: std::io::Error) -> Self {
        use std::io::ErrorKind;
        let hint = match source.kind() {
            ErrorKind::NotFound => "Is the path spelled right, and the disk attached?",
            ErrorKind::PermissionDenied => "Ask its owner for permission to read, or choose another copy",
            ErrorKind::UnexpectedEof => "Is the download complete?",
            ErrorKind::InvalidInput | ErrorKind::InvalidData => "Is the file damaged? Fetch it again",
            _ => "Is the disk in order?",
        };
        Self::Io { tried, path: path.to_owned(), source, hint }
    }

    /// A file that is not what it should be.
    pub(crate) fn format(
        what: &'static str,
        expected: impl Into<String>,
        found: impl Into<String>,
        hint: &'static str,
        path: &Path,
    ) -> Self {
        Self::Format { what, expected: expected.into(), found: found.into(), hint, path: path.to_owned() }
    }
}
