//! A run on disk: a new folder each time, appended to step by step, readable after a crash.
//!
//! ```text
//! 20261123-064400-glyphs-cnn/
//!   config.ron        the recipe
//!   data.json         the dataset's name and split
//!   metrics.jsonl     one StepMetrics a line
//!   validation.jsonl  one ValidationPoint a line
//!   events.jsonl      one LogEntry a line
//!   samples/          what the model did on fixed inputs
//!   checkpoints/      see `checkpoint`
//!   run.lock          held while a process trains here
//! ```

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{LogEntry, RunConfig, StepMetrics, ValidationPoint};
use crate::data::SplitRecord;
use crate::device::atomic_file::{self, WriteError};

/// Errors of run folders.
#[derive(Debug, thiserror::Error)]
pub enum RunFolderError {
    /// A file or folder could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A file could not be read.
    #[error("reading {path:?}: {source}. Is this the folder of a run?")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file does not say what it should.
    #[error("reading a run: {what}. Was the file edited? {path:?}")]
    Parse {
        /// What was expected and found.
        what: String,
        /// The file.
        path: PathBuf,
    },
    /// Another process trains here.
    #[error("another Foretrain is training in this folder; close it first. {path:?}")]
    Locked {
        /// The run folder.
        path: PathBuf,
    },
}

/// What `data.json` holds.
#[derive(Debug, Clone, Serialize, serde::Deserialize)]
pub struct DataRecord {
    /// Dataset name.
    pub name: String,
    /// How its parts came about.
    pub split: SplitRecord,
    /// Trainable numbers of the model fitted to it.
    pub num_params: u64,
}

/// An open run folder, locked for this process.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    metrics: File,
    validations: File,
    events: File,
    /// Held, not read: the lock ends when the file closes.
    _lock: File,
}

impl RunFolder {
    /// Creates a new folder below `root`, never over an old one.
    pub fn create(root: &Path, config: &RunConfig) -> Result<Self, RunFolderError> {
        std::fs::create_dir_all(root).map_err(|source| WriteError::new("creating", root, source))?;
        let stem = format!("{}-{}", jiff::Zoned::now().strftime("%Y%m%d-%H%M%S"), slug(&config.name));
        let path = create_unused(root, &stem)?;
        for inner in ["checkpoints", "samples"] {
            let inner = path.join(inner);
            std::fs::create_dir(&inner).map_err(|source| WriteError::new("creating", &inner, source))?;
        }
        let text = ron::ser::to_string_pretty(config, ron::ser::PrettyConfig::default())
            .map_err(|error| RunFolderError::Parse { what: error.to_string(), path: path.join("config.ron") })?;
        atomic_file::write_bytes(&path.join("config.ron"), text.as_bytes())?;
        Self::open(&path)
    }

