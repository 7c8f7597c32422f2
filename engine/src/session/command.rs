//! What the window (or the command line) asks for.

use std::path::PathBuf;

use super::{OffloadJob, Rehearsal, RunConfig};
use crate::bench::TrainBenchPlan;
use crate::chart::{Chart, Theme};
use crate::data::DatasetSpec;
use crate::device::ComputeDevice;
use crate::experiment::{MemoryFeature, RungSize};
use crate::export::PackageFormat;
use crate::hybrid::Strategy;
use crate::models::BlockOrder;
use crate::quant::{PostTraining, QatConfig, QuantScheme};

/// Names one job; events carry it back, so that answers to old questions can be ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub u64);

/// Quantize a checkpoint and measure what that costs.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizeJob {
    /// Checkpoint folder, or a run folder (its best checkpoint is taken).
    pub input: PathBuf,
    /// Target scheme.
    pub scheme: QuantScheme,
    /// File to write; `None` only measures.
    pub output: Option<PathBuf>,
    /// Data to measure on; `None` takes the run's own.
    pub data: Option<DatasetSpec>,
    /// Most validation examples to measure on.
    pub max_examples: usize,
    /// Calibration, equalization, mixed precision.
    pub options: PostTraining,
    /// New folder for a report with figures and charts of every layer.
    pub report: Option<PathBuf>,
}

impl QuantizeJob {
    /// Validation examples to measure on when nobody says.
    pub const DEFAULT_EXAMPLES: usize = 4_000;
}

/// What to do when the place for something new is taken. Nothing is ever written over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Naming {
    /// Refuse.
    #[default]
    Exact,
    /// Take the first of `name-2`, `name-3`, … that is free.
    NextFree,
}

/// Write a package for a hardware target.
#[derive(Debug, Clone, PartialEq)]
pub struct ExportJob {
    /// Checkpoint folder, or a run folder (its best checkpoint is taken).
    pub input: PathBuf,
    /// Id of a target preset.
    pub target: String,
    /// How weights are stored; `None` takes the target's own scheme.
    pub scheme: Option<QuantScheme>,
    /// In which container; `None` takes the target's own.
    pub format: Option<PackageFormat>,
    /// Folder to create.
    pub output: PathBuf,
    /// What to do when it exists.
    pub naming: Naming,
    /// Data for the metrics in the manifest; `None` takes the run's own.
    pub data: Option<DatasetSpec>,
    /// Calibration, equalization, mixed precision.
    pub options: PostTraining,
}

/// What to put into a model.
#[derive(Debug, Clone, PartialEq)]
pub enum InferInput {
    /// One image, in the shape that the model reads, 0 to 255, (channels, height, width).
    Image {
        /// The pixels.
        pixels: Vec<u8>,
    },
    /// Text to go on from.
    Prompt {
        /// The text.
        text: String,
        /// Tokens to add.
        max_tokens: usize,
        /// 0 picks the likeliest token.
        temperature: f32,
        /// Seed of the sampling.
        seed: u64,
    },
}

/// Try a model through the runtime that ships: a checkpoint in several precisions, a package in its own.
#[derive(Debug, Clone, PartialEq)]
pub struct InferJob {
    /// Package folder, checkpoint folder, or a run folder (its best checkpoint is taken).
    pub input: PathBuf,
    /// Precisions to compare, of a checkpoint.
    pub schemes: Vec<QuantScheme>,
    /// What to put in.
    pub prompt: InferInput,
}

/// Read an image file as a model would be given it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadImageJob {
    /// PNG or JPEG.
    pub path: PathBuf,
    /// (channels, height, width) to scale to.
    pub shape: (usize, usize, usize),
}

/// A kind of picture file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ChartFormat {
    /// Text that scales.
    Svg,
    /// Pixels.
    Png {
        /// Pixels per px of the chart, both ways.
        scale: f64,
    },
}

impl ChartFormat {
    /// The ending of its files' names.
    #[must_use]
    pub fn ending(self) -> &'static str {
        match self {
            Self::Svg => "svg",
            Self::Png { .. } => "png",
        }
    }
}

/// Draw a chart into files.
#[derive(Debug, Clone, PartialEq)]
pub struct ChartJob {
    /// What to draw.
    pub chart: Chart,
    /// On which background.
    pub theme: Theme,
    /// One file for each.
    pub formats: Vec<ChartFormat>,
    /// Path of the files without their endings; its folder is made.
    pub output: PathBuf,
    /// What to do when one of them exists.
    pub naming: Naming,
}

