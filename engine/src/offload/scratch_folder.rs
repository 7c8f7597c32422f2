//! A place on disk for blocks that nobody keeps.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::OffloadError;
use super::files::write_error;
use crate::device::atomic_file::WriteError;
use crate::device::existing_folder;

/// Such folders begin like this; one that a killed process left is no reason to refuse what lies beside it.
pub(super) const PREFIX: &str = "scratch-";

/// Held by the owner of a folder as long as it lives.
pub(super) const LOCK_FILE: &str = "scratch.lock";

/// A folder that goes with its owner.
#[derive(Debug)]
pub struct ScratchFolder {
    path: PathBuf,
    /// Held, not read.
    _lock: File,
}

impl ScratchFolder {
    /// A new one in `folder`, or in the nearest above it that exists; those go that processes left there that were killed.
    /// Errors: [`OffloadError::Write`].
    pub fn new(folder: &Path) -> Result<Self, OffloadError> {
        remove_left(existing_folder(folder));
        // One that is there may be another process's: of another machine, where the disk is shared.
        for number in 0_u32.. {
            let path = existing_folder(folder).join(format!("{PREFIX}{}-{number}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => {
                    let lock = path.join(LOCK_FILE);
                    let opened = File::create(&lock).and_then(|file| file.lock().map(|()| file));
                    let opened = opened.map_err(|source| write_error(WriteError::new("creating", &lock, source)));
                    return Ok(Self { path, _lock: opened? });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(source) => return Err(write_error(WriteError::new("creating", &path, source))),
            }
        }
        unreachable!("no disk has so many folders")
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Removes the folders whose owners are gone. One without a lock is being made, or of an earlier version: it is left.
fn remove_left(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_scratch = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let lock = File::open(entry.path().join(LOCK_FILE)).ok().filter(|_| is_scratch);
        if lock.is_some_and(|lock| lock.try_lock().is_ok()) {
            // What cannot be removed is left.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        // What cannot be removed is left.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
