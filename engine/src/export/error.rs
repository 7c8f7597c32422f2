//! What can go wrong with checkpoints and packages.

use std::path::{Path, PathBuf};

use super::Blocker;
use crate::device::Cancelled;
use crate::device::atomic_file::WriteError;
use crate::memory::format_bytes;
use crate::models::ModelError;
use crate::quant::QuantError;

/// Errors of this room.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file that could not be read.
    #[error("reading: {source}. {hint} {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// A write that failed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A weight file that is not what it says.
    #[error("reading weights: expected {expected}, found {found}. Is the file complete? {path:?}")]
    WeightFile {
        /// What the format or the model asks for.
        expected: String,
        /// What the file has.
        found: String,
        /// The file.
        path: PathBuf,
    },
    /// A JSON file that is not what it should be.
    #[error("reading {what}: {source}. Was it edited by hand, or written by another version? {path:?}")]
    Json {
        /// What it describes: "the model card".
        what: &'static str,
        /// The cause, with line and column.
        source: serde_json::Error,
        /// The file.
        path: PathBuf,
    },
    /// A folder that is neither a checkpoint nor a run.
    #[error("looking for a checkpoint: expected {expected}, found {found}. Name a checkpoint or a run folder {path:?}")]
    NotACheckpoint {
        /// What makes a folder one.
        expected: String,
        /// What is there.
        found: String,
        /// The folder.
        path: PathBuf,
    },
    /// What an export was writing when it was cut off, or still writes.
    #[error(
        "opening a model: expected a whole one, found an export that is not finished. Wait for it or, if it was cut off, export again; nothing needs this folder then {path:?}"
    )]
    Unfinished {
        /// The folder.
        path: PathBuf,
    },
    /// A preset file that says something unknown.
    #[error("reading target presets: {what}. {path:?}")]
    Preset {
        /// Line, column and reason, or the key at fault.
        what: String,
        /// The file.
        path: PathBuf,
    },
    /// No target has this id.
    #[error("target {id:?} is unknown; the targets are {known}")]
    UnknownTarget {
        /// The id asked for.
        id: String,
        /// Ids there are, separated by commas.
        known: String,
    },
    /// The target cannot take this model.
    #[error("exporting: {}", .0.iter().map(|blocker| format!("{}. {}", blocker.what, blocker.remedy)).collect::<Vec<_>>().join("; "))]
    Blocked(Vec<Blocker>),
    /// The target folder is there already, and nothing is ever written over.
    #[error("creating the package: expected a new folder, found an existing one. Choose another name {path:?}")]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// A file to be written that is there already, or has no folder to be in.
    #[error("creating a file: expected {expected}, found {found}. {hint} {path:?}")]
    NewFile {
        /// What should be there.
        expected: &'static str,
        /// What is there.
        found: &'static str,
        /// What to do.
        hint: &'static str,
        /// The file to be.
        path: PathBuf,
    },
    /// Not enough room on the disk.
    #[error(
        "writing the weights and what goes with them: up to {} ({needed_bytes} bytes) are needed, the disk has {} ({free_bytes} bytes) left. Free some or choose another disk {path:?}",
        format_bytes(*needed_bytes),
        format_bytes(*free_bytes)
    )]
    DiskSpace {
        /// Size of what is to be written, bytes.
        needed_bytes: u64,
        /// Free space, bytes.
        free_bytes: u64,
        /// The folder or file to be created.
        path: PathBuf,
    },
    /// What was written is not what was meant; the package was removed.
    #[error(
        "reading the package back: {what}: expected {expected}, found {found}. Is the disk in order? Nothing was kept"
    )]
    ReadBack {
        /// Which file, tensor or answer.
        what: String,
        /// What was meant.
        expected: String,
        /// What was read.
        found: String,
    },
    /// The runtime refuses a package, or the container cannot be written.
    #[error("{tried}: {what}")]
    Runtime {
        /// What was tried: "opening the package in foretrain-edge".
        tried: &'static str,
        /// The runtime's own words.
        what: String,
    },
    /// Quantization failed; one that was cancelled is [`ExportError::Cancelled`].
    #[error(transparent)]
    Quant(QuantError),
    /// The network failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The user asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The tensor library failed.
    #[error("computing: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl From<QuantError> for ExportError {
    fn from(error: QuantError) -> Self {
        match error {
            QuantError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            other @ (QuantError::NotFinite { .. }
            | QuantError::Range { .. }
            | QuantError::Ternary { .. }
            | QuantError::Blocks { .. }
            | QuantError::Setting { .. }
            | QuantError::Calibration { .. }
            | QuantError::Training { .. }
            | QuantError::Model(_)
            | QuantError::Tensor(_)) => Self::Quant(other),
        }
    }
}

impl ExportError {
    /// Wraps an error of reading `path` with a hint that fits its kind.
    #[must_use]
    pub fn read(path: &Path, source: std::io::Error) -> Self {
        use std::io::ErrorKind;
        let hint = match source.kind() {
            ErrorKind::PermissionDenied => "May you read this file?",
            ErrorKind::NotFound => "Was it moved or deleted?",
            ErrorKind::NotADirectory => "A file lies where its folder should be",
            _ => "Is the disk in order?",
        };
        Self::Read { path: path.to_owned(), source, hint }
    }
}
