//! The files of a store: one per block, and small ones. (What a training tells of itself, and its model, lie beside them.)
//!
//! ```text
//! manifest.json        model, optimizer, precision, commit, seed: what the store is for
//! snapshot/            earlier blocks to go back to, see `snapshot`
//! progress.json        steps, updates that all blocks had, and what led them; written last: a store without it is not complete
//! lock                 held while a process trains here
//! blocks/0007          header, then the weights of all tensors, then the first moment, then the second
//! blocks/0007.next     the same after the step in progress, where steps are committed whole
//! ```
//!
//! The header is a line of JSON, filled up with spaces to 4096 bytes, with a checksum for each section after it. A moment
//! of 8 bits is two sections, codes and scales. Numbers are little-endian.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::OffloadError;
use super::layout::{Layout, Precision};
use super::state::{BlockState, Weights};
use crate::device::atomic_file::{self, WriteError};

/// Bytes before the first section.
pub(super) const HEADER_BYTES: usize = 4096;
/// First word of a header.
const FORMAT: &str = "foretrain-block";
const VERSION: u32 = 1;

/// What a block's file says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    format: String,
    version: u32,
    block: String,
    /// Updates that it had.
    pub(super) step: u64,
    precision: Precision,
    num_weights: u64,
    /// Of each section.
    checksums: Vec<u64>,
}

/// Which of a block's two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// The one that counts.
    Current,
    /// The one after the step in progress.
    Next,
}

/// Names of a store's block files, and what is in each.
#[derive(Debug)]
pub(super) struct BlockFiles {
    folder: PathBuf,
    pub(super) layouts: Vec<Layout>,
}

impl BlockFiles {
    pub(super) fn new(store: &Path, layouts: Vec<Layout>) -> Self {
        Self { folder: block_folder(store), layouts }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn path(&self, block: usize, version: Version) -> PathBuf {
        self.folder.join(match version {
            Version::Current => format!("{block:04}"),
            Version::Next => format!("{block:04}.next"),
        })
    }

    /// The layout of a block. Errors: there is no such block.
    pub(super) fn layout(&self, block: usize) -> Result<&Layout, OffloadError> {
        self.layouts.get(block).ok_or(OffloadError::Thread { what: "reads" })
    }

    /// The header of a block's file. Errors: it cannot be read, or belongs to another block.
    pub(super) fn header(&self, block: usize, version: Version) -> Result<Header, OffloadError> {
        self.header_of(block, &self.path(block, version))
    }

    /// The same of a file elsewhere.
    pub(super) fn header_of(&self, block: usize, path: &Path) -> Result<Header, OffloadError> {
        let mut file = open(path)?;
        let header = read_header(&mut file, path)?;
        check(&header, self.layout(block)?, path)?;
        Ok(header)
    }

    /// The weights of a block alone, for a forward pass.
    pub(super) fn read_weights(&self, block: usize) -> Result<Weights, OffloadError> {
        let (path, layout) = (self.path(block, Version::Current), self.layout(block)?);
        let mut file = open(&path)?;
        let header = read_header(&mut file, &path)?;
        check(&header, layout, &path)?;
        let mut weights = Weights::zeros(layout);
        read_section(&mut file, weights.bytes_mut(), header.checksums.first(), &path)?;
        Ok(weights)
    }

    /// Everything of a block.
    pub(super) fn read(&self, block: usize) -> Result<BlockState, OffloadError> {
        self.read_from(block, &self.path(block, Version::Current))
    }

    /// The same of a file elsewhere.
    pub(super) fn read_from(&self, block: usize, path: &Path) -> Result<BlockState, OffloadError> {
        let layout = self.layout(block)?;
        let mut file = open(path)?;
        let header = read_header(&mut file, path)?;
        check(&header, layout, path)?;
        let mut state = BlockState::zeros(layout);
        state.step = header.step;
        for (number, section) in state.sections_mut().into_iter().enumerate() {
            read_section(&mut file, section, header.checksums.get(number), path)?;
        }
        Ok(state)
    }

    /// Writes a block, whole or not at all, and waits until the disk has it.
    pub(super) fn write(&self, block: usize, state: &BlockState, version: Version) -> Result<u64, OffloadError> {
        let (path, layout) = (self.path(block, version), self.layout(block)?);
        let sections = state.sections();
        let header = Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            block: layout.block.clone(),
            step: state.step,
            precision: layout.precision,
            num_weights: layout.num_weights() as u64,
            checksums: sections.iter().map(|section| checksum(section)).collect(),
        };
        let mut line = serde_json::to_vec(&header).map_err(|error| damaged("a header", error.to_string(), &path))?;
        line.resize(HEADER_BYTES, b' ');
        let written = atomic_file::write(&path, |file| {
            file.write_all(&line)?;
            sections.iter().try_for_each(|section| file.write_all(section))
        });
        written.map_err(write_error)?;
        Ok((HEADER_BYTES + sections.iter().map(|section| section.len()).sum::<usize>()) as u64)
    }
}

