//! The loss forecaster: says what the next steps' losses will be, and how far it can be believed.
//!
//! A forecast is made when Predict begins and stands while it lasts; each Correct takes in what was
//! measured meanwhile and makes it anew. The measured losses decide the confidence: the share of them
//! that fell where they were expected.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::exact;
use super::report::Forecast;
use super::trend::{Expected, Trend};

/// Losses that the trend is fitted to.
const WINDOW: usize = 64;

/// Losses needed for a trend.
const MIN_POINTS: usize = 10;

/// Losses that the confidence looks back on, and the fewest that give one.
const CONFIDENCE_WINDOW: usize = 20;
const MIN_CONFIDENCE_POINTS: usize = 10;

/// Standard deviations within which a loss counts as foreseen.
const INTERVAL_SIGMA: f64 = 2.0;

/// A loss this far above its forecast enters the window as if it were only so far: a divergence must not become the norm.
const WINSOR_SIGMA: f64 = 4.0;

/// Losses below this are all the same to a logarithm.
const MIN_LOSS: f64 = 1e-8;

/// One measured loss, as the trend sees it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Point {
    step: u64,
    #[serde(with = "exact")]
    ln_loss: f64,
}

/// What was expected of a step, and the level from which it was expected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Outlook {
    expected: Expected,
    level: f64,
}

impl Outlook {
    /// The forecast in nats: mean and standard deviation of a loss whose logarithm is normal.
    pub(super) fn in_nats(&self) -> Forecast {
        let Expected { mean, variance, noise } = self.expected;
        let mean = (mean + noise.min(1.0) / 2.0).exp();
        Forecast { mean: mean as f32, std: (mean * variance.min(4.0).exp_m1().sqrt()) as f32 }
    }

    /// Standard deviations by which `loss` lies above what was expected.
    ///
    /// Where the forecast lies below the level it started from, that level counts instead: a loss that
    /// stops falling disappoints, but has not diverged.
    pub(super) fn surprise(&self, loss: f64) -> f64 {
        (loss.max(MIN_LOSS).ln() - self.expected.mean.max(self.level)) / self.expected.variance.sqrt()
    }

    fn foresaw(&self, loss: f64) -> bool {
        let distance = loss.max(MIN_LOSS).ln() - self.expected.mean;
        distance.abs() <= INTERVAL_SIGMA * self.expected.variance.sqrt()
    }
}

/// Learns from measured losses, forecasts the next ones.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Forecaster {
    points: VecDeque<Point>,
    foreseen: VecDeque<bool>,
    /// The forecast in force, while one is.
    standing: Option<Trend>,
}

impl Forecaster {
    /// Makes the forecast that will stand from here on.
    pub(super) fn stand(&mut self) {
        self.standing = self.trend();
    }

    /// Ends the standing forecast.
    pub(super) fn withdraw(&mut self) {
        self.standing = None;
    }

    /// What `step` is expected to be: by the standing forecast, else by the trend up to the step before.
    pub(super) fn outlook(&self, step: u64) -> Option<Outlook> {
        let trend = self.standing.clone().or_else(|| self.trend())?;
        Some(Outlook { expected: trend.at(step), level: trend.level() })
    }

    /// Takes in a measured, finite loss and whether it was foreseen.
    pub(super) fn observe(&mut self, step: u64, loss: f64, outlook: Option<&Outlook>) {
        let mut ln_loss = loss.max(MIN_LOSS).ln();
        if let Some(outlook) = outlook {
            push_within(&mut self.foreseen, outlook.foresaw(loss), CONFIDENCE_WINDOW);
            let highest = outlook.expected.mean.max(outlook.level) + WINSOR_SIGMA * outlook.expected.variance.sqrt();
            ln_loss = ln_loss.min(highest);
        }
        push_within(&mut self.points, Point { step, ln_loss }, WINDOW);
    }

    /// Corrects the standing forecast by everything measured since it was made.
    /// Returns what it now says of `step`, which the measured loss of that step does not decide alone.
    pub(super) fn correct(&mut self, step: u64) -> Option<Forecast> {
        self.stand();
        self.outlook(step).map(|outlook| outlook.in_nats())
    }

    /// Share of the last losses that fell within two standard deviations of their forecast.
    pub(super) fn confidence(&self) -> Option<f64> {
        let hits = self.foreseen.iter().filter(|&&hit| hit).count();
        let count = self.foreseen.len();
        (count >= MIN_CONFIDENCE_POINTS).then(|| hits as f64 / count as f64)
    }

