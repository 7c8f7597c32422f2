//! One training run, from recipe to last checkpoint.

mod beginning;
pub(super) mod on_gpu;
mod sampling;
mod saving;

use std::ops::Add;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, TryRecvError};

use super::checkpoint::Best;
use super::error::SessionError;
use super::operation_times::OperationTimes;
use super::outlet::Outlet;
use super::run_folder::{self, RunFolder};
use super::run_view::{GAUGE_INTERVAL, RunView};
use super::samples::Sampler;
use super::trainer_thread::{Control, Inbox, RunRequest, TrainerJob};
use super::worker::Shelf;
use super::{
    Blame, EventKind, Failure, JobId, LogKind, QuantizedFigures, RunStatus, StepMetrics, StopReason, ValidationFigures,
    ValidationPoint,
};
use crate::data::{BatchSource, Dataset, SplitPart};
use crate::device::{CancelFlag, Gauges, Watch, observed_pool, process_memory_bytes};
use crate::evaluation::{Evaluation, EvaluationError, evaluate};
use crate::experiment::Stopwatch;
use crate::hybrid::{HybridTrainer, StepPart, StepReport};
use crate::models::ops::profile::Ledger;
use crate::models::{Network, Params};
use sampling::{StepSample, is_sampled};

/// How often a run that waits looks at what it is told.
const WAIT_INTERVAL: Duration = Duration::from_millis(50);

/// Does a run. An error means that it never began to train; what ends it later becomes `Ended`.
pub(super) fn run(
    job: JobId,
    request: RunRequest,
    cancel: &CancelFlag,
    inbox: Inbox<'_>,
    shelf: &Shelf,
    outlet: &mut Outlet,
) -> Result<(), SessionError> {
    let num_threads = match &request {
        RunRequest::New(config) => config.num_threads,
        RunRequest::Existing(folder, _) => run_folder::read_config(folder)?.num_threads,
    };
    // Before it takes any: what is in use by then is not the run's.
    let memory_before_bytes = process_memory_bytes();
    let gauges = Gauges::default();
    // A pool of its own, so that each run has the threads that its recipe names.
    let ledger = Ledger::default();
    observed_pool(num_threads, &ledger)?.install(|| {
        let mut run = match request {
            RunRequest::New(config) => Run::new((job, gauges), *config, cancel, shelf, outlet)?,
            RunRequest::Existing(folder, device) => {
                Run::resume((job, gauges), (&folder, device), cancel, shelf, outlet)?
            }
        };
        run.view.memory_before_bytes = memory_before_bytes;
        outlet.send(job, EventKind::Started { folder: Some(run.folder.path().to_owned()) });
        let reason = match run.train(&ledger, cancel, inbox, outlet) {
            Ok(reason) => reason,
            Err(error) => StopReason::Failed(run.saved_after(&error, outlet)),
        };
        run.log(LogKind::Ended(reason.clone()));
        run.view.publish(RunStatus::Ended(reason.clone()), outlet);
        outlet.send(job, EventKind::Ended(reason));
        Ok(())
    })
}

/// A run in progress.
struct Run {
    view: RunView,
    folder: RunFolder,
    dataset: Arc<Dataset>,
    batches: BatchSource,
    /// The same dataset in batches for measuring.
    evaluation: BatchSource,
    network: Arc<Network>,
    trainer: HybridTrainer,
    sampler: Sampler,
    tokenizer_json: Option<String>,
    has_warned_of_files: bool,
    /// Time between the last step and the next, for that one's record.
    between_ms: Option<f32>,
    /// Step of the newest checkpoint that this process wrote.
    saved_step: Option<u64>,
}

