//! Where runs, caches and packages live on this system.

use std::path::PathBuf;
use std::sync::LazyLock;

use directories::ProjectDirs;

/// Asked of the system once: a frame shows these places and must not wait for them. `None` on a system without home
/// folders.
static PROJECT: LazyLock<Option<ProjectDirs>> = LazyLock::new(|| ProjectDirs::from("", "", "foretrain"));

/// Where runs go instead, for this process and those that it starts.
pub const RUNS_VARIABLE: &str = "FORETRAIN_RUNS";

/// What [`RUNS_VARIABLE`] said at the first question.
static NAMED_RUNS: LazyLock<Option<PathBuf>> =
    LazyLock::new(|| std::env::var_os(RUNS_VARIABLE).filter(|text| !text.is_empty()).map(PathBuf::from));

/// Folder of all runs, unless the settings name another one.
#[must_use]
pub fn default_runs() -> PathBuf {
    if let Some(named) = &*NAMED_RUNS {
        return named.clone();
    }
    PROJECT.as_ref().map_or_else(|| PathBuf::from("foretrain-runs"), |dirs| dirs.data_dir().join("runs"))
}

/// Generated datasets and trial packages; may be deleted at any time.
#[must_use]
pub fn cache() -> PathBuf {
    PROJECT.as_ref().map_or_else(|| std::env::temp_dir().join("foretrain-cache"), |dirs| dirs.cache_dir().to_owned())
}
