//! What can keep a job from being done.

use crate::bench::BenchError;
use crate::chart::ChartError;
use crate::data::DataError;
use crate::device::atomic_file::WriteError;
use crate::device::{Cancelled, ComputeError, GpuError};
use crate::evaluation::EvaluationError;
use crate::experiment::ExperimentError;
use crate::export::ExportError;
use crate::hybrid::HybridError;
use crate::import::ImportError;
use crate::memory::{MemoryPlan, format_bytes};
use crate::models::ModelError;
use crate::offload::OffloadError;
use crate::optim::OptimError;
use crate::quant::QuantError;

use super::Blame;
use super::checkpoint::CheckpointError;
use super::presets::PresetError;
use super::reports::ReportError;
use super::run_folder::RunFolderError;

/// Errors of the session: mostly those of the rooms below, as they are.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the variants carry the documented errors of other rooms")]
pub enum SessionError {
    /// Another run goes on.
    #[error("a run or an experiment is already going on; stop it first")]
    Busy,
    /// The recipe's numbers do not go together.
    #[error("recipe: {what}")]
    Recipe {
        /// What does not fit, and what would.
        what: String,
    },
    /// The dataset is not what the run began with.
    #[error(
        "going on with a run: it learned from {expected}, now there is {found}. Put the old files back, or start a new run"
    )]
    DataChanged {
        /// The dataset as it was.
        expected: String,
        /// The dataset as it is.
        found: String,
    },
    /// The plan is over the budget.
    #[error("this run needs {} of memory, the budget is {} ({}). {}", format_bytes(plan.total_bytes()), format_bytes(plan.budget_bytes), plan.budget_source, remedies(plan))]
    Memory {
        /// The plan that does not fit.
        plan: Box<MemoryPlan>,
    },
    /// A streamed training holds more of a GPU's memory than its recipe allows.
    #[error("{what}")]
    GpuLimit {
        /// What it holds, and what to do.
        what: String,
    },
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Compute(#[from] ComputeError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Hybrid(#[from] HybridError),
    /// A plan that cannot be, or that came to nothing; its other errors are those of their own rooms here.
    #[error(transparent)]
    Experiment(Box<ExperimentError>),
    /// A measurement of speed; what was cancelled is [`Self::Cancelled`].
    #[error(transparent)]
    Bench(Box<BenchError>),
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    RunFolder(#[from] RunFolderError),
    #[error(transparent)]
    Quant(#[from] QuantError),
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error(transparent)]
    Import(Box<ImportError>),
    #[error(transparent)]
    Edge(#[from] foretrain_edge::EdgeError),
    #[error(transparent)]
    Preset(#[from] PresetError),
    #[error(transparent)]
    Chart(#[from] ChartError),
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error(transparent)]
    Offload(#[from] OffloadError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl From<BenchError> for SessionError {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            BenchError::Compute(error) => Self::Compute(error),
            other => Self::Bench(Box::new(other)),
        }
    }
}

impl From<candle_core::Error> for SessionError {
    fn from(error: candle_core::Error) -> Self {
        Self::Model(ModelError::Tensor(error))
    }
}

impl From<ImportError> for SessionError {
    fn from(error: ImportError) -> Self {
        Self::Import(Box::new(error))
    }
}

impl From<ExperimentError> for SessionError {
    fn from(error: ExperimentError) -> Self {
        match error {
            ExperimentError::Cancelled(error) => Self::Cancelled(error),
            ExperimentError::Data(error) => Self::Data(error),
            ExperimentError::Compute(error) => Self::Compute(error),
            ExperimentError::Model(error) => Self::Model(error),
            ExperimentError::Hybrid(error) => Self::Hybrid(error),
            ExperimentError::Evaluation(error) => Self::Evaluation(error),
            ExperimentError::Quant(error) => Self::Quant(error),
            ExperimentError::Offload(error) => Self::Offload(error),
            ExperimentError::AllDiverged { .. } | ExperimentError::Plan { .. } => Self::Experiment(Box::new(error)),
        }
    }
}

impl SessionError {
    /// Whether another request would help.
    #[must_use]
    pub fn blame(&self) -> Blame {
        let is_wrong_request = match self {
            Self::Recipe { .. } | Self::Memory { .. } => true,
            Self::Data(error) | Self::Evaluation(EvaluationError::Data(error)) => {
                matches!(error, DataError::Batch { .. })
            }
            Self::Compute(error) => match error {
                ComputeError::TooManyThreads { .. } => true,
                // Another build or another number would help, not another try.
                ComputeError::Cuda { source, .. } => matches!(source, GpuError::Build | GpuError::Number { .. }),
                ComputeError::Threads { .. } => false,
            },
            Self::Model(error) | Self::Evaluation(EvaluationError::Model(error)) => {
                matches!(error, ModelError::Config { .. })
            }
            Self::Hybrid(error) => {
                matches!(error, HybridError::Config { .. } | HybridError::Optim(OptimError::Setting { .. }))
            }
            Self::Evaluation(EvaluationError::Empty) => true,
            Self::Experiment(error) => matches!(**error, ExperimentError::Plan { .. }),
            Self::Bench(error) => matches!(**error, BenchError::Plan { .. }),
            Self::Report(error) => error.is_wrong_request(),
            Self::Export(error) => is_wrong_export(error),
            Self::Import(error) => match &**error {
                ImportError::File(error) => is_wrong_export(error),
                ImportError::NotAModel { .. } | ImportError::Config { .. } => true,
                ImportError::Tensor { .. }
                | ImportError::Edge(_)
                | ImportError::Cancelled(_)
                | ImportError::Tensors(_) => false,
            },
            Self::Preset(error) => is_wrong_preset(error),
            Self::Quant(error) => matches!(error, QuantError::Setting { .. }),
            Self::Offload(error) => is_wrong_offload(error),
            Self::Busy
            | Self::GpuLimit { .. }
            | Self::DataChanged { .. }
            | Self::Cancelled(_)
            | Self::Evaluation(EvaluationError::Cancelled(_))
            | Self::Checkpoint(_)
            | Self::RunFolder(_)
            | Self::Edge(_)
            | Self::Chart(_)
            | Self::Write(_) => false,
        };
        if is_wrong_request { Blame::Request } else { Blame::Work }
    }

    /// True when the user asked for the end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(
            self,
            Self::Cancelled(_)
                | Self::Data(DataError::Cancelled(_))
                | Self::Evaluation(EvaluationError::Cancelled(_))
                | Self::Export(ExportError::Cancelled(_) | ExportError::Quant(QuantError::Cancelled(_)))
                | Self::Quant(QuantError::Cancelled(_))
                | Self::Offload(OffloadError::Cancelled(_))
        ) || matches!(self, Self::Import(error) if matches!(**error, ImportError::Cancelled(_)))
    }
}

