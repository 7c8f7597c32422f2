//! How a run begins, or goes on from a checkpoint.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::Run;
use crate::data::{BatchConfig, BatchSource, Dataset};
use crate::device::{CancelFlag, ComputeDevice, Gauges, resolved_num_threads};
use crate::hybrid::{HybridEvent, Strategy, measure_step_costs};
use crate::models::ops;
use crate::session::checkpoint::{self, SessionProgress};
use crate::session::outlet::Outlet;
use crate::session::preparing::{FirstWeights, Prepared, prepare};
use crate::session::run_folder::{self, DataRecord, RunFolder};
use crate::session::run_view::RunView;
use crate::session::samples::Sampler;
use crate::session::worker::Shelf;
use crate::session::{JobId, LogKind, RunConfig, RunStatus, Savings, SessionError, StepMetrics};

/// Untimed, then timed steps of the vanilla probe.
const PROBE_STEPS: (usize, usize) = (2, 8);

/// The probe ends early after this long.
const PROBE_LIMIT_MS: f64 = 5_000.0;

impl Run {
    pub(super) fn new(
        (job, gauges): (JobId, Gauges),
        mut config: RunConfig,
        cancel: &CancelFlag,
        shelf: &Shelf,
        outlet: &mut Outlet,
    ) -> Result<Self, SessionError> {
        // Recorded as a number: to end bit for bit alike, a resumed run needs as many threads.
        config.num_threads = resolved_num_threads(config.num_threads);
        let root = config.runs_folder.clone();
        let mut prepared = prepare(job, config, FirstWeights::OfRecipe, cancel, shelf, outlet)?;
        let why_there = prepared.why_there.take();
        let folder = RunFolder::create(&root, &prepared.config)?;
        let progress = SessionProgress { step: 0, good_step: None, best: None, savings: Savings::default() };
        let mut run = Self::assemble((job, gauges), prepared, folder, progress)?;
        run.folder.write_data_record(&DataRecord {
            name: run.dataset.name().to_owned(),
            fingerprint: Some(run.dataset.fingerprint()),
            split: run.dataset.split().clone(),
            num_params: run.network.num_params() as u64,
        })?;
        run.log(LogKind::Started { step: 0 });
        run.log_place(why_there);
        run.probe(cancel, outlet)?;
        run.measure_costs(cancel, outlet)?;
        Ok(run)
    }

    pub(super) fn resume(
        (job, gauges): (JobId, Gauges),
        (path, device): (&Path, Option<ComputeDevice>),
        cancel: &CancelFlag,
        shelf: &Shelf,
        outlet: &mut Outlet,
    ) -> Result<Self, SessionError> {
        let mut config = run_folder::read_config(path)?;
        let before = config.device;
        config.device = device.unwrap_or(before);
        let mut folder = RunFolder::open(path)?;
        let checkpoints = path.join("checkpoints");
        checkpoint::remove_leftovers(&checkpoints);
        let mut newest = checkpoint::load_newest(&checkpoints, path)?;
        let mut prepared = prepare(job, config, FirstWeights::OfCheckpoint, cancel, shelf, outlet)?;
        let why_there = prepared.why_there.take();
        check_same_data(path, &prepared.dataset)?;
        prepared.trainer.restore(&newest.state)?;
        let good = match newest.progress.good_step {
            None => None,
            Some(step) if step == newest.progress.step => Some(newest.state),
            Some(step) => match checkpoint::load(&checkpoints.join(checkpoint::folder_name(step))) {
                Ok((good, _)) => Some(good),
                Err(error) => {
                    newest.warnings.push(format!("{error}. A recovery would go back to step {}", newest.progress.step));
                    prepared.trainer.mark_good()?;
                    None
                }
            },
        };
        if let Some(good) = good {
            prepared.trainer.set_good(good)?;
        }
        let num_unreadable = folder.truncate_after(newest.progress.step)?;
        if num_unreadable > 0 {
            newest.warnings.push(format!("{num_unreadable} damaged lines of this run's record were dropped"));
        }
        let step = newest.progress.step;
        let mut run = Self::assemble((job, gauges), prepared, folder, newest.progress)?;
        for row in run_folder::read_lines::<StepMetrics>(&path.join("metrics.jsonl"))?.rows {
            run.view.recall(row);
        }
        run.view.validations = run_folder::read_lines(&path.join("validation.jsonl"))?.rows;
        run.view.log = run_folder::read_lines(&path.join("events.jsonl"))?.rows;
        run.log(LogKind::Started { step });
        let is_moved = run.view.config.device != before;
        let why_there = why_there.or_else(|| {
            is_moved.then(|| format!("Computing on {} as asked, instead of {before}.", run.view.config.device))
        });
        run.log_place(why_there);
        newest.warnings.into_iter().for_each(|warning| run.log(LogKind::Warning(warning)));
        Ok(run)
    }

