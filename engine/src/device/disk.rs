//! Room on disks.

use std::path::Path;

/// The folder itself, or the nearest above it that exists.
#[must_use]
pub fn existing_folder(folder: &Path) -> &Path {
    folder.ancestors().find(|path| path.is_dir()).unwrap_or_else(|| Path::new("."))
}

/// Bytes that the disk has left on which `path` is or would be; `None` for a file system that cannot tell, or that is on
/// no disk, as `/proc`: writing will say so soon enough.
#[must_use]
pub fn free_disk_bytes(path: &Path) -> Option<u64> {
    let folder = existing_folder(path);
    let is_disk = fs4::total_space(folder).is_ok_and(|bytes| bytes > 0);
    if is_disk { fs4::available_space(folder).ok() } else { None }
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
    fn what_is_no_disk_has_no_room_to_tell_of() {
        assert_eq!(free_disk_bytes(Path::new("/proc/nowhere")), None);
    }
}
