//! The engine's public face: commands in, events and snapshots out, runs on disk.
//!
//! Two threads: the *trainer* runs one training run, or one experiment, at a time; the *worker* answers everything
//! else (previews, plans, quantization, exports, trials, past runs, charts), so that a user can look
//! around while a run goes on. Only plain data crosses.
//!
//! Invariants: a caller of [`Engine`] never waits; the trainer never waits for a caller; a panic
//! on either thread becomes an event; a run folder is never written over.

mod benching;
mod checkpoint;
mod command;
mod describe;
mod drawing;
mod engine;
mod error;
mod event;
mod experimenting;
mod history;
mod onnx_shipping;
mod operation_times;
mod outlet;
mod planning;
mod preparing;
mod presets;
mod quality_report;
mod reports;
mod run_config;
mod run_folder;
mod run_times;
mod run_view;
mod runs;
mod samples;
mod shipping;
mod shrinking;
mod snapshot;
mod streaming;
mod table_search;
mod target_speed;
mod trainer_thread;
mod training;
mod trial;
mod worker;

pub use crate::export::EdgeFigures;
pub use crate::import::{StartingPoint, starting_point};
pub use checkpoint::{CheckpointError, SessionProgress};
pub use command::{
    ChartFormat, ChartJob, Command, ExperimentJob, ExperimentKind, ExportJob, InferInput, InferJob, JobId, Naming,
    QuantizeJob, ReadImageJob,
};
pub use describe::fit_target;
pub use engine::{Engine, Wake};
pub use error::SessionError;
pub use event::{
    Answer, AnswerOutput, Blame, Event, EventKind, ExportReport, Failure, GuardEnd, ModelReport, ModelSource,
    PlanReport, QuantizeReport, ReportSummary, RunSummary, StopReason, TargetFit,
};
pub use history::{
    History, HistoryView, LogEntry, LogKind, QuantizedFigures, StepMetrics, ValidationFigures, ValidationPoint,
};
pub use operation_times::{Operation, OperationTimes};
pub use presets::{PresetError, Recipe, recipe, recipes, targets, tier, tiers};
pub use reports::{ReportError, list_reports, read_report, rewrite_report, write_report};
pub use run_config::RunConfig;
pub use run_folder::{DataRecord, RunFolderError, slug};
pub use run_times::{RunPart, RunTimes};
pub use runs::{list_runs, open_run, summarize};
pub use shipping::{Validated, validate};
pub use snapshot::{DiskTraffic, ImageSample, LoadedRun, RunSnapshot, RunStatus, Samples, Savings};
pub use streaming::{
    OffloadBatches, OffloadEnding, OffloadForecast, OffloadGoal, OffloadJob, OffloadReport, OffloadedModel, Rehearsal,
};
pub use target_speed::TargetSpeed;
pub use trial::package_to_run;

pub use crate::chart;
pub use crate::data::{Augmentation, DataPreview, ImagePreview, PreviewExamples, TokenPreview};
