//! One training run, from recipe to last checkpoint.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::RecvTimeoutError;

use super::checkpoint::{self, CheckpointContent, CheckpointError, SessionProgress};
use super::error::SessionError;
use super::outlet::Outlet;
use super::planning;
use super::run_folder::{self, DataRecord, RunFolder};
use super::samples::Sampler;
use super::trainer_thread::{Control, Inbox, RunRequest, TrainerJob};
use super::{
    EventKind, Failure, History, JobId, LogEntry, LogKind, RunConfig, RunSnapshot, RunStatus, Samples, Savings,
    StepMetrics, StopReason, ValidationPoint,
};
use crate::data::{self, BatchConfig, BatchSource, Dataset, SplitPart};
use crate::device::{CancelFlag, GaugeReading, Gauges, Progress, Watch, set_num_threads};
use crate::evaluation::{EvaluationError, evaluate};
use crate::export::{ModelCard, Preprocessing};
use crate::hybrid::{HybridTrainer, Phase, StepReport, TrainerSetup};
use crate::memory::MemoryPlan;
use crate::models::{Network, ParamStore, initial_params};

/// Untimed, then timed steps of the vanilla probe.
const PROBE_STEPS: (usize, usize) = (2, 8);

/// The probe ends early after this long.
const PROBE_LIMIT_MS: f64 = 5_000.0;

/// The vanilla step time is the median of this many of the newest full-backward steps.
const FULL_STEP_WINDOW: usize = 101;

/// Gauges are read this often.
const GAUGE_INTERVAL_MS: u128 = 500;

/// Does a run. An error means that it never began to train; what ends it later becomes `Ended`.
pub(super) fn run(
    job: JobId,
    request: RunRequest,
    cancel: &CancelFlag,
    inbox: Inbox<'_>,
    cache: &Path,
    outlet: &mut Outlet,
) -> Result<(), SessionError> {
    let mut run = match request {
        RunRequest::New(config) => Run::new(job, *config, cancel, cache, outlet)?,
        RunRequest::Existing(folder) => Run::resume(job, &folder, cancel, cache, outlet)?,
    };
    outlet.send(job, EventKind::Started { folder: Some(run.folder.path().to_owned()) });
    let reason = match run.train(cancel, inbox, outlet) {
        Ok(reason) => reason,
        Err(error) => StopReason::Failed(error.to_string()),
    };
    run.log(LogKind::Ended(reason.clone()));
    run.publish(RunStatus::Ended(reason.clone()), outlet);
    outlet.send(job, EventKind::Ended(reason));
    Ok(())
}

/// A run in progress.
struct Run {
    job: JobId,
    config: Arc<RunConfig>,
    folder: RunFolder,
    dataset: Arc<Dataset>,
    batches: BatchSource,
    network: Arc<Network>,
    trainer: HybridTrainer,
    sampler: Sampler,
    tokenizer_json: Option<String>,
    plan: Arc<MemoryPlan>,
    progress: SessionProgress,
    history: History,
    validations: Vec<ValidationPoint>,
    log: Vec<LogEntry>,
    samples: Option<Arc<Samples>>,
    phase: Phase,
    gauges: Gauges,
    reading: GaugeReading,
    gauges_read: Instant,
    /// When and at which step this process began to train, for the time left.
    began: (Instant, u64),
    has_warned_of_files: bool,
    /// Times of the newest full-backward steps.
    full_steps_ms: VecDeque<f64>,
    /// Step of the newest checkpoint that this process wrote.
    saved_step: Option<u64>,
}

/// What both kinds of run need before they can train.
struct Prepared {
    config: RunConfig,
    dataset: Arc<Dataset>,
    batches: BatchSource,
    network: Arc<Network>,
    trainer: HybridTrainer,
    plan: MemoryPlan,
}

