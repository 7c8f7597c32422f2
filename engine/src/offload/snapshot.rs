//! Earlier blocks that a training can go back to.
//!
//! A snapshot is a folder of hard links to the blocks as they were. Files of blocks are never written in place, so taking
//! one costs nothing, and room on the disk only as blocks move on: one more generation at most.
//!
//! ```text
//! snapshot/0007              a block as it was
//! snapshot/progress.json     after which step, with how many updates, and what led the training then
//! ```

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::OffloadError;
use super::files::{BlockFiles, Version, read_json, write_error, write_json};
use crate::device::atomic_file::{WriteError, sync_folder};

const FOLDER: &str = "snapshot";
/// One that is being taken.
const PARTIAL: &str = "snapshot.partial";
const PROGRESS_FILE: &str = "progress.json";

/// What a snapshot says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Snapshot {
    /// Steps done.
    pub(super) step: u64,
    /// Updates that all blocks had.
    pub(super) num_updates: u64,
    /// What led the training, after that step.
    pub(super) pilot: String,
}

/// Where the blocks of a store's snapshot are.
pub(super) fn folder(store: &Path) -> PathBuf {
    store.join(FOLDER)
}

impl Snapshot {
    /// The snapshot of a store; `None` where there is none that is whole. One whose taking was broken off after it was whole
    /// counts, whatever is left of the one before; one that was broken off earlier goes.
    pub(super) fn find(store: &Path, files: &BlockFiles) -> Result<Option<Self>, OffloadError> {
        let partial = store.join(PARTIAL);
        if partial.join(PROGRESS_FILE).exists() {
            Self::publish(store)?;
        }
        remove(&partial)?;
        let found: Option<Self> = read_json(&folder(store).join(PROGRESS_FILE))?;
        Ok(found.filter(|snapshot| snapshot.is_whole(store, files)))
    }

    /// True when each of its blocks is there, with the updates that it should have.
    pub(super) fn is_whole(&self, store: &Path, files: &BlockFiles) -> bool {
        let is_there = |block: usize| {
            let header = files.header_of(block, &folder(store).join(file_name(block)));
            header.is_ok_and(|header| header.step == self.num_updates)
        };
        (0..files.layouts.len()).all(is_there)
    }

    /// True when all of them can be read, too: asked before they take the place of others.
    pub(super) fn is_intact(&self, store: &Path, files: &BlockFiles) -> bool {
        let can_be_read = |block: usize| files.read_from(block, &folder(store).join(file_name(block))).is_ok();
        self.is_whole(store, files) && (0..files.layouts.len()).all(can_be_read)
    }

    /// Forgets what could be gone back to, and gives its room back.
    pub(super) fn discard(store: &Path) -> Result<(), OffloadError> {
        remove(&store.join(PARTIAL))?;
        remove(&folder(store))
    }

    /// Makes the present blocks those to go back to, instead of any before.
    /// Errors: [`OffloadError::NoLinks`] on a file system without hard links; nothing has changed then.
    pub(super) fn take(self, store: &Path, files: &BlockFiles) -> Result<Self, OffloadError> {
        if let Err(error) = self.take_partial(store, files) {
            // It would keep blocks alive that have moved on. That it is in the way is no worse than why.
            let _ = remove(&store.join(PARTIAL));
            return Err(error);
        }
        Self::publish(store)?;
        Ok(self)
    }

    fn take_partial(&self, store: &Path, files: &BlockFiles) -> Result<(), OffloadError> {
        let partial = store.join(PARTIAL);
        remove(&partial)?;
        fs::create_dir(&partial).map_err(|source| write_error(WriteError::new("creating", &partial, source)))?;
        for block in 0..files.layouts.len() {
            let (from, to) = (files.path(block, Version::Current), partial.join(file_name(block)));
            match fs::hard_link(&from, &to) {
                Ok(()) => {}
                // Systems have many ways to say that they cannot do that at all.
                Err(source) if block == 0 => return Err(OffloadError::NoLinks { source }),
                Err(source) => return Err(write_error(WriteError::new("linking to", &from, source))),
            }
        }
        write_json(&partial.join(PROGRESS_FILE), self)
    }

    /// Puts the one that was taken, and is whole, in the place of the one before.
    fn publish(store: &Path) -> Result<(), OffloadError> {
        let folder = folder(store);
        // First what makes it count, because the rest goes in any order.
        remove(&folder.join(PROGRESS_FILE))?;
        remove(&folder)?;
        rename(&store.join(PARTIAL), &folder)?;
        sync_folder(Some(store));
        Ok(())
    }

    /// Puts its blocks in the place of the present ones, and drops those of a step in progress. Can be repeated, and is
    /// where it was broken off.
    pub(super) fn put_back(store: &Path, files: &BlockFiles) -> Result<(), OffloadError> {
        for block in 0..files.layouts.len() {
            remove(&files.path(block, Version::Next))?;
            let current = files.path(block, Version::Current);
            let partial = current.with_extension("partial");
            remove(&partial)?;
            let from = folder(store).join(file_name(block));
            // Copied where the folder was moved to a file system without links.
            fs::hard_link(&from, &partial)
                .or_else(|_| fs::copy(&from, &partial).map(drop))
                .map_err(|source| write_error(WriteError::new("putting back", &from, source)))?;
            rename(&partial, &current)?;
            // A file that is renamed to another link of itself stays.
            remove(&partial)?;
        }
        sync_folder(Some(files.folder()));
        Ok(())
    }
}

fn file_name(block: usize) -> String {
    format!("{block:04}")
}

fn rename(from: &Path, to: &Path) -> Result<(), OffloadError> {
    fs::rename(from, to).map_err(|source| write_error(WriteError::new("renaming to", to, source)))
}

/// A file, or a folder with what is in it; nothing where there is none.
fn remove(path: &Path) -> Result<(), OffloadError> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(write_error(WriteError::new("removing", path, source)))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
