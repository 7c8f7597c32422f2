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
    /// What it held, in a number: see [`crate::data::Dataset::fingerprint`]; absent in old runs.
    #[serde(default)]
    pub fingerprint: Option<String>,
    /// How its parts came about.
    pub split: SplitRecord,
    /// Trainable numbers of the model fitted to it.
    pub num_params: u64,
}

/// An open run folder, locked for this process.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    metrics: LineFile,
    validations: LineFile,
    events: LineFile,
    /// Held, not read: the lock ends when the file closes.
    _lock: File,
}

impl RunFolder {
    /// Creates a new folder below `root`, never over an old one.
    pub fn create(root: &Path, config: &RunConfig) -> Result<Self, RunFolderError> {
        std::fs::create_dir_all(root).map_err(|source| WriteError::new("creating", root, source))?;
        let stem = format!("{}-{}", jiff::Zoned::now().strftime("%Y%m%d-%H%M%S"), slug(&config.name));
        let path = create_unused(root, &stem)?;
        Self::begin(&path, config).inspect_err(|_| {
            // Nothing was learned in it. What cannot be removed is at least not hidden behind another error.
            let _ = std::fs::remove_dir_all(&path);
        })
    }

    /// Fills the new folder `path`.
    fn begin(path: &Path, config: &RunConfig) -> Result<Self, RunFolderError> {
        for inner in ["checkpoints", "samples"] {
            let inner = path.join(inner);
            std::fs::create_dir(&inner).map_err(|source| WriteError::new("creating", &inner, source))?;
        }
        let text = ron::ser::to_string_pretty(config, ron::ser::PrettyConfig::default())
            .map_err(|error| RunFolderError::Parse { what: error.to_string(), path: path.join("config.ron") })?;
        atomic_file::write_bytes(&path.join("config.ron"), text.as_bytes())?;
        Self::open(path)
    }