    fn trend(&self) -> Option<Trend> {
        if self.points.len() < MIN_POINTS {
            return None;
        }
        let points: Vec<(u64, f64)> = self.points.iter().map(|point| (point.step, point.ln_loss)).collect();
        Trend::fit(&points)
    }
}

/// Adds to the back and keeps the newest `capacity`.
pub(super) fn push_within<T>(window: &mut VecDeque<T>, value: T, capacity: usize) {
    window.push_back(value);
    while window.len() > capacity {
        window.pop_front();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::synthetic::LossCurve;
    use super::*;

    /// Trains the forecaster on 300 steps of `curve`, then forecasts the next 50:
    /// (mean relative error against the noise-free curve, share of measured losses within 2 standard deviations).
    fn forecast_50(curve: &LossCurve) -> (f64, f64) {
        let mut forecaster = Forecaster::default();
        for step in 1..=300 {
            let outlook = forecaster.outlook(step);
            forecaster.observe(step, curve.measured(step), outlook.as_ref());
        }
        forecaster.stand();
        let outlooks: Vec<(u64, Outlook)> = (301..=350).map(|step| (step, forecaster.outlook(step).unwrap())).collect();
        let error = outlooks.iter().map(|(step, outlook)| {
            let truth = curve.truth(*step);
            (outlook.expected.mean.exp() / truth - 1.0).abs()
        });
        let inside = outlooks.iter().filter(|(step, outlook)| outlook.foresaw(curve.measured(*step)));
        (error.sum::<f64>() / 50.0, inside.count() as f64 / 50.0)
    }

    #[test]
    fn forecasts_hold_over_a_horizon() {
        for (noise, tolerance) in [(0.01, 0.02), (0.1, 0.06), (0.4, 0.25)] {
            let results: Vec<_> = (0..20).map(|seed| forecast_50(&LossCurve::falling(seed, noise))).collect();
            let error = results.iter().map(|(error, _)| error).sum::<f64>() / 20.0;
            let inside = results.iter().map(|(_, inside)| inside).sum::<f64>() / 20.0;
            assert!(error < tolerance, "noise {noise}: mean error {error}");
            assert!(inside > 0.88, "noise {noise}: {inside} inside the band");
        }
    }

    #[test]
    fn confidence_is_high_on_a_trend_and_falls_when_it_breaks() {
        let curve = LossCurve::falling(3, 0.05);
        let mut forecaster = Forecaster::default();
        let mut run = |steps: std::ops::RangeInclusive<u64>, factor: f64| {
            for step in steps {
                let outlook = forecaster.outlook(step);
                let swing = if step % 2 == 0 { factor } else { 1.0 / factor };
                forecaster.observe(step, curve.measured(step) * swing, outlook.as_ref());
            }
            forecaster.confidence().unwrap()
        };
        assert!(run(1..=100, 1.0) > 0.85);
        assert!(run(101..=110, 3.0) < 0.6);
    }

    #[test]
    fn a_correction_pulls_towards_the_measured_without_copying_it() {
        let curve = LossCurve::falling(5, 0.02);
        let mut forecaster = Forecaster::default();
        (1..=100).for_each(|step| forecaster.observe(step, curve.measured(step), None));
        forecaster.stand();
        // The run does worse than forecast: 10% higher.
        let actual = |step| curve.measured(step) * 1.1;
        for step in 101..=115 {
            let outlook = forecaster.outlook(step);
            forecaster.observe(step, actual(step), outlook.as_ref());
        }
        let before = f64::from(forecaster.outlook(115).unwrap().in_nats().mean);
        let after = f64::from(forecaster.correct(115).unwrap().mean);
        assert!(before < after && after < actual(115) * 1.03, "{before} to {after}, measured {}", actual(115));
        let next = f64::from(forecaster.outlook(125).unwrap().in_nats().mean);
        let truth = curve.truth(125) * 1.1;
        assert!((next / truth - 1.0).abs() < 0.05, "the next forecast {next} profits: {truth}");
    }

    #[test]
    fn survives_a_file_bit_for_bit() {
        let curve = LossCurve::falling(1, 0.3);
        let mut forecaster = Forecaster::default();
        (1..=40).for_each(|step| forecaster.observe(step, curve.measured(step), None));
        forecaster.stand();
        let text = serde_json::to_string(&forecaster).unwrap();
        assert_eq!(serde_json::from_str::<Forecaster>(&text).unwrap(), forecaster);
    }
}
