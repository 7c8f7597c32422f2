//! A file that takes its name only once it was checked.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::ExportError;
use super::leftovers::{partial_path, remove_leftovers};
use crate::device::atomic_file;

/// Checks that a new file can be called `path`: nothing has that name yet, and the folder above is there.
/// Errors: [`ExportError::NewFile`].
pub fn check_new_file(path: &Path) -> Result<(), ExportError> {
    folder_and_name(path).map(|_| ())
}

/// A name beside the one wanted; the file of that name is removed when this is dropped before it is published.
#[derive(Debug)]
pub(super) struct PartialFile {
    path: PathBuf,
    target: PathBuf,
    is_published: bool,
}

impl PartialFile {
    /// Chooses `.NAME.partial-PID` beside `target` and writes nothing yet; removes what killed processes left there.
    /// Errors: [`ExportError::NewFile`].
    pub(super) fn new(target: &Path) -> Result<Self, ExportError> {
        let (folder, name) = folder_and_name(target)?;
        remove_leftovers(folder, name);
        Ok(Self { path: partial_path(folder, name), target: target.to_owned(), is_published: false })
    }

    /// Where to write.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its name. Errors: [`ExportError::NewFile`] when somebody took it meanwhile.
    pub(super) fn publish(mut self) -> Result<(), ExportError> {
        check_new_file(&self.target)?;
        atomic_file::publish_file(&self.path, &self.target)?;
        self.is_published = true;
        Ok(())
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.is_published {
            // It may not have been written yet; what matters is that the real name was never taken.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn folder_and_name(path: &Path) -> Result<(&Path, &OsStr), ExportError> {
    let refuse = |expected, found, hint| ExportError::NewFile { expected, found, hint, path: path.to_owned() };
    // `symlink_metadata` also finds a dangling link, which `exists` would not.
    if let Ok(metadata) = path.symlink_metadata() {
        let found = if metadata.is_dir() { "an existing folder" } else { "an existing one" };
        return Err(refuse("a new file", found, "Choose another name: nothing is ever written over"));
    }
    let Some(name) = path.file_name() else {
        return Err(refuse("the name of a file", "none", "End the path in a name"));
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if folder.is_dir() {
        return Ok((folder, name));
    }
    let found = if folder.exists() { "a file in its place" } else { "no such folder" };
    Err(refuse("a folder to write into", found, "Create the folder, or choose another"))
}
