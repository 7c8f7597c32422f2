//! Bytes of a weights file, mapped rather than copied.
#![allow(unsafe_code, reason = "a memory map is only as valid as the file behind it; see the SAFETY comment")]

use std::fs::File;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;

use crate::EdgeError;

/// A shared range of bytes: of a mapped file, or owned. Cloning copies no content.
#[derive(Debug, Clone)]
pub(crate) struct Bytes {
    source: Arc<Source>,
    range: Range<usize>,
}

#[derive(Debug)]
enum Source {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Source {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl Bytes {
    /// Maps the file of weights at `path` for reading.
    pub(crate) fn map(path: &Path) -> Result<Self, EdgeError> {
        let failed = EdgeError::read(path, "Is this the path of a GGUF file or of a package's folder?");
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(EdgeError::unsuited(path, "a file", "something else"));
        }
        if metadata.len() == 0 {
            return Err(EdgeError::format(path, "weights", "an empty file"));
        }
        // SAFETY: the map is private to this process and only read. A package is written once, under a temporary
        // name, and renamed; whoever truncates a package in use can end the process (as with any mapped file), but
        // every index into the map is checked against the length mapped here.
        let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
        // What is read from the file now comes in pages of 2 MiB, where the file system has them: walking tables of small ones
        // takes a tenth of the time of a token. What is in memory already stays as it is; refused, pages are small.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        let range = 0..map.len();
        Ok(Self { source: Arc::new(Source::Mapped(map)), range })
    }

    /// The part `range` of these bytes; `None` outside them.
    pub(crate) fn slice(&self, range: Range<usize>) -> Option<Self> {
        let start = self.range.start.checked_add(range.start)?;
        let end = self.range.start.checked_add(range.end)?;
        let is_inside = start <= end && end <= self.range.end;
        is_inside.then(|| Self { source: Arc::clone(&self.source), range: start..end })
    }

    /// Tells the system (on Unix) that these bytes need not stay in memory, if they are a file's: who asks for them again
    /// waits for the file.
    pub(crate) fn release(&self) {
        #[cfg(unix)]
        if let Source::Mapped(map) = &*self.source {
            // SAFETY: the map is of a file and only read, so that pages which were let go come back as they were, under the
            // same condition as in `map`.
            let advised =
                unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, self.range.start, self.range.len()) };
            // Refused, they stay until something else needs the room.
            drop(advised);
        }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { source: Arc::new(Source::Owned(bytes)), range }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // The range was checked when it was made; an empty slice is unreachable.
        self.source.as_slice().get(self.range.clone()).unwrap_or_default()
    }
}
