//! What the folder of a store says of itself: what it is for, and how far it is.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::files::read_json;
use super::layout::Precision;
use super::scratch_folder;
use super::store::{Commit, OffloadSettings};
use super::{OffloadError, StreamedStep};
use crate::hybrid::Pilot;
use crate::models::{ModelConfig, Network};

/// Folders of this format and earlier ones are understood. Since 2 a step can end with the blocks of a snapshot.
const FORMAT: u32 = 2;
/// What the store is for.
pub(super) const MANIFEST_FILE: &str = "manifest.json";
/// How far the training is; written last.
pub(super) const PROGRESS_FILE: &str = "progress.json";

/// What a store is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// Of the folder; a newer program's may not be understood. 1 where it is not said.
    #[serde(default = "first_format")]
    format: u32,
    model: ModelConfig,
    precision: Precision,
    commit: Commit,
    seed: u64,
    data: String,
    start: Option<String>,
}

/// How far a training is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Steps done.
    pub(super) step: u64,
    /// Updates that all blocks had; `None` in folders of before there were steps that move nothing.
    #[serde(default)]
    pub(super) num_updates: Option<u64>,
    /// What led the training, after the last step; `None` where nothing did.
    #[serde(default)]
    pub(super) pilot: Option<String>,
    /// True while the blocks of the snapshot take the place of the present ones.
    #[serde(default)]
    pub(super) is_going_back: bool,
    /// The last step, for whoever tells of steps and was ended before.
    #[serde(default)]
    pub(super) last_step: Option<Box<StreamedStep>>,
}

impl Progress {
    /// Updates that all blocks had: as many as steps, where nothing else is said.
    pub(super) fn num_updates(&self) -> u64 {
        self.num_updates.unwrap_or(self.step)
    }
}

impl Manifest {
    /// Of a training of `network` as `settings` say.
    pub(super) fn new(network: &Network, settings: &OffloadSettings, commit: Commit) -> Self {
        Self {
            format: FORMAT,
            model: network.config().clone(),
            precision: settings.precision,
            commit,
            seed: settings.seed,
            data: settings.data.clone(),
            start: settings.start.clone(),
        }
    }
}

/// What a folder says of itself.
pub(super) struct Found {
    /// What of a broken step counted so far.
    pub(super) commit: Option<Commit>,
    /// Steps done; `None` where not all blocks were made.
    pub(super) num_steps: Option<u64>,
    /// Peak learning rate of what led them, where that is known.
    pub(super) peak_learning_rate: Option<f64>,
}

/// What is in the folder of `settings`. Errors: another training, or something else.
pub(super) fn find(network: &Network, settings: &OffloadSettings) -> Result<Found, OffloadError> {
    let folder = &settings.folder;
    let manifest: Option<Manifest> = read_json(&folder.join(MANIFEST_FILE))?;
    match &manifest {
        Some(found) => check_same(found, network, settings)?,
        None => check_empty(folder)?,
    }
    let progress: Option<Progress> = read_json(&folder.join(PROGRESS_FILE))?;
    let peak_learning_rate = progress.as_ref().and_then(|found| Pilot::peak_learning_rate_of(found.pilot.as_deref()?));
    Ok(Found {
        commit: manifest.map(|found| found.commit),
        num_steps: progress.map(|found| found.step),
        peak_learning_rate,
    })
}

fn first_format() -> u32 {
    1
}

fn check_same(found: &Manifest, network: &Network, settings: &OffloadSettings) -> Result<(), OffloadError> {
    if found.format > FORMAT {
        return Err(OffloadError::Damaged {
            expected: format!("a folder of format {FORMAT} or earlier"),
            found: format!("format {}, of a newer version of this program", found.format),
            path: settings.folder.clone(),
        });
    }
    let differ = [
        ("model", found.model != *network.config()),
        ("precision", found.precision != settings.precision),
        ("seed", found.seed != settings.seed),
        ("data", found.data != settings.data),
        ("model to start from", found.start != settings.start),
    ];
    match differ.into_iter().find(|(_, differs)| *differs) {
        Some((what, _)) => Err(OffloadError::Other { what, path: settings.folder.clone() }),
        None => Ok(()),
    }
}

/// Refuses a folder in which there is anything but the lock.
fn check_empty(folder: &Path) -> Result<(), OffloadError> {
    let read = |source| OffloadError::Read { path: folder.to_owned(), source };
    if !folder.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let name = entry.map_err(read)?.file_name();
        // Others may rehearse here.
        let is_rehearsal = name.to_string_lossy().starts_with(scratch_folder::PREFIX);
        let is_small = ["lock", "manifest.json.partial", scratch_folder::LOCK_FILE].iter().any(|own| name == *own);
        if !is_small && !is_rehearsal {
            return Err(OffloadError::Taken { path: folder.to_owned() });
        }
    }
    Ok(())
}