/// Which experiment.
#[derive(Debug, Clone, PartialEq)]
pub enum ExperimentKind {
    /// The recipe against vanilla with as many steps, vanilla with as much time, and a frozen control.
    Arena {
        /// Learning rates tried for each contender, as factors of the recipe's.
        rate_factors: Vec<f64>,
        /// Batch sizes tried for vanilla with as much time: the recipe's divided by these.
        batch_divisors: Vec<usize>,
        /// Seeds of the comparison: those after the recipe's own, which is the tuning's.
        num_seeds: u64,
    },
    /// The recipe at several confidence thresholds and horizons: how good its forecasts and corrections are.
    Corrections {
        /// Confidence thresholds.
        confidence_thresholds: Vec<f64>,
        /// Most predicted steps in a row, H.
        horizons: Vec<u32>,
        /// Seeds: the recipe's own and those after it.
        num_seeds: u64,
    },
    /// The recipe with each tier, vanilla among them; its own tier does not count.
    Tiers {
        /// What Predict does instead of what the tiers say.
        strategy: Option<Strategy>,
        /// Seeds: the recipe's own and those after it.
        num_seeds: u64,
    },
    /// The recipe on language models from small to large; its own model does not count.
    Ladder {
        /// Sizes, smallest first.
        sizes: Vec<RungSize>,
        /// Minutes that a rung's two trainings may take together.
        minutes_per_rung: f64,
        /// Share by which the hybrid's loss may lie above vanilla's for the next rung to open.
        loss_tolerance: f64,
    },
    /// The recipe's transformer grown from one of half its blocks, against its controls; every step is a full one.
    Growth {
        /// Share of the steps that are trained at half depth.
        share: f64,
        /// Orders of blocks tried.
        orders: Vec<BlockOrder>,
        /// Learning rates tried for each contender, as factors of the recipe's.
        rate_factors: Vec<f64>,
        /// Seeds of the comparison: those after the recipe's own, which is the tuning's.
        num_seeds: u64,
    },
    /// The recipe in full precision, stored in fewer bits, against trainings for them at equal steps; its own
    /// quantization-aware training does not count.
    Quantization {
        /// What is trained for.
        trainings: Vec<QatConfig>,
        /// Images or sequences of the training part that calibrated forms look at.
        calibration_samples: usize,
        /// Seeds: the recipe's own and those after it.
        num_seeds: u64,
    },
    /// The recipe in full steps, plainly and with each of these features alone; its own settings of them do not count.
    Features {
        /// Features.
        features: Vec<MemoryFeature>,
        /// Seeds: the recipe's own and those after it.
        num_seeds: u64,
    },
}

/// An experiment to run, and where its report goes.
#[derive(Debug, Clone, PartialEq)]
pub struct ExperimentJob {
    /// Which.
    pub kind: ExperimentKind,
    /// The hybrid's recipe.
    pub config: RunConfig,
    /// The report's folder, which must not exist.
    pub output: PathBuf,
    /// Title of the report.
    pub title: String,
    /// Command that runs it again, for the report.
    pub command: String,
    /// Commit that the program was built from, for the report.
    pub commit: Option<String>,
    /// Day of the run, for the report.
    pub day: String,
}

/// A request to the engine. Each that has a [`JobId`] is answered by events with it.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Start a run; refused while another one goes on.
    Start(JobId, Box<RunConfig>),
    /// Go on with the run in this folder from its last checkpoint.
    ResumeRun(JobId, PathBuf),
    /// The same on another device than its recipe names.
    ResumeRunOn(JobId, PathBuf, ComputeDevice),
    /// Run an experiment; refused while a run goes on, and `Stop` ends it without a report.
    Experiment(JobId, Box<ExperimentJob>),
    /// Train a model that is larger than memory; refused while a run goes on, and `Stop` ends it at the next block.
    Offload(JobId, Box<OffloadJob>),
    /// Measure the speed of training; refused while a run goes on, and `Stop` ends it without a result.
    BenchTrain(JobId, Box<TrainBenchPlan>),
    /// Stop at the next step, keeping everything.
    Pause,
    /// Go on after a pause.
    Resume,
    /// Save and end the run.
    Stop,
    /// Save a checkpoint at the next step.
    Save,
    /// Load a dataset and describe it.
    Inspect(JobId, DatasetSpec),
    /// Say what a recipe would need.
    Plan(JobId, Box<RunConfig>),
    /// Say what a streamed training would take; the seconds of a step only where it may rehearse some, which writes into
    /// its folder and takes a while.
    PlanOffload(JobId, Box<OffloadJob>, Rehearsal),
    /// Quantize.
    Quantize(JobId, QuantizeJob),
    /// Export.
    Export(JobId, ExportJob),
    /// Try.
    Infer(JobId, InferJob),
    /// List the runs below a folder.
    ListRuns(JobId, PathBuf),
    /// Read a past run's history.
    OpenRun(JobId, PathBuf),
    /// Say what a checkpoint is and which targets take it.
    Describe(JobId, PathBuf),
    /// Read an image file.
    ReadImage(JobId, ReadImageJob),
    /// List the reports of experiments below a folder.
    ListReports(JobId, PathBuf),
    /// Read the report in a folder; answered like the experiment that wrote it.
    OpenReport(JobId, PathBuf),
    /// Draw a chart.
    DrawChart(JobId, Box<ChartJob>),
    /// End the worker's job with this id.
    Cancel(JobId),
}