    fn assemble(
        (job, gauges): (JobId, Gauges),
        prepared: Prepared,
        folder: RunFolder,
        progress: SessionProgress,
    ) -> Result<Self, SessionError> {
        let Prepared { config, dataset, batches, network, trainer, plan, may_keep_pages, why_there: _ } = prepared;
        if may_keep_pages {
            ops::keep_freed_pages();
        }
        let tokenizer_json = match &*dataset {
            Dataset::Images(_) => None,
            Dataset::Text(text) => Some(text.tokenizer.to_string(true).map_err(|error| SessionError::Recipe {
                what: format!("the tokenizer cannot be saved: {error}. Choose another tokenizer"),
            })?),
        };
        // An evaluation takes no more at once than a step.
        let evaluation = BatchSource::new(
            Arc::clone(&dataset),
            BatchConfig {
                batch_size: config.batch_size.div_ceil(config.num_micro_batches.max(1)),
                ..batches.config().clone()
            },
        )?;
        let num_params = network.num_params() as u64;
        let place = folder.path().to_owned();
        Ok(Self {
            evaluation,
            sampler: Sampler::new(Arc::clone(&dataset), config.seed),
            view: RunView::new((job, gauges), (config, place), (num_params, plan), progress),
            folder,
            dataset,
            batches,
            network,
            trainer,
            tokenizer_json,
            has_warned_of_files: false,
            between_ms: None,
            saved_step: None,
        })
    }

    /// Measures the vanilla step on this machine, then puts everything back as it was.
    pub(super) fn probe(&mut self, cancel: &CancelFlag, outlet: &mut Outlet) -> Result<(), SessionError> {
        if !self.view.config.hybrid.strategy.predicts() {
            // A vanilla run has nothing to compare itself with.
            return Ok(());
        }
        self.view.publish(RunStatus::Preparing { what: "measuring a vanilla step".to_owned() }, outlet);
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
                self.view.see_vanilla_step(step_started.elapsed().as_secs_f64() * 1e3);
                num_timed += 1;
            }
        }
        self.trainer.restore(&before)?;
        self.view.begin_pace();
        Ok(())
    }
}

impl Run {
    /// Measures what a Predict step costs here, for a strategy that decides by it.
    fn measure_costs(&mut self, cancel: &CancelFlag, outlet: &mut Outlet) -> Result<(), SessionError> {
        if self.view.config.hybrid.strategy != Strategy::Auto || cancel.is_set() {
            return Ok(());
        }
        self.view.publish(RunStatus::Preparing { what: "measuring what prediction costs here".to_owned() }, outlet);
        let start = Instant::now();
        let batch = self.batches.train_batch(0)?;
        let clock = || start.elapsed().as_secs_f64();
        if let Some(costs) = measure_step_costs(&mut self.trainer, &batch, &clock, cancel)? {
            self.log(LogKind::Hybrid(HybridEvent::Note(format!(
                "measured here: a forward pass takes {:.0}% of a full step, a quarter of a batch both ways {:.0}%",
                100.0 * costs.forward,
                25.0 * costs.slice,
            ))));
        }
        self.view.begin_pace();
        Ok(())
    }
}

/// Refuses to go on with other data than the run began with: its batches, its split and its figures would be others.
fn check_same_data(folder: &Path, dataset: &Dataset) -> Result<(), SessionError> {
    let record = run_folder::read_data_record(folder);
    let Some((recorded, record)) = record.as_ref().and_then(|record| Some((record.fingerprint.as_ref()?, record)))
    else {
        return Ok(());
    };
    let found = dataset.fingerprint();
    if *recorded == found {
        return Ok(());
    }
    let examples = |split: &crate::data::SplitRecord| split.num_train + split.num_validation + split.num_test;
    Err(SessionError::DataChanged {
        expected: format!("{} ({} examples, fingerprint {recorded})", record.name, examples(&record.split)),
        found: format!("{} ({} examples, fingerprint {found})", dataset.name(), examples(dataset.split())),
    })
}
