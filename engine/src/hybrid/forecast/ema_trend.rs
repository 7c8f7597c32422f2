//! Level and slope as moving averages; the slope fades as a power law's does.

use serde::{Deserialize, Serialize};

use super::super::exact;
use super::expected::Expected;
use super::observed::{Ahead, Observed, Plan};
use super::panel::Model;
use super::scatter::Scatter;

/// Share of a surprise that moves the level, and the slope. Tuned on recorded runs, see docs/forecasting.md.
pub(super) const LEVEL_RATE: f64 = 0.12;
pub(super) const SLOPE_RATE: f64 = 0.003;

/// Losses needed for a forecast.
const MIN_SEEN: u32 = 10;

/// What is left after a step of a slope that stood before `step`: ln(loss) of a power law falls by 1/step.
pub(super) fn fading(step: u64) -> f64 {
    let before = step.saturating_sub(1) as f64;
    before / (before + 1.0)
}

/// Holt's smoothing, damped by [`fading`], with the variance of its state space form, ETS(A,Ad,N).
/// Source: Gardner and McKenzie 1985; Hyndman et al. 2008, Forecasting with Exponential Smoothing, table 6.1.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct EmaTrend {
    count: u32,
    /// The last one observed.
    pub step: u64,
    #[serde(with = "exact")]
    pub level: f64,
    #[serde(with = "exact")]
    pub slope: f64,
    scatter: Scatter,
}

impl Model for EmaTrend {
    fn observe(&mut self, observed: &Observed, ln_loss: f64, _: &Plan) {
        self.count = self.count.saturating_add(1);
        self.step = observed.step;
        if self.count == 1 {
            self.level = ln_loss;
            return;
        }
        let slope = fading(observed.step) * self.slope;
        let surprise = self.scatter.learn(ln_loss - (self.level + slope));
        let early = 1.0 / f64::from(self.count);
        self.level += slope + LEVEL_RATE.max(early) * surprise;
        self.slope = slope + SLOPE_RATE.max(early * early) * surprise;
    }

    fn level(&self) -> Option<f64> {
        (self.count >= MIN_SEEN).then_some(self.level)
    }

    fn look_ahead(&self, ahead: &Ahead<'_>, into: &mut Vec<Expected>) {
        let Some(level) = self.level() else { return };
        let noise = self.scatter.variance();
        let mut reach = Reach::default();
        for step in self.step + 1..=self.step + ahead.steps as u64 {
            let variance = noise * (1.0 + reach.drift);
            reach.advance(fading(step));
            into.push(Expected { mean: level + reach.slopes * self.slope, variance, noise });
        }
    }
}

impl EmaTrend {
    /// Usual surprise, in units of ln(loss).
    pub(super) fn scatter(&self) -> f64 {
        self.scatter.std()
    }
}

/// How far from the last measured step a forecast is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reach {
    /// What is left of the slope, and the sum of that over the steps.
    left: f64,
    slopes: f64,
    /// Squared weights, summed, of the surprises that may have come in between.
    pub drift: f64,
}

impl Default for Reach {
    fn default() -> Self {
        Self { left: 1.0, slopes: 0.0, drift: 0.0 }
    }
}

impl Reach {
    /// A step farther; returns what a surprise there adds to the drift.
    pub(super) fn advance(&mut self, fading: f64) -> f64 {
        self.left *= fading;
        self.slopes += self.left;
        let weight = (LEVEL_RATE + SLOPE_RATE * self.slopes).powi(2);
        self.drift += weight;
        weight
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::report::Phase;
    use super::super::observed::Rates;
    use super::*;

    #[test]
    fn a_power_law_goes_on() {
        let plan = Plan { seed: 0, num_steps: 400, rates: Rates::Recorded(vec![1.0]) };
        let truth = |step: u64| 0.7 - 0.5 * (step as f64).ln();
        let mut model = EmaTrend::default();
        for step in 1..=300 {
            let (loss, grad_norm, rho) = (1.0, None, None);
            let observed = Observed { step, phase: Phase::Full, loss, grad_norm, rho, learning_rate_factor: 1.0 };
            let noise = if step % 2 == 0 { 0.05 } else { -0.05 };
            model.observe(&observed, truth(step) + noise, &plan);
        }
        let mut path = Vec::new();
        model.look_ahead(&Ahead { plan: &plan, phase: Phase::Full, steps: 75 }, &mut path);
        assert!((path[74].mean - truth(375)).abs() < 0.02, "{} is not {}", path[74].mean, truth(375));
        assert!(path[74].mean < path[0].mean && path[74].variance > path[0].variance);
    }
}
