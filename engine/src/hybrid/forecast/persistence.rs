//! The plainest forecast: the level stays where it is.

use serde::{Deserialize, Serialize};

use super::super::exact;
use super::expected::Expected;
use super::observed::{Ahead, Observed, Plan};
use super::panel::Model;
use super::scatter::Scatter;

/// Share of a surprise that moves the level.
const LEVEL_RATE: f64 = 0.2;

/// Losses needed for a forecast.
const MIN_SEEN: u32 = 10;

/// Simple exponential smoothing with the variance of its state space form, ETS(A,N,N): a level that drifts as
/// fast as the smoothing follows makes a forecast `h` steps ahead uncertain by σ²(1 + (h − 1)α²).
/// Source: Hyndman et al. 2008, Forecasting with Exponential Smoothing, table 6.1.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Persistence {
    count: u32,
    #[serde(with = "exact")]
    level: f64,
    scatter: Scatter,
}

impl Model for Persistence {
    fn observe(&mut self, _: &Observed, ln_loss: f64, _: &Plan) {
        self.count = self.count.saturating_add(1);
        if self.count == 1 {
            self.level = ln_loss;
            return;
        }
        let surprise = self.scatter.learn(ln_loss - self.level);
        // At first a plain mean, which needs no start.
        let early = 1.0 / f64::from(self.count);
        self.level += LEVEL_RATE.max(early) * surprise;
    }

    fn level(&self) -> Option<f64> {
        (self.count >= MIN_SEEN).then_some(self.level)
    }

    fn look_ahead(&self, ahead: &Ahead<'_>, into: &mut Vec<Expected>) {
        let Some(mean) = self.level() else { return };
        let noise = self.scatter.variance();
        into.extend((0..ahead.steps).map(|step| {
            let variance = noise * (1.0 + step as f64 * LEVEL_RATE * LEVEL_RATE);
            Expected { mean, variance, noise }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::report::Phase;
    use super::super::observed::Rates;
    use super::*;

    #[test]
    fn a_level_stays_and_becomes_uncertain() {
        let plan = Plan { seed: 0, num_steps: 100, rates: Rates::Recorded(vec![1.0]) };
        let observed =
            Observed { step: 1, phase: Phase::Full, loss: 1.0, grad_norm: None, rho: None, learning_rate_factor: 1.0 };
        let mut model = Persistence::default();
        let mut path = Vec::new();
        for step in 1..=60 {
            assert_eq!(model.level().is_some(), step > MIN_SEEN, "step {step}");
            model.observe(&observed, if step % 2 == 0 { 0.6 } else { 0.4 }, &plan);
        }
        model.look_ahead(&Ahead { plan: &plan, phase: Phase::Full, steps: 75 }, &mut path);
        assert!(path.iter().all(|expected| (expected.mean - 0.5).abs() < 0.05));
        assert!((path[0].std() - 0.1).abs() < 0.03 && path[74].std() > 1.5 * path[0].std());
    }
}
