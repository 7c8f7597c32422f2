//! A place on disk for blocks that nobody keeps.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::OffloadError;
use super::files::write_error;
use crate::device::atomic_file::WriteError;
use crate::device::existing_folder;

/// Such folders begin like this; one that a killed process left is no reason to refuse what lies beside it.
pub(super) const PREFIX: &str = "scratch-";

/// A folder that goes with its owner.
#[derive(Debug)]
pub struct ScratchFolder(PathBuf);

impl ScratchFolder {
    /// A new one in `folder`, or in the nearest above it that exists. Errors: [`OffloadError::Write`].
    pub fn new(folder: &Path) -> Result<Self, OffloadError> {
        // One that is there may be another process's: of another machine, where the disk is shared.
        for number in 0_u32.. {
            let path = existing_folder(folder).join(format!("{PREFIX}{}-{number}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(source) => return Err(write_error(WriteError::new("creating", &path, source))),
            }
        }
        unreachable!("no disk has so many folders")
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        // What cannot be removed is left.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
