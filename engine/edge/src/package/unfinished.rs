//! `.NAME.partial-PID`: what an export writes beside NAME and renames once it is whole; a killed one leaves it.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::EdgeError;

const MARK: &str = ".partial-";

/// What the names of all unfinished exports of `name` start with; the number of the process that writes it follows.
#[must_use]
pub fn partial_prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(MARK);
    prefix
}

/// True for the path of a folder or file that an export has not finished, also when it is reached by `.` or a link.
#[must_use]
pub fn is_unfinished(path: &Path) -> bool {
    let is_partial = |path: &Path| path.file_name().is_some_and(is_partial_name);
    is_partial(path) || path.canonicalize().is_ok_and(|path| is_partial(&path))
}

/// Errors: [`EdgeError::Unfinished`] where [`is_unfinished`].
///
/// [`super::Package::open`] does not ask: an export opens by it what it is about to finish.
pub fn refuse_unfinished(path: &Path) -> Result<(), EdgeError> {
    if is_unfinished(path) { Err(EdgeError::Unfinished { path: path.to_owned() }) } else { Ok(()) }
}

fn is_partial_name(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    // A file whose writing was cut off has one more suffix.
    let name = name.strip_suffix(".partial").unwrap_or(&name);
    let process = name.strip_prefix('.').and_then(|name| name.rsplit_once(MARK));
    process.is_some_and(|(_, digits)| digits.parse::<u32>().is_ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_name_tells_wherever_it_is_reached_from() {
        let root = tempfile::tempdir().unwrap();
        let name = |process: &str| {
            let mut name = partial_prefix(OsStr::new("pk"));
            name.push(process);
            root.path().join(name)
        };
        for unfinished in [name("26658"), name("1.partial")] {
            assert!(is_unfinished(&unfinished), "{unfinished:?}");
        }
        for whole in [name("x"), name(""), root.path().join("pk.partial-1"), root.path().join("pk"), "/".into()] {
            assert!(!is_unfinished(&whole), "{whole:?}");
        }
        let partial = name("26658");
        std::fs::create_dir_all(partial.join("inner")).unwrap();
        assert!(is_unfinished(&partial.join("inner/..")) && !is_unfinished(&partial.join("inner")));
    }
}