/// Where the blocks of a store lie.
pub(super) fn block_folder(store: &Path) -> PathBuf {
    store.join("blocks")
}

/// A write that failed; whoever knows adds what is on disk.
pub(super) fn write_error(source: WriteError) -> OffloadError {
    OffloadError::Write { source, state: "Every block on disk is whole".to_owned() }
}

fn open(path: &Path) -> Result<File, OffloadError> {
    File::open(path).map_err(|source| OffloadError::Read { path: path.to_owned(), source })
}

fn damaged(expected: impl Into<String>, found: impl Into<String>, path: &Path) -> OffloadError {
    OffloadError::Damaged { expected: expected.into(), found: found.into(), path: path.to_owned() }
}

/// Fills `bytes`; a file that ends early is damaged.
fn read_exact(file: &mut File, bytes: &mut [u8], path: &Path) -> Result<(), OffloadError> {
    file.read_exact(bytes).map_err(|source| {
        if source.kind() == std::io::ErrorKind::UnexpectedEof {
            damaged("more bytes", "the file's end", path)
        } else {
            OffloadError::Read { path: path.to_owned(), source }
        }
    })
}

fn read_header(file: &mut File, path: &Path) -> Result<Header, OffloadError> {
    let mut bytes = vec![0; HEADER_BYTES];
    read_exact(file, &mut bytes, path)?;
    serde_json::from_slice(&bytes).map_err(|error| damaged("a block's header", error.to_string(), path))
}

fn check(header: &Header, layout: &Layout, path: &Path) -> Result<(), OffloadError> {
    let found = (header.format.as_str(), header.version, header.block.as_str(), header.num_weights, header.precision);
    let expected = (FORMAT, VERSION, layout.block.as_str(), layout.num_weights() as u64, layout.precision);
    if found == expected { Ok(()) } else { Err(damaged(format!("{expected:?}"), format!("{found:?}"), path)) }
}

fn read_section(file: &mut File, section: &mut [u8], expected: Option<&u64>, path: &Path) -> Result<(), OffloadError> {
    read_exact(file, section, path)?;
    let found = checksum(section);
    match expected {
        Some(&expected) if expected == found => Ok(()),
        Some(expected) => Err(damaged(format!("a checksum of {expected}"), format!("{found}"), path)),
        None => Err(damaged("a checksum for each section", "fewer", path)),
    }
}

/// Two sums over words of 8 bytes, as Fletcher's: the second one sees their order. Fast enough not to show beside a disk.
fn checksum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let (mut plain, mut ordered) = (0_u64, bytes.len() as u64);
    for word in words {
        plain = plain.wrapping_add(u64::from_le_bytes(*word));
        ordered = ordered.wrapping_add(plain);
    }
    for &byte in rest {
        plain = plain.wrapping_add(u64::from(byte));
        ordered = ordered.wrapping_add(plain);
    }
    plain ^ ordered.rotate_left(32)
}

/// What a small file holds; `None` when there is no such file.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, OffloadError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(OffloadError::Read { path: path.to_owned(), source }),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| OffloadError::Damaged {
        expected: "what this program writes there".to_owned(),
        found: error.to_string(),
        path: path.to_owned(),
    })
}

/// Writes a small file, whole or not at all.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), OffloadError> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|error| OffloadError::Damaged {
        expected: "numbers that can be written".to_owned(),
        found: error.to_string(),
        path: path.to_owned(),
    })?;
    atomic_file::write_bytes(path, &bytes).map_err(write_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_sees_flips_swaps_and_lengths() {
        let bytes: Vec<u8> = (0..100).collect();
        let of = |change: fn(&mut Vec<u8>)| {
            let mut changed = bytes.clone();
            change(&mut changed);
            checksum(&changed)
        };
        let sums = [
            of(|_| {}),
            of(|b| b[17] ^= 1),
            of(|b| b.swap(3, 40)),
            of(|b| b.rotate_left(8)),
            of(|b| b.push(0)),
            of(|b| b[99] ^= 128),
        ];
        for (i, a) in sums.iter().enumerate() {
            assert!(!sums[i + 1..].contains(a), "{i}");
        }
    }
}