impl Run {
    fn new(
        job: JobId,
        config: RunConfig,
        cancel: &CancelFlag,
        cache: &Path,
        outlet: &mut Outlet,
    ) -> Result<Self, SessionError> {
        let root = config.runs_folder.clone();
        let prepared = prepare(job, config, cancel, cache, outlet)?;
        let folder = RunFolder::create(&root, &prepared.config)?;
        let progress = SessionProgress { step: 0, good_step: None, best: None, savings: Savings::default() };
        let mut run = Self::assemble(job, prepared, folder, progress)?;
        run.folder.write_data_record(&DataRecord {
            name: run.dataset.name().to_owned(),
            split: run.dataset.split().clone(),
            num_params: run.network.num_params() as u64,
        })?;
        run.log(LogKind::Started { step: 0 });
        run.probe(cancel, outlet)?;
        Ok(run)
    }

    fn resume(
        job: JobId,
        path: &Path,
        cancel: &CancelFlag,
        cache: &Path,
        outlet: &mut Outlet,
    ) -> Result<Self, SessionError> {
        let config = run_folder::read_config(path)?;
        let mut folder = RunFolder::open(path)?;
        let checkpoints = path.join("checkpoints");
        checkpoint::remove_leftovers(&checkpoints);
        let (_, newest) =
            checkpoint::list(&checkpoints).pop().ok_or_else(|| CheckpointError::None { path: path.to_owned() })?;
        let (state, progress) = checkpoint::load(&newest)?;
        let mut prepared = prepare(job, config, cancel, cache, outlet)?;
        prepared.trainer.restore(&state)?;
        match progress.good_step {
            Some(step) if step == progress.step => {
                prepared.trainer.set_good(state)?;
            }
            Some(step) => {
                let (good, _) = checkpoint::load(&checkpoints.join(checkpoint::folder_name(step)))?;
                prepared.trainer.set_good(good)?;
            }
            None => {}
        }
        folder.truncate_after(progress.step)?;
        let step = progress.step;
        let mut run = Self::assemble(job, prepared, folder, progress)?;
        for row in run_folder::read_lines::<StepMetrics>(&path.join("metrics.jsonl"))? {
            run.phase = row.phase;
            if run.config.hybrid.predict && matches!(row.phase, Phase::Warmup | Phase::Full) {
                run.see_full_step(f64::from(row.step_ms));
            }
            run.history.push(row);
        }
        run.validations = run_folder::read_lines(&path.join("validation.jsonl"))?;
        run.log = run_folder::read_lines(&path.join("events.jsonl"))?;
        run.log(LogKind::Started { step });
        Ok(run)
    }

    fn assemble(
        job: JobId,
        prepared: Prepared,
        folder: RunFolder,
        progress: SessionProgress,
    ) -> Result<Self, SessionError> {
        let Prepared { config, dataset, batches, network, trainer, plan } = prepared;
        let tokenizer_json = match &*dataset {
            Dataset::Images(_) => None,
            Dataset::Text(text) => Some(text.tokenizer.to_string(true).map_err(|error| SessionError::Recipe {
                what: format!("the tokenizer cannot be saved: {error}. Choose another tokenizer"),
            })?),
        };
        let mut gauges = Gauges::default();
        let reading = gauges.read();
        Ok(Self {
            job,
            sampler: Sampler::new(Arc::clone(&dataset), config.seed),
            began: (Instant::now(), progress.step),
            config: Arc::new(config),
            folder,
            dataset,
            batches,
            network,
            trainer,
            tokenizer_json,
            plan: Arc::new(plan),
            progress,
            history: History::default(),
            validations: Vec::new(),
            log: Vec::new(),
            samples: None,
            phase: Phase::Warmup,
            gauges,
            reading,
            gauges_read: Instant::now(),
            has_warned_of_files: false,
            full_steps_ms: VecDeque::new(),
            saved_step: None,
        })
    }

