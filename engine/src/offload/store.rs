//! A folder with the blocks of one training, and what keeps it consistent.
//!
//! Blocks move one after the other, from the last to the first, so a process can end when some have moved and others have
//! not. What then counts is a choice between disk space and exactness, see [`Commit`].

use std::fs::File;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::files::{BlockFiles, Version, read_json, write_error, write_json};
use super::layout::{Layout, Precision};
use super::manifest::{MANIFEST_FILE, Manifest, PROGRESS_FILE, Progress};
use super::room::DiskRoom;
use super::snapshot::Snapshot;
use super::state::BlockState;
use super::{OffloadError, StreamedStep};
use crate::device::Watch;
use crate::device::atomic_file::WriteError;
use crate::models::{Network, TensorSpec, initial_values};

/// What of a step counts when the process ends in the middle of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Commit {
    /// All or nothing: moved blocks lie beside the old ones until the last one is written. A training that goes on equals
    /// an unbroken one bit for bit. Takes the disk space of two generations.
    Step,
    /// Each block by itself: a moved block replaces the old one. A training that goes on finishes the step: blocks that
    /// have moved stay, the others move by the gradient that they have now. Each block gets every step once, but in that
    /// one step not all by the same gradient, as in an unbroken training. Takes the disk space of one generation and one
    /// block.
    Block,
}

impl Commit {
    /// How steps are committed, in words: "whole".
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Step => "whole",
            Self::Block => "block by block",
        }
    }
}

/// Where and how a store lies on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct OffloadSettings {
    /// Its folder: new, empty, or a store of the same training.
    pub folder: PathBuf,
    /// How numbers are stored.
    pub precision: Precision,
    /// What of a broken step counts; `None` takes [`Commit::Step`] where the disk has room for it, else [`Commit::Block`].
    pub commit: Option<Commit>,
    /// Seed of the first weights and of rounding.
    pub seed: u64,
    /// What it learns from, in a form that tells other data apart.
    pub data: String,
    /// The model that it started from, in words; `None` where first weights come from the seed.
    pub start: Option<String>,
}

/// Hands over the first numbers of a tensor, row-major; asked for each tensor once, in the network's order.
pub type FirstWeights<'a> = dyn FnMut(&TensorSpec) -> Result<Vec<f32>, OffloadError> + 'a;

/// What the blocks are at the end of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blocks {
    /// All have moved.
    Moved,
    /// None has.
    Stayed,
    /// Those of the snapshot are put back.
    GoBack,
}

/// Blocks to go back to.
pub(super) struct SnapshotPlace {
    snapshot: Option<Snapshot>,
    store: PathBuf,
    files: BlockFiles,
}

impl SnapshotPlace {
    /// True when all of them can be read.
    pub(super) fn is_intact(&self) -> bool {
        self.snapshot.as_ref().is_some_and(|snapshot| snapshot.is_intact(&self.store, &self.files))
    }
}

/// An open store, locked for this process.
#[derive(Debug)]
pub(super) struct BlockStore {
    folder: PathBuf,
    pub(super) files: BlockFiles,
    pub(super) precision: Precision,
    pub(super) commit: Commit,
    /// Steps done.
    step: u64,
    /// Updates that all blocks had.
    num_updates: u64,
    /// Updates of each block: as many, or one more.
    updates: Vec<u64>,
    /// What led the training, after the last step.
    pilot: Option<String>,
    /// What the training can go back to.
    snapshot: Option<Snapshot>,
    /// Whether the disk has room for one.
    keeps_snapshots: bool,
    /// The last step.
    last_step: Option<Box<StreamedStep>>,
    /// What the last step's end has still to do to the files.
    unsettled: Option<Blocks>,
    /// Held, not read: the lock ends when the file closes.
    _lock: File,
}

