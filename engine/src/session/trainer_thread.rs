//! The trainer thread: one run at a time, panics caught.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::outlet::Outlet;
use super::worker::Shelf;
use super::{
    EventKind, ExperimentJob, Failure, JobId, OffloadJob, RunConfig, SessionError, StopReason, benching, experimenting,
    streaming, training,
};
use crate::bench::TrainBenchPlan;
use crate::device::{CancelFlag, ComputeDevice, panic_text};
use crate::models::ops;

/// What to train.
#[derive(Debug)]
pub(super) enum RunRequest {
    /// A new run.
    New(Box<RunConfig>),
    /// The run in this folder, from its last checkpoint; on another device than its recipe's, where one is named.
    Existing(PathBuf, Option<ComputeDevice>),
}

/// What the thread is asked for.
#[derive(Debug)]
pub(super) enum Work {
    Run(RunRequest),
    Experiment(Box<ExperimentJob>),
    Offload(Box<OffloadJob>),
    BenchTrain(Box<TrainBenchPlan>),
}

/// A piece of work.
#[derive(Debug)]
pub(super) struct TrainerJob {
    pub(super) job: JobId,
    pub(super) work: Work,
    pub(super) cancel: CancelFlag,
}

/// What a run in progress is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    Pause,
    Resume,
    Save,
    /// The run's flag is set as well; this wakes a run that waits.
    Stop,
}

/// Wakes of an idle thread, to deliver events that found the channel full.
const IDLE_INTERVAL: Duration = Duration::from_millis(100);

/// The two queues of a run in progress.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inbox<'a> {
    pub(super) runs: &'a Receiver<TrainerJob>,
    pub(super) control: &'a Receiver<Control>,
}

/// Body of the thread; returns when the engine's handle is gone.
pub(super) fn run(runs: &Receiver<TrainerJob>, control: &Receiver<Control>, shelf: &Shelf, mut outlet: Outlet) {
    loop {
        let asked = if outlet.has_waiting() {
            match runs.recv_timeout(IDLE_INTERVAL) {
                Ok(asked) => asked,
                Err(RecvTimeoutError::Timeout) => {
                    outlet.flush();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        } else {
            match runs.recv() {
                Ok(asked) => asked,
                Err(_) => return,
            }
        };
        // What was said to an earlier run is not for this one.
        while control.try_recv().is_ok() {}
        let TrainerJob { job, work, cancel } = asked;
        let inbox = Inbox { runs, control };
        let result = catch_unwind(AssertUnwindSafe(|| match work {
            Work::Run(request) => training::run(job, request, &cancel, inbox, shelf, &mut outlet),
            Work::Experiment(asked) => experimenting::run(job, *asked, &cancel, inbox, shelf, &mut outlet),
            Work::Offload(asked) => streaming::run(job, *asked, &cancel, inbox, shelf, &mut outlet),
            Work::BenchTrain(plan) => benching::run(job, &plan, &cancel, inbox, &mut outlet),
        }));
        ops::release_scratch();
        ops::give_back_pages();
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => reject(&mut outlet, job, &error),
            Err(panic) => {
                let reason = StopReason::Crashed(panic_message(panic.as_ref()));
                outlet.end_run(job, &reason);
                outlet.send(job, EventKind::Ended(reason));
            }
        }
    }
}

fn reject(outlet: &mut Outlet, job: JobId, error: &SessionError) {
    if error.is_cancelled() {
        outlet.end_run(job, &StopReason::User);
        return outlet.send(job, EventKind::Cancelled);
    }
    outlet.end_run(job, &StopReason::Failed(error.to_string()));
    outlet.send(job, EventKind::Rejected(Failure::of(error)));
}

/// The message of a caught panic.
pub(super) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    panic_text(panic).unwrap_or("the engine stopped without a message").to_owned()
}