    /// Measures the vanilla step on this machine, then puts everything back as it was.
    fn probe(&mut self, cancel: &CancelFlag, outlet: &mut Outlet) -> Result<(), SessionError> {
        if !self.config.hybrid.predict {
            // A vanilla run has nothing to compare itself with.
            return Ok(());
        }
        self.publish(RunStatus::Preparing { what: "measuring a vanilla step".to_owned() }, outlet);
        let before = self.trainer.state()?;
        let started = Instant::now();
        let mut num_timed = 0;
        for number in 0..PROBE_STEPS.0 + PROBE_STEPS.1 {
            let is_late = started.elapsed().as_secs_f64() * 1e3 > PROBE_LIMIT_MS;
            if cancel.is_set() || (is_late && num_timed > 0) {
                break;
            }
            let step_started = Instant::now();
            let batch = self.batches.train_batch(number as u64)?;
            self.trainer.vanilla_step(&batch)?;
            if number >= PROBE_STEPS.0 {
                self.see_full_step(step_started.elapsed().as_secs_f64() * 1e3);
                num_timed += 1;
            }
        }
        self.trainer.restore(&before)?;
        self.began = (Instant::now(), self.progress.step);
        Ok(())
    }

    /// Takes a full-backward step into the vanilla step time: the probe's, then those of Warmup and Full, which do
    /// what vanilla does, so that the figure follows the machine's load through the run.
    fn see_full_step(&mut self, step_ms: f64) {
        self.full_steps_ms.push_back(step_ms);
        if self.full_steps_ms.len() > FULL_STEP_WINDOW {
            self.full_steps_ms.pop_front();
        }
        let mut sorted: Vec<f64> = self.full_steps_ms.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        self.progress.savings.vanilla_step_ms = sorted.get(sorted.len() / 2).copied();
    }

    fn train(
        &mut self,
        cancel: &CancelFlag,
        inbox: Inbox<'_>,
        outlet: &mut Outlet,
    ) -> Result<StopReason, SessionError> {
        self.publish(RunStatus::Training, outlet);
        while self.progress.step < self.config.num_steps {
            let must_save = self.obey(cancel, inbox, outlet);
            if cancel.is_set() {
                self.save(outlet)?;
                return Ok(StopReason::User);
            }
            let started = Instant::now();
            let batch = self.batches.train_batch(self.progress.step)?;
            let report = self.trainer.step(&batch)?;
            let must_stop = report.must_stop;
            self.record(report, started);
            let step = self.progress.step;
            let is_last = step == self.config.num_steps;
            let is_periodic = step.is_multiple_of(self.config.checkpoint_interval.max(1)) && !must_stop;
            // Before anything is saved at this step, so that every checkpoint of it names the same rollback step.
            if is_periodic && self.trainer.mark_good()? {
                self.progress.good_step = Some(step);
            }
            if is_last || step.is_multiple_of(self.config.validation_interval.max(1)) {
                self.validate(is_last, cancel, outlet)?;
            }
            if is_periodic || must_save {
                self.save_or_warn(outlet);
            }
            if must_stop {
                self.save(outlet)?;
                return Ok(StopReason::Diverged);
            }
            if outlet.is_snapshot_due() {
                self.publish(RunStatus::Training, outlet);
            }
        }
        self.save(outlet)?;
        Ok(StopReason::Finished)
    }

    /// Does what the user asked for since the last step; returns true when that was a checkpoint.
    fn obey(&mut self, cancel: &CancelFlag, inbox: Inbox<'_>, outlet: &mut Outlet) -> bool {
        let mut must_save = false;
        let mut is_paused = false;
        loop {
            while let Ok(TrainerJob { job, .. }) = inbox.runs.try_recv() {
                let message = SessionError::Busy.to_string();
                outlet.send(job, EventKind::Rejected(Failure { message, plan: None }));
            }
            let control = if is_paused {
                match inbox.control.recv_timeout(std::time::Duration::from_millis(50)) {
                    Ok(control) => Some(control),
                    Err(RecvTimeoutError::Timeout) => None,
                    // Nobody is left to resume the run: save and end.
                    Err(RecvTimeoutError::Disconnected) => {
                        cancel.set();
                        None
                    }
                }
            } else {
                inbox.control.try_recv().ok()
            };
            match control {
                Some(Control::Save) if is_paused => self.save_or_warn(outlet),
                Some(Control::Save) => must_save = true,
                Some(Control::Pause) if !is_paused => {
                    is_paused = true;
                    self.log(LogKind::Paused);
                }
                Some(Control::Resume) if is_paused => {
                    is_paused = false;
                    self.log(LogKind::Resumed);
                    self.began = (Instant::now(), self.progress.step);
                }
                Some(Control::Pause | Control::Resume) => {}
                None if !is_paused => return must_save,
                None => {}
            }
            if cancel.is_set() {
                return must_save;
            }
            if is_paused && outlet.is_snapshot_due() {
                self.publish(RunStatus::Paused, outlet);
            }
        }
    }

