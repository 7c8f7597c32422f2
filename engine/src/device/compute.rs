//! Where tensors live and how many threads compute.

use candle_core::Device;
use foretrain_ops::profile::Ledger;
use serde::{Deserialize, Serialize};

/// Choice of a compute device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ComputeDevice {
    /// The processor.
    #[default]
    Cpu,
    /// A CUDA GPU by number; this build computes on the CPU only and refuses it.
    Cuda(usize),
}

/// A device that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// The driver or the build said no.
    #[error("opening CUDA GPU {index}: {source}. This build computes on the CPU only: choose `device: Cpu`")]
    Cuda {
        /// GPU number.
        index: usize,
        /// The cause.
        source: candle_core::Error,
    },
    /// More threads than could be of use.
    #[error(
        "starting {num_threads} compute threads: this machine takes at most {most}. Choose fewer, or 0 for one per core"
    )]
    TooManyThreads {
        /// Threads asked for.
        num_threads: usize,
        /// Most that are taken.
        most: usize,
    },
    /// The system gives no such threads.
    #[error("starting {num_threads} compute threads: {source}. Choose fewer")]
    Threads {
        /// Threads asked for.
        num_threads: usize,
        /// The cause.
        source: rayon::ThreadPoolBuildError,
    },
}

impl ComputeDevice {
    /// The device itself. Errors: [`ComputeError::Cuda`].
    pub fn open(self) -> Result<Device, ComputeError> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(index) => Device::new_cuda(index).map_err(|source| ComputeError::Cuda { index, source }),
        }
    }
}

/// As many threads a run may name on any machine, so that one from a larger machine can be resumed.
const MOST_THREADS: usize = 64;

/// Threads that compute, for one run or measurement: `pool.install(work)` keeps all of `work` on them.
/// 0 means one per core. Errors: [`ComputeError::TooManyThreads`]; [`ComputeError::Threads`] when the system gives none.
pub fn compute_pool(num_threads: usize) -> Result<rayon::ThreadPool, ComputeError> {
    build_pool(num_threads, |_| {})
}

/// As [`compute_pool`], of threads that write what operations cost them into `ledger`.
pub fn observed_pool(num_threads: usize, ledger: &Ledger) -> Result<rayon::ThreadPool, ComputeError> {
    let ledger = ledger.clone();
    build_pool(num_threads, move |_| {
        // They are new, so they follow no other.
        ledger.follow();
    })
}

fn build_pool(
    num_threads: usize,
    begin: impl Fn(usize) + Send + Sync + 'static,
) -> Result<rayon::ThreadPool, ComputeError> {
    let num_threads = resolved_num_threads(num_threads);
    let most = resolved_num_threads(0).saturating_mul(4).max(MOST_THREADS);
    if num_threads > most {
        return Err(ComputeError::TooManyThreads { num_threads, most });
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(num_threads).thread_name(|index| format!("compute-{index}"));
    pool.start_handler(begin).build().map_err(|source| ComputeError::Threads { num_threads, source })
}

/// `num_threads`, or one per core for 0.
#[must_use]
pub fn resolved_num_threads(num_threads: usize) -> usize {
    if num_threads == 0 { std::thread::available_parallelism().map_or(1, std::num::NonZero::get) } else { num_threads }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn each_pool_has_its_own_size() {
        let sizes = [1, 3].map(|wanted| compute_pool(wanted).unwrap().install(rayon::current_num_threads));
        assert_eq!(sizes, [1, 3]);
        let observed = observed_pool(2, &Ledger::default()).unwrap();
        assert_eq!(observed.install(rayon::current_num_threads), 2);
        assert!(resolved_num_threads(0) >= 1);
        assert!(matches!(compute_pool(1_000_000), Err(ComputeError::TooManyThreads { .. })));
    }
}
