//! Reading ahead and writing behind: two threads that live as long as one step.
//!
//! Each hands over one block at a time and waits until it is taken, so that at most three blocks of state are in memory:
//! the one that computes, the one that is read next, the one that is being written.

use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::OffloadError;
use super::files::{BlockFiles, Version};
use super::state::{BlockState, Weights};

/// What to read next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The weights of a block.
    Weights(usize),
    /// All of a block.
    State(usize),
}

/// What was read.
enum Loaded {
    Weights(Weights),
    State(Box<BlockState>),
}

/// What a step's threads did.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) read_bytes: u64,
    pub(super) written_bytes: u64,
    /// Time that the reading thread read.
    pub(super) reading: Duration,
    /// Time that the writing thread wrote, until the disk had it.
    pub(super) writing: Duration,
    /// Time that computing waited for the one.
    pub(super) read_wait: Duration,
    /// And for the other.
    pub(super) write_wait: Duration,
    /// Blocks that are on disk.
    pub(super) written: Vec<usize>,
}

/// The ends that computing holds.
pub(super) struct Streams {
    reads: Receiver<Result<Loaded, OffloadError>>,
    writes: Sender<(usize, Box<BlockState>)>,
    read_wait: Duration,
    write_wait: Duration,
}

impl Streams {
    /// The weights that were asked for next.
    pub(super) fn weights(&mut self) -> Result<Weights, OffloadError> {
        match self.next()? {
            Loaded::Weights(weights) => Ok(weights),
            Loaded::State(state) => Ok(state.weights),
        }
    }

    /// The state that was asked for next.
    pub(super) fn state(&mut self) -> Result<Box<BlockState>, OffloadError> {
        match self.next()? {
            Loaded::State(state) => Ok(state),
            Loaded::Weights(_) => Err(OffloadError::Thread { what: "reads" }),
        }
    }

    /// Hands a block over to be written; waits while the one before is.
    pub(super) fn write(&mut self, block: usize, state: Box<BlockState>) -> Result<(), OffloadError> {
        let started = Instant::now();
        let sent = self.writes.send((block, state));
        self.write_wait += started.elapsed();
        // The thread itself says why it ended.
        sent.map_err(|_| OffloadError::Thread { what: "writes" })
    }

    fn next(&mut self) -> Result<Loaded, OffloadError> {
        let started = Instant::now();
        let loaded = self.reads.recv();
        self.read_wait += started.elapsed();
        loaded.map_err(|_| OffloadError::Thread { what: "reads" })?
    }
}

/// Does `work` while one thread reads what is `wanted`, in this order, and another writes `version`s of what work hands
/// over. Returns after the disk has everything. What was written is told in either case.
pub(super) fn stream<T>(
    files: &BlockFiles,
    wanted: &[Wanted],
    version: Version,
    work: impl FnOnce(&mut Streams) -> Result<T, OffloadError>,
) -> (Result<T, OffloadError>, Traffic) {
    let (read_out, reads) = bounded(0);
    let (writes, write_in) = bounded(0);
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || read_all(files, wanted, &read_out));
        let writer = scope.spawn(move || write_all(files, version, &write_in));
        let mut streams = Streams { reads, writes, read_wait: Duration::ZERO, write_wait: Duration::ZERO };
        let done = work(&mut streams);
        let Streams { reads, writes, read_wait, mut write_wait } = streams;
        drop(reads);
        drop(writes);
        let started = Instant::now();
        let (written, failure) = joined(writer);
        write_wait += started.elapsed();
        let (read, _) = joined(reader);
        let traffic = Traffic { read_wait, write_wait, read_bytes: read.read_bytes, reading: read.reading, ..written };
        // Why the writer ended is the cause of what work says of it.
        (failure.map_or(done, Err), traffic)
    })
}

/// What a thread did, and why it ended if it should not have.
type Outcome = (Traffic, Option<OffloadError>);

fn joined(thread: ScopedJoinHandle<'_, Outcome>) -> Outcome {
    match thread.join() {
        Ok(outcome) => outcome,
        // A panic goes on where panics are caught.
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn read_all(files: &BlockFiles, wanted: &[Wanted], out: &Sender<Result<Loaded, OffloadError>>) -> Outcome {
    let mut traffic = Traffic::default();
    for &wanted in wanted {
        let started = Instant::now();
        let loaded = match wanted {
            Wanted::Weights(block) => files.read_weights(block).map(Loaded::Weights),
            Wanted::State(block) => files.read(block).map(|state| Loaded::State(Box::new(state))),
        };
        traffic.reading += started.elapsed();
        let (Wanted::Weights(block) | Wanted::State(block)) = wanted;
        if let Some(layout) = files.layouts.get(block) {
            traffic.read_bytes += match wanted {
                Wanted::Weights(_) => layout.weight_bytes(),
                Wanted::State(_) => layout.state_bytes(),
            };
        }
        let is_error = loaded.is_err();
        if out.send(loaded).is_err() || is_error {
            break;
        }
    }
    (traffic, None)
}

fn write_all(files: &BlockFiles, version: Version, write_in: &Receiver<(usize, Box<BlockState>)>) -> Outcome {
    let mut traffic = Traffic::default();
    for (block, state) in write_in {
        let started = Instant::now();
        match files.write(block, &state, version) {
            Ok(bytes) => traffic.written_bytes += bytes,
            Err(error) => return (traffic, Some(error)),
        }
        traffic.writing += started.elapsed();
        traffic.written.push(block);
    }
    (traffic, None)
}