impl BlockStore {
    /// Opens the store in a folder, or makes one block by block, with weights from `first`, or from the seed: then they are
    /// those of a network in memory. Brings a store that was left in the middle of something into order.
    pub(super) fn open_or_create(
        network: &Network,
        settings: &OffloadSettings,
        first: Option<&mut FirstWeights<'_>>,
        watch: Watch<'_>,
    ) -> Result<Self, OffloadError> {
        let folder = settings.folder.clone();
        std::fs::create_dir_all(&folder).map_err(|source| OffloadError::Unwritable { path: folder.clone(), source })?;
        let lock = lock(&folder)?;
        let room = DiskRoom::of(network, settings)?;
        room.check()?;
        let progress: Option<Progress> = read_json(&folder.join(PROGRESS_FILE))?;
        let manifest = Manifest::new(network, settings, room.commit);
        write_json(&folder.join(MANIFEST_FILE), &manifest)?;
        let blocks = network.blocks().iter();
        let layouts: Vec<Layout> = blocks.map(|block| Layout::of(block.as_ref(), settings.precision)).collect();
        let files = BlockFiles::new(&folder, layouts);
        let updates = vec![0; files.layouts.len()];
        let (precision, commit) = (settings.precision, room.commit);
        let snapshot = Snapshot::find(&folder, &files)?;
        let mut store = Self {
            folder,
            files,
            precision,
            commit,
            step: 0,
            num_updates: 0,
            updates,
            pilot: None,
            snapshot,
            keeps_snapshots: room.keeps_snapshot,
            last_step: None,
            unsettled: None,
            _lock: lock,
        };
        match progress {
            Some(progress) => store.recover(progress)?,
            None => store.create(&network.specs(), settings.seed, first, watch)?,
        }
        if !store.keeps_snapshots {
            // It would keep blocks alive that have moved on.
            store.discard_snapshot()?;
        }
        Ok(store)
    }

    /// Steps done.
    pub(super) fn step(&self) -> u64 {
        self.step
    }

    /// Updates that all blocks had: as many as steps, but for those that moved nothing.
    pub(super) fn num_updates(&self) -> u64 {
        self.num_updates
    }

    /// What led the training, after the last step.
    pub(super) fn pilot(&self) -> Option<&str> {
        self.pilot.as_deref()
    }

    /// The last step; `None` before the first, and where it was done but for its end.
    pub(super) fn last_step(&self) -> Option<&StreamedStep> {
        self.last_step.as_deref()
    }

