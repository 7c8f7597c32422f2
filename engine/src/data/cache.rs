//! Generated sets on disk: a checksum, then the bytes; whatever does not check out is made again.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::files::OpenFile;
use super::{DataError, DataWarning};
use crate::device::{Watch, atomic_file};

const CHECKSUM_BYTES: usize = 32;

/// Bytes that came from the cache or were made, with the trouble of keeping them.
#[derive(Debug)]
pub(super) struct Cached {
    pub bytes: Vec<u8>,
    pub warning: Option<DataWarning>,
}

/// The bytes of `folder`/`name` when they are whole, else those of `make`, which are then kept.
/// A cache that cannot be written is a warning, not an error.
pub(super) fn load_or_make(
    folder: &Path,
    name: &str,
    num_bytes: u64,
    watch: Watch<'_>,
    make: impl FnOnce() -> Result<Vec<u8>, DataError>,
) -> Result<Cached, DataError> {
    let path = folder.join(name);
    if let Some(bytes) = read(&path, num_bytes, watch)? {
        return Ok(Cached { bytes, warning: None });
    }
    let bytes = make()?;
    let kept = std::fs::create_dir_all(folder)
        .map_err(|source| atomic_file::WriteError::new("making folder", folder, source))
        .and_then(|()| {
            atomic_file::write(&path, |file| {
                use std::io::Write;
                file.write_all(&Sha256::digest(&bytes))?;
                file.write_all(&bytes)
            })
        });
    let warning = kept.err().map(|error| DataWarning::NotCached { reason: error.to_string() });
    Ok(Cached { bytes, warning })
}

/// `None` when the file is absent, of another length or damaged. Errors: only [`DataError::Cancelled`].
fn read(path: &Path, num_bytes: u64, watch: Watch<'_>) -> Result<Option<Vec<u8>>, DataError> {
    let Ok(mut open) = OpenFile::open(path) else { return Ok(None) };
    if open.len != num_bytes + CHECKSUM_BYTES as u64 {
        return Ok(None);
    }
    let mut bytes = match open.read_all("reading the cache", open.len, watch) {
        Ok(bytes) => bytes,
        Err(DataError::Cancelled(cancelled)) => return Err(cancelled.into()),
        Err(_) => return Ok(None),
    };
    if bytes.len() < CHECKSUM_BYTES {
        return Ok(None);
    }
    let payload = bytes.split_off(CHECKSUM_BYTES);
    let is_whole = Sha256::digest(&payload).as_slice() == bytes.as_slice();
    Ok(is_whole.then_some(payload))
}
