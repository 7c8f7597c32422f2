//! Room on disks.

use std::path::Path;

/// The folder itself, or the nearest above it that exists.
#[must_use]
pub fn existing_folder(folder: &Path) -> &Path {
    folder.ancestors().find(|path| path.is_dir()).unwrap_or_else(|| Path::new("."))
}

/// Bytes that the disk has left on which `path` is or would be; `None` for a file system that cannot tell: writing will
/// say so soon enough.
#[must_use]
pub fn free_disk_bytes(path: &Path) -> Option<u64> {
    fs4::available_space(existing_folder(path)).ok()
}

/// False where `path` is or would be on no disk, as in `/proc`, which is not full but no place for files.
#[must_use]
pub fn is_on_disk(path: &Path) -> bool {
    fs4::total_space(existing_folder(path)).is_ok_and(|bytes| bytes > 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_yet_is_on_the_disk_of_the_folder_above() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(existing_folder(&root.path().join("a/b/c")), root.path());
        assert!(free_disk_bytes(&root.path().join("a/b")).unwrap() > 0);
        assert!(free_disk_bytes(Path::new("nowhere")).unwrap() > 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_no_disk_is_told_from_a_full_one() {
        let root = tempfile::tempdir().unwrap();
        assert!(is_on_disk(&root.path().join("a/b")) && !is_on_disk(Path::new("/proc/nowhere")));
    }
}
