//! What lives as long as the window.

use std::path::PathBuf;
use std::sync::Arc;

use foretrain_engine::session::{
    Answer, DataPreview, Event, EventKind, ExportReport, LoadedRun, PlanReport, QuantizeReport, RunConfig, RunSnapshot,
    RunStatus, RunSummary, StopReason,
};

use super::Query;
use crate::plots::{ExportSlot, RunSeries};

/// Closing the window while a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CloseState {
    /// Not asked.
    #[default]
    Open,
    /// The user is asked.
    Asking,
    /// The run saves and ends; then the window closes.
    Ending,
    /// Nothing keeps the window.
    Closing,
}

/// Which log entries to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFilter {
    /// All.
    #[default]
    All,
    /// Phase changes.
    Phases,
    /// Warnings and divergences.
    Warnings,
    /// Saves.
    Saves,
}

/// State of the run screen.
#[derive(Debug, Default)]
pub struct RunLive {
    /// The run's curves.
    pub series: RunSeries,
    /// Step under the pointer on any plot.
    pub cursor: Option<f64>,
    /// Show the whole run again in the next frame.
    pub reset_plots: bool,
    /// Log entries shown.
    pub log_filter: LogFilter,
    /// Text that log entries must hold.
    pub log_search: String,
    /// The recipe that was asked about last, and when it last changed (seconds of egui's clock).
    pub planned: Option<(Box<RunConfig>, f64)>,
    /// Images of the latest samples.
    pub sample_images: Option<SampleImages>,
    /// The last export of a plot.
    pub export: Option<ExportSlot>,
    /// The list of runs to resume is open.
    pub is_resume_open: bool,
}

/// The samples' images as one texture.
pub struct SampleImages {
    /// The samples it was made of, by address.
    pub made_of: usize,
    /// All images side by side.
    pub texture: egui::TextureHandle,
}

impl std::fmt::Debug for SampleImages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SampleImages").field("made_of", &self.made_of).finish_non_exhaustive()
    }
}

/// Everything that is not saved.
#[derive(Debug, Default)]
pub struct Live {
    /// The current run, or the last one.
    pub snapshot: Option<Arc<RunSnapshot>>,
    /// Start or resume of a run: answered with its folder when it began.
    pub start: Query<Option<PathBuf>>,
    /// Needs of the recipe in the form.
    pub plan: Query<Box<PlanReport>>,
    /// Runs on disk.
    pub runs: Query<Vec<RunSummary>>,
    /// A dataset, described.
    pub inspect: Query<Arc<DataPreview>>,
    /// A quantization.
    pub quantize: Query<Box<QuantizeReport>>,
    /// An export.
    pub export: Query<Box<ExportReport>>,
    /// A trial.
    pub infer: Query<Vec<Answer>>,
    /// A past run.
    pub opened: Query<Arc<LoadedRun>>,
    /// State of the run screen.
    pub run: RunLive,
    /// Closing.
    pub close: CloseState,
    /// The list of shortcuts is open.
    pub is_help_open: bool,
    /// How the last run ended, until another one starts.
    pub ended: Option<StopReason>,
    /// Recipe answers (finished, saved, ended) that other screens may want to react to.
    pub num_run_changes: u64,
}

impl Live {
    /// Takes what the engine said. Answers to old questions fall through.
    pub fn apply(&mut self, event: &Event) {
        let kind = &event.kind;
        match kind {
            EventKind::Started { .. } | EventKind::Saved(_) | EventKind::Ended(_) => self.num_run_changes += 1,
            EventKind::Progress(_)
            | EventKind::Rejected(_)
            | EventKind::Inspected(_)
            | EventKind::Planned(_)
            | EventKind::Quantized(_)
            | EventKind::Exported(_)
            | EventKind::Answered(_)
            | EventKind::Runs(_)
            | EventKind::RunOpened(_)
            | EventKind::Cancelled => {}
        }
        if let EventKind::Ended(reason) = kind {
            self.ended = Some(reason.clone());
        }
        self.start.take(event, |kind| match kind {
            EventKind::Started { folder } => Some(folder.clone()),
            _ => None,
        });
        macro_rules! answer {
            ($query:ident, $variant:ident) => {
                self.$query.take(event, |kind| match kind {
                    EventKind::$variant(answer) => Some(answer.clone()),
                    _ => None,
                });
            };
        }
        answer!(plan, Planned);
        answer!(runs, Runs);
        answer!(inspect, Inspected);
        answer!(quantize, Quantized);
        answer!(export, Exported);
        answer!(infer, Answered);
        answer!(opened, RunOpened);
    }

    /// True while a run goes on, paused or not.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.start.is_waiting() || self.snapshot.as_ref().is_some_and(|run| is_active(&run.status))
    }
}

/// True for a run that has not ended.
#[must_use]
pub fn is_active(status: &RunStatus) -> bool {
    match status {
        RunStatus::Preparing { .. } | RunStatus::Training | RunStatus::Validating | RunStatus::Paused => true,
        RunStatus::Ended(_) => false,
    }
}
