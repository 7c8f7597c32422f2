//! How well the forecasts' intervals hold what they say, brought up to date now and then: the curve is made from all
//! forecasts at once.

use foretrain_engine::hybrid::Forecast;
use foretrain_engine::hybrid::forecast::{ReliabilityPoint, reliability};

/// More forecasts than this share of those looked at, or this many, make a new look worth its time.
const MORE: f64 = 0.05;
const LEAST_MORE: usize = 20;

/// The curve with the forecasts that it is made from.
#[derive(Debug, Clone, Default)]
pub struct Reliability {
    rows: Vec<(Forecast, f32)>,
    num_seen: usize,
    num_counted: usize,
    curve: Vec<ReliabilityPoint>,
}

impl Reliability {
    /// Takes a forecast with the loss measured at its step, nats. Only those with a calibrated interval count.
    pub(super) fn push(&mut self, forecast: Forecast, loss: f32) {
        if forecast.interval.is_some() {
            self.rows.push((forecast, loss));
        }
    }

    /// Makes the curve anew when enough came since the last time: as the number of forecasts grows this takes a bounded
    /// time for each of them.
    pub(super) fn settle(&mut self) {
        let due = self.num_seen + ((self.num_seen as f64 * MORE) as usize).max(LEAST_MORE);
        if self.rows.len() >= due {
            self.num_seen = self.rows.len();
            (self.num_counted, self.curve) = reliability(self.rows.iter().copied());
        }
    }

    /// Shares stated and found; empty until there are enough forecasts.
    #[must_use]
    pub fn curve(&self) -> &[ReliabilityPoint] {
        &self.curve
    }

    /// Losses that the curve counts.
    #[must_use]
    pub fn count(&self) -> usize {
        self.num_counted
    }

    /// Share of losses found inside the 90% intervals.
    #[must_use]
    pub fn held_at_90(&self) -> Option<f64> {
        self.curve.iter().find(|point| (point.nominal - 0.9).abs() < 1e-9).map(|point| point.observed)
    }
}

#[cfg(test)]
mod tests {
    use foretrain_engine::hybrid::Interval;

    use super::*;

    #[test]
    fn the_curve_waits_for_enough_and_follows_what_comes() {
        let interval = Some(Interval { low: 0.9, median: 1.0, high: 1.1 });
        let forecast = Forecast { mean: 1.0, std: 0.1, interval, model: None };
        let mut found = Reliability::default();
        for _ in 0..LEAST_MORE - 1 {
            found.push(forecast, 1.0);
            found.push(Forecast { interval: None, ..forecast }, 1.0);
        }
        found.settle();
        assert!(found.curve().is_empty() && found.held_at_90().is_none());
        found.push(forecast, 9.0);
        found.settle();
        assert_eq!((found.count(), found.held_at_90()), (20, Some(0.95)));
    }
}
