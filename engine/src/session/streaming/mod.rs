//! Streamed training of a language model that is larger than memory; see [`crate::offload`].

mod desk;
mod forecast;
mod model;
mod placing;
mod records;
mod training;

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::outlet::Outlet;
use super::preparing::{check_recipe, fitted_model};
use super::trainer_thread::Inbox;
use super::worker::Shelf;
use super::{EventKind, JobId, RunConfig, SessionError, StopReason, ValidationPoint};
use crate::data::Dataset;
use crate::device::{CancelFlag, ComputeDevice, Progress, Watch, compute_pool};
use crate::models::Network;
use crate::models::ops::{self, Kept};
use crate::offload::{
    Commit, Cost, DiskRoom, OffloadPlan, OffloadSettings, Precision, Rates, StreamedStep, check_streamable,
};
use desk::Desk;
use forecast::forecast;
use training::train;

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
    /// What to train, by AdamW. A checkpoint is a snapshot that a divergence goes back to.
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
    /// Where the passes are computed, settled; updates are the processor's work.
    #[serde(default)]
    pub device: ComputeDevice,
    /// Why it is there, where the recipe left that open.
    #[serde(default)]
    pub why_there: Option<String>,
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

impl OffloadForecast {
    /// Where the passes are computed, in a sentence: "Computing on GPU 0."; `None` where that is the processor, as asked.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        let named = match self.device {
            ComputeDevice::Cpu | ComputeDevice::Auto => None,
            ComputeDevice::Cuda(index) => Some(format!("Computing on GPU {index}.")),
        };
        self.why_there.clone().or(named)
    }
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
    /// What held-out data said on the way, and at the end.
    pub validations: Vec<ValidationPoint>,
    /// Peak in memory as planned, bytes.
    pub planned_bytes: u64,
    /// Peak in memory of this process, by the system's count, bytes.
    pub peak_bytes: u64,
    /// Where the passes were computed.
    #[serde(default)]
    pub device: ComputeDevice,
    /// Peak in a GPU's memory as planned, bytes, where one computed.
    #[serde(default)]
    pub planned_gpu_bytes: Option<u64>,
    /// Most of its memory that this process was seen to hold, by its driver, bytes; `None` where that does not tell.
    #[serde(default)]
    pub peak_gpu_bytes: Option<u64>,
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
        let placed = placing::place(&config, &network, dataset.bytes(), settings.precision)?;
        let config = RunConfig { device: placed.device, ..config };
        let forecast = forecast(&config, (&network, &settings), placed, Rehearsal::OfSteps, watch)?;
        desk.send(EventKind::OffloadPlanned(Box::new(forecast.clone())));
        placing::check(&forecast.plan)?;
        forecast.disk.check()?;
        if asked.goal == OffloadGoal::Train {
            let trained = train((&asked, &config, &settings), (&network, &dataset), &forecast, (watch, cancel), &desk);
            let report = trained.inspect_err(|error| {
                if !error.is_cancelled() {
                    desk.end(StopReason::Failed(error.to_string()), &OffloadedModel::Blocks);
                }
            })?;
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
    let forecast = || {
        let placed = placing::place(&config, &network, dataset.bytes(), settings.precision)?;
        forecast(&config, (&network, &settings), placed, rehearsal, watch)
    };
    compute_pool(config.num_threads)?.install(forecast)
}

/// The recipe with its model fitted to the data, and the network.
fn fitted(asked: &OffloadJob, dataset: &Dataset) -> Result<(RunConfig, Arc<Network>), SessionError> {
    let mut config = asked.config.clone();
    config.model = fitted_model(&config, dataset)?;
    // Each block is computed again in any case.
    config.kept = Kept::Activations;
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
        (
            config.precision == ops::Precision::F16,
            "streaming scales no losses, which fp16 needs; expected products in f32 or bf16",
        ),
        (config.qat.is_some(), "streaming trains in one precision; leave out quantization-aware training"),
        (config.num_micro_batches != 1, "streaming computes a batch at once; expected 1 micro-batch"),
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
