//! What Correct steps found, in a handful of figures.

use serde::{Deserialize, Serialize};

use super::trial::{TrialResult, median};
use crate::hybrid::{Correction, Phase};

/// Figures over the Correct steps of one or more trainings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CorrectionFigures {
    /// Correct steps that compared something.
    pub count: usize,
    /// Mean of |predicted − actual|, nats.
    pub error_before: f64,
    /// Mean of |corrected − actual|, nats.
    pub error_after: f64,
    /// Share of all error before corrections that they took away: 1 − Σ|corrected − actual| / Σ|predicted − actual|. The
    /// mean of single ratios is no use: a forecast that happened to be right has next to no error to reduce.
    pub error_reduction: f64,
    /// Median of the single ratios (|predicted − actual| − |corrected − actual|) / |predicted − actual|.
    pub median_reduction: f64,
    /// Mean cosine between sampled and full gradient.
    pub cosine: f64,
    /// The lowest.
    pub lowest_cosine: f64,
}

impl CorrectionFigures {
    /// Of these corrections; those with a figure that is not finite are left out. `None` when none is left.
    pub fn of<'a>(corrections: impl IntoIterator<Item = &'a Correction>) -> Option<Self> {
        let rows: Vec<[f64; 3]> = corrections
            .into_iter()
            .map(|found| [found.error_before(), found.error_after(), found.cosine].map(f64::from))
            .filter(|row| row.iter().all(|value| value.is_finite()))
            .collect();
        let count = rows.len();
        let sum = |column: usize| rows.iter().filter_map(|row| row.get(column)).sum::<f64>();
        let (before, after) = (sum(0), sum(1));
        let ratios = rows.iter().filter(|[before, ..]| *before > 0.0).map(|[before, after, _]| 1.0 - after / before);
        (count > 0).then(|| Self {
            count,
            error_before: before / count as f64,
            error_after: after / count as f64,
            error_reduction: 1.0 - after / before,
            median_reduction: median(ratios.collect()).unwrap_or(f64::NAN),
            cosine: sum(2) / count as f64,
            lowest_cosine: rows.iter().map(|[.., cosine]| *cosine).fold(f64::INFINITY, f64::min),
        })
    }

    /// Over the Correct steps of all of these.
    #[must_use]
    pub fn of_results(results: &[TrialResult]) -> Option<Self> {
        Self::of(results.iter().flat_map(|result| &result.corrections).map(|(_, correction)| correction))
    }
}

/// What Correct steps took beyond full steps, as a share of what Predict steps took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overhead {
    /// By the seconds of all steps, whatever else the machine did.
    pub by_sums: f64,
    /// By the median step of each phase, which a busy machine disturbs less.
    pub by_medians: f64,
    /// By counting forward and backward passes, which no machine disturbs; NaN in reports of earlier versions.
    pub by_counting: f64,
}

impl Overhead {
    /// Of one training; `None` without a full step, a Predict step and a Correct step to compare.
    #[must_use]
    pub fn of(result: &TrialResult) -> Option<Self> {
        let phase = |phase: Phase| Some(result.phase(phase)).filter(|share| share.num_steps > 0);
        let (full, predict, correct) = (phase(Phase::Full)?, phase(Phase::Predict)?, phase(Phase::Correct)?);
        let count = correct.num_steps as f64;
        let extra = correct.seconds - count * full.seconds / full.num_steps as f64;
        let extra_by_medians = count * (correct.median_step_seconds? - full.median_step_seconds?);
        let predict_by_medians = predict.num_steps as f64 * predict.median_step_seconds?;
        let extra_cost = correct.example_cost - count * full.example_cost / full.num_steps as f64;
        Some(Self {
            by_sums: extra / predict.seconds,
            by_medians: extra_by_medians / predict_by_medians,
            by_counting: extra_cost / predict.example_cost,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::literal;
    use super::super::trial::PhaseShare;
    use super::*;

    fn correction(predicted_loss: f32, corrected_loss: f32, cosine: f32) -> Correction {
        Correction { cosine, predicted_loss, corrected_loss, actual_loss: 1.0, slice_fraction: 0.25, bias: None }
    }

    #[test]
    fn a_lucky_forecast_does_not_decide_the_reduction() {
        // The first forecast was off by a thousandth only, and its correction by a tenth: a ratio of -99.
        let corrections = [correction(1.001, 0.9, 0.5), correction(1.5, 1.125, 0.75), correction(0.5, 0.75, 1.0)];
        let figures = CorrectionFigures::of(&corrections).unwrap();
        assert_eq!((figures.count, figures.lowest_cosine, figures.cosine), (3, 0.5, 0.75));
        assert!((figures.error_before - 1.001 / 3.0).abs() < 1e-6 && (figures.error_after - 0.475 / 3.0).abs() < 1e-6);
        assert!((figures.error_reduction - (1.0 - 0.475 / 1.001)).abs() < 1e-5, "{figures:?}");
        // Of -99, 3/4 and 1/2.
        assert!((figures.median_reduction - 0.5).abs() < 1e-6, "{figures:?}");
    }

    #[test]
    fn what_is_not_finite_is_left_out() {
        assert_eq!(CorrectionFigures::of(&[correction(f32::NAN, 1.0, 1.0)]), None);
        let both = [correction(f32::NAN, 1.0, 1.0), correction(1.5, 1.0, 1.0)];
        assert_eq!(CorrectionFigures::of(&both).unwrap().error_reduction, 1.0);
    }

    #[test]
    fn overhead_is_what_correcting_takes_beyond_full_steps() {
        let share = |num_steps, seconds, median, example_cost| PhaseShare {
            num_steps,
            seconds,
            median_step_seconds: Some(median),
            example_cost,
        };
        // Four full steps of 1 s, forty predicted ones of 0.5 s, two corrections of 1.25 s; one full step met a busy machine.
        let (full, predict) = (share(4, 8.0, 1.0, 32.0), share(40, 20.0, 0.5, 160.0));
        let phases = [PhaseShare::default(), full, predict, share(2, 2.5, 1.25, 20.0)];
        let mut result = TrialResult { phases, ..literal::result(1, 0.5) };
        let overhead = Overhead::of(&result).unwrap();
        assert!((overhead.by_medians - 0.025).abs() < 1e-12 && (overhead.by_sums + 0.075).abs() < 1e-12);
        assert!((overhead.by_counting - 0.025).abs() < 1e-12, "{overhead:?}");
        result.phases[3] = PhaseShare::default();
        assert_eq!(Overhead::of(&result), None);
    }
}
