//! How often losses fell inside intervals of every stated share: the curve that a reliable forecaster draws along
//! the diagonal.

use super::super::report::Forecast;
use super::expected::{Z_95, normal_below};

/// A stated share of losses inside, and the share found.
#[derive(Debug, Clone, Copy, PartialEq)]
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
