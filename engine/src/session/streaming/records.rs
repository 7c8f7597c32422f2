//! What a streamed training tells of itself in its folder, one JSON object a line.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::device::atomic_file::{self, WriteError};
use crate::offload::{OffloadTrainer, StreamedStep};
use crate::session::run_folder::{Lines, read_lines};
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

    /// Brings the files to where the training is, and returns what they hold: a process may have ended between a step and its
    /// line, or in the middle of a line. Errors: as [`read_lines`]; a file that cannot be written.
    pub(super) fn settle(
        &self,
        trainer: &OffloadTrainer,
    ) -> Result<(Vec<StreamedStep>, Vec<ValidationPoint>), SessionError> {
        let num_steps = trainer.num_steps();
        let mut steps = settled(&self.steps, |step: &StreamedStep| step.step <= num_steps)?;
        let known = steps.last().map_or(0, |step| step.step);
        if let Some(last) = trainer.last_step().filter(|last| last.step > known) {
            self.add_step(last)?;
            steps.push(last.clone());
        }
        Ok((steps, settled(&self.validations, |point: &ValidationPoint| point.step <= num_steps)?))
    }

    pub(super) fn add_step(&self, step: &StreamedStep) -> Result<(), SessionError> {
        append(&self.steps, step)
    }

    pub(super) fn add_validation(&self, point: &ValidationPoint) -> Result<(), SessionError> {
        append(&self.validations, point)
    }
}

/// The rows of a file that count; others go, and lines that are damaged.
fn settled<T: DeserializeOwned + Serialize>(path: &Path, counts: impl Fn(&T) -> bool) -> Result<Vec<T>, SessionError> {
    let Lines { rows, num_damaged } = read_lines::<T>(path)?;
    let num_lines = rows.len() + num_damaged;
    let rows: Vec<T> = rows.into_iter().filter(counts).collect();
    if rows.len() < num_lines {
        atomic_file::write(path, |file| {
            for row in &rows {
                serde_json::to_writer(&mut *file, row)?;
                file.write_all(b"\n")?;
            }
            Ok(())
        })?;
    }
    Ok(rows)
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
