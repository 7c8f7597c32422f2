//! The phase machine: which phase the next step runs in, and why.
//!
//! ```text
//! Warmup -> Full -> Predict <-> Correct
//!            ^---------'-----------'
//! ```
//!
//! Predict lasts at most `max_predict_steps` (its Correct steps not counted), then Full takes a quarter of
//! `gate_hold_steps`, at least 3, to refit the forecast: with the conservative tier 50 Predict, 3 Correct
//! and 5 Full steps while the gate stays open. When trouble ended Predict (shut gate, low confidence,
//! divergence), Full lasts `gate_hold_steps` at least.

use serde::{Deserialize, Serialize};

use super::HybridConfig;
use super::gate::{Gate, expected_cost};
use super::report::{HybridEvent, Phase};

/// Fewest Full steps between two Predict phases.
const MIN_REFIT_STEPS: u32 = 3;

/// What the machine looks at before a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Situation<'a> {
    /// The step about to run, from 1.
    pub step: u64,
    /// Steps of Warmup.
    pub warmup_steps: u64,
    /// Is sampling worth it?
    pub gate: &'a Gate,
    /// Share of a batch that Predict would use.
    pub slice_fraction: f64,
    /// Share of the last losses that were foreseen.
    pub forecast_confidence: Option<f64>,
    /// Cosine of the last Correct, when the last step was one.
    pub cosine: Option<f64>,
}

/// Where the trainer is, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PhaseMachine {
    phase: Phase,
    /// Steps of this Full phase so far.
    full_steps: u32,
    /// Full steps that this Full phase must have.
    full_steps_needed: u32,
    /// Predict steps since Full.
    predict_steps: u32,
    /// Predict steps since Full or Correct.
    uncorrected_steps: u32,
    /// Set by a divergence: why Predict must end.
    forced: Option<String>,
}

impl PhaseMachine {
    /// Before the first step.
    pub(super) fn new(config: &HybridConfig) -> Self {
        Self {
            phase: Phase::Warmup,
            full_steps: 0,
            full_steps_needed: config.gate_hold_steps,
            predict_steps: 0,
            uncorrected_steps: 0,
            forced: None,
        }
    }

    /// The phase of the last step.
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// The next step leaves Predict and Correct, because of `why`.
    pub(super) fn force_full(&mut self, why: String) {
        self.forced = Some(why);
    }

    /// Begins a Full phase of full length, whatever came before; returns what did.
    pub(super) fn restart_in_full(&mut self, config: &HybridConfig) -> Phase {
        let from = self.phase;
        *self = Self { phase: Phase::Full, ..Self::new(config) };
        from
    }

    /// Decides the phase of the next step; tells when it is another one.
    /// Predict and Correct taking turns is routine and told by the steps themselves.
    pub(super) fn advance(&mut self, config: &HybridConfig, now: &Situation<'_>) -> Option<HybridEvent> {
        let from = self.phase;
        let (to, why) = self.decide(config, now);
        match to {
            Phase::Warmup => {}
            Phase::Full => self.full_steps = if from == Phase::Full { self.full_steps + 1 } else { 1 },
            Phase::Predict if from == Phase::Full => (self.predict_steps, self.uncorrected_steps) = (1, 1),
            Phase::Predict => {
                self.predict_steps += 1;
                self.uncorrected_steps += 1;
            }
            Phase::Correct => self.uncorrected_steps = 0,
        }
        self.phase = to;
        let is_routine = matches!((from, to), (Phase::Predict | Phase::Correct, Phase::Predict | Phase::Correct));
        (from != to && !is_routine).then_some(HybridEvent::Phase { from, to, why })
    }

    fn decide(&mut self, config: &HybridConfig, now: &Situation<'_>) -> (Phase, String) {
        let forced = self.forced.take();
        match self.phase {
            Phase::Warmup if now.step <= now.warmup_steps => (Phase::Warmup, String::new()),
            Phase::Warmup => {
                self.full_steps_needed = config.gate_hold_steps;
                (Phase::Full, format!("warmup of {} steps is over", now.warmup_steps))
            }
            Phase::Full => match forced {
                Some(why) => self.back_to_full(config.gate_hold_steps, why),
                None => self.decide_in_full(config, now),
            },
            Phase::Predict | Phase::Correct => match forced.or_else(|| trouble(config, now)) {
                Some(why) => self.back_to_full(config.gate_hold_steps, why),
                None => self.decide_in_predict(config),
            },
        }
    }

    fn decide_in_full(&self, config: &HybridConfig, now: &Situation<'_>) -> (Phase, String) {
        let has_held = self.full_steps >= self.full_steps_needed && now.gate.open_steps() >= self.full_steps_needed;
        let confidence = now.forecast_confidence.unwrap_or(0.0);
        if !(config.predict && has_held && confidence >= config.confidence_threshold) {
            return (Phase::Full, String::new());
        }
        let rho = now.gate.rho().unwrap_or(1.0);
        let why = format!(
            "gate open for {} steps: a slice of {:.1}% costs {:.0}% of a full step (rho {rho:.2}); {:.0}% of the last losses were foreseen",
            now.gate.open_steps(),
            100.0 * now.slice_fraction,
            100.0 * expected_cost(now.slice_fraction, rho),
            100.0 * confidence,
        );
        (Phase::Predict, why)
    }

    fn decide_in_predict(&mut self, config: &HybridConfig) -> (Phase, String) {
        if self.phase == Phase::Predict && self.uncorrected_steps >= config.correction_interval {
            return (Phase::Correct, String::new());
        }
        if self.predict_steps >= config.max_predict_steps {
            let refit_steps = MIN_REFIT_STEPS.max(config.gate_hold_steps / 4);
            let why =
                format!("horizon of {} predicted steps reached: refitting the forecast", config.max_predict_steps);
            return self.back_to_full(refit_steps, why);
        }
        (Phase::Predict, String::new())
    }

    fn back_to_full(&mut self, steps_needed: u32, why: String) -> (Phase, String) {
        self.full_steps = 0;
        self.full_steps_needed = steps_needed;
        (Phase::Full, why)
    }
}

/// What ends Predict before its horizon.
fn trouble(config: &HybridConfig, now: &Situation<'_>) -> Option<String> {
    if let Some(cosine) = now.cosine.filter(|&cosine| cosine < config.confidence_threshold) {
        let limit = config.confidence_threshold;
        return Some(format!("sampled and full gradient disagree: cosine {cosine:.2}, at least {limit:.2} wanted"));
    }
    if !now.gate.is_open() {
        let rho = now.gate.rho().unwrap_or(1.0);
        let cost = 100.0 * expected_cost(now.slice_fraction, rho);
        return Some(format!("sampling no longer pays: {cost:.0}% of a full step (rho {rho:.2})"));
    }
    None
}
