//! What a forecast says of one step, and how it is scored.

use serde::{Deserialize, Serialize};

use super::super::exact;

/// Steps that a forecast reaches ahead; farther ones are expected like the last.
pub(super) const HORIZON: usize = 75;

/// Least noise of a batch's ln(loss): no forecast claims to be better than 1%.
pub(super) const MIN_NOISE: f64 = 0.01;

/// Losses below this are all the same to a logarithm.
pub(super) const MIN_LOSS: f64 = 1e-8;

/// Standard deviations from the middle of a normal distribution to its 95% quantile.
pub(super) const Z_95: f64 = 1.644_853_626_951_472_2;

/// A model that forecasts losses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum ForecastModel {
    /// The level stays: an exponential moving average.
    Persistence,
    /// Level and slope as moving averages; the slope fades (damped Holt).
    #[default]
    EmaTrend,
    /// A robust power law of the step through the last 64 losses.
    PowerLaw,
    /// An ensemble of small gated recurrent networks, trained on the run itself.
    Recurrent,
}

impl ForecastModel {
    /// All of them, plain ones first.
    pub const ALL: [Self; 4] = [Self::Persistence, Self::EmaTrend, Self::PowerLaw, Self::Recurrent];

    /// Name to show.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Persistence => "persistence",
            Self::EmaTrend => "EMA trend",
            Self::PowerLaw => "power law",
            Self::Recurrent => "recurrent ensemble",
        }
    }
}

/// How far ahead a forecast looks, in ranges that are scored and calibrated apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// 1 to 5 steps.
    Next,
    /// 6 to 15 steps: until the next Correct.
    Near,
    /// 16 to 50 steps.
    Middle,
    /// 51 steps and more.
    Far,
}

impl Bucket {
    /// All of them, nearest first.
    pub const ALL: [Self; 4] = [Self::Next, Self::Near, Self::Middle, Self::Far];

    /// The bucket of a forecast `ahead` steps ahead.
    #[must_use]
    pub fn of(ahead: usize) -> Self {
        match ahead {
            0..=5 => Self::Next,
            6..=15 => Self::Near,
            16..=50 => Self::Middle,
            _ => Self::Far,
        }
    }

    /// Steps, as text.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Next => "1-5",
            Self::Near => "6-15",
            Self::Middle => "16-50",
            Self::Far => "51-75",
        }
    }
}

/// ln(loss) expected at a step: a normal distribution.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(in crate::hybrid) struct Expected {
    /// Center of ln(loss).
    #[serde(with = "exact")]
    pub mean: f64,
    /// Variance around it: the batch's noise and all that is not known.
    #[serde(with = "exact")]
    pub variance: f64,
    /// The part of it that is the batch's noise.
    #[serde(with = "exact")]
    pub noise: f64,
}

impl Expected {
    /// Standard deviation.
    pub(super) fn std(&self) -> f64 {
        self.variance.sqrt()
    }

    /// Continuous ranked probability score of a normal forecast, in units of ln(loss): 0 is perfect.
    /// Source: Gneiting and Raftery 2007, section 4.2.
    pub(super) fn crps(&self, ln_loss: f64) -> f64 {
        let std = self.std();
        let z = (ln_loss - self.mean) / std;
        let density = (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt();
        std * (z * (2.0 * normal_below(z) - 1.0) + 2.0 * density - 1.0 / std::f64::consts::PI.sqrt())
    }
}

/// Probability that a standard normal number lies below `z`, to 1e-7.
/// Source: Abramowitz and Stegun 1964, formula 7.1.26.
pub(super) fn normal_below(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let polynomial =
        t * (0.254_829_592 + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    let above = 0.5 * polynomial * (-x * x).exp();
    if z > 0.0 { 1.0 - above } else { above }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_probabilities() {
        for (z, below) in [(0.0, 0.5), (1.0, 0.841_344_7), (-1.0, 0.158_655_3), (Z_95, 0.95), (6.0, 1.0)] {
            assert!((normal_below(z) - below).abs() < 2e-7, "{z}: {}", normal_below(z));
        }
    }

    #[test]
    fn the_score_is_the_integral_it_stands_for() {
        let expected = Expected { mean: 0.3, variance: 0.04, noise: 0.04 };
        for ln_loss in [0.3, 0.1, 1.1] {
            // The integral over x of (P(X <= x) - [ln_loss <= x])^2.
            let width = 1e-4;
            let integral: f64 = (-20_000..30_000)
                .map(|index| {
                    let x = (f64::from(index) + 0.5) * width;
                    let reached = if ln_loss <= x { 1.0 } else { 0.0 };
                    (normal_below((x - expected.mean) / expected.std()) - reached).powi(2) * width
                })
                .sum();
            assert!((expected.crps(ln_loss) - integral).abs() < 1e-4, "{ln_loss}: {integral}");
        }
    }

    #[test]
    fn buckets_cover_the_horizon() {
        let buckets: Vec<Bucket> = [1, 5, 6, 15, 16, 50, 51, HORIZON].map(Bucket::of).to_vec();
        let pairs: Vec<Bucket> = Bucket::ALL.into_iter().flat_map(|bucket| [bucket, bucket]).collect();
        assert_eq!(buckets, pairs);
    }
}
