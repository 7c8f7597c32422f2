//! What the engine answers.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    DataPreview, LoadedRun, OffloadForecast, OffloadReport, RunConfig, SessionError, TargetSpeed, ValidationPoint,
};
use crate::bench::TrainSpeed;
use crate::device::Progress;
use crate::experiment::{RaceView, Report};
use crate::export::{Blocker, EdgeFigures, ModelCard, TargetPreset};
use crate::hybrid::Divergence;
use crate::memory::MemoryPlan;
use crate::offload::StreamedStep;
use crate::quant::{LayerFigures, QuantScheme, TableChoice};

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopReason {
    /// All steps done.
    Finished,
    /// The user stopped it; its last checkpoint resumes it.
    User,
    /// The divergence guard reached its last rung.
    Diverged,
    /// An error, in words.
    Failed(String),
    /// The engine panicked; the message of the panic.
    Crashed(String),
}

/// What a failure lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Blame {
    /// In what was asked for: numbers that do not go together, a place that is taken, a folder that holds no model.
    /// The same request cannot succeed; another one can.
    Request,
    /// In doing it: a damaged file, a full disk, an engine that is busy.
    #[default]
    Work,
}

/// Why a job could not be done: what was tried, expected and found, then what to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// In words, causes included.
    pub message: String,
    /// The plan, when memory was the reason.
    pub plan: Option<MemoryPlan>,
    /// Whether another request would help.
    pub blame: Blame,
}

/// What a recipe would need.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanReport {
    /// Trainable numbers.
    pub num_params: u64,
    /// Bytes by kind.
    pub plan: MemoryPlan,
    /// Time of a full step, measured just now by running a few of the recipe's own, the median; `None` when it does not fit.
    pub full_step_ms: Option<f64>,
    /// The same with the settings of the first remedy that has some, where the recipe as it is does not fit and these do.
    pub remedy_step_ms: Option<f64>,
    /// `full_step_ms` times the number of steps: vanilla training time, validation left out.
    pub vanilla_seconds: Option<f64>,
    /// Trouble that does not forbid starting ("a batch is larger than the training part").
    pub warnings: Vec<String>,
}

mod scheme_label {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::quant::QuantScheme;

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
    pub(super) fn serialize<S: Serializer>(scheme: &QuantScheme, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(scheme.label())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<QuantScheme, D::Error> {
        let label = String::deserialize(deserializer)?;
        QuantScheme::from_label(&label).ok_or_else(|| de::Error::custom(format!("no scheme is called {label:?}")))
    }
}

/// What quantization did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuantizeReport {
    /// Scheme; its label in JSON.
    #[serde(with = "scheme_label")]
    pub scheme: QuantScheme,
    /// "accuracy" (share of 1, higher is better) or "loss" (nats per token, lower is better).
    pub metric: String,
    /// Metric of the checkpoint as trained.
    pub before: f64,
    /// Metric after quantization.
    pub after: f64,
    /// Validation loss as trained, nats.
    pub loss_before: f64,
    /// Validation loss after quantization, nats.
    pub loss_after: f64,
    /// Examples or tokens it was measured on.
    pub num_examples: u64,
    /// Bytes of all weights in f32.
    pub bytes_before: u64,
    /// Bytes after, scales included.
    pub bytes_after: u64,
    /// Bits per weight, all tensors and scales counted.
    pub bits_per_weight: f64,
    /// Relative L2 error of each quantized tensor, by name.
    pub tensor_errors: Vec<(String, f64)>,
    /// How the weights found their codes, in words: "gptq, calibrated on 1000 sequences".
    pub method: String,
    /// What it did to each tensor that is not stored as it was.
    pub layers: Vec<LayerFigures>,
    /// What can be generated on each target at best, predicted; empty for image models.
    #[serde(default)]
    pub speeds: Vec<TargetSpeed>,
    /// How token embedding and head are stored, and the figures that decided it; `None` where they follow the scheme.
    #[serde(default)]
    pub tables: Option<TableChoice>,
    /// Advice or caution in words.
    pub notes: Vec<String>,
    /// The file written, if any.
    pub output: Option<PathBuf>,
    /// The folder with the report, if one was asked for.
    #[serde(default)]
    pub report: Option<PathBuf>,
}