    fn record(&mut self, report: StepReport, started: Instant) {
        let step_ms = started.elapsed().as_secs_f64() * 1e3;
        self.progress.step = report.step;
        self.phase = report.phase;
        if self.config.hybrid.predict && matches!(report.phase, Phase::Warmup | Phase::Full) {
            self.see_full_step(step_ms);
        }
        let savings = &mut self.progress.savings;
        savings.backward_examples += u64::from(report.num_backward);
        savings.vanilla_examples += u64::from(report.num_examples);
        savings.measured_ms += step_ms;
        savings.num_steps += 1;
        let row = StepMetrics {
            step: report.step,
            phase: report.phase,
            loss: report.loss,
            forecast: report.forecast,
            grad_norm: report.grad_norm,
            learning_rate: report.learning_rate,
            rho: report.rho,
            confidence: report.confidence,
            num_examples: report.num_examples,
            num_backward: report.num_backward,
            correction: report.correction,
            signals: report.signals,
            step_ms: step_ms as f32,
        };
        self.history.push(row);
        if let Err(error) = self.folder.push_metrics(&row) {
            self.warn_of_files(&error.to_string());
        }
        for event in report.events {
            self.log(LogKind::Hybrid(event));
        }
    }

    fn validate(&mut self, is_last: bool, cancel: &CancelFlag, outlet: &mut Outlet) -> Result<(), SessionError> {
        self.publish(RunStatus::Validating, outlet);
        let started = Instant::now();
        let params = self.trainer.evaluation_params()?;
        let measure = |limit| {
            let batches = self.batches.evaluation_batches(SplitPart::Validation, limit);
            evaluate(&self.network, &params, batches, Watch::new(cancel, &|_| {}))
        };
        // Which step is best is decided on the same examples each time; the last point is measured on all.
        let compared = measure(self.config.max_validation_examples);
        let measured = if is_last { compared.as_ref().ok().map(|_| measure(usize::MAX)) } else { None };
        let (compared, measured) = match (compared, measured) {
            (Ok(compared), None) => (compared, compared),
            (Ok(compared), Some(Ok(measured))) => (compared, measured),
            // Stopped while measuring: the run ends without this point.
            (Err(EvaluationError::Cancelled(_)), _) | (_, Some(Err(EvaluationError::Cancelled(_)))) => return Ok(()),
            (Err(error), _) | (_, Some(Err(error))) => return Err(error.into()),
        };
        let step = self.progress.step;
        let point = ValidationPoint {
            step,
            loss: measured.loss,
            accuracy: measured.accuracy,
            num_examples: measured.num_examples,
            seconds: started.elapsed().as_secs_f64(),
        };
        self.validations.push(point);
        if let Err(error) = self.folder.push_validation(&point) {
            self.warn_of_files(&error.to_string());
        }
        self.samples = self.sampler.take(step, &self.network, &params)?.map(Arc::new);
        if let Some(samples) = &self.samples {
            let path = self.folder.path().join("samples").join(format!("step-{step:08}.json"));
            if let Err(error) = run_folder::write_json(&path, &samples.record()) {
                self.warn_of_files(&error.to_string());
            }
        }
        // A NaN loss is never the best.
        if compared.loss.is_finite() && self.progress.best.is_none_or(|(_, loss)| compared.loss < loss) {
            self.progress.best = Some((step, compared.loss));
            self.save_or_warn(outlet);
        }
        Ok(())
    }

