//! What a run on a GPU minds besides: the memory it may take, and a device that fails or vanishes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Run;
use crate::device::{ComputeDevice, GaugeReading};
use crate::hybrid::HybridError;
use crate::memory::format_bytes;
use crate::session::outlet::Outlet;
use crate::session::trainer_thread::panic_message;
use crate::session::{LogKind, RunConfig, SessionError, checkpoint};

impl Run {
    /// Says where the run computes, when there is something to say.
    pub(super) fn log_place(&mut self, why: Option<String>) {
        if let Some(why) = why {
            self.log(LogKind::Placed(why));
        }
    }

    /// After an error that ends training: saves what was learned, when it is whole, and returns what to tell.
    pub(super) fn saved_after(&mut self, error: &SessionError, outlet: &mut Outlet) -> String {
        let ComputeDevice::Cuda(index) = self.view.config.device else {
            // What was learned up to here is worth a checkpoint, unless saving is what failed.
            self.save_or_warn(outlet);
            return error.to_string();
        };
        if is_between_steps(error) {
            // A GPU that vanished cannot be read any more, which CUDA's bindings may tell by a panic.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.save_or_warn(outlet))) {
                self.log(LogKind::Warning(format!("saving failed: {}", panic_message(panic.as_ref()))));
            }
        }
        let saved = checkpoint::list(&self.folder.path().join("checkpoints"));
        failure(index, self.view.progress.step, saved.iter().map(|(step, _)| *step).max(), &error.to_string())
    }
}

/// Whether the weights are those after a step: an optimizer that fails may have moved some and not others.
fn is_between_steps(error: &SessionError) -> bool {
    !matches!(error, SessionError::Hybrid(HybridError::Optim(_)))
}

/// What to tell of a run on a GPU that failed after `step`, with a whole checkpoint of `saved`.
fn failure(index: usize, step: u64, saved: Option<u64>, error: &str) -> String {
    let left = match saved {
        Some(saved) => format!(
            "The checkpoint of step {saved} is whole: `foretrain train --resume` goes on from it, with `--device cpu` on \
             the processor"
        ),
        None => "No checkpoint had been written yet".to_owned(),
    };
    format!("the run on GPU {index} failed after step {step}: {error}. {left}")
}

/// What makes a run in memory take less.
pub(super) const LESS_AT_ONCE: &str = "more micro-batches or a smaller batch";

/// What to tell when the run has taken more of its GPU's memory than its recipe allows, with `remedies` that make it take less;
/// `None` otherwise, and where the driver does not tell.
pub(in crate::session) fn passed_limit(config: &RunConfig, reading: &GaugeReading, remedies: &str) -> Option<String> {
    let ComputeDevice::Cuda(index) = config.device else { return None };
    let limit = Some(config.vram_limit_bytes).filter(|limit| *limit > 0)?;
    let gpu = reading.gpus.iter().find(|gpu| gpu.index == index)?;
    (gpu.own_bytes > limit).then(|| {
        format!(
            "This run has taken {} of GPU {index}'s memory, over its limit of {} (others use {} of {}). It is saved and \
             ends here: go on with a higher limit, {remedies}",
            format_bytes(gpu.own_bytes),
            format_bytes(limit),
            format_bytes(gpu.others_bytes()),
            format_bytes(gpu.total_bytes)
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::data::DatasetSpec;
    use crate::device::GpuReading;
    use crate::models::ModelError;
    use crate::optim::OptimError;
    use crate::session::{recipe, tier};

    fn config(device: ComputeDevice, vram_limit_bytes: u64) -> RunConfig {
        let recipe = recipe("glyphs-cnn").unwrap().run_config(&tier("vanilla").unwrap(), DatasetSpec::Glyphs).unwrap();
        RunConfig { device, vram_limit_bytes, ..recipe }
    }

    fn reading(own_bytes: u64) -> GaugeReading {
        let gpu = |index, own_bytes| GpuReading {
            index,
            own_bytes,
            used_bytes: own_bytes + (1 << 30),
            total_bytes: 8 << 30,
            ..GpuReading::default()
        };
        GaugeReading { gpus: vec![gpu(0, 7 << 30), gpu(1, own_bytes)], ..GaugeReading::default() }
    }

    #[test]
    fn a_run_may_take_its_limit_and_no_more() {
        let limit = 2 << 30;
        let on_second = config(ComputeDevice::Cuda(1), limit);
        let passed_limit = |config: &RunConfig, reading: &GaugeReading| passed_limit(config, reading, LESS_AT_ONCE);
        assert_eq!(passed_limit(&on_second, &reading(limit)), None);
        let told = passed_limit(&on_second, &reading(limit + (1 << 29))).unwrap();
        for figure in ["2.5 GiB", "limit of 2.0 GiB", "others use 1.0 GiB of 8.0 GiB", "GPU 1", "micro-batches"] {
            assert!(told.contains(figure), "expected {figure:?} in {told:?}");
        }
        // Without a limit, without a GPU, and where the driver does not tell.
        assert_eq!(passed_limit(&config(ComputeDevice::Cuda(1), 0), &reading(u64::MAX >> 1)), None);
        assert_eq!(passed_limit(&config(ComputeDevice::Cpu, 1), &reading(limit)), None);
        assert_eq!(passed_limit(&on_second, &GaugeReading::default()), None);
    }

    #[test]
    fn a_failure_names_the_checkpoint_to_go_on_from() {
        let told = failure(0, 120, Some(100), "out of memory");
        assert!(told.contains("run on GPU 0 failed after step 120: out of memory"), "{told}");
        assert!(told.contains("step 100") && told.contains("--device cpu"), "{told}");
        assert!(failure(0, 3, None, "gone").contains("No checkpoint"));
    }

    #[test]
    fn weights_are_saved_only_between_steps() {
        let failed = || candle_core::Error::Msg("out of memory".to_owned());
        assert!(is_between_steps(&SessionError::Hybrid(HybridError::Tensor(failed()))));
        assert!(is_between_steps(&SessionError::Hybrid(HybridError::Model(ModelError::Tensor(failed())))));
        assert!(!is_between_steps(&SessionError::Hybrid(HybridError::Optim(OptimError::Tensor(failed())))));
    }
}
