//! Files that are whole or absent: written beside, synced, renamed.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// A write that failed; the old file, if any, is untouched.
#[derive(Debug, thiserror::Error)]
#[error("{tried} {path:?}: {source}. {hint}")]
pub struct WriteError {
    /// What was tried: "writing", "renaming to".
    pub tried: &'static str,
    /// The path.
    pub path: PathBuf,
    /// The cause.
    pub source: std::io::Error,
    /// What to do.
    pub hint: &'static str,
}

impl WriteError {
    /// Wraps an i/o error with a hint that fits its kind.
    #[must_use]
    pub fn new(tried: &'static str, path: &Path, source: std::io::Error) -> Self {
        use std::io::ErrorKind;
        let hint = match source.kind() {
            ErrorKind::PermissionDenied => "Choose a folder that you may write to",
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                "Free disk space or choose another disk; what was saved before is intact"
            }
            ErrorKind::NotFound => "Does the folder still exist?",
            ErrorKind::NotADirectory => "A file lies where a folder should be; choose another place",
            ErrorKind::ReadOnlyFilesystem => "That disk is read-only; choose another folder",
            _ => "Is the disk in order?",
        };
        Self { tried, path: path.to_owned(), source, hint }
    }
}

/// Writes `path` through `fill`, so that it is the whole new file or what it was before.
pub fn write(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) -> Result<(), WriteError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = path.with_file_name(name);
    let written = write_synced(&partial, fill);
    if let Err(source) = written {
        let _ = std::fs::remove_file(&partial);
        return Err(WriteError::new("writing", path, source));
    }
    if let Err(source) = std::fs::rename(&partial, path) {
        let _ = std::fs::remove_file(&partial);
        return Err(WriteError::new("renaming to", path, source));
    }
    sync_folder(path.parent());
    Ok(())
}

/// Writes bytes; see [`write`].
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    write(path, |file| file.write_all(bytes))
}

/// Makes a finished folder visible under its real name, which must not exist.
pub fn publish_folder(partial: &Path, path: &Path) -> Result<(), WriteError> {
    publish(partial, path)
}

/// Makes a finished file visible under its real name, which must not exist.
pub fn publish_file(partial: &Path, path: &Path) -> Result<(), WriteError> {
    publish(partial, path)
}

fn publish(partial: &Path, path: &Path) -> Result<(), WriteError> {
    // `symlink_metadata` also finds a dangling link, which `exists` would not.
    if path.symlink_metadata().is_ok() {
        let source = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
        return Err(WriteError::new("renaming to", path, source));
    }
    std::fs::rename(partial, path).map_err(|source| WriteError::new("renaming to", path, source))?;
    sync_folder(path.parent());
    Ok(())
}

fn write_synced(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) -> std::io::Result<()> {
    let mut writer = BufWriter::new(File::create(path)?);
    fill(&mut writer)?;
    writer.flush()?;
    writer.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
}

/// A rename survives a power cut once its folder is synced; where folders cannot be opened, the system does it.
/// Waits until the disk has the names in a folder, where the system can do that.
pub(crate) fn sync_folder(folder: Option<&Path>) {
    if let Some(folder) = folder.and_then(|folder| File::open(folder).ok()) {
        let _ = folder.sync_all();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn num_entries(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_rename_that_fails_leaves_no_partial() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("taken");
        // A file cannot take the name of a folder.
        std::fs::create_dir(&path).unwrap();
        let error = write_bytes(&path, b"new").unwrap_err();
        assert_eq!(error.tried, "renaming to");
        assert!(path.is_dir() && num_entries(root.path()) == 1);
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        write_bytes(&path, b"old").unwrap();
        let failing = |file: &mut BufWriter<File>| {
            file.write_all(b"new")?;
            Err(std::io::Error::other("stopped"))
        };
        assert_eq!(write(&path, failing).unwrap_err().tried, "writing");
        assert_eq!((std::fs::read(&path).unwrap().as_slice(), num_entries(root.path())), (&b"old"[..], 1));
    }

    #[test]
    fn published_files_replace_nothing() {
        let root = tempfile::tempdir().unwrap();
        let (partial, path) = (root.path().join("partial"), root.path().join("file"));
        std::fs::write(&partial, "new").unwrap();
        std::fs::write(&path, "old").unwrap();
        assert!(publish_file(&partial, &path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        std::fs::remove_file(&path).unwrap();
        publish_file(&partial, &path).unwrap();
        assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), num_entries(root.path())), ("new", 1));
    }
}