impl QuantizeReport {
    /// What `num_examples` counts: "images" or, of text, "tokens".
    #[must_use]
    pub fn example_unit(&self) -> &'static str {
        if self.metric == "accuracy" { "images" } else { "tokens" }
    }
}

/// A package on disk, verified.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExportReport {
    /// Id of the target.
    pub target: String,
    /// The package folder.
    pub package: PathBuf,
    /// Files with their sizes in bytes.
    pub files: Vec<(String, u64)>,
    /// What quantization did.
    pub quality: QuantizeReport,
    /// What foretrain-edge makes of the package; `None` for ONNX, which it does not run: there `quality` was measured
    /// with the graph of the file itself.
    #[serde(flatten)]
    pub edge: Option<EdgeFigures>,
    /// The command that runs it.
    pub run_command: String,
    /// What the user should know ("3 tensors kept in Q8_0: rows of 128 do not fill a block").
    pub notes: Vec<String>,
}

/// Answer of one precision.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerOutput {
    /// Probabilities by class.
    Classes(Vec<(String, f32)>),
    /// Text added to the prompt.
    Text(String),
}

/// Answer of one precision, with its price.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Precision.
    pub scheme: QuantScheme,
    /// What came out.
    pub output: AnswerOutput,
    /// Milliseconds for the image, or per token.
    pub latency_ms: f64,
    /// Bytes of the package's weights.
    pub weight_bytes: u64,
}

impl Failure {
    /// What a job's error says, with the memory plan of a refusal.
    pub(super) fn of(error: &SessionError) -> Self {
        let plan = if let SessionError::Memory { plan } = error { Some((**plan).clone()) } else { None };
        Self { message: error.to_string(), plan, blame: error.blame() }
    }
}

/// How the divergence guard ended a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GuardEnd {
    /// Step at which it was seen.
    pub step: u64,
    /// What was seen.
    pub divergence: Divergence,
    /// After which step the weights were that the run ended with, 0 for the initial ones; `None` where its log does
    /// not tell.
    pub restored_step: Option<u64>,
}

/// A run on disk, in a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// The folder.
    pub folder: PathBuf,
    /// Name from its config.
    pub name: String,
    /// Dataset name.
    pub dataset: String,
    /// Model in words: "GPT-2, 0.82M parameters".
    pub model: String,
    /// Tier, and the strategy where that is not the tier's own.
    pub tier: String,
    /// Steps done, by its metrics.
    pub step: u64,
    /// Steps wanted.
    pub num_steps: u64,
    /// Last validation loss, nats, on as many examples as were measured.
    pub validation_loss: Option<f64>,
    /// Last validation accuracy, on the same.
    pub validation_accuracy: Option<f64>,
    /// The last validation: the curve's last point and, at a run's end, the whole part.
    #[serde(default)]
    pub last_validation: Option<ValidationPoint>,
    /// When it began, milliseconds since the Unix epoch; `None` where its log does not tell.
    #[serde(default)]
    pub started_unix_ms: Option<u64>,
    /// Its recipe; `None` where it cannot be read.
    #[serde(skip)]
    pub config: Option<Arc<RunConfig>>,
    /// How it ended; `None` when it never did (killed).
    pub ended: Option<StopReason>,
    /// What the guard saw, when it ended the run.
    #[serde(default)]
    pub guard_end: Option<GuardEnd>,
    /// Divergences seen, each of them answered.
    #[serde(default)]
    pub num_divergences: u64,
    /// A process is training it now.
    pub is_running: bool,
    /// It has steps left and a complete checkpoint to do them from.
    pub is_resumable: bool,
    /// Why it cannot be read; the figures above are empty then.
    #[serde(default)]
    pub problem: Option<String>,
}

