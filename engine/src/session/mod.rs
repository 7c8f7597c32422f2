//! The engine's public face: commands in, events and snapshots out, runs on disk.
//!
//! Two threads: the *trainer* runs one training run at a time; the *worker* answers everything
//! else (previews, plans, quantization, exports, trials, past runs), so that a user can look
//! around while a run goes on. Only plain data crosses.
//!
//! Invariants: a caller of [`Engine`] never waits; the trainer never waits for a caller; a panic
//! on either thread becomes an event; a run folder is never written over.

mod command;
mod engine;
mod event;
mod history;
mod run_config;
mod snapshot;

pub use command::{Command, ExportJob, InferInput, InferJob, JobId, QuantizeJob};
pub use engine::{Engine, Wake};
pub use event::{
    Answer, AnswerOutput, Event, EventKind, ExportReport, Failure, PlanReport, QuantizeReport, RunSummary, StopReason,
};
pub use history::{History, HistoryView, LogEntry, LogKind, StepMetrics, ValidationPoint};
pub use run_config::RunConfig;
pub use snapshot::{ImageSample, LoadedRun, RunSnapshot, RunStatus, Samples, Savings};

pub use crate::data::{Augmentation, DataPreview, ImagePreview, PreviewExamples, TokenPreview};
