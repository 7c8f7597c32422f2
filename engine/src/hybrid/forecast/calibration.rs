//! Intervals that hold what they promise: quantiles of the standardized errors, followed online.
//!
//! For each model and range of horizons two numbers say how many of the forecast's standard deviations below and
//! above its center 5% of losses lie. A loss outside moves its bound outward by a large step, one inside moves
//! it inward by a small one, so that in the long run 5% lie outside whatever the model does.
//! Source: adaptive conformal inference, Gibbs and Candès 2021, arXiv 2106.00170; as a quantile tracker,
//! Angelopoulos et al. 2023, arXiv 2307.16895.

use serde::{Deserialize, Serialize};

use super::super::exact;
use super::contest::{Due, NUM_BUCKETS, NUM_MODELS};
use super::expected::{Bucket, Expected, ForecastModel, Z_95};

/// Share of losses that may fall below the interval, and above it.
const TAIL: f64 = 0.05;

/// Standard deviations by which a loss outside moves its bound, over 1 - TAIL.
const STEP: f64 = 0.15;

/// Bounds of the bounds, in standard deviations.
const LEAST: f64 = 0.3;
const MOST: f64 = 20.0;

/// Errors seen before an interval is claimed.
const MIN_ERRORS: u32 = 20;

/// The two bounds of one model in one range.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Bounds {
    count: u32,
    /// Standard deviations below and above the center.
    #[serde(with = "exact")]
    below: f64,
    #[serde(with = "exact")]
    above: f64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { count: 0, below: Z_95, above: Z_95 }
    }
}

/// Bounds of every model and range.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Calibration {
    bounds: [[Bounds; NUM_BUCKETS]; NUM_MODELS],
}

impl Calibration {
    /// Learns from a forecast that came due.
    pub(super) fn learn(&mut self, due: &Due, ln_loss: f64) {
        for (bounds, expected) in self.bounds.iter_mut().zip(&due.expected) {
            bounds[due.bucket as usize].learn((ln_loss - expected.mean) / expected.std());
        }
    }

    /// ln(loss) between which 90% of losses lie; `None` until enough errors of this range were observed.
    pub(super) fn interval(&self, model: ForecastModel, bucket: Bucket, expected: &Expected) -> Option<[f64; 2]> {
        let Bounds { count, below, above } = self.bounds[model as usize][bucket as usize];
        let std = expected.std();
        (count >= MIN_ERRORS).then_some([expected.mean - below * std, expected.mean + above * std])
    }
}

impl Bounds {
    fn learn(&mut self, error: f64) {
        self.count = self.count.saturating_add(1);
        let step = |is_outside: bool| STEP * (if is_outside { 1.0 } else { 0.0 } - TAIL);
        self.below = (self.below + step(error < -self.below)).clamp(LEAST, MOST);
        self.above = (self.above + step(error > self.above)).clamp(LEAST, MOST);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rand::RngExt;

    use super::*;
    use crate::device::seed::{Stream, stream};

    /// Share of skewed losses inside, below and above intervals of forecasts that claim `std`, after 300 to learn from.
    fn shares(std: f64) -> [f64; 3] {
        let mut rng = stream(3, Stream::Generate, 0);
        let expected = Expected { mean: 0.0, variance: std * std, noise: std * std };
        let mut calibration = Calibration::default();
        let mut counts = [0_u32; 3];
        for index in 0..4300 {
            // Exponential: nothing below -1, a long tail above.
            let ln_loss = -(1.0 - rng.random::<f64>()).ln() - 1.0;
            let interval = calibration.interval(ForecastModel::PowerLaw, Bucket::Near, &expected);
            assert_eq!(interval.is_some(), index >= MIN_ERRORS, "nothing is claimed before it was seen");
            if index >= 300 {
                let [low, high] = interval.unwrap();
                let place = if ln_loss < low {
                    1
                } else if ln_loss > high {
                    2
                } else {
                    0
                };
                counts[place] += 1;
            }
            calibration.learn(&Due { bucket: Bucket::Near, expected: [expected; NUM_MODELS] }, ln_loss);
        }
        counts.map(|count| f64::from(count) / 4000.0)
    }

    #[test]
    fn intervals_cover_what_they_say_whatever_the_forecast_claims() {
        for std in [0.25, 1.0, 2.0] {
            let [inside, below, above] = shares(std);
            assert!((inside - 0.9).abs() < 0.015, "std {std}: {inside} inside");
            assert!((below - TAIL).abs() < 0.01 && (above - TAIL).abs() < 0.01, "std {std}: {below}, {above} outside");
        }
    }

    #[test]
    fn ranges_and_models_are_calibrated_apart() {
        let mut calibration = Calibration::default();
        let narrow = Expected { mean: 0.0, variance: 1.0, noise: 1.0 };
        let wide = Expected { mean: 0.0, variance: 100.0, noise: 1.0 };
        let due = Due { bucket: Bucket::Far, expected: [narrow, wide, wide, wide] };
        (0..200).for_each(|index| calibration.learn(&due, if index % 2 == 0 { 8.0 } else { -8.0 }));
        let width = |model| {
            let [low, high] = calibration.interval(model, Bucket::Far, &narrow).unwrap();
            high - low
        };
        assert!(width(ForecastModel::Persistence) > 10.0 && width(ForecastModel::PowerLaw) < 2.0);
        assert_eq!(calibration.interval(ForecastModel::Persistence, Bucket::Next, &narrow), None);
    }
}