/// A report of an experiment on disk, in a line.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportSummary {
    /// Its folder.
    pub folder: PathBuf,
    /// Its title; the folder's name where it cannot be read.
    pub title: String,
    /// Day of the experiment: "2026-11-28"; empty where it cannot be read.
    pub day: String,
    /// Seconds that the experiment took.
    pub seconds: f64,
    /// Why it cannot be read.
    pub problem: Option<String>,
}

/// A hardware target, seen from one model.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetFit {
    /// The target.
    pub target: TargetPreset,
    /// Bytes that the weight file will have.
    pub predicted_bytes: u64,
    /// The least and the most that it may have, where embedding and head are chosen by measuring; `None` where its size is
    /// known.
    pub predicted_range: Option<(u64, u64)>,
    /// Tokens a second for one reader at most, predicted from the bytes read for each and the memory's data sheet; `None`
    /// for image models.
    pub most_tokens_per_second: Option<f64>,
    /// Tensors that are stored in another way than the scheme asks, and what does better; `None` where there are none.
    pub fallback: Option<String>,
    /// Why the target cannot take the model; empty when it can.
    pub blockers: Vec<Blocker>,
}

/// How a model lies on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelSource {
    /// As it was trained, in full precision.
    Checkpoint,
    /// Exported, in this precision.
    Package(QuantScheme),
}

/// A model on disk, described without computing with its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelReport {
    /// What was asked about: a run folder, a checkpoint folder or a package folder.
    pub input: PathBuf,
    /// The checkpoint or package that it stands for.
    pub folder: PathBuf,
    /// Which of the two.
    pub source: ModelSource,
    /// What it is.
    pub card: ModelCard,
    /// What the guard saw, when it ended the run that this is a checkpoint of.
    pub guard_end: Option<GuardEnd>,
    /// All targets, in the order in which to offer them; none for a package.
    pub targets: Vec<TargetFit>,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum EventKind {
    /// The job began; for a run, in this folder.
    Started {
        /// The run's folder.
        folder: Option<PathBuf>,
    },
    /// How far it is.
    Progress(Progress),
    /// A checkpoint is complete.
    Saved(PathBuf),
    /// The job was not done.
    Rejected(Failure),
    /// The run ended.
    Ended(StopReason),
    /// A dataset, described.
    Inspected(Arc<DataPreview>),
    /// A recipe's needs.
    Planned(Box<PlanReport>),
    /// A quantization, measured.
    Quantized(Box<QuantizeReport>),
    /// A package, verified.
    Exported(Box<ExportReport>),
    /// Answers, one per precision.
    Answered(Vec<Answer>),
    /// Runs, newest first.
    Runs(Vec<RunSummary>),
    /// A past run.
    RunOpened(Arc<LoadedRun>),
    /// A checkpoint, described.
    Described(Arc<ModelReport>),
    /// Pixels (channels, height, width), 0 to 255.
    ImageRead(Arc<[u8]>),
    /// A chart is drawn, into these files.
    ChartDrawn(Vec<PathBuf>),
    /// How an experiment's race stands.
    Raced(Arc<RaceView>),
    /// Reports of experiments, newest first.
    Reports(Vec<ReportSummary>),
    /// An experiment, measured and written; or its report, read back.
    Experimented {
        /// Everything measured.
        report: Arc<Report>,
        /// Its folder: `report.json`, `README.md`, charts.
        folder: PathBuf,
    },
    /// What a streamed training takes.
    OffloadPlanned(Box<OffloadForecast>),
    /// A streamed training did a step.
    Streamed(Box<StreamedStep>),
    /// A streamed training measured held-out data.
    Validated(Box<ValidationPoint>),
    /// A streamed training ended.
    Offloaded(Box<OffloadReport>),
    /// The speed of training, measured.
    Benched(Box<TrainSpeed>),
    /// The job was cancelled, leaving nothing half done.
    Cancelled,
}

/// Something happened to a job.
#[derive(Debug, Clone)]
pub struct Event {
    /// Which job.
    pub job: super::JobId,
    /// What happened.
    pub kind: EventKind,
}
