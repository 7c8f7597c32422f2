//! Paths as typed: what can be seen to be wrong before anything is done is wrong usage.

use std::io::ErrorKind;
use std::path::Path;

use super::CliError;

/// Refuses a path where there is nothing; what is there and cannot be read is for its reader to say.
pub(super) fn check_there(option: &str, expected: &str, path: &Path) -> Result<(), CliError> {
    match path.metadata() {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(CliError::Usage(format!("{option}: expected {expected}, found nothing. {}", path.display())))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Refuses a path that cannot be, or become, a folder because something else is there.
pub(super) fn check_folder(option: &str, path: &Path) -> Result<(), CliError> {
    match path.metadata() {
        Ok(found) if !found.is_dir() => {
            Err(CliError::Usage(format!("{option}: expected a folder, found a file. {}", path.display())))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}
