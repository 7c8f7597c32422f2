//! What lives as long as the window. One file, so that every answer of the engine is taken in one place.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use foretrain_engine::session::{
    Answer, Command, DataPreview, Event, EventKind, LoadedRun, ModelReport, OffloadForecast, PlanReport, RunSnapshot,
    RunStatus, RunSummary, StopReason,
};

use super::{
    Asked, CompareAxis, Draft, ExperimentsLive, FramePace, HeldModel, LogRows, Machine, Query, Screen, ShipLive, Wanted,
};
use crate::plots::{CompareSeries, ExportSlot, PlotKind, RunSeries};
use crate::views::{RunIdentity, RunLabel, ViewCtx, run_labels};
use crate::widgets::{ImageStrip, PixelCanvas};

/// Closing the window while work goes on.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum CloseState {
    /// Not asked.
    #[default]
    Open,
    /// The user is asked.
    Asking {
        /// A run is part of that work.
        has_run: bool,
    },
    /// The run saves and ends, and everything else is cancelled; then the window closes.
    Ending {
        /// A run is part of that work.
        has_run: bool,
        /// When that began, seconds of egui's clock.
        since: f64,
    },
    /// The run ended without saving: the window stays until the user has read why.
    Lost,
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

/// A question about what a recipe needs.
#[derive(Debug, Clone)]
pub struct Planned {
    /// What it is about.
    pub wanted: Wanted,
    /// When to ask, seconds of egui's clock; infinite once asked.
    pub due: f64,
    /// Asked while a run went on: the engine measured no step.
    pub is_unmeasured: bool,
    /// Number of run changes when it was asked: a run moves what lies on disk.
    pub num_run_changes: u64,
}

/// A form that gave way.
#[derive(Debug, Clone, PartialEq)]
pub struct Replaced {
    /// The form as it was.
    pub draft: Box<Draft>,
    /// What took its place: "the preset".
    pub by: &'static str,
}

/// Panels that the user opened although the window is too small for them; a larger one forgets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenedPanels {
    /// The recipe.
    pub recipe: bool,
    /// The gauges.
    pub side: bool,
    /// The log.
    pub log: bool,
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
    /// First and last step in view.
    pub in_view: Option<(f64, f64)>,
    /// Values, lowest and highest, of the plots whose y axis the user zoomed; on a log scale their log10.
    pub y_zooms: BTreeMap<PlotKind, (f64, f64)>,
    /// Log entries shown.
    pub log_filter: LogFilter,
    /// Text that log entries must hold.
    pub log_search: String,
    /// Rows of the entries shown.
    pub log_rows: LogRows,
    /// Samples are shown in place of the log, where there is no room for both.
    pub is_samples_open: bool,
    /// The recipe that was asked about last.
    pub planned: Option<Planned>,
    /// What was asked of the run and is not done yet.
    pub asked: Asked,
    /// Panels opened in a small window.
    pub opened: OpenedPanels,
    /// The form with its changes, before something else took its place.
    pub replaced: Option<Replaced>,
    /// The form of the next run is shown while one goes on, not the recipe of that one.
    pub is_next_form: bool,
    /// Images of the latest samples.
    pub sample_images: Option<ImageStrip>,
    /// The last export of a plot.
    pub export: Option<ExportSlot>,
    /// The files of the last picture of all plots.
    pub drawn: Query<Vec<PathBuf>>,
    /// The list of runs to resume is open.
    pub is_resume_open: bool,
    /// Folder of a run that diverged, while the user is asked whether to go on with it.
    pub resume_asked: Option<PathBuf>,
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
    /// It was asked for: once dismissed or cancelled, it is not asked for again.
    pub is_asked: bool,
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
    /// Axis and runs of the plots in the last frame.
    pub shown: Option<(CompareAxis, Vec<PathBuf>)>,
    /// First and last x in view.
    pub in_view: Option<(f64, f64)>,
    /// The last file written.
    pub export: Option<ExportSlot>,
}

