//! The worker thread: answers everything that is not training, one job at a time, panics caught.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::outlet::Outlet;
use super::trainer_thread::panic_message;
use super::{
    Blame, Command, EventKind, Failure, JobId, ReadImageJob, Rehearsal, RunSnapshot, RunStatus, SessionError, describe,
    drawing, planning, reports, runs, shipping, streaming, trial,
};
use crate::data::{self, Dataset, DatasetSpec};
use crate::device::{CancelFlag, Progress, Watch};

/// Images of the preview grid.
const PREVIEW_IMAGES: usize = 120;

/// Wakes of an idle thread, to deliver events that found the channel full.
const IDLE_INTERVAL: Duration = Duration::from_millis(100);

/// A question.
#[derive(Debug)]
pub(super) struct WorkerJob {
    pub(super) job: JobId,
    pub(super) command: Command,
    pub(super) cancel: CancelFlag,
}

/// Body of the thread; returns when the engine's handle is gone.
pub(super) fn run(
    questions: &Receiver<WorkerJob>,
    snapshot: &ArcSwapOption<RunSnapshot>,
    shelf: &Shelf,
    outlet: Outlet,
) {
    let outlet = Mutex::new(outlet);
    let send = |job, kind| {
        if let Ok(mut outlet) = outlet.lock() {
            outlet.send(job, kind);
        }
    };
    loop {
        let asked = match questions.recv_timeout(IDLE_INTERVAL) {
            Ok(asked) => asked,
            Err(RecvTimeoutError::Timeout) => {
                if let Ok(mut outlet) = outlet.lock() {
                    outlet.flush();
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let WorkerJob { job, command, cancel } = asked;
        if cancel.is_set() {
            send(job, EventKind::Cancelled);
            continue;
        }
        let is_training = snapshot.load().as_ref().is_some_and(|run| !matches!(run.status, RunStatus::Ended(_)));
        let tell = |progress: Progress| send(job, EventKind::Progress(progress));
        let watch = Watch::new(&cancel, &tell);
        let result = catch_unwind(AssertUnwindSafe(|| answer(command, is_training, shelf, watch)));
        let kind = match result {
            Ok(Ok(kind)) => kind,
            Ok(Err(error)) if error.is_cancelled() => EventKind::Cancelled,
            Ok(Err(error)) => EventKind::Rejected(Failure::of(&error)),
            Err(panic) => EventKind::Rejected(Failure {
                message: format!("the engine failed on this: {}. Please report it", panic_message(panic.as_ref())),
                plan: None,
                blame: Blame::Work,
            }),
        };
        send(job, kind);
    }
}

/// What the worker keeps between jobs, and the trainer clears: clones share it.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    pub(super) cache: PathBuf,
    /// The dataset asked for last.
    dataset: Arc<Mutex<Kept>>,
}

/// A dataset with what was asked for.
type Kept = Option<(DatasetSpec, Arc<Dataset>)>;

impl Shelf {
    /// Nothing loaded yet.
    pub(super) fn new(cache: PathBuf) -> Self {
        Self { cache, dataset: Arc::default() }
    }

    /// The dataset of `spec`, loaded unless it was the last one.
    pub(super) fn dataset(&self, spec: &DatasetSpec, watch: Watch<'_>) -> Result<Arc<Dataset>, SessionError> {
        if let Some((_, dataset)) = self.kept().as_ref().filter(|(kept, _)| kept == spec) {
            return Ok(Arc::clone(dataset));
        }
        let dataset = self.load_anew(spec, watch)?;
        *self.kept() = Some((spec.clone(), Arc::clone(&dataset)));
        Ok(dataset)
    }

    /// The dataset of `spec` as its files are now; the caller's alone, so that it goes when the caller does.
    pub(super) fn load_anew(&self, spec: &DatasetSpec, watch: Watch<'_>) -> Result<Arc<Dataset>, SessionError> {
        // The kept one goes first, so that two do not stand in memory.
        *self.kept() = None;
        Ok(Arc::new(data::load(spec, &self.cache, watch)?))
    }

    /// Forgets the dataset asked for last.
    fn forget(&self) {
        *self.kept() = None;
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.dataset.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer(command: Command, is_training: bool, shelf: &Shelf, watch: Watch<'_>) -> Result<EventKind, SessionError> {
    Ok(match command {
        Command::Inspect(_, spec) => {
            // Looked at anew, because files may have changed.
            shelf.forget();
            EventKind::Inspected(Arc::new(data::preview(&*shelf.dataset(&spec, watch)?, PREVIEW_IMAGES)))
        }
        Command::Plan(_, config) => {
            let dataset = shelf.dataset(&config.data, watch)?;
            EventKind::Planned(Box::new(planning::plan(&config, &dataset, !is_training, watch)?))
        }
        Command::PlanOffload(_, job, rehearsal) => {
            let dataset = shelf.dataset(&job.config.data, watch)?;
            let rehearsal = if is_training { Rehearsal::None } else { rehearsal };
            EventKind::OffloadPlanned(Box::new(streaming::plan(&job, &dataset, rehearsal, watch)?))
        }
        Command::Quantize(_, job) => EventKind::Quantized(Box::new(shipping::quantize(&job, shelf, watch)?)),
        Command::Export(_, job) => EventKind::Exported(Box::new(shipping::export(&job, shelf, watch)?)),
        Command::Infer(_, job) => EventKind::Answered(trial::answer(&job, &shelf.cache, watch)?),
        Command::ListRuns(_, root) => EventKind::Runs(runs::list_runs(&root)?),
        Command::OpenRun(_, folder) => EventKind::RunOpened(Arc::new(runs::open_run(&folder)?)),
        Command::Describe(_, input) => EventKind::Described(Arc::new(describe::describe(&input)?)),
        Command::ReadImage(_, ReadImageJob { path, shape: (channels, height, width) }) => {
            EventKind::ImageRead(foretrain_edge::read_pixels(&path, channels, height, width)?.into())
        }
        Command::ListReports(_, root) => EventKind::Reports(reports::list_reports(&root)?),
        Command::OpenReport(_, folder) => {
            let report = Arc::new(reports::read_report(&folder)?);
            EventKind::Experimented { report, folder }
        }
        Command::DrawChart(_, job) => EventKind::ChartDrawn(drawing::draw(&job, watch)?),
        // The engine's handle sends these elsewhere.
        Command::Start(..)
        | Command::ResumeRun(..)
        | Command::ResumeRunOn(..)
        | Command::Experiment(..)
        | Command::Offload(..)
        | Command::BenchTrain(..)
        | Command::Pause
        | Command::Resume
        | Command::Stop
        | Command::Save
        | Command::Cancel(_) => EventKind::Cancelled,
    })
}
