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
    let after = f64::from(forecaster.0.correct(115, actual(115), &plan()).unwrap().mean);
    assert!(before < after && after < actual(115) * 1.03, "{before} to {after}, measured {}", actual(115));
    let next = f64::from(forecaster.outlook(125).unwrap().in_nats().mean);
    let truth = curve.truth(125) * 1.1;
    assert!((next / truth - 1.0).abs() < 0.05, "the next forecast {next} profits: {truth}");
}

#[test]
fn forecasts_that_are_always_too_low_are_found_out() {
    let curve = LossCurve::falling(5, 0.02);
    let mut forecaster = Fixture::default();
    (1..=100).for_each(|step| forecaster.observe(step, curve.measured(step)));
    forecaster.0.stand(&plan());
    for count in 1..=10 {
        let expected = forecaster.0.path.as_ref().unwrap().best.at(1).unwrap().mean;
        forecaster.0.correct(101, 1.1 * expected.exp(), &plan());
        let bias = forecaster.0.bias();
        assert_eq!(bias.is_some(), count >= 8);
        assert!(bias.is_none_or(|bias| (bias.mean - 1.1_f32.ln()).abs() < 1e-5 && bias.std_error < 1e-5), "{bias:?}");
    }
}

#[test]
fn goes_on_from_a_file_bit_for_bit() {
    let curve = LossCurve::falling(1, 0.3);
    let mut forecaster = Fixture::default();
    (1..=140).for_each(|step| forecaster.observe(step, curve.measured(step)));
    forecaster.0.stand(&plan());
    let text = serde_json::to_string(&forecaster.0).unwrap();
    let mut twin = Fixture(serde_json::from_str(&text).unwrap());
    assert_eq!(twin.0, forecaster.0);
    for step in 141..=260 {
        assert_eq!(twin.outlook(step), forecaster.outlook(step), "step {step}");
        forecaster.observe(step, curve.measured(step));
        twin.observe(step, curve.measured(step));
        if step == 200 {
            forecaster.0.withdraw();
            twin.0.withdraw();
        }
    }
    assert_eq!(twin.0, forecaster.0);
}

#[test]
fn a_state_of_an_earlier_version_starts_afresh() {
    let earlier = r#"{"points":[{"step":1,"ln_loss":"0.5"}],"foreseen":[true],"standing":null}"#;
    let forecaster: Forecaster = serde_json::from_str(earlier).unwrap();
    assert_eq!(forecaster.foreseen, [true]);
    assert_eq!(forecaster.outlook(2, Phase::Full, &plan()), None);
}

#[test]
fn an_interval_is_claimed_once_it_was_calibrated_and_holds() {
    let curve = LossCurve::falling(4, 0.2);
    let mut forecaster = Fixture::default();
    let (mut claimed, mut inside) = (0, 0);
    for step in 1..=600 {
        if let Some(forecast) = forecaster.outlook(step).map(|outlook| outlook.in_nats()) {
            assert!(forecast.model.is_some() && (step > 40 || forecast.interval.is_none()), "step {step}");
            if let Some(Interval { low, median, high }) = forecast.interval {
                assert!(low < median && median < forecast.mean && forecast.mean < high, "step {step}");
                claimed += 1;
                inside += i32::from((low..=high).contains(&(curve.measured(step) as f32)));
            }
        }
        forecaster.observe(step, curve.measured(step));
    }
    let share = f64::from(inside) / f64::from(claimed);
    assert!(claimed > 500 && (0.85..=0.95).contains(&share), "{share} of {claimed}");
}

#[test]
fn a_standing_forecast_keeps_its_model_and_a_rollback_ends_it() {
    let curve = LossCurve::falling(6, 0.1);
    let mut forecaster = Fixture::default();
    (1..=100).for_each(|step| forecaster.observe(step, curve.measured(step)));
    forecaster.0.stand(&plan());
    let standing = forecaster.outlook(140).unwrap();
    for step in 101..=139 {
        forecaster.observe(step, 3.0 * curve.measured(step));
    }
    let later = forecaster.outlook(140).unwrap();
    assert_eq!((later.expected, later.model, later.level), (standing.expected, standing.model, standing.level));
    forecaster.0.roll_back();
    let afresh = forecaster.outlook(140).unwrap();
    assert!(afresh.expected.mean > standing.expected.mean, "what was learned stays");
    let outlook = forecaster.outlook(141);
    let before = forecaster.0.clone();
    forecaster.0.observe(&measured(141, 1.0), outlook.as_ref(), &plan());
    assert_eq!(forecaster.0.calibration, before.calibration, "forecasts of the other run come due no more");
}
