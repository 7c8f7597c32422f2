//! Streamed training of a language model that is larger than memory; see [`crate::offload`].

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::outlet::Outlet;
use super::preparing::{check_recipe, fitted_model};
use super::run_folder::write_json;
use super::streamed_run::{Desk, earlier_steps};
use super::trainer_thread::Inbox;
use super::worker::Shelf;
use super::{EventKind, JobId, RunConfig, SessionError, StopReason, planning};
use crate::data::{BatchConfig, BatchSource, Dataset};
use crate::device::atomic_file::{self, WriteError};
use crate::device::{CancelFlag, ComputeDevice, Gauges, Progress, Watch, compute_pool, free_disk_bytes};
use crate::export::{TOKENIZER_FILE, WEIGHTS_FILE, WeightEntry, write_safetensors};
use crate::hybrid::Pilot;
use crate::import::ModelReader;
use crate::models::{Network, TensorSpec, hf_config};
use crate::offload::{
    Commit, Cost, DiskRoom, FirstWeights, LedTrainer, OffloadError, OffloadPlan, OffloadSettings, OffloadTrainer,
    Precision, Rates, StepShape, StreamedStep, check_streamable,
};

/// Steps of a store, one JSON object a line.
const METRICS_FILE: &str = "metrics.jsonl";
/// Folder of the trained model, in the layout of transformers.
const MODEL_FOLDER: &str = "model";

/// Disk space that a model leaves free.
const SPARE_BYTES: u64 = 64 << 20;

/// What to do with a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OffloadGoal {
    /// Train.
    #[default]
    Train,
    /// Only say what it would take.
    Plan,
}

/// Which batches a streamed training sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OffloadBatches {
    /// Those of the data, one after the other.
    #[default]
    Data,
    /// The first one, again and again: a model that cannot learn it is broken.
    First,
}

/// Train a language model block by block from a folder.
#[derive(Debug, Clone, PartialEq)]
pub struct OffloadJob {
    /// What to train, by AdamW; validation and checkpoints are not looked at.
    pub config: RunConfig,
    /// Folder of the blocks: new, or of the same training, which goes on.
    pub folder: PathBuf,
    /// How numbers lie on disk.
    pub precision: Precision,
    /// What of a broken step counts; `None` decides by the disk's room.
    pub commit: Option<Commit>,
    /// Which batches.
    pub batches: OffloadBatches,
    /// What for.
    pub goal: OffloadGoal,
    /// What becomes of the weights once all steps are done.
    pub ending: OffloadEnding,
}

/// What becomes of the weights once all steps are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OffloadEnding {
    /// They are written as a model in the layout of transformers, too, where the disk has room for it.
    #[default]
    Model,
    /// They stay in their blocks.
    Blocks,
}

/// What a streamed training takes, and how long a step will last here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OffloadForecast {
    /// Bytes and operations.
    pub plan: OffloadPlan,
    /// What the disk has, and what the blocks take of it.
    pub disk: DiskRoom,
    /// Bytes of the trained model, beside the blocks.
    pub model_bytes: u64,
    /// Steps that are still to be done.
    pub num_steps_left: u64,
    /// What this machine does in a second, measured just now; `None` where a plan does not fit, or no step is left.
    pub rates: Option<Rates>,
    /// Seconds of a step by these rates.
    pub step_seconds: Option<f64>,
    /// Seconds of a Predict step; `None` where no step samples.
    #[serde(default)]
    pub predict_seconds: Option<f64>,
    /// What each way to save costs.
    pub costs: Vec<Cost>,
}

/// A streamed training at its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OffloadReport {
    /// Folder of the blocks.
    pub folder: PathBuf,
    /// Steps done.
    pub step: u64,
    /// True when those are all that were asked for.
    pub is_finished: bool,
    /// True when the guard ended it.
    #[serde(default)]
    pub is_stopped_by_guard: bool,
    /// What of a broken step counts.
    pub commit: Commit,
    /// What is on disk, in words.
    pub saved: String,
    /// Steps of this process.
    pub steps: Vec<StreamedStep>,
    /// Peak in memory as planned, bytes.
    pub planned_bytes: u64,
    /// Peak in memory of this process, by the system's count, bytes.
    pub peak_bytes: u64,
    /// The trained model.
    pub model: OffloadedModel,
}

impl OffloadReport {
    /// Why it ended.
    #[must_use]
    pub fn reason(&self) -> StopReason {
        match (self.is_finished, self.is_stopped_by_guard) {
            (true, _) => StopReason::Finished,
            (false, true) => StopReason::Diverged,
            (false, false) => StopReason::User,
        }
    }
}

