//! What a streamed training tells of itself in its folder, one JSON object a line.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::device::atomic_file::WriteError;
use crate::offload::StreamedStep;
use crate::session::run_folder::read_lines;
use crate::session::{SessionError, ValidationPoint};

/// The two files.
pub(super) struct Records {
    steps: PathBuf,
    validations: PathBuf,
}

impl Records {
    /// Of the training in `folder`.
    pub(super) fn new(folder: &Path) -> Self {
        Self { steps: folder.join("metrics.jsonl"), validations: folder.join("validation.jsonl") }
    }

    /// Steps up to `num_steps`, and what held-out data said at them. Errors: as [`read_lines`].
    pub(super) fn up_to(&self, num_steps: u64) -> Result<(Vec<StreamedStep>, Vec<ValidationPoint>), SessionError> {
        Ok((
            read(&self.steps, |step: &StreamedStep| step.step <= num_steps)?,
            read(&self.validations, |point: &ValidationPoint| point.step <= num_steps)?,
        ))
    }

    pub(super) fn add_step(&self, step: &StreamedStep) -> Result<(), SessionError> {
        append(&self.steps, step)
    }

    pub(super) fn add_validation(&self, point: &ValidationPoint) -> Result<(), SessionError> {
        append(&self.validations, point)
    }
}

fn read<T: DeserializeOwned>(path: &Path, counts: impl Fn(&T) -> bool) -> Result<Vec<T>, SessionError> {
    Ok(read_lines::<T>(path)?.rows.into_iter().filter(counts).collect())
}

/// Appends a line; half a line, as a full disk leaves it, goes again.
fn append(path: &Path, row: &impl Serialize) -> Result<(), SessionError> {
    let written = (|| {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        let len = file.metadata()?.len();
        let mut line = serde_json::to_vec(row)?;
        line.push(b'\n');
        file.write_all(&line).inspect_err(|_| drop(file.set_len(len)))
    })();
    written.map_err(|source| WriteError::new("appending to", path, source).into())
}