fn is_wrong_export(error: &ExportError) -> bool {
    matches!(
        error,
        ExportError::NotACheckpoint { .. }
            | ExportError::UnknownTarget { .. }
            | ExportError::Blocked(_)
            | ExportError::Exists { .. }
            | ExportError::Unfinished { .. }
            | ExportError::NewFile { .. }
    )
}

fn is_wrong_offload(error: &OffloadError) -> bool {
    match error {
        OffloadError::Setting { .. } | OffloadError::Other { .. } | OffloadError::Taken { .. } => true,
        OffloadError::Model(error) => matches!(error, ModelError::Config { .. }),
        OffloadError::Optim(error) => matches!(error, OptimError::Setting { .. }),
        OffloadError::Hybrid(error) => matches!(error, HybridError::Config { .. }),
        OffloadError::DiskSpace { .. }
        | OffloadError::Unwritable { .. }
        | OffloadError::NoLinks { .. }
        | OffloadError::Evaluation(_)
        | OffloadError::Read { .. }
        | OffloadError::Damaged { .. }
        | OffloadError::Locked { .. }
        | OffloadError::FirstWeights { .. }
        | OffloadError::NotFinite { .. }
        | OffloadError::Gpu { .. }
        | OffloadError::Thread { .. }
        | OffloadError::Write { .. }
        | OffloadError::Cancelled(_)
        | OffloadError::Tensor(_) => false,
    }
}

fn is_wrong_preset(error: &PresetError) -> bool {
    match error {
        PresetError::Unknown { .. } | PresetError::Model(_) => true,
        PresetError::Target(error) => is_wrong_export(error),
        PresetError::Recipe { .. } | PresetError::Tier(_) => false,
    }
}

fn remedies(plan: &MemoryPlan) -> String {
    if plan.remedies.is_empty() {
        "Choose a smaller model".to_owned()
    } else {
        let found: Vec<String> = plan.remedies.iter().map(ToString::to_string).collect();
        format!("What would fit: {}", found.join("; "))
    }
}
