//! Where runs, caches and packages live on this system.

use std::path::PathBuf;

use directories::ProjectDirs;

/// Folder of all runs, unless the settings name another one.
#[must_use]
pub fn default_runs() -> PathBuf {
    project().map_or_else(|| PathBuf::from("foretrain-runs"), |dirs| dirs.data_dir().join("runs"))
}

/// Generated datasets and trial packages; may be deleted at any time.
#[must_use]
pub fn cache() -> PathBuf {
    project().map_or_else(|| std::env::temp_dir().join("foretrain-cache"), |dirs| dirs.cache_dir().to_owned())
}

/// `None` on a system without home folders.
fn project() -> Option<ProjectDirs> {
    ProjectDirs::from("", "", "foretrain")
}
