//! Which model to believe: each one's forecasts of the last window against what came.
//!
//! Every few steps all models forecast from the same step; when the loss of a step they forecast is measured,
//! it scores them (continuous ranked probability score of ln(loss)), each range of horizons for itself. The best
//! of the last window is used from the next forecast on, if it is better by a margin: two equals do not flap.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::super::exact;
use super::expected::{Bucket, Expected, ForecastModel, HORIZON};

/// Models, and ranges of horizons.
pub(super) const NUM_MODELS: usize = ForecastModel::ALL.len();
pub(super) const NUM_BUCKETS: usize = Bucket::ALL.len();

/// Steps between two rounds of forecasts.
pub(super) const ROUND_STEPS: u64 = 5;

/// Horizons that are scored: enough of each range.
pub(super) const HORIZONS: [usize; 16] = [1, 3, 5, 7, 9, 12, 15, 20, 27, 35, 43, 50, 56, 62, 68, HORIZON];

/// Share of a new score in a range's running score: the window is about the last 60 scores.
const SCORE_RATE: f64 = 1.0 / 30.0;

/// Scores that a range needs to count.
const MIN_SCORES: u32 = 5;

/// Share of the used model's score by which another one must be better.
const MARGIN: f64 = 0.05;

/// What the models said of one step, `ahead` steps before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Pending {
    due: u64,
    ahead: usize,
    expected: [Expected; NUM_MODELS],
}

/// A forecast that came due: what each model had said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Due {
    pub bucket: Bucket,
    pub expected: [Expected; NUM_MODELS],
}

/// Running scores of a range of horizons.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Scores {
    count: u32,
    #[serde(with = "exact")]
    by_model: [f64; NUM_MODELS],
}

/// Forecasts that are not due yet, scores of those that were, and the model in use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Contest {
    pending: VecDeque<Pending>,
    scores: [Scores; NUM_BUCKETS],
    used: ForecastModel,
}

impl Contest {
    /// The model in use.
    pub(super) fn used(&self) -> ForecastModel {
        self.used
    }

    /// Takes in each model's forecast of the steps after `step`, in the order of [`ForecastModel::ALL`].
    pub(super) fn enter(&mut self, step: u64, paths: &[Vec<Expected>; NUM_MODELS]) {
        for ahead in HORIZONS {
            let [Some(a), Some(b), Some(c), Some(d)] = paths.each_ref().map(|path| path.get(ahead - 1)) else { return };
            self.pending.push_back(Pending { due: step + ahead as u64, ahead, expected: [*a, *b, *c, *d] });
        }
    }

    /// Scores what was said of `step`, whose ln(loss) is known now; hands it out to `each`.
    pub(super) fn score(&mut self, step: u64, ln_loss: f64, mut each: impl FnMut(&Due)) {
        self.pending.retain(|pending| {
            if pending.due == step {
                let due = Due { bucket: Bucket::of(pending.ahead), expected: pending.expected };
                self.scores[due.bucket as usize].add(due.expected.map(|expected| expected.crps(ln_loss)));
                each(&due);
            }
            // A step that was never measured leaves forecasts behind.
            pending.due > step
        });
        self.choose();
    }

    /// Forgets forecasts that are not due yet: weights went back, so they speak of another run.
    pub(super) fn forget(&mut self) {
        self.pending.clear();
    }

    /// Score of each model over all ranges, once each range has enough: the mean of logarithms, because far ranges
    /// have larger scores and matter no more.
    fn overall(&self) -> Option<[f64; NUM_MODELS]> {
        if self.scores.iter().any(|scores| scores.count < MIN_SCORES) {
            return None;
        }
        let sum = |model: usize| self.scores.iter().map(|scores| scores.by_model[model].ln()).sum::<f64>();
        Some(std::array::from_fn(|model| sum(model) / NUM_BUCKETS as f64))
    }

    fn choose(&mut self) {
        let Some(overall) = self.overall() else { return };
        let score = |model: ForecastModel| overall[model as usize];
        let best = ForecastModel::ALL.into_iter().min_by(|&a, &b| score(a).total_cmp(&score(b)));
        if let Some(best) = best.filter(|&best| score(best) < score(self.used) - MARGIN) {
            self.used = best;
        }
    }
}

impl Scores {
    fn add(&mut self, by_model: [f64; NUM_MODELS]) {
        self.count = self.count.saturating_add(1);
        let rate = SCORE_RATE.max(1.0 / f64::from(self.count));
        for (score, new) in self.by_model.iter_mut().zip(by_model) {
            *score += rate * (new - *score);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Forecasts of 0, each model off by its own error.
    fn enter(contest: &mut Contest, step: u64, errors: [f64; NUM_MODELS]) {
        let paths = errors.map(|mean| vec![Expected { mean, variance: 0.01, noise: 0.01 }; HORIZON]);
        contest.enter(step, &paths);
    }

    /// Steps at which the model in use changed, in a run whose ln(loss) is always 0.
    fn changes(contest: &mut Contest, steps: std::ops::RangeInclusive<u64>, errors: [f64; NUM_MODELS]) -> Vec<u64> {
        let mut changes = Vec::new();
        for step in steps {
            let before = contest.used();
            contest.score(step, 0.0, |_| {});
            if contest.used() != before {
                changes.push(step);
            }
            if step.is_multiple_of(ROUND_STEPS) {
                enter(contest, step, errors);
            }
        }
        changes
    }

    #[test]
    fn the_best_of_the_last_window_is_used() {
        let mut contest = Contest::default();
        let first = changes(&mut contest, 1..=300, [0.3, 0.3, 0.1, 0.3]);
        assert_eq!((first.len(), contest.used()), (1, ForecastModel::PowerLaw));
        assert!(first[0] > 56, "not before far forecasts were scored: {first:?}");
        let second = changes(&mut contest, 301..=900, [0.3, 0.3, 0.1, 0.02]);
        assert_eq!((second.len(), contest.used()), (1, ForecastModel::Recurrent), "{second:?}");
    }

    #[test]
    fn nearly_equal_models_do_not_flap() {
        let mut contest = Contest::default();
        let mut all = Vec::new();
        for round in 0..20_u64 {
            // Now one, now the other is a little better.
            let errors = if round % 2 == 0 { [0.3, 0.2, 0.203, 0.3] } else { [0.3, 0.203, 0.2, 0.3] };
            all.extend(changes(&mut contest, 100 * round + 1..=100 * (round + 1), errors));
        }
        assert!(all.is_empty(), "{all:?}");
    }

    #[test]
    fn every_range_comes_due_and_steps_never_measured_are_forgotten() {
        let mut contest = Contest::default();
        enter(&mut contest, 10, [0.0; NUM_MODELS]);
        let mut buckets = Vec::new();
        (11..=85).for_each(|step| contest.score(step, 0.0, |due| buckets.push(due.bucket)));
        assert_eq!(buckets.len(), HORIZONS.len());
        for bucket in Bucket::ALL {
            assert!(buckets.iter().filter(|&&found| found == bucket).count() >= 3, "{bucket:?}");
        }
        enter(&mut contest, 100, [0.0; NUM_MODELS]);
        contest.score(200, 0.0, |due| panic!("{due:?} was due long ago"));
        assert!(contest.pending.is_empty());
    }
}
