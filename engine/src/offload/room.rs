//! Whether a disk has room for the blocks, before anything is written.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::Metadata;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::OffloadError;
use super::files::{HEADER_BYTES, block_folder};
use super::layout::Layout;
use super::manifest::find;
use super::snapshot;
use super::store::{Commit, OffloadSettings};
use crate::device::{free_disk_bytes, is_on_disk};
use crate::models::Network;

/// Bytes that are left for all the small files.
const SPARE_BYTES: u64 = 16 << 20;

/// What a folder's disk has, and what the blocks take of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiskRoom {
    /// What of a broken step counts: as asked for, as the folder was begun, or as the disk allows.
    pub commit: Commit,
    /// Whether earlier blocks are kept, to go back to after a divergence: where there is room for another generation.
    #[serde(default)]
    pub keeps_snapshot: bool,
    /// What the blocks take at most, bytes, those to go back to among them.
    pub needed_bytes: u64,
    /// What is free, bytes; `None` on a file system that does not tell.
    pub free_bytes: Option<u64>,
    /// What blocks in the folder hold already, also those of a start that was broken off, bytes; their place is used again.
    pub held_bytes: u64,
    /// Steps that are done in the folder.
    pub num_steps: u64,
    /// Peak learning rate that led them last, where that is known.
    #[serde(default)]
    pub peak_learning_rate: Option<f64>,
    /// The folder.
    pub folder: PathBuf,
}

impl DiskRoom {
    /// What the disk of `settings.folder` has for the blocks of `network`. Reads, writes nothing.
    /// Errors: the folder is of another training, or cannot be read.
    pub fn of(network: &Network, settings: &OffloadSettings) -> Result<Self, OffloadError> {
        let blocks = network.blocks().iter();
        let layouts: Vec<Layout> = blocks.map(|block| Layout::of(block.as_ref(), settings.precision)).collect();
        let found = find(network, settings)?;
        // A file system that cannot tell is given the benefit of the doubt.
        // What is no disk at all is told when it is written to.
        let free_bytes = free_disk_bytes(&settings.folder).filter(|_| is_on_disk(&settings.folder));
        let held_bytes = held_bytes(&settings.folder);
        let fits = |bytes: u64| free_bytes.is_none_or(|free| bytes <= free.saturating_add(held_bytes));
        let roomy = if fits(Commit::Step.disk_bytes(&layouts)) { Commit::Step } else { Commit::Block };
        let commit = settings.commit.or(found.commit).unwrap_or(roomy);
        let least_bytes = commit.disk_bytes(&layouts);
        let with_snapshot = least_bytes + layouts.iter().map(file_bytes).sum::<u64>();
        let keeps_snapshot = fits(with_snapshot);
        Ok(Self {
            commit,
            keeps_snapshot,
            needed_bytes: if keeps_snapshot { with_snapshot } else { least_bytes },
            free_bytes,
            held_bytes,
            num_steps: found.num_steps.unwrap_or(0),
            peak_learning_rate: found.peak_learning_rate,
            folder: settings.folder.clone(),
        })
    }

    /// True when the blocks fit.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.free_bytes.is_none_or(|free| self.needed_bytes <= free.saturating_add(self.held_bytes))
    }

    /// Errors: [`OffloadError::DiskSpace`] with the figures where the blocks do not fit.
    pub fn check(&self) -> Result<(), OffloadError> {
        if self.fits() {
            return Ok(());
        }
        Err(OffloadError::DiskSpace {
            needed_bytes: self.needed_bytes,
            free_bytes: self.free_bytes.unwrap_or(0).saturating_add(self.held_bytes),
            hint: match self.commit {
                Commit::Step => {
                    "Free disk space, choose another disk, or commit each block by itself, which takes less"
                }
                Commit::Block => "Free disk space, or choose another disk or a smaller model",
            },
            path: self.folder.clone(),
        })
    }
}

impl Commit {
    /// Bytes of disk that a store of these blocks takes at most.
    pub(super) fn disk_bytes(self, layouts: &[Layout]) -> u64 {
        let (generation, largest) =
            (layouts.iter().map(file_bytes).sum::<u64>(), layouts.iter().map(file_bytes).max().unwrap_or(0));
        SPARE_BYTES
            + match self {
                // Beside each file its new content, before it replaces the old.
                Self::Step => 2 * generation + largest,
                Self::Block => generation + largest,
            }
    }
}

fn file_bytes(layout: &Layout) -> u64 {
    layout.state_bytes() + HEADER_BYTES as u64
}

#[cfg(unix)]
fn is_same_file(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn is_same_file(a: &Metadata, b: &Metadata) -> bool {
    a.modified().ok() == b.modified().ok()
}

/// Bytes of what is in the folders of the blocks and of their snapshot; 0 where there is none.
fn held_bytes(store: &Path) -> u64 {
    let files = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let file = |entry: std::fs::DirEntry| Some((entry.file_name(), entry.metadata().ok()?));
        entries.filter_map(file).collect::<BTreeMap<_, _>>()
    };
    let (blocks, kept) = (files(&block_folder(store)), files(&snapshot::folder(store)));
    // A block that has not moved since has two names and one content: it was written once.
    let is_shared =
        |(name, file): &(&OsString, &Metadata)| blocks.get(*name).is_some_and(|block| is_same_file(block, file));
    let of_blocks = kept.iter().filter(|(name, _)| blocks.contains_key(*name));
    let apart = of_blocks.filter(|found| !is_shared(found)).map(|(_, file)| file);
    blocks.values().chain(apart).map(Metadata::len).sum()
}
