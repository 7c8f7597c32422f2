//! Experiments: the one that goes on, and reports of past ones.

use std::path::PathBuf;
use std::sync::Arc;

use foretrain_engine::device::Progress;
use foretrain_engine::experiment::{ArenaStage, RaceView};
use foretrain_engine::session::{Event, EventKind, JobId, ReportSummary, StopReason};

use super::{CorrectionFigures, Query, RecipeKey};
use crate::plots::{RaceCurve, ShownReport, race_curves};

/// How far an experiment is, by what its progress says and the stages that it will go through.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StageTrack {
    /// In order; empty where the experiment does not tell its stages beforehand.
    pub stages: Vec<ArenaStage>,
    /// Place of the stage that goes on; `None` before the first.
    pub current: Option<usize>,
    share_of_stage: f64,
}

impl StageTrack {
    /// Before the first stage.
    #[must_use]
    pub fn new(stages: Vec<ArenaStage>) -> Self {
        Self { stages, ..Self::default() }
    }

    /// Takes what the engine said. What belongs to no stage (loading the data) changes nothing.
    pub fn see(&mut self, progress: &Progress) {
        let Some((num_races, what)) = races_and_race(&progress.what) else { return };
        let first = self.current.unwrap_or(0);
        let is_of = |(_, stage): &(usize, &ArenaStage)| what.starts_with(&stage.what);
        let Some((index, stage)) = self.stages.iter().enumerate().skip(first).find(is_of) else { return };
        // The engine tells the share of the whole, each race counting alike, also those side by side.
        let done = num_races * progress.done as f64 / progress.total.unwrap_or(0).max(1) as f64;
        let before: u64 = self.stages.iter().take(index).map(|stage| stage.num_races).sum();
        self.share_of_stage = ((done - before as f64) / stage.num_races.max(1) as f64).clamp(0.0, 1.0);
        self.current = Some(index);
    }

    /// Share done, by steps; `None` before the first stage.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        let current = self.current?;
        let steps = |stages: &[ArenaStage]| stages.iter().map(|stage| stage.num_steps).sum::<u64>() as f64;
        let total = steps(&self.stages);
        let stage = self.stages.get(current)?;
        let done = steps(self.stages.get(..current)?) + stage.num_steps as f64 * self.share_of_stage;
        (total > 0.0).then(|| done / total)
    }

    /// Share of the stage that goes on.
    #[must_use]
    pub fn share_of_stage(&self) -> f64 {
        self.share_of_stage
    }
}

/// How many races there are, and the name of the one in "stage 3 of 16: tuning frozen".
fn races_and_race(told: &str) -> Option<(f64, &str)> {
    let (place, what) = told.strip_prefix("stage ")?.split_once(": ")?;
    let (_, of) = place.split_once(" of ")?;
    Some((of.parse().ok()?, what))
}

/// The experiment that was asked for last.
#[derive(Debug, Clone, PartialEq)]
pub struct AskedExperiment {
    /// Its title.
    pub title: String,
    /// The recipe that it is about.
    pub recipe: RecipeKey,
    /// When it was asked for, seconds of egui's clock.
    pub since: f64,
}

/// State of the experiments.
#[derive(Debug, Default)]
pub struct ExperimentsLive {
    /// The experiment that goes on; answered with its report.
    pub run: Query<Arc<ShownReport>>,
    /// What was asked for.
    pub asked: Option<AskedExperiment>,
    /// How far it is.
    pub track: StageTrack,
    /// Its race as it stands.
    pub race: Option<Arc<RaceView>>,
    /// The curves of that race.
    pub curves: Vec<RaceCurve>,
    /// It was asked to end.
    pub is_stopping: bool,
    /// Reports on disk.
    pub reports: Query<Vec<ReportSummary>>,
    /// Folder of `reports`, and the number of experiments that had ended then.
    pub reports_seen: Option<(PathBuf, u64)>,
    /// Experiments that ended.
    pub num_ended: u64,
    /// A report being read.
    pub opening: Query<Arc<ShownReport>>,
    /// The report in view; behind the experiment that goes on, unless the user asked for it.
    pub report: Option<Arc<ShownReport>>,
    /// The user looks at a report while an experiment goes on.
    pub is_report_wanted: bool,
    /// X under the pointer on the curves.
    pub cursor: Option<f64>,
    /// What the curves were of in the last frame: other curves are shown whole.
    pub shown_curves: String,
    /// How opening a folder went.
    pub opened_folder: Option<crate::open_folder::Opening>,
    /// What was measured and is not noted yet.
    pub measured: Option<(RecipeKey, CorrectionFigures)>,
}

