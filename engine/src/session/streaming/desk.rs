//! A streamed training as a run to look at: what it tells, and what it is told.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, TryRecvError};

use super::{OffloadForecast, OffloadedModel};
use crate::device::{CancelFlag, ComputeDevice, Gauges, Progress, process_memory_bytes};
use crate::memory::format_bytes;
use crate::offload::{DiskRoom, StreamedStep};
use crate::session::checkpoint::SessionProgress;
use crate::session::experimenting::refuse_runs;
use crate::session::outlet::Outlet;
use crate::session::preparing::publish_preparing;
use crate::session::run_view::{GAUGE_INTERVAL, RunView};
use crate::session::trainer_thread::{Control, Inbox};
use crate::session::training::on_gpu::passed_limit;
use crate::session::{
    DiskTraffic, EventKind, JobId, LogKind, RunConfig, RunStatus, Savings, StepMetrics, StopReason, ValidationPoint,
};

/// How often a training that waits looks at what it is told.
const WAIT_INTERVAL: Duration = Duration::from_millis(50);

/// Where a streamed training is told and tells.
pub(super) struct Desk<'a> {
    job: JobId,
    inbox: Inbox<'a>,
    memory_before_bytes: Option<u64>,
    front: Mutex<Front<'a>>,
}

struct Front<'a> {
    outlet: &'a mut Outlet,
    /// What is shown, once the training has begun.
    view: Option<RunView>,
    /// What the training is doing.
    status: RunStatus,
    /// Most of its GPU's memory that it was seen to hold.
    peak_gpu_bytes: Option<u64>,
}

impl Front<'_> {
    /// Sees what the training holds of its GPU's memory, where one computes and its driver tells.
    fn see_gpu(&mut self) {
        let Some(view) = &mut self.view else { return };
        view.read_gauges();
        if let ComputeDevice::Cuda(index) = view.config.device {
            let gpu = view.reading.gpus.iter().find(|gpu| gpu.index == index);
            self.peak_gpu_bytes = self.peak_gpu_bytes.max(gpu.map(|gpu| gpu.own_bytes));
        }
    }
}

impl<'a> Desk<'a> {
    pub(super) fn new(job: JobId, inbox: Inbox<'a>, outlet: &'a mut Outlet) -> Self {
        let memory_before_bytes = process_memory_bytes();
        Self {
            job,
            inbox,
            memory_before_bytes,
            front: Mutex::new(Front { outlet, view: None, status: RunStatus::Training, peak_gpu_bytes: None }),
        }
    }

