//! The recovery ladder: what to do about a divergence, milder first.

use serde::{Deserialize, Serialize};

use super::report::Recovery;

/// A divergence within so many steps of the last one climbs a rung.
const ESCALATE_WITHIN: u64 = 50;

/// So many steps without a divergence start the ladder afresh.
const RELAX_AFTER: u64 = 200;

/// Remembers the last divergence and its answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ladder {
    last: Option<(u64, Recovery)>,
}

impl Ladder {
    /// The answer to a divergence at `step`.
    pub(super) fn climb(&mut self, step: u64) -> Recovery {
        let recovery = match self.last {
            Some((last, recovery)) if step.saturating_sub(last) <= ESCALATE_WITHIN => next(recovery),
            Some((last, recovery)) if step.saturating_sub(last) <= RELAX_AFTER => recovery,
            Some(_) | None => Recovery::BackToFull,
        };
        self.last = Some((step, recovery));
        recovery
    }

    /// The answer to a divergence at `step` that nothing cures but other weights.
    pub(super) fn climb_to_restore(&mut self, step: u64) -> Recovery {
        let recovery = self.climb(step).max(Recovery::RestoreWeights);
        self.last = Some((step, recovery));
        recovery
    }

    /// False while a divergence is so recent that another would climb a rung.
    pub(super) fn is_calm(&self, step: u64) -> bool {
        self.last.is_none_or(|(last, _)| step.saturating_sub(last) > ESCALATE_WITHIN)
    }

    /// True once the last rung was reached.
    pub(super) fn must_stop(&self) -> bool {
        matches!(self.last, Some((_, Recovery::Stop)))
    }
}

fn next(recovery: Recovery) -> Recovery {
    match recovery {
        Recovery::BackToFull => Recovery::CutLearningRate,
        Recovery::CutLearningRate | Recovery::RestoreWeights => Recovery::Restore,
        Recovery::Restore | Recovery::Stop | Recovery::End => Recovery::Stop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(divergences: &[u64], expected: &[Recovery]) {
        let mut ladder = Ladder::default();
        let answers: Vec<_> = divergences.iter().map(|&step| ladder.climb(step)).collect();
        assert_eq!(answers, expected);
    }

    #[test]
    fn climbs_stays_and_relaxes() {
        use Recovery::{BackToFull, CutLearningRate, Restore, Stop};
        check(&[10, 20, 30, 40], &[BackToFull, CutLearningRate, Restore, Stop]);
        check(&[10, 50, 150, 160], &[BackToFull, CutLearningRate, CutLearningRate, Restore]);
        check(&[10, 20, 300], &[BackToFull, CutLearningRate, BackToFull]);
    }

    #[test]
    fn what_only_other_weights_cure_skips_the_milder_rungs() {
        use Recovery::{Restore, RestoreWeights, Stop};
        let mut ladder = Ladder::default();
        assert_eq!([10, 11, 12].map(|step| ladder.climb_to_restore(step)), [RestoreWeights, Restore, Stop]);
        let mut ladder = Ladder::default();
        ladder.climb(10);
        assert_eq!(ladder.climb_to_restore(11), RestoreWeights);
        assert_eq!([12, 13].map(|step| ladder.climb(step)), [Restore, Stop]);
        let mut ladder = Ladder::default();
        for step in 10..13 {
            ladder.climb(step);
        }
        assert_eq!(ladder.climb_to_restore(13), Stop);
    }

    #[test]
    fn is_calm_away_from_trouble() {
        let mut ladder = Ladder::default();
        assert!(ladder.is_calm(1));
        ladder.climb(10);
        assert!(!ladder.is_calm(60) && ladder.is_calm(61));
    }
}
