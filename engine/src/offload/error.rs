//! What can go wrong while blocks are streamed.

use std::path::PathBuf;

use crate::device::Cancelled;
use crate::device::atomic_file::WriteError;
use crate::evaluation::EvaluationError;
use crate::hybrid::HybridError;
use crate::memory::format_bytes;
use crate::models::ModelError;
use crate::optim::OptimError;

/// Errors of this room.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the variants without fields of their own carry the documented errors of other rooms")]
pub enum OffloadError {
    /// A setting that streaming cannot follow.
    #[error("streaming blocks from disk: expected {expected}, found {found}. {hint}")]
    Setting {
        /// What works.
        expected: &'static str,
        /// What was asked for.
        found: String,
        /// What to do.
        hint: &'static str,
    },
    /// The disk has too little room, before anything is written.
    #[error("making room for the blocks: they need {} on disk, {} are free. {hint}. {path:?}", format_bytes(*needed_bytes), format_bytes(*free_bytes))]
    DiskSpace {
        /// What they need.
        needed_bytes: u64,
        /// What there is.
        free_bytes: u64,
        /// What to do.
        hint: &'static str,
        /// The folder.
        path: PathBuf,
    },
    /// The folder cannot be written, found before anything is.
    #[error("trying out a folder for blocks: it cannot be written: {source}. Choose another one. {path:?}")]
    Unwritable {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file system cannot give a file a second name.
    #[error("linking blocks: {source}")]
    NoLinks {
        /// The cause.
        source: std::io::Error,
    },
    /// A file cannot be read.
    #[error("reading blocks: {source}. Is the disk still there? {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("reading blocks: expected {expected}, found {found}. Is the disk in order? {path:?}")]
    Damaged {
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
        /// The file.
        path: PathBuf,
    },
    /// The folder belongs to another training.
    #[error(
        "going on with the blocks in a folder: its {what} is another. Choose another folder, or the settings it was made with. {path:?}"
    )]
    Other {
        /// What differs: "model".
        what: &'static str,
        /// The folder.
        path: PathBuf,
    },
    /// The weights to start from cannot be had.
    #[error("taking over first weights: {source}")]
    FirstWeights {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The folder holds something else.
    #[error("making a folder for blocks: expected an empty or a new one, found files in it. Choose another. {path:?}")]
    Taken {
        /// The folder.
        path: PathBuf,
    },
    /// Another process trains here.
    #[error("opening blocks: another process trains in this folder. Stop it first. {path:?}")]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// A number that is none.
    #[error(
        "step {step}: {what} of block {block} is NaN or infinite. {state}. Start in a new folder at a lower learning rate, or look at that block's weights: the saved ones may be ruined already"
    )]
    NotFinite {
        /// The step.
        step: u64,
        /// What: "the output".
        what: &'static str,
        /// The block's name.
        block: String,
        /// What is on disk now.
        state: String,
    },
    /// A GPU does not compute any more, or has no room left.
    #[error(
        "{what} on the GPU: {found}. {state}. The same folder goes on from there: in smaller batches where the GPU's memory ran out, or on the processor (--device cpu)"
    )]
    Gpu {
        /// What was tried: "computing step 3".
        what: String,
        /// What CUDA said.
        found: String,
        /// What is on disk now.
        state: String,
    },
    /// A thread that reads or writes is gone without a word.
    #[error("streaming blocks: the thread that {what} ended early. Please report it")]
    Thread {
        /// "reads" or "writes".
        what: &'static str,
    },
    #[error("{} {state}", sentence(source))]
    Write {
        /// The cause.
        source: WriteError,
        /// What is on disk now.
        state: String,
    },
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error(transparent)]
    Evaluation(Box<EvaluationError>),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Optim(#[from] OptimError),
    #[error(transparent)]
    Hybrid(#[from] HybridError),
    #[error("streaming blocks: {0}")]
    Tensor(#[from] candle_core::Error),
}

/// What went wrong, up to its full stop or question mark.
fn sentence(source: &WriteError) -> String {
    let text = source.to_string();
    if text.ends_with(['?', '.']) { text } else { format!("{text}.") }
}

impl From<EvaluationError> for OffloadError {
    fn from(error: EvaluationError) -> Self {
        match error {
            EvaluationError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            error => Self::Evaluation(Box::new(error)),
        }
    }
}