    /// What the training can go back to; `None` before it was taken, and where the disk has no room.
    pub(super) fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref().filter(|snapshot| self.keeps_snapshots && snapshot.is_whole(&self.folder, &self.files))
    }

    /// Where the blocks to go back to are, for a look at them while a step computes.
    pub(super) fn snapshot_place(&self) -> SnapshotPlace {
        SnapshotPlace {
            snapshot: self.snapshot.clone(),
            store: self.folder.clone(),
            files: BlockFiles::new(&self.folder, self.files.layouts.clone()),
        }
    }

    /// Forgets what the training could go back to, and gives its room back.
    pub(super) fn discard_snapshot(&mut self) -> Result<(), OffloadError> {
        self.snapshot = None;
        Snapshot::discard(&self.folder)
    }

    /// Whether the disk has room for one.
    pub(super) fn keeps_snapshots(&self) -> bool {
        self.keeps_snapshots
    }

    #[cfg(test)]
    pub(super) fn forbid_snapshots(&mut self) {
        self.keeps_snapshots = false;
    }

    /// Makes the present blocks those to go back to. False where the file system cannot do that.
    pub(super) fn take_snapshot(&mut self, pilot: String) -> Result<bool, OffloadError> {
        let snapshot = Snapshot { step: self.step, num_updates: self.num_updates, pilot };
        match snapshot.take(&self.folder, &self.files) {
            Ok(taken) => self.snapshot = Some(taken),
            Err(OffloadError::NoLinks { .. }) => self.keeps_snapshots = false,
            Err(error) => {
                self.snapshot = Snapshot::find(&self.folder, &self.files)?;
                return Err(error);
            }
        }
        Ok(self.keeps_snapshots)
    }

    /// True when this block has the update that others still lack.
    pub(super) fn is_ahead(&self, block: usize) -> bool {
        self.updates.get(block).is_some_and(|&updates| updates > self.num_updates)
    }

    /// Blocks that have the update that others still lack.
    pub(super) fn num_ahead(&self) -> usize {
        self.updates.iter().filter(|&&updates| updates > self.num_updates).count()
    }

    /// Which version of a file a step writes.
    pub(super) fn version(&self) -> Version {
        match self.commit {
            Commit::Step => Version::Next,
            Commit::Block => Version::Current,
        }
    }

    /// Takes into account that these blocks are on disk with the next step.
    pub(super) fn note_written(&mut self, blocks: &[usize]) {
        if self.commit == Commit::Block {
            for &block in blocks {
                if let Some(updates) = self.updates.get_mut(block) {
                    *updates = self.num_updates + 1;
                }
            }
        }
    }

    /// Makes the next step the one that counts: all of its blocks are written, or it moved none, or it ends with those of
    /// the snapshot.
    pub(super) fn advance(
        &mut self,
        to: Blocks,
        pilot: Option<String>,
        last_step: Option<Box<StreamedStep>>,
    ) -> Result<(), OffloadError> {
        let num_updates = match (to, &self.snapshot) {
            (Blocks::Stayed, _) => self.num_updates,
            (Blocks::GoBack, Some(snapshot)) => snapshot.num_updates,
            (Blocks::Moved | Blocks::GoBack, _) => self.num_updates + 1,
        };
        let progress = Progress {
            step: self.step + 1,
            num_updates: Some(num_updates),
            pilot,
            is_going_back: to == Blocks::GoBack,
            last_step,
        };
        write_json(&self.folder.join(PROGRESS_FILE), &progress)?;
        self.take(&progress);
        // From here on the new files count: what is not renamed now is before the next step, or at the next opening. Those of
        // a step that was cancelled before one that moves nothing do not.
        self.unsettled = Some(to);
        self.settle()
    }

    /// Does to the files what the end of the last step has still to do.
    pub(super) fn settle(&mut self) -> Result<(), OffloadError> {
        match self.unsettled {
            None | Some(Blocks::Stayed) => {}
            Some(Blocks::Moved) => self.take_next()?,
            Some(Blocks::GoBack) => self.go_back()?,
        }
        self.unsettled = None;
        Ok(())
    }

    /// Stands where `progress` says.
    fn take(&mut self, progress: &Progress) {
        (self.step, self.num_updates, self.pilot) = (progress.step, progress.num_updates(), progress.pilot.clone());
        self.last_step.clone_from(&progress.last_step);
        self.updates.fill(self.num_updates);
    }

    /// Ends with the blocks of the snapshot, as the progress on disk says already.
    fn go_back(&self) -> Result<(), OffloadError> {
        Snapshot::put_back(&self.folder, &self.files)?;
        let (step, num_updates, pilot) = (self.step, Some(self.num_updates), self.pilot.clone());
        let last_step = self.last_step.clone();
        let progress = Progress { step, num_updates, pilot, is_going_back: false, last_step };
        write_json(&self.folder.join(PROGRESS_FILE), &progress)
    }

    /// What is on disk, in words.
    pub(super) fn describe(&self) -> String {
        let num_ahead = self.num_ahead();
        if num_ahead == 0 {
            let went_back = |kept: &&Snapshot| kept.num_updates == self.num_updates && kept.step < self.step;
            let blocks = self.snapshot.as_ref().filter(went_back);
            let blocks = blocks.map_or_else(String::new, |kept| format!(", with the blocks of step {}", kept.step));
            return format!("Step {} is saved{blocks}", self.step);
        }
        let (of, next) = (self.updates.len(), self.step + 1);
        format!("Step {} is saved, and {num_ahead} of {of} blocks have step {next}; going on finishes it", self.step)
    }

    fn create(
        &mut self,
        specs: &[TensorSpec],
        seed: u64,
        mut first: Option<&mut FirstWeights<'_>>,
        watch: Watch<'_>,
    ) -> Result<(), OffloadError> {
        let folder = self.files.folder();
        // Blocks of a start that was broken off have had no update.
        let is_trained = |block| self.files.header(block, Version::Current).is_ok_and(|header| header.step > 0);
        if (0..self.files.layouts.len()).any(is_trained) {
            return Err(OffloadError::Damaged {
                expected: format!("{PROGRESS_FILE} beside blocks that have been trained"),
                found: "none. Put it back, or choose another folder".to_owned(),
                path: self.folder.clone(),
            });
        }
        std::fs::create_dir_all(folder).map_err(|source| write_error(WriteError::new("creating", folder, source)))?;
        let what = if first.is_some() { "taking over weights" } else { "drawing first weights" };
        let total: u64 = self.files.layouts.iter().map(|layout| layout.num_weights() as u64).sum();
        let (mut done, mut skipped) = (0, 0);
        for (block, layout) in self.files.layouts.iter().enumerate() {
            watch.step(what, done, Some(total))?;
            let mut state = BlockState::zeros(layout);
            let numbered: Vec<(usize, &TensorSpec)> =
                specs.iter().enumerate().skip(skipped).take(layout.slots.len()).collect();
            match first.as_deref_mut() {
                Some(first) => take_over(&mut state, &numbered, first)?,
                None => draw(&mut state, &numbered, seed),
            }
            skipped += layout.slots.len();
            self.files.write(block, &state, Version::Current)?;
            done += layout.num_weights() as u64;
        }
        write_json(
            &self.folder.join(PROGRESS_FILE),
            &Progress { step: 0, num_updates: Some(0), pilot: None, is_going_back: false, last_step: None },
        )
    }

    /// Brings the blocks to one step, or finds which are ahead.
    fn recover(&mut self, progress: Progress) -> Result<(), OffloadError> {
        let num_updates = progress.num_updates();
        self.take(&progress);
        remove_partial(self.files.folder());
        if progress.is_going_back {
            self.go_back()?;
        }
        for block in 0..self.files.layouts.len() {
            let next = self.files.path(block, Version::Next);
            if !next.exists() {
                continue;
            }
            let header = self.files.header(block, Version::Next)?;
            if header.step != num_updates {
                // Of a step that was not finished.
                std::fs::remove_file(&next)
                    .map_err(|source| write_error(WriteError::new("removing", &next, source)))?;
            }
        }
        self.take_next()?;
        // A system that broke down may have noted that it went back before the disk had all of it.
        let is_torn = |store: &Self| {
            let step = |block| store.files.header(block, Version::Current).map(|header| header.step).ok();
            (0..store.files.layouts.len())
                .any(|block| step(block).is_none_or(|step| step.wrapping_sub(num_updates) > 1))
        };
        if self.snapshot.as_ref().is_some_and(|snapshot| snapshot.num_updates == num_updates) && is_torn(self) {
            self.go_back()?;
        }
        for block in 0..self.files.layouts.len() {
            let found = self.files.header(block, Version::Current)?.step;
            if found != num_updates && found != num_updates + 1 {
                return Err(OffloadError::Damaged {
                    expected: format!("a block after {num_updates} or {} updates", num_updates + 1),
                    found: format!("{found}"),
                    path: self.files.path(block, Version::Current),
                });
            }
            if let Some(updates) = self.updates.get_mut(block) {
                *updates = found;
            }
        }
        if self.num_ahead() == self.updates.len() {
            // The last step is done but for its marker; what its losses said of the training is lost.
            let pilot = self.pilot.take();
            self.advance(Blocks::Moved, pilot, None)?;
        }
        Ok(())
    }

    /// Renames every file of the step that counts to its current name.
    fn take_next(&self) -> Result<(), OffloadError> {
        for block in 0..self.files.layouts.len() {
            let (next, current) = (self.files.path(block, Version::Next), self.files.path(block, Version::Current));
            match std::fs::rename(&next, &current) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(write_error(WriteError::new("renaming to", &current, source))),
            }
        }
        Ok(())
    }
}