    /// Saves; a failure is a warning, because the run and older checkpoints are intact.
    fn save_or_warn(&mut self, outlet: &mut Outlet) {
        if let Err(error) = self.save(outlet) {
            self.log(LogKind::Warning(error.to_string()));
        }
    }

    fn save(&mut self, outlet: &mut Outlet) -> Result<(), SessionError> {
        if self.saved_step == Some(self.progress.step) {
            return Ok(());
        }
        let root = self.folder.path().join("checkpoints");
        let content = CheckpointContent {
            trainer: &self.trainer.state()?,
            model: &self.trainer.evaluation_params()?,
            progress: &self.progress,
            card: &self.card(),
            tokenizer_json: self.tokenizer_json.as_deref(),
        };
        let path = checkpoint::save(&root, &content)?;
        if let Some((step, _)) = self.progress.best.filter(|(step, _)| *step == self.progress.step) {
            checkpoint::mark_best(&root, step)?;
        }
        checkpoint::rotate(&root, self.config.keep_last, &self.progress);
        self.saved_step = Some(self.progress.step);
        self.log(LogKind::Saved(path.clone()));
        outlet.send(self.job, EventKind::Saved(path));
        Ok(())
    }

    fn card(&self) -> ModelCard {
        let measured = self.validations.last().filter(|point| point.step == self.progress.step);
        ModelCard {
            name: self.config.name.clone(),
            model: self.config.model.clone(),
            num_params: self.network.num_params() as u64,
            data: self.config.data.clone(),
            dataset_name: self.dataset.name().to_owned(),
            preprocessing: Preprocessing::of(&self.dataset),
            split: self.dataset.split().clone(),
            sequence_length: match &*self.dataset {
                Dataset::Images(_) => None,
                Dataset::Text(_) => Some(self.config.sequence_length),
            },
            tier: self.config.tier.clone(),
            step: self.progress.step,
            num_steps: self.config.num_steps,
            validation_loss: measured.map(|point| point.loss),
            validation_accuracy: measured.and_then(|point| point.accuracy),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn log(&mut self, kind: LogKind) {
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let entry = LogEntry { step: self.progress.step, unix_ms, kind };
        let written = self.folder.push_event(&entry);
        self.log.push(entry);
        if let Err(error) = written {
            self.warn_of_files(&error.to_string());
        }
    }

    /// Says once that the run's own files cannot be written.
    fn warn_of_files(&mut self, message: &str) {
        if !std::mem::replace(&mut self.has_warned_of_files, true) {
            self.log(LogKind::Warning(format!("{message}. Training goes on; this run's record has gaps")));
        }
    }

    fn publish(&mut self, status: RunStatus, outlet: &mut Outlet) {
        if self.gauges_read.elapsed().as_millis() > GAUGE_INTERVAL_MS {
            self.reading = self.gauges.read();
            self.gauges_read = Instant::now();
        }
        outlet.publish(RunSnapshot {
            job: self.job,
            folder: Some(self.folder.path().to_owned()),
            config: Arc::clone(&self.config),
            num_params: self.network.num_params() as u64,
            status,
            phase: self.phase,
            step: self.progress.step,
            history: self.history.view(),
            validations: Arc::from(self.validations.as_slice()),
            log: Arc::from(self.log.as_slice()),
            samples: self.samples.clone(),
            savings: self.progress.savings,
            plan: Some(Arc::clone(&self.plan)),
            gauges: self.reading.clone(),
            seconds_left: self.seconds_left(),
        });
    }

    fn seconds_left(&self) -> Option<f64> {
        let (began, first_step) = self.began;
        let num_done = self.progress.step.saturating_sub(first_step);
        let num_left = self.config.num_steps.saturating_sub(self.progress.step);
        (num_done > 0).then(|| began.elapsed().as_secs_f64() / num_done as f64 * num_left as f64)
    }
}

/// Loads the data, fits the model to it, plans, allocates.
fn prepare(
    job: JobId,
    mut config: RunConfig,
    cancel: &CancelFlag,
    cache: &Path,
    outlet: &mut Outlet,
) -> Result<Prepared, SessionError> {
    set_num_threads(config.num_threads)?;
    publish_preparing(job, &config, "loading the dataset", outlet);
    let dataset = {
        let outlet = std::sync::Mutex::new(&mut *outlet);
        let tell = |progress: Progress| {
            if let Ok(mut outlet) = outlet.lock() {
                outlet.send(job, EventKind::Progress(progress));
            }
        };
        Arc::new(data::load(&config.data, cache, Watch::new(cancel, &tell))?)
    };
    config.model = config.model.fitted_to(dataset.shape())?;
    check_recipe(&config, &dataset)?;
    let network = Arc::new(Network::new(&config.model)?);
    let plan = planning::plan_memory(&config, &network, dataset.bytes());
    if !plan.fits() {
        return Err(SessionError::Memory { plan: Box::new(plan) });
    }
    let device = config.device.open()?;
    let (weights, buffers) = initial_params(&network, config.seed, &device)?;
    let trainer = HybridTrainer::new(TrainerSetup {
        network: Arc::clone(&network),
        store: ParamStore::new(weights, buffers, &device)?,
        hybrid: config.hybrid.clone(),
        optimizer: config.optimizer.clone(),
        schedule: config.schedule,
        num_steps: config.num_steps,
        num_micro_batches: config.num_micro_batches,
        seed: config.seed,
    })?;
    let batches = BatchSource::new(
        Arc::clone(&dataset),
        BatchConfig {
            batch_size: config.batch_size,
            sequence_length: config.sequence_length,
            augmentation: config.augmentation,
            seed: config.seed,
            device,
        },
    )?;
    Ok(Prepared { config, dataset, batches, network, trainer, plan })
}

/// Refuses numbers that cannot work, naming what would.
pub(super) fn check_recipe(config: &RunConfig, dataset: &Dataset) -> Result<(), SessionError> {
    let refuse = |what: String| Err(SessionError::Recipe { what });
    if config.num_steps == 0 || config.batch_size == 0 {
        return refuse("steps and batch size must be at least 1".to_owned());
    }
    if config.num_micro_batches == 0 || !config.batch_size.is_multiple_of(config.num_micro_batches) {
        return refuse(format!(
            "a batch of {} cannot be cut into {} equal parts; choose a divisor",
            config.batch_size, config.num_micro_batches
        ));
    }
    if let (Some(max), Dataset::Text(_)) = (config.model.max_positions(), dataset)
        && (config.sequence_length == 0 || config.sequence_length > max)
    {
        return refuse(format!("sequence length must be 1 to {max} for this model, found {}", config.sequence_length));
    }
    if !(config.optimizer.learning_rate.is_finite() && config.optimizer.learning_rate > 0.0) {
        return refuse(format!("learning rate must be above 0, found {}", config.optimizer.learning_rate));
    }
    Ok(())
}

fn publish_preparing(job: JobId, config: &RunConfig, what: &str, outlet: &mut Outlet) {
    outlet.publish(RunSnapshot {
        job,
        folder: None::<PathBuf>,
        config: Arc::new(config.clone()),
        num_params: Network::new(&config.model).map_or(0, |network| network.num_params() as u64),
        status: RunStatus::Preparing { what: what.to_owned() },
        phase: Phase::Warmup,
        step: 0,
        history: super::HistoryView::default(),
        validations: Arc::from([]),
        log: Arc::from([]),
        samples: None,
        savings: Savings::default(),
        plan: None,
        gauges: GaugeReading::default(),
        seconds_left: None,
    });
}
