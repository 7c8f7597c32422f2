//! Where tensors live and how many threads compute.

use candle_core::Device;
use foretrain_ops::profile::Ledger;
use serde::{Deserialize, Serialize};

use super::cuda::{self, GpuError};

/// Choice of a compute device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ComputeDevice {
    /// The processor.
    #[default]
    Cpu,
    /// A CUDA GPU by its number in nvidia-smi.
    Cuda(usize),
    /// The first GPU that this build, its driver and its free memory allow, else the processor.
    Auto,
}

impl std::fmt::Display for ComputeDevice {
    /// As [`FromStr`](std::str::FromStr) reads it: "cpu", "cuda:0", "auto".
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Auto => f.write_str("auto"),
        }
    }
}

impl std::str::FromStr for ComputeDevice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "cpu" => Ok(Self::Cpu),
            "auto" => Ok(Self::Auto),
            "cuda" => Ok(Self::Cuda(0)),
            _ => match text.strip_prefix("cuda:").map(str::parse) {
                Some(Ok(index)) => Ok(Self::Cuda(index)),
                Some(Err(_)) | None => Err("expected auto, cpu or cuda:N with the number of a GPU".to_owned()),
            },
        }
    }
}

/// A device that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// The build, the machine or CUDA said no.
    #[error(
        "computing on GPU {index}: {source}. The processor does the same: `--device cpu`, in a recipe `device: Cpu`"
    )]
    Cuda {
        /// GPU number.
        index: usize,
        /// The cause.
        source: GpuError,
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
    /// The device itself; it never panics. `Auto` opens the first GPU that can be, else the processor; where memory
    /// matters, settle it before. Errors: [`ComputeError::Cuda`].
    pub fn open(self) -> Result<Device, ComputeError> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(index) => cuda::open(index).map_err(|source| ComputeError::Cuda { index, source }),
            Self::Auto => {
                let opened = cuda::usable_gpus().unwrap_or_default().iter().find_map(|gpu| cuda::open(gpu.index).ok());
                Ok(opened.unwrap_or(Device::Cpu))
            }
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
    fn a_device_is_read_as_it_is_written() {
        for device in [ComputeDevice::Cpu, ComputeDevice::Auto, ComputeDevice::Cuda(0), ComputeDevice::Cuda(11)] {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        assert_eq!("cuda".parse(), Ok(ComputeDevice::Cuda(0)));
        for wrong in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU"] {
            assert!(wrong.parse::<ComputeDevice>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn opening_falls_back_only_when_asked_to() {
        assert!(ComputeDevice::Auto.open().is_ok() && ComputeDevice::Cpu.open().unwrap().is_cpu());
        let error = ComputeDevice::Cuda(4096).open().unwrap_err();
        assert!(matches!(error, ComputeError::Cuda { index: 4096, .. }), "{error}");
    }

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
