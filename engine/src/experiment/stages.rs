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
}

impl Stages {
    /// Before the first of `total`.
    #[must_use]
    pub fn new(total: u64) -> Self {
        Self { total, begun: AtomicU64::new(0) }
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
    before: u64,
    total: u64,
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
        let before = self.stages.begun.fetch_add(1, Ordering::Relaxed);
        // Stages that a failing one makes unnecessary are left out; none is counted twice.
        let total = self.stages.total.max(before + 1);
        Stage { label: format!("stage {} of {total}: {what}", before + 1), before, total }
    }

    /// Counts stages that will not be needed.
    pub(super) fn skip(&self, count: u64) {
        self.stages.begun.fetch_add(count, Ordering::Relaxed);
    }

    /// Tells which share of a stage is done, as a part of all of them. Errors: the experiment was cancelled.
    pub(super) fn tell(&self, stage: &Stage, share: f64) -> Result<(), Cancelled> {
        let part = (PARTS as f64 * share.clamp(0.0, 1.0)) as u64;
        self.watch.step(&stage.label, PARTS * stage.before + part, Some(PARTS * stage.total))
    }

    /// Shows a race.
    pub(super) fn show(&self, view: RaceView) {
        (self.on_race)(view);
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
        eyes.tell(&third, 1.0).unwrap();
        cancel.set();
        eyes.tell(&third, 1.0).unwrap_err();
        let told = told.into_inner().unwrap();
        let expected = [("stage 1 of 4: tuning", 500, 4000), ("stage 3 of 4: comparing", 3000, 4000)];
        let expected = expected.map(|(what, done, total)| (what.to_owned(), done, total));
        assert_eq!(told.get(..2).unwrap(), expected);
    }
}
