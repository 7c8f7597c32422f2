//! How often losses fell inside intervals of every stated share: the curve that a reliable forecaster draws along
//! the diagonal.

use serde::{Deserialize, Serialize};

use super::super::report::Forecast;
use super::expected::{Z_95, normal_below};

/// A stated share of losses inside, and the share found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityPoint {
    /// Stated, 0 to 1.
    pub nominal: f64,
    /// Measured, 0 to 1.
    pub observed: f64,
}

/// Shares that are looked at: 10%, 15% … 95%.
const NOMINAL_PERCENT: std::ops::RangeInclusive<u32> = 10..=95;
const STEP_PERCENT: usize = 5;

/// The reliability curve of a run's rows: each forecast with the loss measured at its step, nats.
///
/// An interval for another share than 90% narrows or widens the stated one, each side for itself, as a normal
/// distribution of ln(loss) would. Rows without a calibrated interval, or with a loss that is not positive and
/// finite, do not count. Returns how many did and the curve, which is empty when none did.
pub fn reliability(rows: impl IntoIterator<Item = (Forecast, f32)>) -> (usize, Vec<ReliabilityPoint>) {
    let centrality: Vec<f64> = rows.into_iter().filter_map(|(forecast, loss)| narrowest(&forecast, loss)).collect();
    let count = centrality.len();
    if count == 0 {
        return (0, Vec::new());
    }
    let point = |percent: u32| {
        let nominal = f64::from(percent) / 100.0;
        let inside = centrality.iter().filter(|&&share| share <= nominal).count();
        ReliabilityPoint { nominal, observed: inside as f64 / count as f64 }
    };
    (count, NOMINAL_PERCENT.step_by(STEP_PERCENT).map(point).collect())
}

/// Stated share of the narrowest interval that still holds the loss.
fn narrowest(forecast: &Forecast, loss: f32) -> Option<f64> {
    let interval = forecast.interval?;
    let ln = |value: f32| (value.is_finite() && value > 0.0).then(|| f64::from(value).ln());
    let [loss, low, median, high] = [ln(loss)?, ln(interval.low)?, ln(interval.median)?, ln(interval.high)?];
    let width = if loss < median { median - low } else { high - median };
    let z = if loss == median { 0.0 } else { Z_95 * (loss - median).abs() / width };
    (width >= 0.0).then(|| 2.0 * normal_below(z) - 1.0)
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::super::super::report::Interval;
    use super::*;
    use crate::device::seed::{Stream, stream};

    /// Forecasts whose intervals are `width` times as wide as they should be, with losses of a lopsided log-normal.
    fn curve(width: f64) -> Vec<ReliabilityPoint> {
        let mut rng = stream(5, Stream::Generate, 0);
        let rows = (0..4000).map(|_| {
            let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
            let z = radius * (std::f64::consts::TAU * rng.random::<f64>()).cos();
            let scale = |z: f64| if z < 0.0 { 0.1 * z } else { 0.4 * z };
            let ln_median = 3.0 * rng.random::<f64>();
            let at = |z: f64| (ln_median + scale(z)).exp() as f32;
            let interval = Interval { low: at(-width * Z_95), median: at(0.0), high: at(width * Z_95) };
            (Forecast { mean: 1.0, std: 1.0, interval: Some(interval), model: None }, at(z))
        });
        let (count, curve) = reliability(rows);
        assert_eq!((count, curve.len()), (4000, 18));
        curve
    }

    #[test]
    fn a_reliable_forecaster_is_on_the_diagonal() {
        for point in curve(1.0) {
            assert!((point.observed - point.nominal).abs() < 0.03, "{point:?}");
        }
    }

    #[test]
    fn too_sure_is_below_the_diagonal_and_too_modest_above() {
        assert!(curve(0.5).iter().all(|point| point.observed < point.nominal));
        assert!(curve(2.0).iter().all(|point| point.observed > point.nominal));
    }

    #[test]
    fn what_says_nothing_does_not_count() {
        let interval = Some(Interval { low: 1.0, median: 2.0, high: 3.0 });
        let forecast = Forecast { mean: 2.0, std: 0.5, interval, model: None };
        let broken = Some(Interval { low: 1.0, median: f32::NAN, high: 3.0 });
        let rows = [
            (forecast, 2.0),
            (forecast, f32::NAN),
            (forecast, 0.0),
            (Forecast { interval: None, ..forecast }, 2.0),
            (Forecast { interval: broken, ..forecast }, 2.0),
        ];
        let (count, curve) = reliability(rows);
        assert_eq!((count, curve.first().map(|point| point.observed)), (1, Some(1.0)));
        assert_eq!(reliability([]), (0, vec![]));
    }
}
