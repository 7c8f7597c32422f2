//! CUDA GPUs: which there are, whether this build and this machine can compute on them, and opening one.
//!
//! Invariant: nothing here panics. cudarc panics where a library is missing, so that libraries are looked for first,
//! and what it does in spite of that is caught.

use std::sync::{Mutex, PoisonError};

use candle_core::Device;

use super::library::NEEDED;
use super::panic_text;

/// Whether this build can compute on GPUs at all.
#[must_use]
pub fn has_cuda() -> bool {
    cfg!(feature = "cuda")
}

/// A GPU as NVIDIA's driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Its number, as nvidia-smi counts: `cuda:0` is the first.
    pub index: usize,
    /// Product name.
    pub name: String,
    /// Memory in all, bytes.
    pub total_bytes: u64,
    /// Memory that no program has taken, bytes.
    pub free_bytes: u64,
    /// "GPU-" and 32 hexadecimal digits in groups; empty where the driver does not tell.
    pub uuid: String,
    /// Compute capability, (8, 0) for 8.0; `None` where the driver does not tell.
    pub compute_capability: Option<(i32, i32)>,
}

/// Compute capability of the first GPUs with bf16 arithmetic, Ampere's (CUDA C++ programming guide, "Compute Capabilities").
const BF16_CAPABILITY: (i32, i32) = (8, 0);

impl Gpu {
    /// Errors: [`GpuError::NoBf16`] where it, or what this build's kernels were made for, has no bf16. A GPU that does not tell
    /// is believed to have it.
    pub fn check_bf16(&self) -> Result<(), GpuError> {
        self.check_bf16_of(option_env!("CUDA_COMPUTE_CAP").and_then(capability))
    }

    /// The same for kernels of that compute capability.
    fn check_bf16_of(&self, kernels: Option<(i32, i32)>) -> Result<(), GpuError> {
        let lacks = |found: Option<(i32, i32)>| found.filter(|found| *found < BF16_CAPABILITY);
        let what = match (lacks(self.compute_capability), lacks(kernels)) {
            (Some((major, minor)), _) => format!("its compute capability is {major}.{minor}"),
            (None, Some((major, minor))) => format!("this build's kernels are for compute capability {major}.{minor}"),
            (None, None) => return Ok(()),
        };
        Err(GpuError::NoBf16 { gpu: Box::new(self.clone()), what })
    }
}

/// "80", as builds of candle's kernels are told, is 8.0.
fn capability(text: &str) -> Option<(i32, i32)> {
    let number: i32 = text.parse().ok()?;
    Some((number / 10, number % 10))
}

impl std::fmt::Display for Gpu {
    /// "GPU 0 (NVIDIA H200)".
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GPU {} ({})", self.index, self.name)
    }
}

/// Why there is no computing on a GPU.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// The build has no kernels for GPUs.
    #[error("this build computes on the processor only; packaging/cuda/build makes one with CUDA")]
    Build,
    /// The driver's management library does not answer, or libraries are missing.
    #[error("{} not found", missing.join(", "))]
    Missing {
        /// What is missing, each with the name of its library.
        missing: Vec<String>,
    },
    /// No GPU of this number.
    #[error("expected a GPU of this number, found {}", in_words(found))]
    Number {
        /// GPUs that there are.
        found: Vec<Gpu>,
    },
    /// It has no bf16.
    #[error("{gpu} does not multiply bf16: {what}, and bf16 takes 8.0 (Ampere). Choose fp16 or f32")]
    NoBf16 {
        /// The GPU.
        gpu: Box<Gpu>,
        /// What is too old.
        what: String,
    },
    /// The driver manages it, but CUDA does not offer it to this program.
    #[error("{gpu} is there, but CUDA does not offer it. Does CUDA_VISIBLE_DEVICES leave it out?")]
    Hidden {
        /// The GPU.
        gpu: Box<Gpu>,
    },
    /// CUDA refused.
    #[error("{gpu}: {what}. Does its driver support this build's CUDA, and is its memory free?")]
    Start {
        /// The GPU.
        gpu: Box<Gpu>,
        /// What CUDA said.
        what: String,
    },
}

