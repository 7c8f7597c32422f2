//! What is true now: the frozen state that a window draws.

use std::path::PathBuf;
use std::sync::Arc;

use super::history::num_divergences;
use super::{HistoryView, JobId, LogEntry, RunConfig, StopReason, ValidationPoint};
use crate::device::{GaugeReading, Progress};
use crate::hybrid::Phase;
use crate::memory::MemoryPlan;
use crate::offload::Commit;

/// What a run is doing.
#[derive(Debug, Clone, PartialEq)]
pub enum RunStatus {
    /// Loading data, planning, measuring the vanilla step.
    Preparing {
        /// What, in words.
        what: String,
    },
    /// Training.
    Training,
    /// Measuring on the validation part.
    Validating,
    /// Waiting for the user.
    Paused,
    /// Done, but its last checkpoint could not be written: `Save` tries again, `Stop` gives up.
    Unsaved {
        /// Why.
        why: String,
    },
    /// Ended.
    Ended(StopReason),
}

/// What prediction saved, as far as it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct Savings {
    /// Examples (or tokens) seen by a backward pass.
    pub backward_examples: u64,
    /// Examples (or tokens) that vanilla would have sent through a backward pass in as many steps.
    pub vanilla_examples: u64,
    /// Vanilla step time: the mean of the newest full-backward steps, first the probe's at the start of the run, then
    /// those of Warmup and Full, so that it follows the machine's load; `None` before the probe.
    ///
    /// Only what vanilla would do is counted: the probe measures no error norms and remembers no weights, and the time of
    /// both is taken out of Warmup and Full steps ([`crate::session::StepMetrics::vanilla_ms`]), where a clock around
    /// them measures it apart.
    pub vanilla_step_ms: Option<f64>,
    /// What as many vanilla steps would have cost, each at the vanilla step time of its moment; `None` before the probe.
    #[serde(default)]
    pub vanilla_ms: Option<f64>,
    /// Time of the steps so far.
    pub measured_ms: f64,
    /// Steps so far.
    pub num_steps: u64,
}

impl Savings {
    /// Share of example-backwards saved; `None` before the first step.
    #[must_use]
    pub fn backward_share_saved(&self) -> Option<f64> {
        (self.vanilla_examples > 0).then(|| 1.0 - self.backward_examples as f64 / self.vanilla_examples as f64)
    }

    /// Share of time saved against as many vanilla steps (negative: lost); `None` when not measured, and while every
    /// step was a full one: then each would only be compared with itself.
    #[must_use]
    pub fn time_share_saved(&self) -> Option<f64> {
        if self.backward_examples >= self.vanilla_examples {
            return None;
        }
        let vanilla_ms = self.vanilla_ms?;
        (vanilla_ms > 0.0).then(|| 1.0 - self.measured_ms / vanilla_ms)
    }
}

/// What a streamed training has read and written, and waited for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DiskTraffic {
    /// What of a broken step counts.
    pub commit: Commit,
    /// Whether earlier blocks are kept to go back to.
    pub keeps_snapshot: bool,
    /// Steps so far.
    pub num_steps: u64,
    /// Their time.
    pub seconds: f64,
    /// Of it, the time that computing waited for the disk.
    pub wait_seconds: f64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
}

impl DiskTraffic {
    /// Before the first step.
    #[must_use]
    pub fn new(commit: Commit, keeps_snapshot: bool) -> Self {
        let (num_steps, seconds, wait_seconds, read_bytes, written_bytes) = Default::default();
        Self { commit, keeps_snapshot, num_steps, seconds, wait_seconds, read_bytes, written_bytes }
    }
}

/// One image with what the model made of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageSample {
    /// Pixels (channels, height, width), 0 to 255.
    pub pixels: Arc<[u8]>,
    /// Right class.
    pub label: u32,
    /// Likeliest class by the model.
    pub predicted: u32,
    /// Its probability.
    pub probability: f32,
}

/// What the model does on fixed inputs.
#[derive(Debug, Clone, PartialEq)]
pub enum Samples {
    /// A fixed grid of validation images.
    Images {
        /// After this step.
        step: u64,
        /// (channels, height, width).
        shape: (usize, usize, usize),
        /// Class names.
        classes: Arc<[String]>,
        /// The images.
        images: Vec<ImageSample>,
    },
    /// Text generated from a fixed prompt.
    Text {
        /// After this step.
        step: u64,
        /// What it was given.
        prompt: String,
        /// What it added.
        completion: String,
    },
}

/// A run, now.
#[derive(Debug, Clone)]
pub struct RunSnapshot {
    /// The job that started it.
    pub job: JobId,
    /// Its folder; `None` while preparing.
    pub folder: Option<PathBuf>,
    /// Its recipe, model fitted to the data.
    pub config: Arc<RunConfig>,
    /// Trainable numbers.
    pub num_params: u64,
    /// What it is doing.
    pub status: RunStatus,
    /// Phase of the last step.
    pub phase: Phase,
    /// Steps done.
    pub step: u64,
    /// How far the next one is, where steps are long enough to tell: in streamed trainings.
    pub in_step: Option<Progress>,
    /// What the disk has done, where weights lie there.
    pub disk: Option<DiskTraffic>,
    /// All steps so far.
    pub history: HistoryView,
    /// All validations so far.
    pub validations: Arc<[ValidationPoint]>,
    /// All log entries so far.
    pub log: Arc<[LogEntry]>,
    /// Latest samples.
    pub samples: Option<Arc<Samples>>,
    /// What prediction saved.
    pub savings: Savings,
    /// Memory planned, of the device that computes; of the machine where weights lie on disk.
    pub plan: Option<Arc<MemoryPlan>>,
    /// A GPU's memory planned, where it computes with weights from disk.
    pub gpu_plan: Option<Arc<MemoryPlan>>,
    /// Resident memory of this process right before the run took any, bytes: program, window, data that is loaded
    /// already. `None` while preparing, and where the system does not tell.
    pub memory_before_bytes: Option<u64>,
    /// Memory and load measured; `None` while preparing.
    pub gauges: Option<GaugeReading>,
    /// Seconds to go at the measured pace; `None` before there is one.
    pub seconds_left: Option<f64>,
}

impl RunSnapshot {
    /// Divergences seen so far, each of them answered.
    #[must_use]
    pub fn num_divergences(&self) -> u64 {
        num_divergences(&self.log)
    }
}

/// A past run, read back.
#[derive(Debug, Clone)]
pub struct LoadedRun {
    /// Its folder.
    pub folder: PathBuf,
    /// Its recipe.
    pub config: RunConfig,
    /// Trainable numbers.
    pub num_params: u64,
    /// All steps.
    pub history: HistoryView,
    /// All validations.
    pub validations: Vec<ValidationPoint>,
    /// All log entries.
    pub log: Vec<LogEntry>,
    /// What prediction saved.
    pub savings: Savings,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_saved_is_blank_until_something_was_predicted() {
        let full = Savings {
            backward_examples: 640,
            vanilla_examples: 640,
            vanilla_step_ms: Some(10.0),
            vanilla_ms: Some(100.0),
            measured_ms: 80.0,
            num_steps: 10,
        };
        assert_eq!(full.time_share_saved(), None, "full steps compared with themselves say nothing");
        let predicted = Savings { backward_examples: 320, ..full };
        assert!(predicted.time_share_saved().is_some_and(|share| (share - 0.2).abs() < 1e-12));
        assert_eq!(Savings { vanilla_ms: None, ..predicted }.time_share_saved(), None);
    }
}
