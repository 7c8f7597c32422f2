//! Reading files that somebody else wrote: what is there, how long it is, and no more than that.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::DataError;
use crate::device::{Watch, system_memory_bytes};

/// Most that deflate can expand: 258 bytes from two bits, and a little for headers.
const MAX_GZ_RATIO: u64 = 1040;

/// Most bytes that one dataset may take in memory, however large the machine.
const MAX_DATASET_BYTES: u64 = 16 << 30;
/// The share of memory that one dataset may take. Cutting parts off and counting tokens hold a second and a third copy
/// for a while, and training needs room beside them.
const MEMORY_SHARE: u64 = 4;
/// Memory of a machine that does not tell.
const UNKNOWN_MEMORY_BYTES: u64 = 16 << 30;

/// Most bytes that one dataset may take on this machine: 16 GiB or a quarter of its memory, whichever is less.
pub(super) fn max_dataset_bytes() -> u64 {
    static LIMIT: OnceLock<u64> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let memory = system_memory_bytes().filter(|&bytes| bytes > 0).unwrap_or(UNKNOWN_MEMORY_BYTES);
        (memory / MEMORY_SHARE).min(MAX_DATASET_BYTES)
    })
}

/// The error for `what` that would take `found` bytes where `limit` are allowed.
pub(super) fn too_large(what: &'static str, limit: u64, found: u64, hint: &'static str, path: &Path) -> DataError {
    DataError::format(what, format!("at most {}", size(limit)), size(found), hint, path)
}

/// What to do about a dataset that is larger than [`max_dataset_bytes`].
pub(super) const TOO_LARGE_HINT: &str =
    "A dataset may take a quarter of this machine's memory, 16 GiB at most; use a part of it";

/// A number of bytes, for people.
pub(super) fn size(bytes: u64) -> String {
    let shown = |unit: u64, name| format!("{:.1} {name}", bytes as f64 / unit as f64);
    match bytes {
        0..10_000 => format!("{bytes} bytes"),
        10_000..1_000_000 => shown(1_000, "kB"),
        1_000_000..1_000_000_000 => shown(1_000_000, "MB"),
        1_000_000_000.. => shown(1_000_000_000, "GB"),
    }
}

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

    /// The whole file as bytes. Errors: longer than `max_bytes`, i/o, [`DataError::Cancelled`].
    pub fn read_all(&mut self, what: &str, max_bytes: u64, watch: Watch<'_>) -> Result<Vec<u8>, DataError> {
        if self.len > max_bytes {
            return Err(too_large("a file", max_bytes, self.len, TOO_LARGE_HINT, &self.path));
        }
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
            .map_err(|source| read_failed("reading", path, source, watch))?;
        watch.step(what, bytes.len() as u64, Some(limit))?;
        if read == 0 || bytes.len() as u64 >= limit {
            return Ok(bytes);
        }
    }
}

/// A read that failed: because of the user where they asked for an end, else because of `source`.
pub(super) fn read_failed(tried: &'static str, path: &Path, source: std::io::Error, watch: Watch<'_>) -> DataError {
    match watch.check() {
        Ok(()) => DataError::io(tried, path, source),
        Err(cancelled) => cancelled.into(),
    }
}

/// A reader that gives at most so many bytes and ends when the job is cancelled. Whoever only skips what a hostile
/// archive claims to hold comes back here with every piece.
#[derive(Debug)]
pub(super) struct Guarded<'a, R> {
    reader: R,
    left: u64,
    max_bytes: u64,
    watch: Watch<'a>,
}

impl<'a, R: Read> Guarded<'a, R> {
    /// At most `max_bytes` of `reader`.
    pub fn new(reader: R, max_bytes: u64, watch: Watch<'a>) -> Self {
        Self { reader, left: max_bytes, max_bytes, watch }
    }
}

impl<R: Read> Read for Guarded<'_, R> {
    /// Errors: `InvalidData` where there is more than allowed; of another kind when cancelled, or as the reader's own.
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.watch.check().map_err(std::io::Error::other)?;
        if self.left == 0 && !buffer.is_empty() {
            let reason = format!("it holds more than {}", size(self.max_bytes));
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, reason));
        }
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = self.reader.read(&mut buffer[..most])?;
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use super::*;
    use crate::device::{CancelFlag, Progress};
    use crate::unwatched;

    #[test]
    fn a_file_larger_than_allowed_is_not_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(3_000_000).unwrap();
        let read = |limit| OpenFile::open(file.path()).unwrap().read_all("reading", limit, unwatched!());
        let error = read(1 << 20).unwrap_err().to_string();
        assert!(error.contains("at most 1.0 MB, found 3.0 MB") && error.contains("memory"), "{error}");
        assert_eq!(read(3_000_000).unwrap().len(), 3_000_000);
        assert!((1..=MAX_DATASET_BYTES).contains(&max_dataset_bytes()));
    }

    #[test]
    fn sizes_are_for_people() {
        let sizes = [0, 9_999, 65_536, 67_108_864, 17_179_869_184].map(size);
        assert_eq!(sizes, ["0 bytes", "9999 bytes", "65.5 kB", "67.1 MB", "17.2 GB"]);
    }

    #[test]
    fn a_guarded_reader_ends() {
        let mut bytes = Vec::new();
        let error = Guarded::new(std::io::repeat(1), 100_000, unwatched!()).read_to_end(&mut bytes).unwrap_err();
        assert_eq!((bytes.len(), error.kind()), (100_000, std::io::ErrorKind::InvalidData));
        let short = Guarded::new(&b"short"[..], 100, unwatched!()).read_to_end(&mut bytes).unwrap();
        assert_eq!(short, 5);
        let cancel = CancelFlag::default();
        cancel.set();
        let ignore = |_: Progress| {};
        let watch = Watch::new(&cancel, &ignore);
        let error = Guarded::new(std::io::repeat(1), 100, watch).read_to_end(&mut bytes).unwrap_err();
        assert!(matches!(read_failed("reading", Path::new("a"), error, watch), DataError::Cancelled(_)));
    }
}
