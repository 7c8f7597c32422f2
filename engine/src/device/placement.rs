//! Where a run computes when it leaves the choice to us.

use super::{ComputeDevice, Gpu, GpuError};

/// What a run may take of a GPU's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuBudget {
    /// Bytes.
    pub bytes: u64,
    /// Where they come from: "what is free of GPU 0 (NVIDIA H200), 139.0 GiB".
    pub source: String,
}

impl GpuBudget {
    /// What is free of `gpu`, at most `limit_bytes` where that is not 0. `format` writes bytes.
    #[must_use]
    pub fn of(gpu: &Gpu, limit_bytes: u64, format: fn(u64) -> String) -> Self {
        let free = gpu.free_bytes;
        if limit_bytes > 0 && limit_bytes <= free {
            return Self { bytes: limit_bytes, source: format!("the limit set for {gpu}") };
        }
        let total = format(gpu.total_bytes);
        let source = if limit_bytes > 0 {
            format!("what is free of {gpu}, {total} in all, less than its limit of {}", format(limit_bytes))
        } else {
            format!("what is free of {gpu}, {total} in all")
        };
        Self { bytes: free, source }
    }
}

/// A device, and why it is this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Never [`ComputeDevice::Auto`].
    pub device: ComputeDevice,
    /// A sentence: "Computing on GPU 0 (NVIDIA H200): …".
    pub why: String,
}

impl Placement {
    /// The first of `usable` that has `needed_bytes` to give (at most `limit_bytes` where that is not 0) and that `start`
    /// can start, else the processor.
    #[must_use]
    pub fn choose(
        usable: Result<Vec<Gpu>, GpuError>,
        (needed_bytes, limit_bytes): (u64, u64),
        format: fn(u64) -> String,
        start: impl Fn(&Gpu) -> Result<(), GpuError>,
    ) -> Self {
        let on_processor =
            |why: &str| Self { device: ComputeDevice::Cpu, why: format!("Computing on the processor: {why}") };
        let gpus = match usable {
            Ok(gpus) if gpus.is_empty() => return on_processor("the driver knows of no GPU."),
            Ok(gpus) => gpus,
            Err(error) => return on_processor(&format!("{error}.")),
        };
        let needed = format(needed_bytes);
        let (mut small, mut refused) = (Vec::new(), Vec::new());
        for gpu in &gpus {
            let budget = GpuBudget::of(gpu, limit_bytes, format);
            let has = format(budget.bytes);
            if needed_bytes > budget.bytes {
                small.push(format!("{has} ({})", budget.source));
                continue;
            }
            match start(gpu) {
                Ok(()) => {
                    let fits = format!("Computing on {gpu}: the run needs {needed} of {has} ({}).", budget.source);
                    let why = [vec![fits], refused].concat().join(" ");
                    return Self { device: ComputeDevice::Cuda(gpu.index), why };
                }
                Err(error) => refused.push(error.to_string()),
            }
        }
        if !small.is_empty() {
            refused.insert(0, format!("the run needs {needed} on a GPU and has {}.", small.join("; ")));
        }
        on_processor(&refused.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model that CUDA does not start.
    const BROKEN: &str = "Broken";

    fn gpu(index: usize, free_bytes: u64) -> Gpu {
        let name = format!("Model {index}");
        Gpu { index, name, total_bytes: 1000, free_bytes, uuid: String::new(), compute_capability: None }
    }

    fn bytes(bytes: u64) -> String {
        format!("{bytes} B")
    }

    #[track_caller]
    fn check(usable: Result<Vec<Gpu>, GpuError>, needs: (u64, u64), device: ComputeDevice, words: &[&str]) {
        let start = |gpu: &Gpu| match gpu.name.as_str() {
            BROKEN => Err(GpuError::Start { gpu: Box::new(gpu.clone()), what: "CUDA_ERROR_NO_DEVICE".to_owned() }),
            _ => Ok(()),
        };
        let placement = Placement::choose(usable, needs, bytes, start);
        assert_eq!(placement.device, device, "{}", placement.why);
        for word in words {
            assert!(placement.why.contains(word), "expected {word:?} in {:?}", placement.why);
        }
    }

    #[test]
    fn the_first_gpu_with_room_is_taken() {
        let two = || Ok(vec![gpu(0, 300), gpu(1, 900)]);
        check(two(), (300, 0), ComputeDevice::Cuda(0), &["GPU 0 (Model 0)", "300 B of 300 B", "1000 B in all"]);
        check(two(), (301, 0), ComputeDevice::Cuda(1), &["GPU 1 (Model 1)", "301 B of 900 B"]);
    }

    #[test]
    fn one_that_cuda_refuses_is_passed_over() {
        let broken = |index| Gpu { name: BROKEN.to_owned(), ..gpu(index, 900) };
        check(Ok(vec![broken(0), gpu(1, 900)]), (300, 0), ComputeDevice::Cuda(1), &["GPU 1 (Model 1)", "0 (Broken)"]);
        let words = ["the processor", "300 B on a GPU and has 10 B", "GPU 1 (Broken): CUDA_ERROR_NO_DEVICE"];
        check(Ok(vec![gpu(0, 10), broken(1)]), (300, 0), ComputeDevice::Cpu, &words);
        check(Ok(vec![broken(0)]), (300, 0), ComputeDevice::Cpu, &["processor: GPU 0 (Broken): CUDA_ERROR_NO_DEVICE"]);
    }

    #[test]
    fn a_limit_counts_even_where_more_is_free() {
        check(Ok(vec![gpu(0, 900)]), (200, 200), ComputeDevice::Cuda(0), &["200 B of 200 B", "the limit"]);
        check(Ok(vec![gpu(0, 900)]), (201, 200), ComputeDevice::Cpu, &["201 B", "200 B", "the limit set for GPU 0"]);
        check(Ok(vec![gpu(0, 100)]), (101, 200), ComputeDevice::Cpu, &["100 B", "less than its limit of 200 B"]);
    }

    #[test]
    fn the_processor_is_named_with_the_reason() {
        check(Err(GpuError::Build), (1, 0), ComputeDevice::Cpu, &["processor", "packaging/cuda/build"]);
        let missing = GpuError::Missing { missing: vec!["cuBLAS (libcublas)".to_owned()] };
        check(Err(missing), (1, 0), ComputeDevice::Cpu, &["cuBLAS (libcublas) not found"]);
        check(Ok(Vec::new()), (1, 0), ComputeDevice::Cpu, &["no GPU"]);
        check(Ok(vec![gpu(0, 10), gpu(1, 20)]), (30, 0), ComputeDevice::Cpu, &["30 B", "10 B (", "20 B ("]);
    }
}
