//! Reading numbers and strings in order, with every length checked against what is left.

use std::path::Path;

use crate::EdgeError;

/// Longest name of a metadata pair or a tensor: the format's limit for keys.
const MAX_NAME_BYTES: usize = u16::MAX as usize;

/// What was expected and what was found.
#[derive(Debug, PartialEq)]
pub(super) struct Mismatch {
    pub(super) expected: String,
    pub(super) found: String,
    /// What other programs write, too.
    is_known_elsewhere: bool,
}

impl Mismatch {
    pub(super) fn new(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { expected: expected.into(), found: found.into(), is_known_elsewhere: false }
    }

    /// One that says nothing against the file: other programs write such.
    pub(super) fn unsuited(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { is_known_elsewhere: true, ..Self::new(expected, found) }
    }

    pub(super) fn into_error(self, path: &Path) -> EdgeError {
        let Self { expected, found, is_known_elsewhere } = self;
        if is_known_elsewhere {
            EdgeError::unsuited(path, expected, found)
        } else {
            EdgeError::format(path, expected, found)
        }
    }
}

/// A position in a byte slice.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// The next `len` bytes, which are `what`.
    pub(super) fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8], Mismatch> {
        let end = self.position.checked_add(len).filter(|&end| end <= self.bytes.len());
        let Some((end, taken)) = end.and_then(|end| Some((end, self.bytes.get(self.position..end)?))) else {
            let at = self.position;
            return Err(Mismatch::new(
                format!("{len} bytes of {what} at byte {at}"),
                format!("{} bytes left in the file", self.remaining()),
            ));
        };
        self.position = end;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Mismatch> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, Mismatch> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, Mismatch> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A u64 length, then that many bytes of UTF-8.
    pub(super) fn string(&mut self, what: &str) -> Result<String, Mismatch> {
        let len = usize::try_from(self.u64(what)?).unwrap_or(usize::MAX);
        let bytes = self.take(len, what)?;
        let text = std::str::from_utf8(bytes);
        text.map(str::to_owned).map_err(|error| Mismatch::new(format!("{what} in UTF-8"), error.to_string()))
    }

    /// A string of at most [`MAX_NAME_BYTES`], so that messages may quote it.
    pub(super) fn name(&mut self, what: &str) -> Result<String, Mismatch> {
        let before = self.position;
        let name = self.string(what)?;
        if name.len() <= MAX_NAME_BYTES {
            return Ok(name);
        }
        let expected = format!("a {what} of at most {MAX_NAME_BYTES} bytes at byte {before}");
        Err(Mismatch::new(expected, format!("{} bytes", name.len())))
    }

    /// A count of things of at least `min_bytes` each: more than fit in the rest of the file is a lie.
    pub(super) fn count(&mut self, min_bytes: usize, what: &str) -> Result<usize, Mismatch> {
        let count = self.u64(what)?;
        let most = self.remaining() / min_bytes;
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(Mismatch::new(
                format!("at most {most} {what}, which is what fits in the rest of the file"),
                count.to_string(),
            )),
        }
    }
}
