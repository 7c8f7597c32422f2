//! What is read of the machine once, at the program's start, because a frame asks the system nothing.

use foretrain_engine::device::{Gpu, usable_gpus};
use jiff::tz::TimeZone;

/// The machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Threads that its processor runs at once.
    pub num_threads: usize,
    /// GPUs that runs can compute on, or why they cannot.
    pub gpus: Result<Vec<Gpu>, String>,
    /// The zone in which times of day are shown.
    pub zone: TimeZone,
}

impl Default for Machine {
    /// The same everywhere, for tests: one thread, no GPU, UTC.
    fn default() -> Self {
        Self { num_threads: 1, gpus: Err("a machine for tests has no GPU".to_owned()), zone: TimeZone::UTC }
    }
}

impl Machine {
    /// Asks the system, which may read files.
    #[must_use]
    pub fn read() -> Self {
        let num_threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let gpus = usable_gpus().map_err(|error| error.to_string());
        Self { num_threads, gpus, zone: TimeZone::system() }
    }
}