/// A model chosen by its path.
#[derive(Debug, Default)]
pub struct ModelLive {
    /// The path that was asked about last with the number of run changes then, and when that is due (seconds of
    /// egui's clock; infinite once asked).
    pub asked: Option<((String, u64), f64)>,
    /// What it is.
    pub describe: Query<Arc<ModelReport>>,
    /// The newest run was proposed, so that a path that is empty now was emptied by the user.
    pub is_proposed: bool,
}

/// True while an answer is there or on its way.
pub(super) fn is_in_use<T>(query: &Query<T>) -> bool {
    query.is_waiting() || query.answer().is_some()
}

/// State of the trial screen.
#[derive(Debug, Default)]
pub struct TrialLive {
    /// The model that the answers are about.
    pub model: HeldModel,
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
    /// True while answers are there or on their way.
    #[must_use]
    pub fn has_results(&self) -> bool {
        is_in_use(&self.infer)
    }

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
    /// The same of one whose weights lie on disk.
    pub streamed_plan: Query<Box<OffloadForecast>>,
    /// What its answer is about.
    pub streamed_plan_of: Option<Wanted>,
    /// Runs on disk.
    pub runs: Query<Vec<RunSummary>>,
    /// What to call each of them, by folder.
    pub run_labels: BTreeMap<PathBuf, RunLabel>,
    /// Folder of `runs`, and the number of run changes it has seen.
    pub runs_seen: Option<(PathBuf, u64)>,
    /// Screen of the last frame.
    pub screen_seen: Option<Screen>,
    /// State of the data screen.
    pub data: DataLive,
    /// State of the comparison.
    pub compare: CompareLive,
    /// State of the experiments.
    pub experiments: ExperimentsLive,
    /// The run or checkpoint to quantize, export or try.
    pub model: ModelLive,
    /// The package to try.
    pub package: ModelLive,
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
    /// What was read of the machine at the program's start.
    pub machine: Machine,
    /// Recipe answers (finished, saved, ended) that other screens may want to react to.
    pub num_run_changes: u64,
}

impl Live {
    /// Takes what the engine said. Answers to old questions fall through.
    pub fn apply(&mut self, event: &Event) {
        let kind = &event.kind;
        if self.experiments.is_run(event.job) {
            // None of what follows is about a run.
            return self.experiments.apply(event);
        }
        self.experiments.apply(event);
        match kind {
            EventKind::Started { .. } | EventKind::Saved(_) | EventKind::Ended(_) => self.num_run_changes += 1,
            // So ends a run that failed.
            EventKind::Rejected(_) | EventKind::Cancelled
                if self.snapshot.as_ref().is_some_and(|run| run.job == event.job) =>
            {
                self.num_run_changes += 1;
            }
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
            | EventKind::Benched(_)
            | EventKind::ImageRead(_)
            | EventKind::ChartDrawn(_)
            | EventKind::Raced(_)
            | EventKind::Reports(_)
            | EventKind::OffloadPlanned(_)
            | EventKind::Streamed(_)
            | EventKind::Validated(_)
            | EventKind::Offloaded(_)
            | EventKind::Experimented { .. }
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
        if answer!(streamed_plan, OffloadPlanned) {
            // What was asked last, as long as it was not asked anew.
            self.streamed_plan_of = self.run.planned.as_ref().map(|planned| planned.wanted.clone());
        }
        if answer!(runs, Runs) {
            self.label_runs();
        }
        if answer!(data.inspect, Inspected) {
            // They may be another dataset's from now on.
            self.data.images = None;
        }
        answer!(model.describe, Described);
        answer!(package.describe, Described);
        for measured in self.ship.measured.values_mut() {
            if take!(measured.query, event, Quantized) {
                measured.settle(kind);
            }
        }
        answer!(ship.export, Exported);
        answer!(trial.infer, Answered);
        answer!(run.drawn, ChartDrawn);
        if answer!(trial.picture, ImageRead) {
            self.trial.take_picture();
        }
        for run in self.compare.opened.values_mut() {
            if take!(run.loaded, event, RunOpened) {
                run.series = None;
            }
        }
    }

    /// Here, once for each answer, because it reads whole recipes.
    fn label_runs(&mut self) {
        let runs = self.runs.answer().map_or(&[][..], Vec::as_slice);
        let identities: Vec<RunIdentity<'_>> = runs.iter().map(RunIdentity::of_summary).collect();
        let labels = run_labels(&identities, &self.machine.zone);
        self.run_labels = runs.iter().map(|run| run.folder.clone()).zip(labels).collect();
    }

    /// What to call `run`, so that it is not taken for another.
    #[must_use]
    pub fn label_of<'a>(&'a self, run: &'a RunSummary) -> &'a str {
        self.run_labels.get(&run.folder).map_or(run.name.as_str(), |label| label.name.as_str())
    }

    /// True while a run goes on, paused or not.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.start.is_waiting() || self.snapshot.as_ref().is_some_and(|run| is_active(&run.status))
    }

