//! How far an experiment is as a whole: it is a number of trainings, known before the first one.

use std::sync::atomic::{AtomicU64, Ordering};

use super::race::{OnRace, RaceView};
use crate::device::{Cancelled, Watch};

/// Progress within a stage is told in this many parts.
const PARTS: u64 = 1_000;

/// The stages of one experiment.
#[derive(Debug)]
pub struct Stages {
    total: u64,
    begun: AtomicU64,
    /// Parts of all stages that are done.
    done: AtomicU64,
    /// Number of the stage that is told of and shown, of those that go on side by side; 0 for none.
    shown: AtomicU64,
}

impl Stages {
    /// Before the first of `total`.
    #[must_use]
    pub fn new(total: u64) -> Self {
        Self { total, begun: AtomicU64::new(0), done: AtomicU64::new(0), shown: AtomicU64::new(0) }
    }
}

/// Who watches an experiment, and how far it is.
#[derive(Clone, Copy)]
pub struct Eyes<'a> {
    watch: Watch<'a>,
    on_race: OnRace<'a>,
    stages: &'a Stages,
}

impl std::fmt::Debug for Eyes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Eyes").field("watch", &self.watch).field("stages", self.stages).finish_non_exhaustive()
    }
}

/// A stage that goes on: "stage 3 of 14: tuning frozen".
#[derive(Debug)]
pub(super) struct Stage {
    label: String,
    /// From 1.
    number: u64,
    total: u64,
    /// Parts of it that are counted as done.
    told: AtomicU64,
}

impl<'a> Eyes<'a> {
    /// Eyes on an experiment of these stages.
    #[must_use]
    pub fn new((watch, on_race): (Watch<'a>, OnRace<'a>), stages: &'a Stages) -> Self {
        Self { watch, on_race, stages }
    }

    /// For what is cancelled and not told.
    #[must_use]
    pub fn watch(&self) -> Watch<'a> {
        self.watch
    }

    /// Begins the next stage.
    pub(super) fn begin(&self, what: &str) -> Stage {
        let number = 1 + self.stages.begun.fetch_add(1, Ordering::Relaxed);
        // Stages that a failing one makes unnecessary are left out; none is counted twice.
        let total = self.stages.total.max(number);
        Stage { label: format!("stage {number} of {total}: {what}"), number, total, told: AtomicU64::new(0) }
    }

    /// Counts stages that will not be needed.
    pub(super) fn skip(&self, count: u64) {
        self.stages.begun.fetch_add(count, Ordering::Relaxed);
        self.stages.done.fetch_add(PARTS * count, Ordering::Relaxed);
    }

    /// Tells which share of a stage is done, as a part of all of them; of stages side by side, one is told of.
    /// Errors: the experiment was cancelled.
    pub(super) fn tell(&self, stage: &Stage, share: f64) -> Result<(), Cancelled> {
        let done = self.count(stage, (PARTS as f64 * share.clamp(0.0, 1.0)) as u64);
        if self.is_shown(stage) {
            self.watch.step(&stage.label, done, Some(PARTS * stage.total))
        } else {
            self.watch.check()
        }
    }

    /// Counts all of a stage as done, however much was told of it.
    pub(super) fn end(&self, stage: &Stage) {
        self.count(stage, PARTS);
        let _ = self.stages.shown.compare_exchange(stage.number, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Parts of all stages that are done, with these of `stage`; stages go on side by side.
    fn count(&self, stage: &Stage, parts: u64) -> u64 {
        let more = parts.saturating_sub(stage.told.fetch_max(parts, Ordering::Relaxed));
        self.stages.done.fetch_add(more, Ordering::Relaxed) + more
    }

    /// Shows the race of a stage, unless another one is shown.
    pub(super) fn show(&self, stage: &Stage, view: RaceView) {
        if self.is_shown(stage) {
            (self.on_race)(view);
        }
    }

    /// True when `stage` is the one that is shown, or becomes it because none is.
    fn is_shown(&self, stage: &Stage) -> bool {
        let shown = self.stages.shown.compare_exchange(0, stage.number, Ordering::Relaxed, Ordering::Relaxed);
        shown.is_ok() || shown == Err(stage.number)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::device::{CancelFlag, Progress};

    #[test]
    fn progress_is_that_of_the_whole() {
        let told = Mutex::new(Vec::new());
        let tell = |Progress { what, done, total }| told.lock().unwrap().push((what, done, total.unwrap()));
        let cancel = CancelFlag::default();
        let stages = Stages::new(4);
        let eyes = Eyes::new((Watch::new(&cancel, &tell), &|_| {}), &stages);
        let first = eyes.begin("tuning");
        eyes.tell(&first, 0.5).unwrap();
        eyes.skip(1);
        let third = eyes.begin("comparing");
        // Side by side with the first one, which is shown until it ends.
        eyes.tell(&third, 0.5).unwrap();
        eyes.end(&first);
        eyes.tell(&third, 1.0).unwrap();
        cancel.set();
        eyes.tell(&third, 1.0).unwrap_err();
        let told = told.into_inner().unwrap();
        let expected = [("stage 1 of 4: tuning", 500, 4000), ("stage 3 of 4: comparing", 3000, 4000)];
        let expected = expected.map(|(what, done, total)| (what.to_owned(), done, total));
        assert_eq!(told.get(..2).unwrap(), expected);
    }
}
