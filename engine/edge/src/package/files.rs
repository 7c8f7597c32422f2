//! Reading whole small files, and checksums of large ones.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::json_shape::check_objects;
use crate::EdgeError;

/// Largest manifest or config, in bytes: read, it takes some thirty times as much. A thousand names of classes are 30 KB.
pub(super) const MAX_JSON_BYTES: u64 = 4 << 20;

/// Most objects in a manifest or config.
const MAX_JSON_OBJECTS: usize = 1 << 10;

/// What to ask about a file of a package that cannot be read.
pub(super) const PACKAGE_HINT: &str = "Is this a package folder written by export?";

/// Reads the manifest or config at `path`, which is as large as such files are.
///
/// Errors: [`EdgeError::Read`]; [`EdgeError::Format`] for anything else.
pub(super) fn read_json(path: &Path) -> Result<Vec<u8>, EdgeError> {
    let content = read_small(path, MAX_JSON_BYTES)?;
    let refuse = |error: serde_json::Error| EdgeError::format(path, "JSON of a package", error.to_string());
    check_objects(&content, MAX_JSON_OBJECTS).map_err(refuse)?;
    Ok(content)
}

/// Reads the file at `path`, which may have at most `max_bytes`.
///
/// Errors: [`EdgeError::Read`]; [`EdgeError::Format`] for a larger file.
pub(super) fn read_small(path: &Path, max_bytes: u64) -> Result<Vec<u8>, EdgeError> {
    let failed = EdgeError::read(path, PACKAGE_HINT);
    let file = File::open(path).map_err(failed)?;
    let mut content = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > max_bytes {
        return Err(EdgeError::format(path, format!("at most {max_bytes} bytes"), "more"));
    }
    Ok(content)
}

/// The size of the file at `path` in bytes.
pub(super) fn size(path: &Path) -> Result<u64, EdgeError> {
    let metadata = std::fs::metadata(path).map_err(EdgeError::read(path, "Is the package complete?"))?;
    if metadata.is_file() { Ok(metadata.len()) } else { Err(EdgeError::unsuited(path, "a file", "something else")) }
}

/// SHA-256 of the file at `path`, lower-case hexadecimal.
pub(super) fn sha256(path: &Path) -> Result<String, EdgeError> {
    let failed = EdgeError::read(path, PACKAGE_HINT);
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0_u8; 1 << 16];
    loop {
        let len = file.read(&mut buffer).map_err(failed)?;
        if len == 0 {
            break;
        }
        hasher.update(&buffer[..len]);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