/// Where the trained model is, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OffloadedModel {
    /// In this folder, in the layout of transformers.
    Written(PathBuf),
    /// Nobody wanted it yet: steps are left, or it was to stay in its blocks.
    Blocks,
    /// The disk has no room for it.
    NoRoom {
        /// Bytes that it takes.
        needed_bytes: u64,
        /// Bytes that are free.
        free_bytes: u64,
    },
}

/// Whether a plan may rehearse steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rehearsal {
    /// It says what the sizes alone tell.
    #[default]
    None,
    /// It times a few steps of a part of the model on the same disk.
    OfSteps,
}

/// Does a streamed training; its steps are events, and where it trains a run is shown.
pub(super) fn run(
    job: JobId,
    asked: OffloadJob,
    cancel: &CancelFlag,
    inbox: Inbox<'_>,
    shelf: &Shelf,
    outlet: &mut Outlet,
) -> Result<(), SessionError> {
    check(&asked)?;
    let desk = Desk::new(job, inbox, outlet);
    if asked.goal == OffloadGoal::Train {
        desk.prepare(&asked.config, "loading the dataset");
    }
    let tell = |progress: Progress| desk.tell(progress);
    let watch = Watch::new(cancel, &tell);
    let dataset = shelf.load_anew(&asked.config.data, watch)?;
    let (config, network) = fitted(&asked, &dataset)?;
    compute_pool(config.num_threads)?.install(|| {
        let settings = settings(&asked, &config, &dataset);
        if asked.goal == OffloadGoal::Train {
            desk.prepare(&config, "rehearsing a few steps");
        }
        let forecast = forecast(&config, (&network, &settings), dataset.bytes(), Rehearsal::OfSteps, watch)?;
        desk.send(EventKind::OffloadPlanned(Box::new(forecast.clone())));
        if !forecast.plan.memory.fits() {
            return Err(SessionError::Memory { plan: Box::new(forecast.plan.memory) });
        }
        forecast.disk.check()?;
        if asked.goal == OffloadGoal::Train {
            let report = train((&asked, &config, &settings), (&network, &dataset), &forecast, (watch, cancel), &desk)?;
            let reason = report.reason();
            desk.end(reason.clone(), &report.model);
            desk.send(EventKind::Offloaded(Box::new(report)));
            desk.send(EventKind::Ended(reason));
        }
        Ok(())
    })
}

/// What a streamed training of `asked` would take. A plan that does not fit is no error.
pub(super) fn plan(
    asked: &OffloadJob,
    dataset: &Dataset,
    rehearsal: Rehearsal,
    watch: Watch<'_>,
) -> Result<OffloadForecast, SessionError> {
    check(asked)?;
    let (config, network) = fitted(asked, dataset)?;
    let settings = settings(asked, &config, dataset);
    let forecast = || forecast(&config, (&network, &settings), dataset.bytes(), rehearsal, watch);
    compute_pool(config.num_threads)?.install(forecast)
}

/// The recipe with its model fitted to the data, and the network.
fn fitted(asked: &OffloadJob, dataset: &Dataset) -> Result<(RunConfig, Arc<Network>), SessionError> {
    let mut config = asked.config.clone();
    config.model = fitted_model(&config, dataset)?;
    check_recipe(&config, dataset)?;
    let network = Arc::new(Network::new(&config.model)?);
    check_streamable(&network, &config.optimizer)?;
    Ok((config, network))
}

/// Refuses what streaming cannot do, before anything is read.
fn check(asked: &OffloadJob) -> Result<(), SessionError> {
    let config = &asked.config;
    let refusals = [
        (
            config.hybrid.strategy.weight_copies() > 0,
            "streaming keeps no copies of the weights to extrapolate from; expected the strategy none, auto, importance \
             or frozen",
        ),
        (config.qat.is_some(), "streaming trains in one precision; leave out quantization-aware training"),
        (config.num_micro_batches != 1, "streaming computes a batch at once; expected 1 micro-batch"),
        (
            matches!(config.device, ComputeDevice::Cuda(_)),
            "streaming computes on the processor; expected device cpu or auto",
        ),
        (config.vram_limit_bytes > 0, "streaming computes on the processor; leave out the limit of a GPU's memory"),
    ];
    match refusals.into_iter().find(|(is_asked, _)| *is_asked) {
        Some((_, what)) => Err(SessionError::Recipe { what: what.to_owned() }),
        None => Ok(()),
    }
}

