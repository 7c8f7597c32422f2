//! Checkpoints: everything a run needs to go on, or a user to ship the model.
//!
//! ```text
//! checkpoints/
//!   step-00000400/
//!     model.safetensors     weights as they would be shipped (averaged, when the run averages)
//!     trainer.safetensors   weights being trained, optimizer, average
//!     trainer.json          phases, gate, forecaster, guard
//!     progress.json         step, seeds' position, savings, rollback step
//!     card.json             model, data, recipe, figures
//!     config.json, tokenizer.json   in Hugging Face's layout, where the family has one
//!     COMPLETE              the marker, written last
//!   best                    text: the name of the best step's folder
//! ```
//!
//! Written to a hidden name, synced, renamed; without the marker it does not count.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Savings;
use super::run_folder::{RunFolderError, write_json};
use crate::device::atomic_file::{self, WriteError};
use crate::device::free_disk_bytes;
use crate::evaluation::Evaluation;
use crate::export::{self, ExportError, ModelCard};
use crate::hybrid::TrainerState;
use crate::models::{ModelError, Params, hf_config};
use crate::unwatched;

/// Name of the marker file.
pub const MARKER: &str = "COMPLETE";

/// Errors of checkpoints.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Writing failed; older checkpoints are intact.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A JSON file failed.
    #[error(transparent)]
    Folder(#[from] RunFolderError),
    /// The model has no Hugging Face config.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// There is none to resume from.
    #[error("no complete checkpoint to resume from. Start a new run. {path:?}")]
    None {
        /// The run folder.
        path: PathBuf,
    },
    /// A tensor file could not be read, or composed.
    #[error(transparent)]
    Weights(#[from] ExportError),
    /// The disk is too full to try.
    #[error(
        "saving a checkpoint: {needed} needed, {available} free. Free disk space or choose another disk; earlier checkpoints are intact. {path:?}"
    )]
    DiskFull {
        /// Bytes needed, in words.
        needed: String,
        /// Bytes free, in words.
        available: String,
        /// The checkpoint.
        path: PathBuf,
    },
}

/// Where the session stands, beside the trainer's own state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionProgress {
    /// Steps done; batches are a function of it.
    pub step: u64,
    /// Step of the rollback snapshot, itself a checkpoint; `None` before the first.
    pub good_step: Option<u64>,
    /// The best checkpoint so far.
    pub best: Option<Best>,
    /// What prediction saved so far.
    pub savings: Savings,
}

/// The best checkpoint: the latest whose validation loss lies within one standard error of the lowest.
///
/// A validation on a part of the data is a noisy figure, and the lowest of many is low by luck too; what is later in a
/// run, after more steps and at a lower learning rate, is better as long as the figures do not say otherwise. Breiman et
/// al. 1984, "Classification and Regression Trees", section 3.4.3: the one-standard-error rule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Its step.
    pub step: u64,
    /// The lowest validation loss of the run, nats.
    pub lowest_loss: f64,
    /// The standard error of that.
    pub lowest_error: f64,
}

impl Best {
    /// The best after a validation at `step`; `None` when it stays what it was, as it does on NaN.
    #[must_use]
    pub fn after(last: Option<Self>, step: u64, measured: &Evaluation) -> Option<Self> {
        let (loss, error) = (measured.loss, if measured.loss_error.is_finite() { measured.loss_error } else { 0.0 });
        match last {
            _ if !loss.is_finite() => None,
            Some(last) if loss >= last.lowest_loss => {
                (loss <= last.lowest_loss + last.lowest_error).then_some(Self { step, ..last })
            }
            Some(_) | None => Some(Self { step, lowest_loss: loss, lowest_error: error }),
        }
    }
}

/// What a checkpoint is made of.
#[derive(Debug)]
pub struct CheckpointContent<'a> {
    /// Trainer state.
    pub trainer: &'a TrainerState,
    /// Weights to ship.
    pub model: &'a Params,
    /// Session state.
    pub progress: &'a SessionProgress,
    /// Description.
    pub card: &'a ModelCard,
    /// Tokenizer in Hugging Face's format, for text.
    pub tokenizer_json: Option<&'a str>,
}

