//! Reading files that somebody else wrote: what is there, how long it is, and no more than that.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::DataError;
use crate::device::Watch;

/// Most that deflate can expand: 258 bytes from two bits, and a little for headers.
const MAX_GZ_RATIO: u64 = 1040;

/// Most bytes that one dataset may take in memory.
pub(super) const MAX_DATASET_BYTES: u64 = 16 << 30;

/// A regular file, open for reading.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub file: File,
    pub len: u64,
    pub path: PathBuf,
}

impl OpenFile {
    /// Opens a regular file. Errors: anything else, so that reading a pipe or a device never hangs or never ends.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let metadata = std::fs::metadata(path).map_err(|source| DataError::io("looking at", path, source))?;
        if !metadata.is_file() {
            let found = if metadata.is_dir() { "a folder" } else { "a device or pipe" };
            return Err(DataError::format("a file", "a regular file", found, "Choose a file", path));
        }
        let file = File::open(path).map_err(|source| DataError::io("opening", path, source))?;
        Ok(Self { file, len: metadata.len(), path: path.to_owned() })
    }

    /// True when the file starts as a gzip stream; reading starts over after.
    pub fn is_gz(&mut self) -> Result<bool, DataError> {
        use std::io::Seek;
        let mut magic = Vec::with_capacity(2);
        (&mut self.file)
            .take(2)
            .read_to_end(&mut magic)
            .and_then(|_| self.file.rewind())
            .map_err(|source| DataError::io("reading", &self.path, source))?;
        Ok(magic == [0x1f, 0x8b])
    }

    /// Most bytes that this file can hold once decompressed.
    pub fn max_content(&self, is_gz: bool) -> u64 {
        if is_gz { self.len.saturating_mul(MAX_GZ_RATIO) } else { self.len }
    }

    /// The whole file as bytes. Errors: i/o, [`DataError::Cancelled`].
    pub fn read_all(&mut self, what: &str, watch: Watch<'_>) -> Result<Vec<u8>, DataError> {
        read_up_to(&mut self.file, self.len, what, &self.path, watch)
    }
}

/// Reads until the end or until `limit` bytes, a piece at a time, so that memory follows what is really there.
pub(super) fn read_up_to(
    reader: &mut impl Read,
    limit: u64,
    what: &str,
    path: &Path,
    watch: Watch<'_>,
) -> Result<Vec<u8>, DataError> {
    const PIECE: u64 = 4 << 20;
    let mut bytes = Vec::new();
    loop {
        let left = limit - bytes.len() as u64;
        let read = reader
            .take(left.min(PIECE))
            .read_to_end(&mut bytes)
            .map_err(|source| DataError::io("reading", path, source))?;
        watch.step(what, bytes.len() as u64, Some(limit))?;
        if read == 0 || bytes.len() as u64 >= limit {
            return Ok(bytes);
        }
    }
}

/// What a folder holds, sorted by name so that every machine sees one order.
pub(super) fn list_folder(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let failed = |source| DataError::io("listing", path, source);
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        entries.push(entry.map_err(failed)?.path());
    }
    entries.sort();
    Ok(entries)
}

/// The last part of a path, for people.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// True when the extension is one of `extensions` (lower case), however it is written.
pub(super) fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().unwrap_or(OsStr::new("")).to_string_lossy().to_lowercase();
    extensions.contains(&extension.as_str())
}