impl Run {
    fn train(
        &mut self,
        ledger: &Ledger,
        cancel: &CancelFlag,
        inbox: Inbox<'_>,
        outlet: &mut Outlet,
    ) -> Result<StopReason, SessionError> {
        self.view.publish(RunStatus::Training, outlet);
        let num_steps = self.view.config.num_steps;
        if self.view.progress.step == num_steps && !self.view.validations.iter().any(|point| point.step == num_steps) {
            // It was stopped while it measured its end.
            self.validate(true, cancel, outlet)?;
        }
        while self.view.progress.step < num_steps {
            let must_save = self.obey(cancel, inbox, outlet);
            if cancel.is_set() {
                return self.end(StopReason::User, inbox, outlet);
            }
            let started = Instant::now();
            let sample = is_sampled(self.view.progress.step).then(|| StepSample::begin(ledger));
            let batch = self.batches.train_batch(self.view.progress.step)?;
            if let Some(sample) = &sample {
                sample.has_batch();
            }
            let beyond_vanilla = StepPart::BEYOND_VANILLA.map(Stopwatch::new);
            let report = self.trainer.step_marked(&batch, &|mark| {
                beyond_vanilla.iter().for_each(|watch| watch.mark(mark));
                if let Some(sample) = &sample {
                    sample.mark(mark);
                }
            })?;
            let operations = sample.and_then(|sample| sample.end(rayon::current_num_threads()));
            let must_stop = report.must_stop;
            let beyond_vanilla = beyond_vanilla.iter().filter_map(Stopwatch::total).reduce(Add::add);
            self.record(report, started.elapsed(), beyond_vanilla, operations);
            let ended = Instant::now();
            let num_validated = self.view.validations.len();
            let step = self.view.progress.step;
            let is_last = step == num_steps;
            let is_periodic = step.is_multiple_of(self.view.config.checkpoint_interval.max(1)) && !must_stop;
            // Before anything is saved at this step, so that every checkpoint of it names the same rollback step.
            let last_good = self.view.progress.good_step;
            if is_periodic {
                self.trainer.mark_good()?;
            }
            // The trainer marks the end of Warmup by itself; a resumed run must find it on disk.
            let is_good = self.trainer.good_step() == step;
            if is_good {
                self.view.progress.good_step = Some(step);
            }
            if is_last || step.is_multiple_of(self.view.config.validation_interval.max(1)) {
                self.validate(is_last, cancel, outlet)?;
            }
            if is_periodic || is_good || must_save {
                self.save_or_warn(outlet);
            }
            if self.saved_step != Some(step) {
                // A later checkpoint must not name one that could not be written.
                self.view.progress.good_step = last_good;
            }
            if must_stop {
                return self.end(StopReason::Diverged, inbox, outlet);
            }
            self.view.read_gauges();
            if let Some(why) = on_gpu::passed_limit(&self.view.config, &self.view.reading, on_gpu::LESS_AT_ONCE) {
                self.log(LogKind::Warning(why.clone()));
                return self.end(StopReason::Failed(why), inbox, outlet);
            }
            if outlet.is_snapshot_due() {
                self.view.publish(RunStatus::Training, outlet);
            }
            let validated = self.view.validations.iter().skip(num_validated).map(|point| point.seconds).sum::<f64>();
            self.between_ms = Some((1e3 * (ended.elapsed().as_secs_f64() - validated)).max(0.0) as f32);
        }
        let is_measured = self.view.validations.last().is_some_and(|point| point.step == num_steps);
        self.end(if is_measured { StopReason::Finished } else { StopReason::User }, inbox, outlet)
    }

    /// Does what the user asked for since the last step; returns true when that was a checkpoint.
    fn obey(&mut self, cancel: &CancelFlag, inbox: Inbox<'_>, outlet: &mut Outlet) -> bool {
        let mut must_save = false;
        let mut is_paused = false;
        loop {
            while let Ok(TrainerJob { job, .. }) = inbox.runs.try_recv() {
                let message = SessionError::Busy.to_string();
                outlet.send(job, EventKind::Rejected(Failure { message, plan: None, blame: Blame::Work }));
            }
            let control = if is_paused {
                match inbox.control.recv_timeout(WAIT_INTERVAL) {
                    Ok(control) => Some(control),
                    Err(RecvTimeoutError::Timeout) => None,
                    // Nobody is left to resume the run: save and end.
                    Err(RecvTimeoutError::Disconnected) => {
                        cancel.set();
                        None
                    }
                }
            } else {
                match inbox.control.try_recv() {
                    Ok(control) => Some(control),
                    Err(TryRecvError::Empty) => None,
                    // Nobody is left to see it end: save and end now.
                    Err(TryRecvError::Disconnected) => {
                        cancel.set();
                        None
                    }
                }
            };
            match control {
                Some(Control::Save) if is_paused => self.save_or_warn(outlet),
                Some(Control::Save) => must_save = true,
                Some(Control::Pause) if !is_paused => {
                    is_paused = true;
                    self.view.pause();
                    self.log(LogKind::Paused);
                    self.view.publish(RunStatus::Paused, outlet);
                }
                Some(Control::Resume) if is_paused => {
                    is_paused = false;
                    self.log(LogKind::Resumed);
                    self.view.begin_pace();
                }
                // Its flag says so too.
                Some(Control::Stop) => {}
                Some(Control::Pause | Control::Resume) => {}
                None if !is_paused => return must_save,
                None => {}
            }
            if cancel.is_set() {
                return must_save;
            }
            if is_paused && outlet.is_due_after(GAUGE_INTERVAL) {
                self.view.publish(RunStatus::Paused, outlet);
            }
        }
    }

    fn record(
        &mut self,
        report: StepReport,
        elapsed: Duration,
        beyond_vanilla: Option<Duration>,
        operations: Option<OperationTimes>,
    ) {
        let row = StepMetrics {
            between_ms: self.between_ms.take(),
            operations,
            gate_ms: beyond_vanilla.map(|total| (total.as_secs_f64() * 1e3) as f32),
            ..StepMetrics::of(&report, elapsed)
        };
        self.view.record(row);
        if let Err(error) = self.folder.push_metrics(&row) {
            self.warn_of_files(&error.to_string());
        }
        for event in report.events {
            self.log(LogKind::Hybrid(event));
        }
    }