/// Name of the folder of `step`.
#[must_use]
pub fn folder_name(step: u64) -> String {
    format!("step-{step:08}")
}

/// Writes a checkpoint below `root` (the run's `checkpoints` folder); returns its folder.
pub fn save(root: &Path, content: &CheckpointContent<'_>) -> Result<PathBuf, CheckpointError> {
    let name = folder_name(content.progress.step);
    let path = root.join(&name);
    if path.join(MARKER).exists() {
        return Ok(path);
    }
    check_disk_space(root, &path, content)?;
    let partial = root.join(format!(".{name}.partial"));
    let written = fill(&partial, content).and_then(|()| Ok(atomic_file::publish_folder(&partial, &path)?));
    if let Err(error) = written {
        let _ = std::fs::remove_dir_all(&partial);
        return Err(error);
    }
    Ok(path)
}

/// A checkpoint to go on from.
#[derive(Debug)]
pub struct Loaded {
    /// Trainer state.
    pub state: TrainerState,
    /// Session state.
    pub progress: SessionProgress,
    /// What is wrong with newer checkpoints.
    pub warnings: Vec<String>,
}

/// Reads the newest checkpoint below `root` that can be read. Errors: [`CheckpointError::None`] without any in `run`;
/// the newest one's error when none can be read.
pub fn load_newest(root: &Path, run: &Path) -> Result<Loaded, CheckpointError> {
    let mut first_error = None;
    let mut warnings = Vec::new();
    for (step, path) in list(root).into_iter().rev() {
        match load(&path) {
            Ok((state, progress)) => return Ok(Loaded { state, progress, warnings }),
            Err(error) => {
                warnings.push(format!("the checkpoint of step {step} cannot be read: {error}"));
                first_error.get_or_insert(error);
            }
        }
    }
    Err(first_error.unwrap_or_else(|| CheckpointError::None { path: run.to_owned() }))
}

/// Reads what is needed to go on.
pub fn load(path: &Path) -> Result<(TrainerState, SessionProgress), CheckpointError> {
    let tensors = export::read_params(&path.join("trainer.safetensors"), unwatched!())?;
    let control_path = path.join("trainer.json");
    let control =
        std::fs::read_to_string(&control_path).map_err(|source| RunFolderError::Read { path: control_path, source })?;
    Ok((TrainerState { tensors, control }, read_progress(path)?))
}

/// Reads where the session stood.
pub fn read_progress(path: &Path) -> Result<SessionProgress, CheckpointError> {
    let path = path.join("progress.json");
    let bytes = std::fs::read(&path).map_err(|source| RunFolderError::Read { path: path.clone(), source })?;
    let parsed = serde_json::from_slice(&bytes);
    Ok(parsed.map_err(|error| RunFolderError::Parse { what: error.to_string(), path })?)
}

/// Complete checkpoints below `root`, oldest first.
#[must_use]
pub fn list(root: &Path) -> Vec<(u64, PathBuf)> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut found: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let step = entry.file_name().to_str()?.strip_prefix("step-")?.parse().ok()?;
            entry.path().join(MARKER).exists().then(|| (step, entry.path()))
        })
        .collect();
    found.sort();
    found
}

/// Names the best step's folder in `root/best`.
pub fn mark_best(root: &Path, step: u64) -> Result<(), CheckpointError> {
    Ok(atomic_file::write_bytes(&root.join("best"), folder_name(step).as_bytes())?)
}

