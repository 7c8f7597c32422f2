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
const STEP: f64 = 0.25;

/// Bounds of the bounds, in standard deviations.
const LEAST: f64 = 0.3;
const MOST: f64 = 20.0;

/// Errors seen before an interval is claimed.
const MIN_ERRORS: u32 = 10;

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
        (count >= MIN_ERRORS).then(|| [expected.mean - below * std, expected.mean + above * std])
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
