//! Where tensors live and how many threads compute.

use candle_core::Device;
use serde::{Deserialize, Serialize};

/// Choice of a compute device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ComputeDevice {
    /// The processor.
    #[default]
    Cpu,
    /// A CUDA GPU by number; needs a build with the `cuda` feature.
    Cuda(usize),
}

/// A device that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// The driver or the build said no.
    #[error(
        "opening CUDA GPU {index}: {source}. Is there an NVIDIA GPU and driver, and was this program built with CUDA? The CPU works without"
    )]
    Cuda {
        /// GPU number.
        index: usize,
        /// The cause.
        source: candle_core::Error,
    },
    /// The thread pool is already built with another size.
    #[error("setting {wanted} compute threads: the pool already runs with {found}. Restart to change it")]
    Threads {
        /// Threads asked for.
        wanted: usize,
        /// Threads there are.
        found: usize,
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

/// Sizes the compute thread pool; 0 means one thread per core. May be called again with the same number.
/// Errors: [`ComputeError::Threads`] when the pool already has another size.
pub fn set_num_threads(num_threads: usize) -> Result<usize, ComputeError> {
    let wanted = if num_threads == 0 {
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    } else {
        num_threads
    };
    // A second call fails when the pool exists; what matters is its size.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(wanted).build_global();
    let found = rayon::current_num_threads();
    if found == wanted { Ok(found) } else { Err(ComputeError::Threads { wanted, found }) }
}
