//! What a run needs before its first step: data, a network fitted to it, a memory plan, a trainer.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::outlet::Outlet;
use super::worker::Shelf;
use super::{EventKind, JobId, RunConfig, RunSnapshot, RunStatus, Savings, SessionError, checkpoint, planning};
use crate::data::{self, BatchSource, Dataset};
use crate::device::{CancelFlag, ComputeDevice, Progress, Watch};
use crate::experiment::TrialRecipe;
use crate::export::Checkpoint;
use crate::hybrid::{HybridTrainer, Phase};
use crate::import;
use crate::memory::MemoryPlan;
use crate::models::ops::{Kept, Precision};
use crate::models::{ModelConfig, Network, ParamStore, Params, TensorSpec};
use crate::optim::{Schedule, StatePlace, StatePrecision};

/// What both kinds of run need before they can train.
pub(super) struct Prepared {
    pub(super) config: RunConfig,
    pub(super) dataset: Arc<Dataset>,
    pub(super) batches: BatchSource,
    pub(super) network: Arc<Network>,
    pub(super) trainer: HybridTrainer,
    pub(super) plan: MemoryPlan,
    /// Whether memory that a step frees may be kept for the next.
    pub(super) may_keep_pages: bool,
    /// Why it computes where it does, when the recipe left that open.
    pub(super) why_there: Option<String>,
}

/// Where a run's first weights come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstWeights {
    /// The recipe: a model that it names, else its seed.
    OfRecipe,
    /// A checkpoint that is loaded next, so that it does not matter.
    OfCheckpoint,
}

/// Loads the data, fits the model to it, plans, allocates.
pub(super) fn prepare(
    job: JobId,
    mut config: RunConfig,
    first: FirstWeights,
    cancel: &CancelFlag,
    shelf: &Shelf,
    outlet: &mut Outlet,
) -> Result<Prepared, SessionError> {
    publish_preparing(job, &config, "loading the dataset", outlet);
    let dataset = {
        let outlet = Mutex::new(&mut *outlet);
        let tell = |progress: Progress| {
            if let Ok(mut outlet) = outlet.lock() {
                outlet.send(job, EventKind::Progress(progress));
            }
        };
        shelf.load_anew(&config.data, Watch::new(cancel, &tell))?
    };
    config.model = fitted_model(&config, &dataset)?;
    check_recipe(&config, &dataset)?;
    let network = Arc::new(config.network()?);
    let placed = planning::place(&config, &network, dataset.bytes(), 1)?;
    let may_keep_pages = placed.may_keep_pages();
    let (config, plan) = (placed.config, placed.plan);
    if !plan.fits() {
        return Err(SessionError::Memory { plan: Box::new(plan) });
    }
    let (trainer, batches) = match config.start_from.clone().filter(|_| first == FirstWeights::OfRecipe) {
        Some(path) => {
            publish_preparing(job, &config, "reading the model to start from", outlet);
            let start = import::read_model(&path, &shelf.cache, Watch::new(cancel, &|_| {}))?;
            check_start(&config, &start, &dataset, Watch::new(cancel, &|_| {}))?;
            let device = config.device.open()?;
            let (weights, buffers) = network.split_params(learning_weights(start)?);
            let store = ParamStore::new(weights, buffers, &device)?;
            trial_recipe(&config).begin_with(store, &network, &dataset, config.seed, device)?
        }
        None => trainer_and_batches(&config, &network, &dataset)?,
    };
    Ok(Prepared { config, dataset, batches, network, trainer, plan, may_keep_pages, why_there: placed.why })
}

/// The weights of `start` that go on learning: of a checkpoint of quantization-aware training the full-precision ones
/// behind those that it ships.
fn learning_weights(start: Checkpoint) -> Result<Params, SessionError> {
    match start.card.trained_for {
        Some(_) => Ok(checkpoint::load(&start.folder)?.0.weights()),
        None => Ok(start.weights),
    }
}

/// The recipe's model for `dataset`: its ends are fitted to the data, unless its weights are there already.
/// Errors: data that it cannot read.
pub(super) fn fitted_model(config: &RunConfig, dataset: &Dataset) -> Result<ModelConfig, SessionError> {
    if config.start_from.is_none() {
        return Ok(config.model.fitted_to(dataset.shape())?);
    }
    let (wanted, found) = (config.model.data_shape(), dataset.shape());
    if wanted.takes(found) {
        return Ok(config.model.clone());
    }
    let name = dataset.name();
    let what =
        format!("the model to start from reads {wanted}, {name} has {found}; choose other data or another model");
    Err(SessionError::Recipe { what })
}

/// Refuses a model to start from that is not the recipe's, or reads other tokens than the data has.
fn check_start(
    config: &RunConfig,
    start: &Checkpoint,
    dataset: &Dataset,
    watch: Watch<'_>,
) -> Result<(), SessionError> {
    if start.card.model != config.model {
        let where_they_differ = difference(&config.model, &start.card.model)?;
        let what = format!(
            "the model to start from is another than the recipe names: {where_they_differ}. Was it changed meanwhile?"
        );
        return Err(SessionError::Recipe { what });
    }
    let (Dataset::Text(text), Some(tokenizer)) = (dataset, &start.tokenizer_json) else { return Ok(()) };
    if data::has_vocabulary_of(text, tokenizer, watch)? {
        return Ok(());
    }
    let what = format!(
        "the model to start from reads tokens of its own tokenizer, {} has a vocabulary of its own; name a text (--data)",
        dataset.name()
    );
    Err(SessionError::Recipe { what })
}