    /// Opens an existing run to go on with it.
    pub fn open(path: &Path) -> Result<Self, RunFolderError> {
        let lock_path = path.join("run.lock");
        let opened = OpenOptions::new().create(true).append(true).open(&lock_path);
        let lock = opened.map_err(|source| WriteError::new("opening", &lock_path, source))?;
        take_lock(&lock, path)?;
        Ok(Self {
            path: path.to_owned(),
            metrics: LineFile::open(path.join("metrics.jsonl"))?,
            validations: LineFile::open(path.join("validation.jsonl"))?,
            events: LineFile::open(path.join("events.jsonl"))?,
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
        self.metrics.push(row)
    }

    /// Appends a validation.
    pub fn push_validation(&mut self, point: &ValidationPoint) -> Result<(), RunFolderError> {
        self.validations.push(point)
    }

    /// Appends a log entry.
    pub fn push_event(&mut self, entry: &LogEntry) -> Result<(), RunFolderError> {
        self.events.push(entry)
    }

    /// Writes `data.json`.
    pub fn write_data_record(&self, record: &DataRecord) -> Result<(), RunFolderError> {
        write_json(&self.path.join("data.json"), record)
    }

    /// Forgets everything after `step`: a resumed run writes it anew. Returns how many damaged lines went too.
    pub fn truncate_after(&mut self, step: u64) -> Result<usize, RunFolderError> {
        let num_damaged = self.metrics.keep(|row: &StepMetrics| row.step <= step)?
            + self.validations.keep(|point: &ValidationPoint| point.step <= step)?
            + self.events.keep(|entry: &LogEntry| entry.step <= step)?;
        Ok(num_damaged)
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

/// What a `.jsonl` file of a run holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Lines<T> {
    /// The lines that could be read, in order.
    pub rows: Vec<T>,
    /// Lines that a kill or a full disk left damaged.
    pub num_damaged: usize,
}

/// Reads a `.jsonl` file of a run; a missing file has no lines. Errors: [`RunFolderError::Read`];
/// [`RunFolderError::Parse`] when there are lines and not one of them can be read.
pub fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Lines<T>, RunFolderError> {
    let mut found = Lines { rows: Vec::new(), num_damaged: 0 };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(source) => return Err(RunFolderError::Read { path: path.to_owned(), source }),
    };
    let mut first_error = None;
    for line in BufReader::new(file).split(b'\n') {
        let line = line.map_err(|source| RunFolderError::Read { path: path.to_owned(), source })?;
        match serde_json::from_slice(&line) {
            Ok(row) => found.rows.push(row),
            Err(error) => {
                found.num_damaged += 1;
                first_error.get_or_insert(error);
            }
        }
    }
    match first_error {
        // One line may be the only one, torn by a kill.
        Some(error) if found.rows.is_empty() && found.num_damaged > 1 => {
            let what = format!("none of {} lines can be read: {error}", found.num_damaged);
            Err(RunFolderError::Parse { what, path: path.to_owned() })
        }
        Some(_) | None => Ok(found),
    }
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

/// How often a lock that is held is tried again: a look at the folder holds it for a moment.
const LOCK_TRIES: u32 = 10;

/// Locks `lock` for this process. Errors: [`RunFolderError::Locked`] while another one holds it.
fn take_lock(lock: &File, folder: &Path) -> Result<(), RunFolderError> {
    for number in 1..=LOCK_TRIES {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(std::fs::TryLockError::WouldBlock) if number < LOCK_TRIES => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            Err(std::fs::TryLockError::WouldBlock) => break,
            Err(std::fs::TryLockError::Error(source)) => {
                return Err(RunFolderError::Read { path: folder.join("run.lock"), source });
            }
        }
    }
    Err(RunFolderError::Locked { path: folder.to_owned() })
}

/// A file that grows by whole lines of JSON.
#[derive(Debug)]
struct LineFile {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines.
    len: u64,
}

impl LineFile {
    /// Opens the file for appending.
    fn open(path: PathBuf) -> Result<Self, RunFolderError> {
        let opened = OpenOptions::new().create(true).append(true).read(true).open(&path);
        let file = opened.map_err(|source| WriteError::new("opening", &path, source))?;
        let len = file.metadata().map_err(|source| RunFolderError::Read { path: path.clone(), source })?.len();
        Ok(Self { path, file, len })
    }

    /// Appends `row`, whole or not at all: half a line, as a full disk leaves it, would spoil the next one too.
    fn push(&mut self, row: &impl Serialize) -> Result<(), RunFolderError> {
        let mut line = serde_json::to_vec(row)
            .map_err(|error| RunFolderError::Parse { what: error.to_string(), path: self.path.clone() })?;
        line.push(b'\n');
        if let Err(source) = self.file.write_all(&line) {
            let _ = self.file.set_len(self.len);
            return Err(WriteError::new("appending to", &self.path, source).into());
        }
        self.len += line.len() as u64;
        Ok(())
    }

    /// Keeps the lines that `keep` wants; returns how many damaged ones went.
    fn keep<T: DeserializeOwned + Serialize>(&mut self, keep: impl Fn(&T) -> bool) -> Result<usize, RunFolderError> {
        let Lines { rows, num_damaged } = read_lines::<T>(&self.path)?;
        atomic_file::write(&self.path, |file| {
            for row in rows.iter().filter(|row| keep(row)) {
                serde_json::to_writer(&mut *file, row)?;
                file.write_all(b"\n")?;
            }
            Ok(())
        })?;
        // The file was replaced: append to the new one.
        *self = Self::open(std::mem::take(&mut self.path))?;
        Ok(num_damaged)
    }
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

/// Letters, digits and dashes of `name`, lower case: what a run's folder is called by.
#[must_use]
pub fn slug(name: &str) -> String {
    let dashed: String =
        name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(48).collect();
    let joined = dashed.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    if joined.is_empty() { "run".to_owned() } else { joined }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn damaged_lines_are_passed_over_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("numbers.jsonl");
        std::fs::write(&path, b"1\n2\n{\"torn\": 3\n4\n\xff\n5").unwrap();
        assert_eq!(read_lines::<u32>(&path).unwrap(), Lines { rows: vec![1, 2, 4, 5], num_damaged: 2 });
        let mut file = LineFile::open(path.clone()).unwrap();
        assert_eq!(file.keep(|number: &u32| *number < 5).unwrap(), 2);
        file.push(&6).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n2\n4\n6\n");
    }

    #[test]
    fn a_file_of_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("numbers.jsonl");
        std::fs::write(&path, "these\nare\nwords\n").unwrap();
        let error = read_lines::<u32>(&path).unwrap_err().to_string();
        assert!(error.contains("none of 3 lines"), "{error}");
    }
}
