//! What a tier sets.

use serde::{Deserialize, Serialize};

use super::{HybridError, Strategy};

/// A number with the reason for it, as preset files give it and the window shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explained<T> {
    /// The number.
    pub value: T,
    /// Why this one.
    pub why: String,
}

/// When Predict may begin, apart from the confidence that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GateRule {
    /// While few examples carry most of the gradient, so that a sample of them is worth its cost.
    ByCost,
    /// Whenever the forecast is trusted. For strategies that sample nothing, and to see what sampling costs where it
    /// does not pay.
    Open,
}

/// Settings of the hybrid trainer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HybridConfig {
    /// What Predict does. Vanilla never gets there; of the rest only the guard's numbers count for it.
    pub strategy: Strategy,
    /// When Predict may begin.
    pub gate: GateRule,
    /// Longest Predict phase, in steps (the horizon H).
    pub max_predict_steps: u32,
    /// Least confidence to enter Predict and to stay in it.
    pub confidence_threshold: f64,
    /// Predict steps between two Correct steps.
    pub correction_interval: u32,
    /// Standard deviations above the forecast at which a loss is a divergence.
    pub divergence_sigma: f64,
    /// Steps between two checks of the divergence signals; at most 3.
    pub check_interval: u32,
    /// Share of a batch that gets a backward pass in Predict, at first.
    pub slice_fraction: f64,
    /// Least share, however confident.
    pub min_slice_fraction: f64,
    /// Predict must promise at most this share of a full step's cost.
    pub gate_cost: f64,
    /// Steps for which the gate must stay open before Predict.
    pub gate_hold_steps: u32,
    /// Share of the run spent in Warmup.
    pub warmup_fraction: f64,
}

impl HybridConfig {
    /// Errors: [`HybridError::Config`] for the first number out of its range.
    pub fn check(&self) -> Result<(), HybridError> {
        let share = |value: f64| value > 0.0 && value <= 1.0;
        let positive = "at least 1";
        let checks = [
            ("max_predict_steps", positive, f64::from(self.max_predict_steps), self.max_predict_steps >= 1),
            ("correction_interval", positive, f64::from(self.correction_interval), self.correction_interval >= 1),
            ("gate_hold_steps", positive, f64::from(self.gate_hold_steps), self.gate_hold_steps >= 1),
            ("check_interval", "1 to 3", f64::from(self.check_interval), (1..=3).contains(&self.check_interval)),
            (
                "confidence_threshold",
                "0 to 1",
                self.confidence_threshold,
                (0.0..=1.0).contains(&self.confidence_threshold),
            ),
            ("divergence_sigma", "above 0", self.divergence_sigma, self.divergence_sigma > 0.0),
            ("slice_fraction", "above 0, at most 1", self.slice_fraction, share(self.slice_fraction)),
            (
                "min_slice_fraction",
                "above 0, at most slice_fraction",
                self.min_slice_fraction,
                share(self.min_slice_fraction) && self.min_slice_fraction <= self.slice_fraction,
            ),
            ("gate_cost", "above 0, at most 1", self.gate_cost, share(self.gate_cost)),
            ("warmup_fraction", "0 to 1", self.warmup_fraction, (0.0..=1.0).contains(&self.warmup_fraction)),
        ];
        match checks.into_iter().find(|(.., is_fine)| !is_fine) {
            Some((name, expected, found, _)) => Err(HybridError::Config { name, expected, found: found.to_string() }),
            None => Ok(()),
        }
    }
}

/// A tier as its preset file gives it: every number with its reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the fields are those of `HybridConfig`")]
pub struct TierPreset {
    /// Name to show and to type.
    pub name: String,
    /// One sentence.
    pub summary: String,
    /// What to know before choosing it; empty when there is nothing.
    pub caution: String,
    pub strategy: Explained<Strategy>,
    pub gate: Explained<GateRule>,
    pub max_predict_steps: Explained<u32>,
    pub confidence_threshold: Explained<f64>,
    pub correction_interval: Explained<u32>,
    pub divergence_sigma: Explained<f64>,
    pub check_interval: Explained<u32>,
    pub slice_fraction: Explained<f64>,
    pub min_slice_fraction: Explained<f64>,
    pub gate_cost: Explained<f64>,
    pub gate_hold_steps: Explained<u32>,
    pub warmup_fraction: Explained<f64>,
}

impl TierPreset {
    /// The numbers without their reasons.
    #[must_use]
    pub fn config(&self) -> HybridConfig {
        HybridConfig {
            strategy: self.strategy.value,
            gate: self.gate.value,
            max_predict_steps: self.max_predict_steps.value,
            confidence_threshold: self.confidence_threshold.value,
            correction_interval: self.correction_interval.value,
            divergence_sigma: self.divergence_sigma.value,
            check_interval: self.check_interval.value,
            slice_fraction: self.slice_fraction.value,
            min_slice_fraction: self.min_slice_fraction.value,
            gate_cost: self.gate_cost.value,
            gate_hold_steps: self.gate_hold_steps.value,
            warmup_fraction: self.warmup_fraction.value,
        }
    }
}