/// What tells two models apart: the first tensor that is not the same in both, else a setting that no tensor shows.
fn difference(ours: &ModelConfig, theirs: &ModelConfig) -> Result<String, SessionError> {
    let (ours, theirs) = (Network::new(ours)?.specs(), Network::new(theirs)?.specs());
    let shape_of = |specs: &[TensorSpec], name: &str| {
        let found = specs.iter().find(|spec| spec.name == name);
        found.map_or_else(|| "missing".to_owned(), |spec| format!("{:?}", spec.shape))
    };
    let mut names = ours.iter().chain(&theirs).map(|spec| spec.name.as_str());
    Ok(match names.find(|name| shape_of(&ours, name) != shape_of(&theirs, name)) {
        Some(name) => {
            let (wanted, found) = (shape_of(&ours, name), shape_of(&theirs, name));
            format!("tensor {name:?} is {wanted} in the recipe's and {found} in the other")
        }
        None => "a setting that no tensor shows (activation, heads, positions)".to_owned(),
    })
}

/// A trainer before its first step, and the batches it learns from, as `config` asks for them.
pub(super) fn trainer_and_batches(
    config: &RunConfig,
    network: &Arc<Network>,
    dataset: &Arc<Dataset>,
) -> Result<(HybridTrainer, BatchSource), SessionError> {
    let device = config.device.open()?;
    Ok(trial_recipe(config).begin(network, dataset, config.seed, device)?)
}

/// What of a run's recipe an experiment varies.
pub(super) fn trial_recipe(config: &RunConfig) -> TrialRecipe {
    TrialRecipe {
        hybrid: config.hybrid.clone(),
        optimizer: config.optimizer.clone(),
        schedule: config.schedule,
        qat: config.qat,
        num_steps: config.num_steps,
        batch_size: config.batch_size,
        num_micro_batches: config.num_micro_batches,
        precision: config.precision,
        sequence_length: config.sequence_length,
        augmentation: config.augmentation,
    }
}

/// Refuses numbers that cannot work, naming what would.
pub(super) fn check_recipe(config: &RunConfig, dataset: &Dataset) -> Result<(), SessionError> {
    let refuse = |what: String| Err(SessionError::Recipe { what });
    if config.num_steps == 0 || config.batch_size == 0 {
        return refuse("steps and batch size must be at least 1".to_owned());
    }
    if config.validation_interval == 0 || config.checkpoint_interval == 0 || config.max_validation_examples == 0 {
        let what = "steps between validations, steps between checkpoints and validation examples must be at least 1";
        return refuse(what.to_owned());
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
    let fractions = match config.schedule {
        Schedule::Cosine { warmup_fraction, final_fraction } => {
            [("the warmup fraction", warmup_fraction), ("the final fraction", final_fraction)]
        }
        Schedule::ConstantEma { warmup_fraction, ema_decay } => {
            [("the warmup fraction", warmup_fraction), ("the decay of the average", ema_decay)]
        }
    };
    for (name, fraction) in fractions {
        if !(0.0..=1.0).contains(&fraction) {
            return refuse(format!("{name} must be 0 to 1, found {fraction}"));
        }
    }
    if config.precision != Precision::F32 {
        let label = config.precision.label();
        // Where a GPU may be chosen, it is looked at once that is settled.
        if let (ComputeDevice::Cpu, Some(missing)) = (config.device, config.precision.missing()) {
            return refuse(format!("precision {label}: {missing}"));
        }
        if !config.model.has_bf16_products() {
            let what = "expected a language model (GPT-2 or Llama), found one of images, which train in f32";
            return refuse(format!("precision {label}: {what}"));
        }
    }
    if config.kept == Kept::Input && config.model.max_positions().is_none() {
        let what = "activation checkpointing: expected a language model (GPT-2, Llama or BitNet), found one of images; \
                    train without it, in smaller micro-batches";
        return refuse(what.to_owned());
    }
    if let (StatePrecision::EightBit, StatePlace::WithWeights, ComputeDevice::Cuda(index)) =
        (config.optimizer.states, config.optimizer.state_place, config.device)
    {
        let what = "expected them in the machine's memory (optimizer offload), or the processor to compute (cpu, auto)";
        return refuse(format!("8-bit optimizer states: {what}, found GPU {index}; keep them in f32 there"));
    }
    if let Some(qat) = config.qat {
        if let Err(error) = qat.check() {
            return refuse(error.to_string());
        }
        // The switch comes after the step of this number.
        let is_learned = (qat.start_fraction * config.num_steps as f64).floor() >= 1.0 || config.start_from.is_some();
        if qat.distillation.is_some() && !is_learned {
            let what = "a teacher needs weights that have learned: switch later, or start from a model";
            return refuse(what.to_owned());
        }
    }
    Ok(())
}

/// Shows a run that has no folder yet.
pub(super) fn publish_preparing(job: JobId, config: &RunConfig, what: &str, outlet: &mut Outlet) {
    outlet.publish(RunSnapshot {
        job,
        folder: None::<PathBuf>,
        config: Arc::new(config.clone()),
        num_params: Network::new(&config.model).map_or(0, |network| network.num_params() as u64),
        status: RunStatus::Preparing { what: what.to_owned() },
        phase: Phase::Warmup,
        step: 0,
        in_step: None,
        disk: None,
        history: super::HistoryView::default(),
        validations: Arc::from([]),
        log: Arc::from([]),
        samples: None,
        savings: Savings::default(),
        plan: None,
        gpu_plan: None,
        memory_before_bytes: None,
        gauges: None,
        seconds_left: None,
    });
}