fn in_words(gpus: &[Gpu]) -> String {
    if gpus.is_empty() { "none".to_owned() } else { gpus.iter().map(Gpu::to_string).collect::<Vec<_>>().join(", ") }
}

/// The GPUs of this machine, in nvidia-smi's order, whatever this build can do with them.
/// Errors: [`GpuError::Missing`] without NVIDIA's driver.
pub fn gpus() -> Result<Vec<Gpu>, GpuError> {
    let not_there = |error: nvml_wrapper::error::NvmlError| GpuError::Missing {
        missing: vec![format!("NVIDIA's driver (libnvidia-ml: {error})")],
    };
    let nvml = nvml_wrapper::Nvml::init().map_err(not_there)?;
    let count = nvml.device_count().map_err(not_there)?;
    let read = |index: u32| {
        let device = nvml.device_by_index(index).ok()?;
        let memory = device.memory_info().ok()?;
        Some(Gpu {
            index: index as usize,
            name: device.name().unwrap_or_else(|_| "without a name".to_owned()),
            total_bytes: memory.total,
            free_bytes: memory.free,
            uuid: device.uuid().unwrap_or_default(),
            compute_capability: device.cuda_compute_capability().ok().map(|found| (found.major, found.minor)),
        })
    };
    Ok((0..count).filter_map(read).collect())
}

/// The GPUs that this build can be expected to compute on: [`gpus`], when kernels and libraries are there too.
/// Errors: [`GpuError::Build`]; [`GpuError::Missing`] naming all that is missing.
pub fn usable_gpus() -> Result<Vec<Gpu>, GpuError> {
    if !has_cuda() {
        return Err(GpuError::Build);
    }
    let found = gpus();
    let missing: Vec<String> =
        NEEDED.into_iter().filter(|library| !library.is_present()).map(|library| library.what.to_owned()).collect();
    match found {
        Ok(gpus) if missing.is_empty() => Ok(gpus),
        Ok(_) => Err(GpuError::Missing { missing }),
        Err(GpuError::Missing { missing: driver }) => {
            Err(GpuError::Missing { missing: driver.into_iter().chain(missing).collect() })
        }
        Err(other) => Err(other),
    }
}

/// GPU `index`, when it can be expected to work. Errors: as [`usable_gpus`]; [`GpuError::Number`].
pub fn usable_gpu(index: usize) -> Result<Gpu, GpuError> {
    let found = usable_gpus()?;
    match found.iter().find(|gpu| gpu.index == index) {
        Some(gpu) => Ok(gpu.clone()),
        None => Err(GpuError::Number { found }),
    }
}

/// Opens GPU `index`. All threads that compute on the device opened share one stream, so that what one of them began
/// is done before what another begins next. Errors: as [`usable_gpu`]; [`GpuError::Hidden`], [`GpuError::Start`].
pub(super) fn open(index: usize) -> Result<Device, GpuError> {
    let gpu = usable_gpu(index)?;
    let opened = std::panic::catch_unwind(|| {
        let ordinal = ordinal_of(&gpu)?;
        ordinal.map(Device::new_cuda_with_stream).transpose()
    });
    match opened {
        Ok(Ok(Some(device))) => Ok(device),
        Ok(Ok(None)) => Err(GpuError::Hidden { gpu: Box::new(gpu) }),
        Ok(Err(error)) => Err(GpuError::Start { gpu: Box::new(gpu), what: error.to_string() }),
        Err(panic) => {
            let what = panic_text(panic.as_ref()).unwrap_or("CUDA stopped without a message").to_owned();
            Err(GpuError::Start { gpu: Box::new(gpu), what })
        }
    }
}

