//! The forecaster on loss curves whose truth is known.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::super::super::synthetic::LossCurve;
use super::super::observed::Rates;
use super::*;

fn plan() -> Plan {
    Plan { seed: 1, num_steps: 1000, rates: Rates::Recorded(vec![1.0]) }
}

fn measured(step: u64, loss: f64) -> Observed {
    Observed { step, phase: Phase::Full, loss, grad_norm: Some(1.0), rho: Some(0.1), learning_rate_factor: 1.0 }
}

/// A forecaster with what the tests hold fixed.
#[derive(Debug, Default)]
struct Fixture(Forecaster);

impl Fixture {
    fn outlook(&self, step: u64) -> Option<Outlook> {
        self.0.outlook(step, Phase::Full, &plan())
    }

    /// Takes in a loss, with what was expected of it.
    fn observe(&mut self, step: u64, loss: f64) {
        let outlook = self.outlook(step);
        self.0.observe(&measured(step, loss), outlook.as_ref(), &plan());
    }
}

/// Trains the forecaster on 300 steps of `curve`, then forecasts the next 50:
/// (mean relative error against the noise-free curve, share of measured losses within 2 standard deviations).
fn forecast_50(curve: &LossCurve) -> (f64, f64) {
    let mut forecaster = Fixture::default();
    for step in 1..=300 {
        forecaster.observe(step, curve.measured(step));
    }
    forecaster.0.stand(&plan());
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
    let mut forecaster = Fixture::default();
    let mut run = |steps: std::ops::RangeInclusive<u64>, factor: f64| {
        for step in steps {
            let swing = if step % 2 == 0 { factor } else { 1.0 / factor };
            forecaster.observe(step, curve.measured(step) * swing);
        }
        forecaster.0.confidence().unwrap()
    };
    assert!(run(1..=100, 1.0) > 0.85);
    assert!(run(101..=110, 3.0) < 0.6);
}

#[test]
fn a_correction_pulls_towards_the_measured_without_copying_it() {
    let curve = LossCurve::falling(5, 0.02);
    let mut forecaster = Fixture::default();
    (1..=100).for_each(|step| forecaster.observe(step, curve.measured(step)));
    forecaster.0.stand(&plan());
    // The run does worse than forecast: 10% higher.
    let actual = |step| curve.measured(step) * 1.1;
    for step in 101..=115 {
        forecaster.observe(step, actual(step));
    }
    let before = f64::from(forecaster.outlook(115).unwrap().in_nats().mean);
    let after = f64::from(forecaster.0.correct(115, &plan()).unwrap().mean);
    assert!(before < after && after < actual(115) * 1.03, "{before} to {after}, measured {}", actual(115));
    let next = f64::from(forecaster.outlook(125).unwrap().in_nats().mean);
    let truth = curve.truth(125) * 1.1;
    assert!((next / truth - 1.0).abs() < 0.05, "the next forecast {next} profits: {truth}");
}

#[test]
fn survives_a_file_bit_for_bit() {
    let curve = LossCurve::falling(1, 0.3);
    let mut forecaster = Fixture::default();
    (1..=40).for_each(|step| forecaster.observe(step, curve.measured(step)));
    forecaster.0.stand(&plan());
    let text = serde_json::to_string(&forecaster.0).unwrap();
    assert_eq!(serde_json::from_str::<Forecaster>(&text).unwrap(), forecaster.0);
}
