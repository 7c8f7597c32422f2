//! What a window sees of a run in progress, and how it is published.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::checkpoint::SessionProgress;
use super::outlet::Outlet;
use super::{
    DiskTraffic, History, JobId, LogEntry, LogKind, RunConfig, RunSnapshot, RunStatus, Samples, StepMetrics,
    ValidationPoint,
};
use crate::device::{GaugeReading, Gauges, Progress};
use crate::hybrid::Phase;
use crate::memory::MemoryPlan;

/// The vanilla step time is the mean of this many of the newest full-backward steps: a mean, because it is summed
/// and compared with a sum.
const FULL_STEP_WINDOW: usize = 100;

/// Gauges are read this often, and a run that waits is published this often.
pub(super) const GAUGE_INTERVAL: Duration = Duration::from_millis(500);

/// A run as it is shown.
pub(super) struct RunView {
    pub(super) job: JobId,
    pub(super) folder: PathBuf,
    pub(super) config: Arc<RunConfig>,
    pub(super) num_params: u64,
    pub(super) plan: Arc<MemoryPlan>,
    /// A GPU's memory planned, where it computes with weights from disk.
    pub(super) gpu_plan: Option<Arc<MemoryPlan>>,
    pub(super) memory_before_bytes: Option<u64>,
    pub(super) progress: SessionProgress,
    pub(super) history: History,
    pub(super) validations: Vec<ValidationPoint>,
    pub(super) log: Vec<LogEntry>,
    /// `log` as it was published last.
    published_log: Arc<[LogEntry]>,
    pub(super) samples: Option<Arc<Samples>>,
    pub(super) phase: Phase,
    /// How far the step is, where steps are long enough to tell.
    pub(super) in_step: Option<Progress>,
    /// What the disk has done, where weights lie there.
    pub(super) disk: Option<DiskTraffic>,
    gauges: Gauges,
    pub(super) reading: GaugeReading,
    gauges_read: Instant,
    /// When and at which step the pace began to be measured, for the time left.
    began: (Instant, u64),
    /// Seconds left when the run was paused.
    paused_seconds_left: Option<f64>,
    /// Vanilla times of the newest full-backward steps.
    full_steps_ms: VecDeque<f64>,
}

impl RunView {
    /// Of a run that has come to `progress`.
    pub(super) fn new(
        (job, mut gauges): (JobId, Gauges),
        (config, folder): (RunConfig, PathBuf),
        (num_params, plan): (u64, MemoryPlan),
        progress: SessionProgress,
    ) -> Self {
        let reading = gauges.read();
        Self {
            job,
            folder,
            config: Arc::new(config),
            num_params,
            plan: Arc::new(plan),
            gpu_plan: None,
            memory_before_bytes: None,
            began: (Instant::now(), progress.step),
            progress,
            history: History::default(),
            validations: Vec::new(),
            log: Vec::new(),
            published_log: Arc::from([]),
            samples: None,
            phase: Phase::Warmup,
            in_step: None,
            disk: None,
            gauges,
            reading,
            gauges_read: Instant::now(),
            paused_seconds_left: None,
            full_steps_ms: VecDeque::new(),
        }
    }

    /// Takes a full-backward step into the vanilla step time: the probe's, then those of Warmup and Full without what
    /// only the gate needs, so that the figure follows the machine's load through the run.
    pub(super) fn see_vanilla_step(&mut self, vanilla_ms: f64) {
        self.full_steps_ms.push_back(vanilla_ms);
        if self.full_steps_ms.len() > FULL_STEP_WINDOW {
            self.full_steps_ms.pop_front();
        }
        let mean_ms = self.full_steps_ms.iter().sum::<f64>() / self.full_steps_ms.len() as f64;
        self.progress.savings.vanilla_step_ms = Some(mean_ms);
    }

    /// Takes in a step that an earlier process did, which is in `progress` already.
    pub(super) fn recall(&mut self, row: StepMetrics) {
        self.phase = row.phase;
        if let Some(vanilla_ms) = row.vanilla_ms() {
            self.see_vanilla_step(vanilla_ms);
        }
        self.history.push(row);
    }

    /// Takes in a step.
    pub(super) fn record(&mut self, row: StepMetrics) {
        (self.progress.step, self.phase) = (row.step, row.phase);
        if let Some(vanilla_ms) = row.vanilla_ms() {
            self.see_vanilla_step(vanilla_ms);
        }
        let savings = &mut self.progress.savings;
        savings.backward_examples += u64::from(row.num_backward);
        savings.vanilla_examples += u64::from(row.num_examples);
        savings.measured_ms += f64::from(row.step_ms);
        if let Some(vanilla_ms) = savings.vanilla_step_ms {
            savings.vanilla_ms = Some(savings.vanilla_ms.unwrap_or(0.0) + vanilla_ms);
        }
        savings.num_steps += 1;
        self.history.push(row);
    }

    /// Adds a line to the log, and returns it.
    pub(super) fn note(&mut self, kind: LogKind) -> LogEntry {
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let entry = LogEntry { step: self.progress.step, unix_ms, kind };
        self.log.push(entry.clone());
        entry
    }

    /// From here on the pace is measured anew: what came before is not training.
    pub(super) fn begin_pace(&mut self) {
        self.began = (Instant::now(), self.progress.step);
    }

    /// Time stands still while the run waits.
    pub(super) fn pause(&mut self) {
        self.paused_seconds_left = self.seconds_left();
    }

    pub(super) fn read_gauges(&mut self) {
        if self.gauges_read.elapsed() > GAUGE_INTERVAL {
            self.reading = self.gauges.read();
            self.gauges_read = Instant::now();
        }
    }

    pub(super) fn publish(&mut self, status: RunStatus, outlet: &mut Outlet) {
        self.read_gauges();
        if self.published_log.len() != self.log.len() {
            self.published_log = Arc::from(self.log.as_slice());
        }
        let seconds_left = if status == RunStatus::Paused { self.paused_seconds_left } else { self.seconds_left() };
        outlet.publish(RunSnapshot {
            job: self.job,
            folder: Some(self.folder.clone()),
            config: Arc::clone(&self.config),
            num_params: self.num_params,
            status,
            phase: self.phase,
            step: self.progress.step,
            in_step: self.in_step.clone(),
            disk: self.disk,
            history: self.history.view(),
            validations: Arc::from(self.validations.as_slice()),
            log: Arc::clone(&self.published_log),
            samples: self.samples.clone(),
            savings: self.progress.savings,
            plan: Some(Arc::clone(&self.plan)),
            gpu_plan: self.gpu_plan.clone(),
            memory_before_bytes: self.memory_before_bytes,
            gauges: Some(self.reading.clone()),
            seconds_left,
        });
    }

    fn seconds_left(&self) -> Option<f64> {
        let (began, first_step) = self.began;
        let num_done = self.progress.step.saturating_sub(first_step);
        let num_left = self.config.num_steps.saturating_sub(self.progress.step);
        (num_done > 0).then(|| began.elapsed().as_secs_f64() / num_done as f64 * num_left as f64)
    }
}