fn settings(asked: &OffloadJob, config: &RunConfig, dataset: &Dataset) -> OffloadSettings {
    OffloadSettings {
        folder: asked.folder.clone(),
        precision: asked.precision,
        commit: asked.commit,
        seed: config.seed,
        data: format!("{} {}", dataset.name(), dataset.fingerprint()),
        start: config.start_from.as_ref().map(|path| path.display().to_string()),
    }
}

/// What the training will take. Rates are measured only where it fits and steps are left, because that writes.
fn forecast(
    config: &RunConfig,
    (network, settings): (&Network, &OffloadSettings),
    dataset_bytes: u64,
    rehearsal: Rehearsal,
    watch: Watch<'_>,
) -> Result<OffloadForecast, SessionError> {
    let plan = planning::streamed(config, network, dataset_bytes, settings.precision).ok_or_else(|| {
        let what = "streaming trains language models; expected a gpt2 or llama model, found one of images".to_owned();
        SessionError::Recipe { what }
    })?;
    let disk = DiskRoom::of(network, settings)?;
    let model_bytes = plan.num_params.saturating_mul(settings.precision.weight_bytes());
    let num_steps_left = config.num_steps.saturating_sub(disk.num_steps);
    let mut forecast = OffloadForecast {
        plan,
        disk,
        model_bytes,
        num_steps_left,
        rates: None,
        step_seconds: None,
        predict_seconds: None,
        costs: Vec::new(),
    };
    let fits = forecast.plan.memory.fits() && forecast.disk.fits();
    if rehearsal == Rehearsal::OfSteps && fits && num_steps_left > 0 {
        let shape = StepShape {
            batch_size: config.batch_size,
            sequence_length: config.sequence_length,
            products: config.precision,
            precision: settings.precision,
            sampling: config.hybrid.strategy.samples().then_some(config.hybrid.slice_fraction),
        };
        let rates = Rates::measure(&settings.folder, network, &config.optimizer, shape, watch)?;
        forecast.step_seconds = Some(rates.step_seconds(&forecast.plan));
        forecast.predict_seconds = rates.predict_seconds(&forecast.plan, config.batch_size);
        forecast.costs = rates.costs(&forecast.plan);
        forecast.rates = Some(rates);
    }
    Ok(forecast)
}