    fn validate(&mut self, is_last: bool, cancel: &CancelFlag, outlet: &mut Outlet) -> Result<(), SessionError> {
        self.view.publish(RunStatus::Validating, outlet);
        let started = Instant::now();
        let step = self.view.progress.step;
        let quantized = match (self.view.config.qat, self.trainer.quantized_params()?) {
            (Some(qat), Some(params)) => match self.measure(&params, is_last, cancel) {
                Ok(measured) => Some((qat, params, measured)),
                Err(EvaluationError::Cancelled(_)) => return Ok(()),
                Err(error) => return Err(error.into()),
            },
            (Some(_) | None, _) => None,
        };
        let trained = self.trainer.trained_params()?;
        let (of_trained, whole) = match self.measure(&trained, is_last, cancel) {
            Ok(measured) => measured,
            // Stopped while measuring: the run ends without this point.
            Err(EvaluationError::Cancelled(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let strength = self.trainer.quantization_strength();
        let point = ValidationPoint {
            step,
            loss: of_trained.loss,
            accuracy: of_trained.accuracy,
            num_examples: of_trained.num_examples,
            seconds: started.elapsed().as_secs_f64(),
            whole: whole.map(figures_of),
            quantized: quantized.as_ref().map(|(qat, _, (curve, whole))| QuantizedFigures {
                scheme: qat.scheme,
                strength,
                curve: figures_of(*curve),
                whole: whole.map(figures_of),
            }),
        };
        // What training has come to: which step is best, and what a sample shows, are of these weights.
        let (params, compared) = match quantized {
            Some((_, params, (compared, _))) if strength >= 1.0 => (params, compared),
            Some(_) | None => (trained, of_trained),
        };
        self.view.validations.push(point);
        if let Err(error) = self.folder.push_validation(&point) {
            self.warn_of_files(&error.to_string());
        }
        self.view.samples = self.sampler.take(step, &self.network, &params)?.map(Arc::new);
        // A copy of an average, perhaps: the save below makes its own.
        drop(params);
        if let Some(samples) = &self.view.samples {
            let path = self.folder.path().join("samples").join(format!("step-{step:08}.json"));
            if let Err(error) = run_folder::write_json(&path, &samples.record()) {
                self.warn_of_files(&error.to_string());
            }
        }
        if let Some(best) = Best::after(self.comparable_best(), step, &compared) {
            let last_best = self.view.progress.best.replace(best);
            self.save_or_warn(outlet);
            if self.saved_step != Some(step) {
                // What is not on disk is nothing to ship.
                self.view.progress.best = last_best;
            }
        }
        Ok(())
    }

    /// Loss and accuracy of `params`. The curve, and which step is best, are of the same examples each time; the end is
    /// measured on all, too.
    fn measure(
        &self,
        params: &Params,
        is_last: bool,
        cancel: &CancelFlag,
    ) -> Result<(Evaluation, Option<Evaluation>), EvaluationError> {
        let measure = |limit| {
            let batches = self.evaluation.evaluation_batches(SplitPart::Validation, limit);
            evaluate(&self.network, params, batches, Watch::new(cancel, &|_| {}))
        };
        let limit = self.view.config.max_validation_examples;
        let has_more = self.evaluation.num_examples(SplitPart::Validation) > limit;
        let compared = measure(limit)?;
        Ok((compared, (is_last && has_more).then(|| measure(usize::MAX)).transpose()?))
    }

    /// The best checkpoint so far, among those whose weights are quantized as today's are: once the network computes with
    /// quantized weights alone, none of before is what the run is for.
    fn comparable_best(&self) -> Option<Best> {
        let Some(qat) = self.view.config.qat else { return self.view.progress.best };
        let is_quantized = |step| qat.strength(step, self.view.config.num_steps) >= 1.0;
        self.view.progress.best.filter(|best| is_quantized(best.step) == is_quantized(self.view.progress.step))
    }

    fn log(&mut self, kind: LogKind) {
        let entry = self.view.note(kind);
        if let Err(error) = self.folder.push_event(&entry) {
            self.warn_of_files(&error.to_string());
        }
    }

    /// Says once that the run's own files cannot be written.
    fn warn_of_files(&mut self, message: &str) {
        if !std::mem::replace(&mut self.has_warned_of_files, true) {
            self.log(LogKind::Warning(format!("{message}. Training goes on; this run's record has gaps")));
        }
    }
}

fn figures_of(measured: Evaluation) -> ValidationFigures {
    let Evaluation { loss, accuracy, num_examples, .. } = measured;
    ValidationFigures { loss, accuracy, num_examples }
}