    /// Forgets what was asked of the run and is done by now.
    pub fn settle_requests(&mut self) {
        match &self.snapshot {
            _ if !self.is_running() => self.run.asked = Asked::default(),
            Some(run) if is_active(&run.status) => self.run.asked.settle(run),
            // A start waits, and this is the run before it.
            Some(_) | None => {}
        }
    }

    /// Why the run that ended last has lost what it did since its last checkpoint; `None` when it was saved, and when
    /// it never began.
    #[must_use]
    pub fn loss_of_run(&self) -> Option<&str> {
        if self.start.failure().is_some() {
            return None;
        }
        let shown = self.snapshot.as_ref().and_then(|run| match &run.status {
            RunStatus::Ended(reason) => Some(reason),
            RunStatus::Preparing { .. }
            | RunStatus::Training
            | RunStatus::Validating
            | RunStatus::Paused
            | RunStatus::Unsaved { .. } => None,
        });
        match self.ended.as_ref().or(shown)? {
            StopReason::Failed(message) | StopReason::Crashed(message) => Some(message),
            StopReason::Finished | StopReason::User | StopReason::Diverged => None,
        }
    }

    /// What closing the window would cut off, beside a run.
    #[must_use]
    pub fn jobs_under_way(&self) -> Vec<&'static str> {
        let jobs = [
            (self.ship.export.is_waiting(), "an export"),
            (self.ship.is_measuring(), "a quantization"),
            (self.trial.infer.is_waiting(), "a trial"),
            (self.experiments.run.is_waiting(), "an experiment"),
        ];
        jobs.into_iter().filter_map(|(is_waiting, name)| is_waiting.then_some(name)).collect()
    }

    /// Asks the engine to end these jobs; they go on waiting until it has.
    pub fn end_jobs(&mut self, ctx: &ViewCtx<'_>) {
        self.ship.queue.clear();
        self.ship.export.end(ctx);
        self.ship.measured.values().for_each(|measured| measured.query.end(ctx));
        self.trial.infer.end(ctx);
        self.trial.is_stale = false;
        self.end_experiment(ctx);
    }

    /// Has the engine measure no step for the form, until it is asked again.
    pub fn stop_planning(&mut self, ctx: &ViewCtx<'_>) {
        if self.plan.is_waiting() || self.streamed_plan.is_waiting() {
            self.plan.cancel(ctx);
            self.streamed_plan.cancel(ctx);
            self.run.planned = None;
        }
    }

    /// Asks the engine to end the experiment that goes on; it goes on until the engine has.
    pub fn end_experiment(&mut self, ctx: &ViewCtx<'_>) {
        let experiments = &mut self.experiments;
        if experiments.run.is_waiting() && !experiments.is_stopping {
            // It has the thread of the runs, and ends like one.
            ctx.request(Command::Stop);
            experiments.is_stopping = true;
        }
    }

    /// True while an experiment has the engine.
    #[must_use]
    pub fn is_experimenting(&self) -> bool {
        self.experiments.run.is_waiting()
    }
}

/// True for a run that has not ended.
#[must_use]
pub fn is_active(status: &RunStatus) -> bool {
    match status {
        RunStatus::Preparing { .. }
        | RunStatus::Training
        | RunStatus::Validating
        | RunStatus::Paused
        | RunStatus::Unsaved { .. } => true,
        RunStatus::Ended(_) => false,
    }
}