    fn front(&self) -> MutexGuard<'_, Front<'a>> {
        self.front.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends an event.
    pub(super) fn send(&self, kind: EventKind) {
        let mut front = self.front();
        refuse_runs(self.inbox, front.outlet);
        front.outlet.send(self.job, kind);
    }

    /// Sends how far the work is, and shows it.
    pub(super) fn tell(&self, progress: Progress) {
        self.send(EventKind::Progress(progress.clone()));
        let front = &mut *self.front();
        front.see_gpu();
        let Front { outlet, view, status, .. } = front;
        if let Some(view) = view.as_mut().filter(|_| outlet.is_snapshot_due()) {
            view.in_step = Some(progress);
            view.publish(status.clone(), outlet);
        }
    }

    /// Shows a run that does `what` before it begins.
    pub(super) fn prepare(&self, config: &RunConfig, what: &str) {
        publish_preparing(self.job, config, what, self.front().outlet);
    }

    /// The training begins, after what earlier processes did.
    pub(super) fn begin(
        &self,
        (config, folder): (&RunConfig, &Path),
        (num_params, forecast): (u64, &OffloadForecast),
        (steps, validations): (&[StreamedStep], &[ValidationPoint]),
    ) {
        let step = steps.last().map_or(0, |step| step.step);
        let progress = SessionProgress { step: 0, good_step: None, best: None, savings: Savings::default() };
        let mut view = RunView::new(
            (self.job, Gauges::default()),
            (config.clone(), folder.to_owned()),
            (num_params, forecast.plan.memory.clone()),
            progress,
        );
        view.memory_before_bytes = self.memory_before_bytes;
        let DiskRoom { commit, keeps_snapshot, .. } = forecast.disk;
        view.disk = Some(DiskTraffic::new(commit, keeps_snapshot));
        steps.iter().for_each(|step| record(&mut view, step));
        view.validations = validations.to_vec();
        view.begin_pace();
        view.note(LogKind::Started { step });
        if let Some(place) = forecast.place() {
            view.note(LogKind::Placed(place));
        }
        view.gpu_plan = forecast.plan.gpu.clone().map(Arc::new);
        let front = &mut *self.front();
        view.publish(RunStatus::Training, front.outlet);
        front.view = Some(view);
    }

    /// A step is done; whether earlier blocks are kept is known for sure by then.
    pub(super) fn record(&self, step: &StreamedStep, keeps_snapshots: bool) {
        let Front { outlet, view, .. } = &mut *self.front();
        if let Some(view) = view {
            record(view, step);
            if let Some(disk) = &mut view.disk {
                disk.keeps_snapshot = keeps_snapshots;
            }
            view.in_step = None;
            let events = step.hybrid.as_ref().map_or(&[][..], |report| &report.events);
            for event in events {
                view.note(LogKind::Hybrid(event.clone()));
            }
            if outlet.is_snapshot_due() || !events.is_empty() {
                view.publish(RunStatus::Training, outlet);
            }
        }
    }

    /// What to tell when the training has taken more of its GPU's memory than its recipe allows.
    pub(super) fn passed_limit(&self) -> Option<String> {
        let front = &mut *self.front();
        front.see_gpu();
        let view = front.view.as_mut()?;
        let why = passed_limit(&view.config, &view.reading, "or a smaller batch")?;
        view.note(LogKind::Warning(why.clone()));
        Some(why)
    }

    /// Most of its GPU's memory that it was seen to hold, bytes.
    pub(super) fn peak_gpu_bytes(&self) -> Option<u64> {
        self.front().peak_gpu_bytes
    }

    /// Held-out data is measured from here on.
    pub(super) fn validate(&self) {
        let Front { outlet, view, status, .. } = &mut *self.front();
        *status = RunStatus::Validating;
        if let Some(view) = view {
            view.publish(status.clone(), outlet);
        }
    }

    /// Held-out data has been measured.
    pub(super) fn record_validation(&self, point: &ValidationPoint) {
        let Front { outlet, view, status, .. } = &mut *self.front();
        *status = RunStatus::Training;
        if let Some(view) = view {
            view.validations.push(*point);
            view.in_step = None;
            view.publish(RunStatus::Training, outlet);
        }
    }

    /// Between two steps: does what the user asked for since the last one, and waits while the training is paused.
    pub(super) fn obey(&self, cancel: &CancelFlag) {
        let mut is_paused = false;
        while !cancel.is_set() {
            let control = if is_paused {
                self.inbox.control.recv_timeout(WAIT_INTERVAL)
            } else {
                self.inbox.control.try_recv().map_err(|error| match error {
                    TryRecvError::Empty => RecvTimeoutError::Timeout,
                    TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                })
            };
            let Front { outlet, view, .. } = &mut *self.front();
            refuse_runs(self.inbox, outlet);
            let Some(view) = view else { return };
            match control {
                Ok(Control::Pause) if !is_paused => {
                    is_paused = true;
                    view.pause();
                    view.note(LogKind::Paused);
                    view.publish(RunStatus::Paused, outlet);
                }
                Ok(Control::Resume) if is_paused => {
                    is_paused = false;
                    view.note(LogKind::Resumed);
                    view.begin_pace();
                    view.publish(RunStatus::Training, outlet);
                }
                // Every step is on disk by its end.
                Ok(Control::Save) => {
                    let folder = view.folder.clone();
                    view.note(LogKind::Saved(folder));
                    view.publish(if is_paused { RunStatus::Paused } else { RunStatus::Training }, outlet);
                }
                Ok(Control::Pause | Control::Resume | Control::Stop) => {}
                Err(RecvTimeoutError::Timeout) if is_paused => {
                    if outlet.is_due_after(GAUGE_INTERVAL) {
                        view.publish(RunStatus::Paused, outlet);
                    }
                }
                Err(RecvTimeoutError::Timeout) => return,
                // Nobody is left to see it.
                Err(RecvTimeoutError::Disconnected) => return cancel.set(),
            }
        }
    }

    /// The training is over, and its model is where the last line but one says.
    pub(super) fn end(&self, reason: StopReason, model: &OffloadedModel) {
        let Front { outlet, view, .. } = &mut *self.front();
        if let Some(view) = view {
            view.in_step = None;
            match model {
                OffloadedModel::Written(folder) => drop(view.note(LogKind::Saved(folder.clone()))),
                OffloadedModel::NoRoom { needed_bytes, free_bytes } => drop(view.note(LogKind::Warning(format!(
                    "The model stays in its blocks: written out it takes {}, the disk has {} free. Start again with more \
                     room to have it written",
                    format_bytes(*needed_bytes),
                    format_bytes(*free_bytes)
                )))),
                OffloadedModel::Blocks => {}
            }
            view.note(LogKind::Ended(reason.clone()));
            view.publish(RunStatus::Ended(reason), outlet);
        }
    }
}

/// Takes in a step that is done.
fn record(view: &mut RunView, step: &StreamedStep) {
    if let Some(row) = metrics(step) {
        view.record(row);
    }
    if let Some(disk) = &mut view.disk {
        disk.num_steps += 1;
        disk.seconds += step.seconds;
        disk.wait_seconds += step.read_wait_seconds + step.write_wait_seconds;
        disk.read_bytes += step.read_bytes;
        disk.written_bytes += step.written_bytes;
    }
}

/// A step as histories have it; `None` for one that nothing led.
fn metrics(step: &StreamedStep) -> Option<StepMetrics> {
    let report = step.hybrid.as_ref()?;
    Some(StepMetrics {
        gate_ms: (!report.phase.predicts()).then_some((1e3 * step.gate_seconds) as f32),
        ..StepMetrics::of(report, Duration::try_from_secs_f64(step.seconds).unwrap_or_default())
    })
}