    /// Opens an existing run to go on with it.
    pub fn open(path: &Path) -> Result<Self, RunFolderError> {
        let lock = append(&path.join("run.lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(RunFolderError::Locked { path: path.to_owned() }),
            Err(std::fs::TryLockError::Error(source)) => {
                return Err(RunFolderError::Read { path: path.join("run.lock"), source });
            }
        }
        Ok(Self {
            path: path.to_owned(),
            metrics: append(&path.join("metrics.jsonl"))?,
            validations: append(&path.join("validation.jsonl"))?,
            events: append(&path.join("events.jsonl"))?,
            _lock: lock,
        })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a step.
    pub fn push_metrics(&mut self, row: &StepMetrics) -> Result<(), RunFolderError> {
        push_line(&mut self.metrics, &self.path.join("metrics.jsonl"), row)
    }

    /// Appends a validation.
    pub fn push_validation(&mut self, point: &ValidationPoint) -> Result<(), RunFolderError> {
        push_line(&mut self.validations, &self.path.join("validation.jsonl"), point)
    }

    /// Appends a log entry.
    pub fn push_event(&mut self, entry: &LogEntry) -> Result<(), RunFolderError> {
        push_line(&mut self.events, &self.path.join("events.jsonl"), entry)
    }

    /// Writes `data.json`.
    pub fn write_data_record(&self, record: &DataRecord) -> Result<(), RunFolderError> {
        write_json(&self.path.join("data.json"), record)
    }

    /// Forgets everything after `step`: a resumed run writes it anew.
    pub fn truncate_after(&mut self, step: u64) -> Result<(), RunFolderError> {
        keep_lines(&self.path.join("metrics.jsonl"), |row: &StepMetrics| row.step <= step)?;
        keep_lines(&self.path.join("validation.jsonl"), |point: &ValidationPoint| point.step <= step)?;
        keep_lines(&self.path.join("events.jsonl"), |entry: &LogEntry| entry.step <= step)?;
        // The files were replaced: append to the new ones.
        self.metrics = append(&self.path.join("metrics.jsonl"))?;
        self.validations = append(&self.path.join("validation.jsonl"))?;
        self.events = append(&self.path.join("events.jsonl"))?;
        Ok(())
    }
}

/// Reads `config.ron`.
pub fn read_config(folder: &Path) -> Result<RunConfig, RunFolderError> {
    let path = folder.join("config.ron");
    let text = std::fs::read_to_string(&path).map_err(|source| RunFolderError::Read { path: path.clone(), source })?;
    ron::from_str(&text).map_err(|error| RunFolderError::Parse { what: error.to_string(), path })
}

/// Reads `data.json`; `None` when the run never got that far.
#[must_use]
pub fn read_data_record(folder: &Path) -> Option<DataRecord> {
    serde_json::from_slice(&std::fs::read(folder.join("data.json")).ok()?).ok()
}

/// Reads a `.jsonl` file of a run; a missing file has no lines, a torn last line is dropped.
pub fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, RunFolderError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(RunFolderError::Read { path: path.to_owned(), source }),
    };
    let lines: Vec<String> = BufReader::new(file)
        .lines()
        .collect::<Result<_, _>>()
        .map_err(|source| RunFolderError::Read { path: path.to_owned(), source })?;
    let last = lines.len().saturating_sub(1);
    let mut rows = Vec::with_capacity(lines.len());
    for (index, line) in lines.iter().enumerate() {
        match serde_json::from_str(line) {
            Ok(row) => rows.push(row),
            // A kill can tear the line that was being written.
            Err(_) if index == last => {}
            Err(error) => {
                let what = format!("line {}: {error}", index + 1);
                return Err(RunFolderError::Parse { what, path: path.to_owned() });
            }
        }
    }
    Ok(rows)
}

/// True while a process trains in `folder`.
#[must_use]
pub fn is_locked(folder: &Path) -> bool {
    File::open(folder.join("run.lock")).is_ok_and(|file| file.try_lock().is_err())
}

/// Writes `value` as indented JSON, whole or not at all.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), RunFolderError> {
    let bytes = serde_json::to_vec_pretty(value)
        .map_err(|error| RunFolderError::Parse { what: error.to_string(), path: path.to_owned() })?;
    Ok(atomic_file::write_bytes(path, &bytes)?)
}

fn append(path: &Path) -> Result<File, RunFolderError> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    Ok(opened.map_err(|source| WriteError::new("opening", path, source))?)
}

fn push_line(file: &mut File, path: &Path, row: &impl Serialize) -> Result<(), RunFolderError> {
    let mut line = serde_json::to_vec(row)
        .map_err(|error| RunFolderError::Parse { what: error.to_string(), path: path.to_owned() })?;
    line.push(b'\n');
    Ok(file.write_all(&line).map_err(|source| WriteError::new("appending to", path, source))?)
}

fn keep_lines<T: DeserializeOwned + Serialize>(path: &Path, keep: impl Fn(&T) -> bool) -> Result<(), RunFolderError> {
    let rows: Vec<T> = read_lines(path)?;
    Ok(atomic_file::write(path, |file| {
        for row in rows.iter().filter(|row| keep(row)) {
            serde_json::to_writer(&mut *file, row)?;
            file.write_all(b"\n")?;
        }
        Ok(())
    })?)
}

/// Creates `root/stem`, or `root/stem-2`, … when that exists.
fn create_unused(root: &Path, stem: &str) -> Result<PathBuf, RunFolderError> {
    let mut path = root.join(stem);
    for number in 2.. {
        match std::fs::create_dir(&path) {
            Ok(()) => break,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                path = root.join(format!("{stem}-{number}"));
            }
            Err(source) => return Err(WriteError::new("creating", &path, source).into()),
        }
    }
    Ok(path)
}

/// Letters, digits and dashes of `name`, lower case.
fn slug(name: &str) -> String {
    let dashed: String =
        name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(48).collect();
    let joined = dashed.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    if joined.is_empty() { "run".to_owned() } else { joined }
}