/// Whether CUDA gives this program that GPU, as it did once before: the driver may know one that it does not.
/// Errors: as [`usable_gpu`]; [`GpuError::Hidden`], [`GpuError::Start`].
pub fn start_gpu(gpu: &Gpu) -> Result<(), GpuError> {
    static STARTED: Mutex<Vec<(usize, String)>> = Mutex::new(Vec::new());
    let started = || STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    let id = (gpu.index, gpu.uuid.clone());
    if !started().contains(&id) {
        open(gpu.index)?;
        started().push(id);
    }
    Ok(())
}

/// CUDA's own number of a GPU: by default it counts the fastest first, and only those that it was told to see.
#[cfg(feature = "cuda")]
fn ordinal_of(gpu: &Gpu) -> candle_core::Result<Option<usize>> {
    use candle_core::cuda::WrapErr;
    use candle_core::cuda::cudarc::driver::{CudaContext, result};
    let count = usize::try_from(CudaContext::device_count().w()?).unwrap_or(0);
    if gpu.uuid.is_empty() {
        return Ok((gpu.index < count).then_some(gpu.index));
    }
    for ordinal in 0..count {
        let device = result::device::get(ordinal as i32).w()?;
        let uuid = result::device::get_uuid(device).w()?;
        // C's characters have a sign on some processors.
        if is_uuid(&gpu.uuid, &uuid.bytes.map(|byte| byte.to_ne_bytes()[0])) {
            return Ok(Some(ordinal));
        }
    }
    Ok(None)
}

#[cfg(not(feature = "cuda"))]
fn ordinal_of(gpu: &Gpu) -> candle_core::Result<Option<usize>> {
    Ok(Some(gpu.index))
}

/// Whether NVML's text and CUDA's bytes name the same GPU.
#[cfg(any(feature = "cuda", test))]
fn is_uuid(text: &str, bytes: &[u8; 16]) -> bool {
    let digits = text.trim_start_matches("GPU-").chars().filter(|letter| *letter != '-');
    let expected: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.map(|digit| digit.to_ascii_lowercase()).eq(expected.chars())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn bf16_takes_a_gpu_and_kernels_that_have_it() {
        let of = |compute_capability, kernels: Option<&str>| {
            let name = "A model".to_owned();
            let gpu = Gpu { index: 0, name, total_bytes: 1, free_bytes: 1, uuid: String::new(), compute_capability };
            gpu.check_bf16_of(kernels.and_then(capability)).map_err(|error| error.to_string())
        };
        assert!(
            of(None, None).is_ok() && of(Some((8, 0)), Some("80")).is_ok() && of(Some((12, 1)), Some("120")).is_ok()
        );
        let told = of(Some((7, 5)), Some("75")).unwrap_err();
        assert!(told.contains("its compute capability is 7.5") && told.contains("fp16"), "{told}");
        let told = of(Some((9, 0)), Some("75")).unwrap_err();
        assert!(told.contains("this build's kernels are for compute capability 7.5"), "{told}");
    }

    #[test]
    fn a_uuid_is_known_by_its_digits() {
        let bytes = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10];
        assert!(is_uuid("GPU-01234567-89ab-cdef-fedc-ba9876543210", &bytes));
        assert!(is_uuid("GPU-01234567-89AB-CDEF-FEDC-BA9876543210", &bytes));
        assert!(!is_uuid("GPU-01234567-89ab-cdef-fedc-ba9876543211", &bytes));
        assert!(!is_uuid("GPU-01234567", &bytes) && !is_uuid("", &bytes));
    }

    #[test]
    fn a_gpu_that_is_not_there_is_an_error_that_says_what_is_missing() {
        let error = open(4096).unwrap_err();
        let text = error.to_string();
        match error {
            GpuError::Build => assert!(!has_cuda() && text.contains("packaging/cuda/build"), "{text}"),
            GpuError::Missing { missing } => assert!(has_cuda() && missing.iter().all(|what| text.contains(what))),
            GpuError::Number { found } => assert!(found.iter().all(|gpu| text.contains(&gpu.name)), "{text}"),
            GpuError::Hidden { .. } | GpuError::Start { .. } | GpuError::NoBf16 { .. } => {
                panic!("expected no GPU 4096, found one: {text}")
            }
        }
    }
}