fn train(
    (asked, config, settings): (&OffloadJob, &RunConfig, &OffloadSettings),
    (network, dataset): (&Arc<Network>, &Arc<Dataset>),
    forecast: &OffloadForecast,
    (watch, cancel): (Watch<'_>, &CancelFlag),
    desk: &Desk<'_>,
) -> Result<OffloadReport, SessionError> {
    let batches = BatchSource::new(
        Arc::clone(dataset),
        BatchConfig {
            batch_size: config.batch_size,
            sequence_length: config.sequence_length,
            augmentation: config.augmentation,
            seed: config.seed,
            // Whatever the recipe leaves open: blocks are computed there.
            device: ComputeDevice::Cpu.open()?,
        },
    )?;
    let mut led = open(config, network, (settings, forecast), watch)?;
    let records = asked.folder.join(METRICS_FILE);
    let earlier = earlier_steps(&records, led.trainer().num_steps())?;
    desk.begin((config, &asked.folder), (network.num_params() as u64, &forecast.plan.memory), earlier);
    desk.send(EventKind::Started { folder: Some(asked.folder.clone()) });
    let mut steps = Vec::new();
    while led.trainer().num_steps() < config.num_steps && !led.must_stop() {
        desk.obey(cancel);
        let number = led.trainer().num_steps();
        let batch = batches.train_batch(match asked.batches {
            OffloadBatches::Data => number,
            OffloadBatches::First => 0,
        })?;
        match led.step(&batch, watch) {
            Ok(step) => {
                append(&records, &step)?;
                desk.record(&step);
                desk.send(EventKind::Streamed(Box::new(step.clone())));
                steps.push(step);
            }
            Err(OffloadError::Cancelled(_)) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let (trainer, is_stopped_by_guard) = (led.trainer(), led.must_stop());
    let is_finished = trainer.num_steps() >= config.num_steps && !is_stopped_by_guard;
    let model = if is_finished && asked.ending == OffloadEnding::Model {
        write_model(trainer, config, dataset, &asked.folder, watch)?
    } else {
        OffloadedModel::Blocks
    };
    Ok(OffloadReport {
        folder: asked.folder.clone(),
        step: trainer.num_steps(),
        is_finished,
        is_stopped_by_guard,
        commit: trainer.commit(),
        saved: trainer.describe(),
        steps,
        planned_bytes: forecast.plan.memory.total_bytes(),
        peak_bytes: Gauges::default().read().process_peak_bytes,
        model,
    })
}

/// The training of `settings`; a new one takes over the weights of the model that it starts from, tensor by tensor.
fn open(
    config: &RunConfig,
    network: &Arc<Network>,
    (settings, forecast): (&OffloadSettings, &OffloadForecast),
    watch: Watch<'_>,
) -> Result<LedTrainer, SessionError> {
    let mut reader = config.start_from.as_deref().map(ModelReader::open).transpose()?;
    let mut first = reader.as_mut().map(|reader| {
        |spec: &TensorSpec| reader.values(spec).map_err(|error| OffloadError::FirstWeights { source: Box::new(error) })
    });
    let first = first.as_mut().map(|first| first as &mut FirstWeights<'_>);
    let trainer = OffloadTrainer::open(Arc::clone(network), &config.optimizer, settings, first, watch)?;
    let mut pilot = Pilot::without_snapshots(config.hybrid.clone(), config.schedule, config.num_steps, config.seed)?;
    if let Some(costs) = forecast.rates.and_then(|rates| rates.step_costs) {
        pilot.set_step_costs(costs);
    }
    Ok(LedTrainer::new(trainer.with_products(config.precision), pilot)?)
}

/// Appends a line; half a line, as a full disk leaves it, goes again.
fn append(path: &Path, step: &StreamedStep) -> Result<(), SessionError> {
    let written = (|| {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        let len = file.metadata()?.len();
        let mut line = serde_json::to_vec(step)?;
        line.push(b'\n');
        file.write_all(&line).inspect_err(|_| drop(file.set_len(len)))
    })();
    written.map_err(|source| WriteError::new("appending to", path, source).into())
}

/// Writes the weights as a folder of transformers, one tensor at a time, where the disk has room for them.
fn write_model(
    trainer: &OffloadTrainer,
    config: &RunConfig,
    dataset: &Dataset,
    folder: &Path,
    watch: Watch<'_>,
) -> Result<OffloadedModel, SessionError> {
    let tensors = trainer.tensors();
    let needed_bytes = tensors.iter().map(|tensor| tensor.num_bytes as u64).sum::<u64>().saturating_add(SPARE_BYTES);
    // A file system that does not tell will refuse the write.
    let free_bytes = free_disk_bytes(folder).unwrap_or(u64::MAX);
    if free_bytes < needed_bytes {
        return Ok(OffloadedModel::NoRoom { needed_bytes, free_bytes });
    }
    let model = folder.join(MODEL_FOLDER);
    std::fs::create_dir_all(&model).map_err(|source| WriteError::new("creating", &model, source))?;
    let entries: Vec<WeightEntry> = tensors
        .into_iter()
        .map(|tensor| WeightEntry {
            name: tensor.name,
            dtype: match trainer.precision() {
                Precision::Compact => safetensors::Dtype::BF16,
                Precision::Full => safetensors::Dtype::F32,
            },
            shape: tensor.shape,
            num_bytes: tensor.num_bytes,
        })
        .collect();
    let metadata = [("format".to_owned(), "pt".to_owned())].into_iter().collect();
    let mut failure = None;
    let bytes_of = |name: &str| match trainer.tensor_bytes(name) {
        Ok(bytes) => Ok(bytes),
        Err(error) => {
            failure = Some(error);
            // The writer finds the length wrong and ends.
            Ok(Vec::new())
        }
    };
    let written = write_safetensors(&model.join(WEIGHTS_FILE), &entries, &metadata, watch, bytes_of);
    if let Some(error) = failure {
        return Err(error.into());
    }
    written?;
    let mut json = hf_config::to_json(&config.model)?;
    json["torch_dtype"] = match trainer.precision() {
        Precision::Compact => "bfloat16".into(),
        Precision::Full => "float32".into(),
    };
    write_json(&model.join("config.json"), &json)?;
    if let Dataset::Text(text) = dataset {
        let tokenizer = text.tokenizer.to_string(true).map_err(|error| SessionError::Recipe {
            what: format!("the tokenizer cannot be saved: {error}. Choose another tokenizer"),
        })?;
        atomic_file::write_bytes(&model.join(TOKENIZER_FILE), tokenizer.as_bytes())?;
    }
    Ok(OffloadedModel::Written(model))
}
