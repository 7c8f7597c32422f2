//! What lives as long as the window.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use foretrain_engine::session::{
    Answer, DataPreview, Event, EventKind, ExportReport, LoadedRun, ModelReport, PlanReport, QuantizeReport, RunConfig,
    RunSnapshot, RunStatus, RunSummary, StopReason,
};

use super::{CompareAxis, FramePace, Query};
use crate::plots::{CompareSeries, ExportSlot, RunSeries};
use crate::widgets::{ImageStrip, PixelCanvas};

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
    pub sample_images: Option<ImageStrip>,
    /// The last export of a plot.
    pub export: Option<ExportSlot>,
    /// The list of runs to resume is open.
    pub is_resume_open: bool,
}

/// State of the data screen.
#[derive(Debug, Default)]
pub struct DataLive {
    /// A dataset, described.
    pub inspect: Query<Arc<DataPreview>>,
    /// The only class shown.
    pub class: Option<u32>,
    /// Its images.
    pub images: Option<ImageStrip>,
}

/// A run of the comparison.
#[derive(Debug, Default)]
pub struct OpenedRun {
    /// The run, read back.
    pub loaded: Query<Arc<LoadedRun>>,
    /// Its curves, on this axis with this smoothing.
    pub series: Option<(CompareAxis, f32, CompareSeries)>,
}

/// State of the comparison.
#[derive(Debug, Default)]
pub struct CompareLive {
    /// Runs read, by folder.
    pub opened: BTreeMap<PathBuf, OpenedRun>,
    /// X under the pointer on any plot.
    pub cursor: Option<f64>,
    /// Show everything again in the next frame.
    pub reset_plots: bool,
    /// The last table written.
    pub export: Option<ExportSlot>,
}

/// The model to quantize, export or try.
#[derive(Debug, Default)]
pub struct ModelLive {
    /// The path that was asked about last with the number of run changes then, and when that is due (seconds of
    /// egui's clock; infinite once asked).
    pub asked: Option<((String, u64), f64)>,
    /// What it is.
    pub describe: Query<Arc<ModelReport>>,
}

/// State of the quantize and export screen.
#[derive(Debug, Default)]
pub struct ShipLive {
    /// The checkpoint that the answers are about.
    pub of: PathBuf,
    /// Quantized to int8, measured.
    pub int8: Query<Box<QuantizeReport>>,
    /// Quantized to ternary, measured.
    pub ternary: Query<Box<QuantizeReport>>,
    /// An export.
    pub export: Query<Box<ExportReport>>,
    /// Id of the target exported last.
    pub target: String,
    /// Name of the package to make, where it is not the proposed one.
    pub name: String,
}

/// State of the trial screen.
#[derive(Debug, Default)]
pub struct TrialLive {
    /// The checkpoint that the answers are about.
    pub of: PathBuf,
    /// One answer per precision.
    pub infer: Query<Vec<Answer>>,
    /// The picture to classify.
    pub canvas: PixelCanvas,
    /// Place of an image file.
    pub file: String,
    /// Pixels of that file.
    pub picture: Query<Arc<[u8]>>,
    /// Ask as soon as the engine is done with the last question.
    pub is_stale: bool,
}

impl TrialLive {
    /// Shows the picture that was read.
    fn take_picture(&mut self) {
        if let Some(pixels) = self.picture.answer().filter(|_| self.picture.failure().is_none()) {
            self.canvas.set_pixels(pixels);
            self.is_stale = true;
        }
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
    /// Folder of `runs`, and the number of run changes it has seen.
    pub runs_seen: Option<(PathBuf, u64)>,
    /// State of the data screen.
    pub data: DataLive,
    /// State of the comparison.
    pub compare: CompareLive,
    /// The model to quantize, export or try.
    pub model: ModelLive,
    /// State of the quantize and export screen.
    pub ship: ShipLive,
    /// State of the trial screen.
    pub trial: TrialLive,
    /// State of the run screen.
    pub run: RunLive,
    /// How fast the window draws.
    pub frames: FramePace,
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
            | EventKind::Described(_)
            | EventKind::ImageRead(_)
            | EventKind::Cancelled => {}
        }
        if let EventKind::Ended(reason) = kind {
            self.ended = Some(reason.clone());
        }
        self.start.take(event, |kind| match kind {
            EventKind::Started { folder } => Some(folder.clone()),
            _ => None,
        });
        macro_rules! take {
            ($query:expr, $event:expr, $variant:ident) => {
                $query.take($event, |kind| match kind {
                    EventKind::$variant(answer) => Some(answer.clone()),
                    _ => None,
                })
            };
        }
        macro_rules! answer {
            ($($query:ident).+, $variant:ident) => {
                take!(self.$($query).+, event, $variant)
            };
        }
        answer!(plan, Planned);
        answer!(runs, Runs);
        answer!(data.inspect, Inspected);
        answer!(model.describe, Described);
        answer!(ship.int8, Quantized);
        answer!(ship.ternary, Quantized);
        answer!(ship.export, Exported);
        answer!(trial.infer, Answered);
        if answer!(trial.picture, ImageRead) {
            self.trial.take_picture();
        }
        for run in self.compare.opened.values_mut() {
            if take!(run.loaded, event, RunOpened) {
                run.series = None;
            }
        }
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