impl ExperimentsLive {
    /// Begins to follow the experiment that was just asked for.
    pub fn follow(&mut self, asked: AskedExperiment, stages: Vec<ArenaStage>) {
        self.asked = Some(asked);
        self.track = StageTrack::new(stages);
        (self.race, self.curves) = (None, Vec::new());
        (self.is_stopping, self.is_report_wanted) = (false, false);
    }

    /// True when `job` is the experiment that goes on.
    #[must_use]
    pub fn is_run(&self, job: JobId) -> bool {
        self.run.waits_for(job)
    }

    /// Takes what the engine said.
    pub fn apply(&mut self, event: &Event) {
        if self.is_run(event.job) {
            match &event.kind {
                EventKind::Progress(progress) => self.track.see(progress),
                EventKind::Raced(view) => {
                    self.curves = race_curves(&view.curves);
                    self.race = Some(Arc::clone(view));
                }
                EventKind::Ended(StopReason::Crashed(message)) => {
                    self.run
                        .fail(format!("The engine crashed: {message}. The experiment left nothing; start it again."));
                    self.num_ended += 1;
                }
                EventKind::Experimented { report, .. } => {
                    let figures = crate::plots::corrections_of(report);
                    self.measured = self.asked.as_ref().map(|asked| asked.recipe.clone()).zip(figures);
                }
                EventKind::Started { .. }
                | EventKind::Saved(_)
                | EventKind::Rejected(_)
                | EventKind::Ended(_)
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
                | EventKind::Reports(_)
                | EventKind::OffloadPlanned(_)
                | EventKind::Streamed(_)
                | EventKind::Validated(_)
                | EventKind::Offloaded(_)
                | EventKind::Cancelled => {}
            }
        }
        let shown = |kind: &EventKind| match kind {
            EventKind::Experimented { report, folder } => Some(Arc::new(ShownReport::of(report, folder))),
            _ => None,
        };
        if self.run.take(event, shown) {
            self.num_ended += 1;
            if self.run.failure().is_none() && matches!(event.kind, EventKind::Experimented { .. }) {
                self.report = self.run.answer().cloned();
            }
            (self.is_stopping, self.is_report_wanted) = (false, false);
        }
        if self.opening.take(event, shown) && self.opening.failure().is_none() {
            self.report = self.opening.answer().cloned().or(self.report.take());
        }
        self.reports.take(event, |kind| match kind {
            EventKind::Reports(reports) => Some(reports.clone()),
            _ => None,
        });
    }
}

#[cfg(test)]
mod tests {
    use foretrain_engine::experiment::ArenaSize;

    use super::*;

    fn progress(what: &str, done: u64, total: u64) -> Progress {
        Progress { what: what.to_owned(), done, total: Some(total) }
    }

    #[test]
    fn the_share_done_grows_with_each_race() {
        let size = ArenaSize { num_steps: 100, num_rates: 2, num_batch_sizes: 2, num_seeds: 1 };
        let mut track = StageTrack::new(size.stages());
        track.see(&progress("generating glyphs", 3, 10));
        assert_eq!(track.share(), None, "loading is no stage");
        let total = 200.0 * 4.0 + 180.0 + 400.0 + 800.0 + 400.0;
        for (what, done, of, expected) in [
            ("stage 1 of 15: tuning hybrid: learning rate 0.004", 500, 15_000, 50.0),
            ("stage 2 of 15: tuning hybrid: learning rate 0.008", 1100, 15_000, 110.0),
            ("stage 3 of 15: tuning vanilla, same steps: learning rate 0.004", 2000, 15_000, 200.0),
            ("stage 8 of 15: measuring the pace of batch sizes", 7500, 15_000, 200.0 * 4.0 + 90.0),
            ("stage 9 of 15: tuning vanilla, same time: batch 64, 70 steps", 9000, 15_000, 980.0 + 100.0),
            ("stage 15 of 15: comparing: seed 1", 14_500, 15_000, total - 200.0),
        ] {
            track.see(&progress(what, done, of));
            let share = track.share().unwrap_or_default();
            assert!((share - expected / total).abs() < 1e-9, "{what}: {share} and not {}", expected / total);
        }
        track.see(&progress("tuning hybrid: learning rate 0.004", 0, 100));
        assert_eq!(track.current, Some(7), "it never goes back");
    }
}