/// Deletes all complete checkpoints but the newest `keep_last`, the best, and `good_step`, and what a crash left.
pub fn rotate(root: &Path, keep_last: usize, progress: &SessionProgress) {
    let checkpoints = list(root);
    let num_old = checkpoints.len().saturating_sub(keep_last.max(1));
    let best_step = progress.best.map(|best| best.step);
    for (step, path) in &checkpoints[..num_old] {
        if Some(*step) != best_step && Some(*step) != progress.good_step {
            // The marker goes first, so that a crash in between leaves no half checkpoint that counts.
            let _ = std::fs::remove_file(path.join(MARKER));
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

/// Deletes what a killed process left half written.
pub fn remove_leftovers(root: &Path) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let is_partial = entry.file_name().to_string_lossy().ends_with(".partial");
        let is_unmarked =
            entry.file_name().to_string_lossy().starts_with("step-") && !entry.path().join(MARKER).exists();
        if is_partial || is_unmarked {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn fill(partial: &Path, content: &CheckpointContent<'_>) -> Result<(), CheckpointError> {
    if partial.exists() {
        std::fs::remove_dir_all(partial).map_err(|source| WriteError::new("removing", partial, source))?;
    }
    std::fs::create_dir_all(partial).map_err(|source| WriteError::new("creating", partial, source))?;
    write_tensors(&partial.join("model.safetensors"), content.model)?;
    write_tensors(&partial.join("trainer.safetensors"), &content.trainer.tensors)?;
    atomic_file::write_bytes(&partial.join("trainer.json"), content.trainer.control.as_bytes())?;
    write_json(&partial.join("progress.json"), content.progress)?;
    write_json(&partial.join("card.json"), content.card)?;
    if content.card.is_language_model() {
        write_json(&partial.join("config.json"), &hf_config::to_json(&content.card.model)?)?;
    }
    if let Some(tokenizer) = content.tokenizer_json {
        atomic_file::write_bytes(&partial.join("tokenizer.json"), tokenizer.as_bytes())?;
    }
    atomic_file::write_bytes(&partial.join(MARKER), b"")?;
    Ok(())
}

/// f32 tensors in name order, streamed to the file and synced.
fn write_tensors(path: &Path, params: &Params) -> Result<(), CheckpointError> {
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    match export::write_params(path, params, &metadata, unwatched!()) {
        Err(ExportError::Write(error)) => Err(error.into()),
        written => Ok(written?),
    }
}

/// Fails before the first byte when the disk has too little room.
fn check_disk_space(root: &Path, path: &Path, content: &CheckpointContent<'_>) -> Result<(), CheckpointError> {
    let bytes_of =
        |params: &Params| params.iter().map(|(_, t)| t.elem_count() * t.dtype().size_in_bytes()).sum::<usize>();
    let needed = (bytes_of(content.model) + bytes_of(&content.trainer.tensors)) as u64 + (1 << 20);
    match free_disk_bytes(root) {
        Some(available) if available < needed => Err(CheckpointError::DiskFull {
            needed: crate::memory::format_bytes(needed),
            available: crate::memory::format_bytes(available),
            path: path.to_owned(),
        }),
        // A system that does not tell how much is free must not stop a save.
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The step that is best after these validations, every 100 steps, each with a standard error of 0.01.
    fn best_of(losses: &[f64]) -> Option<u64> {
        let mut best = None;
        for (index, &loss) in (1..).zip(losses) {
            let measured = Evaluation { loss, accuracy: None, num_examples: 100, loss_error: 0.01 };
            best = Best::after(best, index * 100, &measured).or(best);
        }
        best.map(|best| best.step)
    }

    #[test]
    fn the_latest_within_one_standard_error_is_the_best() {
        assert_eq!(best_of(&[]), None);
        assert_eq!(best_of(&[0.5, 0.4, 0.3]), Some(300));
        assert_eq!(best_of(&[0.5, 0.300, 0.308, 0.305]), Some(400), "no worse than luck explains");
        assert_eq!(best_of(&[0.5, 0.300, 0.308, 0.32, 0.35]), Some(300), "worse: it begins to overfit");
        assert_eq!(best_of(&[0.300, 0.309, 0.320]), Some(200), "the bar stays at the lowest");
        assert_eq!(best_of(&[0.3, f64::NAN]), Some(100));
    }
}
