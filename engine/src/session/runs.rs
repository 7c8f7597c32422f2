//! Past runs: listed in a line each, or read back whole.

use std::path::Path;
use std::sync::Arc;

use super::history::num_divergences;
use super::run_folder::{self, RunFolderError, read_lines};
use super::{
    GuardEnd, HistoryView, LoadedRun, LogEntry, LogKind, RunConfig, RunSummary, Savings, SessionError, StepMetrics,
    StopReason, ValidationPoint, checkpoint,
};
use crate::hybrid::HybridEvent;
use crate::models::{ModelConfig, Network};

/// Runs below `root`, newest first; folders that are not runs are passed over.
pub fn list_runs(root: &Path) -> Result<Vec<RunSummary>, SessionError> {
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        // No run was ever made here.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(RunFolderError::Read { path: root.to_owned(), source }.into()),
    };
    let mut folders: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    folders.sort();
    let summaries = folders.iter().rev().filter(|folder| folder.join("config.ron").exists());
    Ok(summaries.map(|folder| summarize(folder).unwrap_or_else(|error| unreadable(folder, &error))).collect())
}

/// A run that is there and cannot be read, so that the user learns of it.
fn unreadable(folder: &Path, error: &SessionError) -> RunSummary {
    RunSummary {
        name: folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        folder: folder.to_owned(),
        dataset: String::new(),
        model: String::new(),
        tier: String::new(),
        step: 0,
        num_steps: 0,
        validation_loss: None,
        validation_accuracy: None,
        last_validation: None,
        started_unix_ms: None,
        config: None,
        ended: None,
        guard_end: None,
        num_divergences: 0,
        is_running: false,
        is_resumable: false,
        problem: Some(error.to_string()),
    }
}

/// A run in a line. Errors: an unreadable config or history.
pub fn summarize(folder: &Path) -> Result<RunSummary, SessionError> {
    let config = run_folder::read_config(folder)?;
    let record = run_folder::read_data_record(folder);
    let validations: Vec<ValidationPoint> = read_lines(&folder.join("validation.jsonl"))?.rows;
    let log: Vec<LogEntry> = read_lines(&folder.join("events.jsonl"))?.rows;
    let ended = match log.last().map(|entry| &entry.kind) {
        Some(LogKind::Ended(reason)) => Some(reason.clone()),
        _ => None,
    };
    let step = last_step(folder)?;
    let is_running = run_folder::is_locked(folder);
    let figures = validations.last().map(ValidationPoint::figures);
    let is_complete = validations.iter().any(|point| point.step >= config.num_steps);
    Ok(RunSummary {
        folder: folder.to_owned(),
        dataset: record.as_ref().map_or_else(String::new, |record| record.name.clone()),
        model: model_label(&config, record.map(|record| record.num_params)),
        tier: config.tier_label(),
        step,
        num_steps: config.num_steps,
        validation_loss: figures.map(|figures| figures.loss),
        validation_accuracy: figures.and_then(|figures| figures.accuracy),
        last_validation: validations.last().copied(),
        started_unix_ms: log.first().map(|entry| entry.unix_ms),
        ended,
        guard_end: guard_end(&log),
        num_divergences: num_divergences(&log),
        is_running,
        is_resumable: !is_running && !is_complete && !checkpoint::list(&folder.join("checkpoints")).is_empty(),
        name: config.name.clone(),
        config: Some(Arc::new(config)),
        problem: None,
    })
}

/// What the guard saw, when `log` says that it ended the run.
pub(super) fn guard_end(log: &[LogEntry]) -> Option<GuardEnd> {
    if log.last()?.kind != LogKind::Ended(StopReason::Diverged) {
        return None;
    }
    log.iter().rev().find_map(|entry| {
        let LogKind::Hybrid(HybridEvent::Diverged { divergence, restored_step, .. }) = entry.kind else { return None };
        Some(GuardEnd { step: entry.step, divergence, restored_step })
    })
}

/// A run, whole.
pub fn open_run(folder: &Path) -> Result<LoadedRun, SessionError> {
    let config = run_folder::read_config(folder)?;
    let rows: Vec<StepMetrics> = read_lines(&folder.join("metrics.jsonl"))?.rows;
    let mut savings = Savings { num_steps: rows.len() as u64, ..Savings::default() };
    for row in &rows {
        savings.backward_examples += u64::from(row.num_backward);
        savings.vanilla_examples += u64::from(row.num_examples);
        savings.measured_ms += f64::from(row.step_ms);
    }
    // What vanilla would have cost is in the checkpoints.
    let newest = checkpoint::list(&folder.join("checkpoints")).pop();
    if let Some(saved) = newest.and_then(|(_, path)| checkpoint::read_progress(&path).ok()).map(|saved| saved.savings) {
        savings.vanilla_step_ms = saved.vanilla_step_ms;
        // Steps after the last checkpoint were counted by nobody.
        savings.vanilla_ms = saved.vanilla_ms.filter(|_| saved.num_steps == savings.num_steps);
    }
    Ok(LoadedRun {
        folder: folder.to_owned(),
        num_params: run_folder::read_data_record(folder)
            .map_or_else(|| count_params(&config.model), |record| record.num_params),
        config,
        history: rows.into_iter().collect::<HistoryView>(),
        validations: read_lines(&folder.join("validation.jsonl"))?.rows,
        log: read_lines(&folder.join("events.jsonl"))?.rows,
        savings,
    })
}

/// "GPT-2, 0.82M parameters".
fn model_label(config: &RunConfig, num_params: Option<u64>) -> String {
    let family = match &config.model {
        ModelConfig::Mlp(_) => "MLP",
        ModelConfig::Cnn(_) => "CNN",
        ModelConfig::ResNet(_) => "ResNet",
        ModelConfig::Gpt2(_) => "GPT-2",
        ModelConfig::Llama(config) => config.family(),
    };
    let millions = num_params.unwrap_or_else(|| count_params(&config.model)) as f64 / 1e6;
    format!("{family}, {millions:.2}M parameters")
}

fn count_params(model: &ModelConfig) -> u64 {
    Network::new(model).map_or(0, |network| network.num_params() as u64)
}

/// Step of the last whole line of `metrics.jsonl`, reading only the file's end.
fn last_step(folder: &Path) -> Result<u64, SessionError> {
    use std::io::{Read, Seek, SeekFrom};
    /// A row is about 500 bytes.
    const TAIL_BYTES: u64 = 4096;
    let path = folder.join("metrics.jsonl");
    let read_tail = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(&path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(TAIL_BYTES)))?;
        let mut tail = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut tail)?;
        Ok(tail)
    };
    let tail = match read_tail() {
        Ok(tail) => tail,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(source) => return Err(RunFolderError::Read { path, source }.into()),
    };
    let lines = tail.split(|&byte| byte == b'\n').rev();
    Ok(lines
        .filter_map(|line| serde_json::from_slice::<StepMetrics>(line).ok())
        .map(|row| row.step)
        .next()
        .unwrap_or(0))
}