/// Weights of a block as others have them, tensor by tensor.
fn take_over(
    state: &mut BlockState,
    numbered: &[(usize, &TensorSpec)],
    first: &mut FirstWeights<'_>,
) -> Result<(), OffloadError> {
    let mut start = 0;
    for (_, spec) in numbered {
        let values = first(spec)?;
        state.weights.set(start, &values);
        start += spec.num_elements();
    }
    Ok(())
}

/// Weights of a block from the seed: as many tensors at a time as there are threads, so that they never all stand in f32.
fn draw(state: &mut BlockState, numbered: &[(usize, &TensorSpec)], seed: u64) {
    let mut start = 0;
    for group in numbered.chunks(rayon::current_num_threads().max(1)) {
        let drawn: Vec<Vec<f32>> = group.par_iter().map(|&(index, spec)| initial_values(spec, index, seed)).collect();
        for values in drawn {
            state.weights.set(start, &values);
            start += values.len();
        }
    }
}

fn lock(folder: &Path) -> Result<File, OffloadError> {
    let path = folder.join("lock");
    let opened = File::options().create(true).append(true).open(&path);
    let file = opened.map_err(|source| OffloadError::Unwritable { path: folder.to_owned(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(OffloadError::Locked { path: folder.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(OffloadError::Read { path, source }),
    }
}

/// What a process that was killed left half written.
fn remove_partial(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|ending| ending == "partial") {
            // Nobody reads it; the next write replaces it.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
