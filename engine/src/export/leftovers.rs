//! Names of what is not finished yet, and what killed processes leave under such names.

use std::ffi::OsStr;
use std::fs::DirEntry;
use std::path::{Path, PathBuf};

use foretrain_edge::{is_unfinished, partial_prefix};

use super::ExportError;

/// `.NAME.partial-PID` in `folder`, for this process.
pub(super) fn partial_path(folder: &Path, name: &OsStr) -> PathBuf {
    let mut partial = partial_prefix(name);
    partial.push(std::process::id().to_string());
    folder.join(partial)
}

/// Errors: [`ExportError::Unfinished`] for a folder or file called `.NAME.partial-PID`, which is not whole yet.
pub fn refuse_unfinished(path: &Path) -> Result<(), ExportError> {
    if is_unfinished(path) { Err(ExportError::Unfinished { path: path.to_owned() }) } else { Ok(()) }
}

/// Removes `.NAME.partial-PID` from `folder` for every PID that no process has any more: a killed process cannot do so.
///
/// Only Linux says so without a dependency, by `/proc/PID`; elsewhere such leftovers stay until somebody deletes them.
/// A process that we cannot see (on another machine, in another container) and that makes the same NAME in the same
/// folder loses its partial and fails with an error; the name is still taken by something whole or by nothing.
pub(super) fn remove_leftovers(folder: &Path, name: &OsStr) {
    // Where /proc is missing, every process would seem to have ended.
    if !cfg!(target_os = "linux") || !Path::new("/proc/self").exists() {
        return;
    }
    let prefix = partial_prefix(name);
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let process = process_of(&entry.file_name(), &prefix);
        if process.is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists()) {
            tracing::info!(path = ?entry.path(), "removing what a killed process left");
            remove(&entry);
        }
    }
}

/// The PID in the name of something partial.
fn process_of(name: &OsStr, prefix: &OsStr) -> Option<u32> {
    let rest = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes())?;
    // A file whose writing was cut off has one more suffix, from `atomic_file`.
    let digits = rest.strip_suffix(b".partial").unwrap_or(rest);
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn remove(entry: &DirEntry) {
    // The type is the entry's own: what a link leads to is not ours.
    let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
    let path = entry.path();
    // One that cannot be removed does no more harm than before.
    let _ = if is_folder { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_what_ended_processes_left_under_this_name_goes() {
        let root = tempfile::tempdir().unwrap();
        let ours = format!(".model.partial-{}", std::process::id());
        // Linux numbers processes up to 4194304.
        let mut kept = [ours.as_str(), ".other.partial-4194305", ".model.partial-x", "model.partial-4194305", "model"];
        for name in kept.into_iter().chain([".model.partial-4194305", ".model.partial-4194306.partial"]) {
            std::fs::create_dir(root.path().join(name)).unwrap();
            std::fs::write(root.path().join(name).join("file"), "x").unwrap();
        }
        std::fs::write(root.path().join(".model.partial-4194307"), "x").unwrap();
        std::os::unix::fs::symlink(root.path().join("model"), root.path().join(".model.partial-4194308")).unwrap();
        remove_leftovers(root.path(), OsStr::new("model"));
        let entries = std::fs::read_dir(root.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        kept.sort_unstable();
        assert_eq!(names, kept);
        assert!(root.path().join("model/file").is_file(), "a link was followed");
    }
}
