//! A folder that becomes visible whole or leaves nothing behind.

use std::path::{Path, PathBuf};

use super::ExportError;
use super::leftovers::{partial_path, remove_leftovers};
use crate::device::atomic_file::{self, WriteError};
use crate::device::free_disk_bytes;

/// Checks that the disk of `path`, which need not be there, has `needed_bytes` left.
/// Errors: [`ExportError::DiskSpace`] with both numbers.
pub fn check_room(path: &Path, needed_bytes: u64) -> Result<(), ExportError> {
    match free_disk_bytes(path) {
        Some(free_bytes) if free_bytes < needed_bytes => {
            Err(ExportError::DiskSpace { needed_bytes, free_bytes, path: path.to_owned() })
        }
        Some(_) | None => Ok(()),
    }
}

/// A folder beside the one wanted; removed when dropped before it is published.
#[derive(Debug)]
pub(super) struct PartialFolder {
    path: PathBuf,
    target: PathBuf,
    /// Folders above that were created for it, innermost last.
    created: Vec<PathBuf>,
    is_published: bool,
}

impl PartialFolder {
    /// Creates `.NAME.partial-PID` beside `target`, after a look at whether the disk has `needed_bytes` free; removes
    /// what killed processes left there for the same NAME, see [`remove_leftovers`].
    /// Errors: [`ExportError::Exists`], [`ExportError::DiskSpace`], [`ExportError::Write`].
    pub(super) fn create(target: &Path, needed_bytes: u64) -> Result<Self, ExportError> {
        // `symlink_metadata` also finds a dangling link, which `exists` would not.
        if target.symlink_metadata().is_ok() {
            return Err(ExportError::Exists { path: target.to_owned() });
        }
        let name = target.file_name().ok_or_else(|| {
            let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "it ends in no name");
            WriteError::new("creating", target, source)
        })?;
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        remove_leftovers(&parent, name);
        let missing: Vec<PathBuf> = parent
            .ancestors()
            .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
            .map(Path::to_owned)
            .collect();
        check_room(target, needed_bytes)?;
        let path = partial_path(&parent, name);
        let mut folder = Self { path, target: target.to_owned(), created: Vec::new(), is_published: false };
        for parent in missing.into_iter().rev() {
            std::fs::create_dir(&parent).map_err(|source| WriteError::new("creating", &parent, source))?;
            folder.created.push(parent);
        }
        // One that is there already was left by a process that was killed and had our number: nobody else's.
        let _ = std::fs::remove_dir_all(&folder.path);
        std::fs::create_dir(&folder.path).map_err(|source| WriteError::new("creating", &folder.target, source))?;
        Ok(folder)
    }

    /// Where to write.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the folder its name. Errors: [`ExportError::Exists`] when somebody took it meanwhile.
    pub(super) fn publish(mut self) -> Result<PathBuf, ExportError> {
        if self.target.symlink_metadata().is_ok() {
            return Err(ExportError::Exists { path: self.target.clone() });
        }
        atomic_file::publish_folder(&self.path, &self.target)?;
        self.is_published = true;
        Ok(self.target.clone())
    }
}

impl Drop for PartialFolder {
    fn drop(&mut self) {
        if self.is_published {
            return;
        }
        // Nothing better can be done with a failure here; what matters is that the real name was never taken.
        let _ = std::fs::remove_dir_all(&self.path);
        for folder in self.created.iter().rev() {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn dropped_leaves_nothing_published_leaves_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("a/b/package");
        let partial = PartialFolder::create(&target, 1).unwrap();
        std::fs::write(partial.path().join("file"), "x").unwrap();
        drop(partial);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
        let partial = PartialFolder::create(&target, 1).unwrap();
        std::fs::write(partial.path().join("file"), "x").unwrap();
        partial.publish().unwrap();
        assert!(target.join("file").is_file());
        assert_eq!(std::fs::read_dir(target.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn existing_folders_and_full_disks_are_refused_before_anything_is_written() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("package");
        assert!(matches!(PartialFolder::create(&target, u64::MAX), Err(ExportError::DiskSpace { .. })));
        std::fs::create_dir(&target).unwrap();
        assert!(matches!(PartialFolder::create(&target, 1), Err(ExportError::Exists { .. })));
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_a_killed_process_left_is_removed() {
        let root = tempfile::tempdir().unwrap();
        // Linux numbers processes up to 4194304.
        std::fs::create_dir(root.path().join(".package.partial-4194305")).unwrap();
        std::fs::write(root.path().join(".package.partial-4194305/model.gguf"), "half").unwrap();
        PartialFolder::create(&root.path().join("package"), 1).unwrap().publish().unwrap();
        let names: Vec<_> = std::fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["package"]);
    }

    #[test]
    fn a_name_taken_meanwhile_is_not_written_over() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("package");
        let partial = PartialFolder::create(&target, 1).unwrap();
        std::fs::write(&target, "somebody else's").unwrap();
        assert!(matches!(partial.publish(), Err(ExportError::Exists { .. })));
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "somebody else's");
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
