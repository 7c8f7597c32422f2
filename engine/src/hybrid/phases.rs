//! The phase machine: which phase the next step runs in, and why.
//!
//! ```text
//! Warmup -> Full -> Predict <-> Correct
//!            ^---------'-----------'
//! ```
//!
//! Predict lasts for its horizon (its Correct steps not counted), then one Full step makes the forecast anew. The
//! horizon begins at half of `max_predict_steps`; each phase that reaches it makes it longer by half, up to that
//! maximum, and trouble (shut gate, low confidence, divergence) halves it. Then Full lasts `gate_hold_steps` at least.
//! In the same way `correction_interval` is the longest distance between two Correct steps: where sampled and full
//! gradient agree less than well, it is halved, and comes back as they agree.

use serde::{Deserialize, Serialize};

use super::gate::{Gate, Source, StepCosts};
use super::report::{HybridEvent, Phase};
use super::{GateRule, HybridConfig};

/// Full steps between two Predict phases that nothing disturbed. One is enough, since losses are measured in Predict too.
const REFIT_STEPS: u32 = 1;

/// Shortest horizon, and shortest distance between corrections, unless the tier's own are shorter.
const MIN_HORIZON: u32 = 5;
const MIN_INTERVAL: u32 = 3;

/// Agreement of sampled and full gradient below which corrections come closer together.
const AGREEMENT: f64 = 0.9;

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
    /// What a Predict step costs.
    pub costs: StepCosts,
    /// How that is known.
    pub source: Source,
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
    /// Steps for which the gate must have been open; the first time more than there are Full ones.
    gate_steps_needed: u32,
    /// The user was told that the gate keeps this Full phase going.
    has_told_why_full: bool,
    /// Predict steps since Full.
    predict_steps: u32,
    /// Predict steps since Full or Correct.
    uncorrected_steps: u32,
    /// Predict steps of the present or next Predict phase.
    horizon: u32,
    /// Predict steps until the next Correct.
    interval: u32,
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
            gate_steps_needed: config.gate_hold_steps,
            has_told_why_full: false,
            predict_steps: 0,
            uncorrected_steps: 0,
            horizon: (config.max_predict_steps / 2).max(MIN_HORIZON).min(config.max_predict_steps),
            interval: config.correction_interval,
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
            Phase::Predict if from == Phase::Full => {
                (self.predict_steps, self.uncorrected_steps) = (1, 1);
                self.has_told_why_full = false;
            }
            Phase::Predict => {
                self.predict_steps += 1;
                self.uncorrected_steps += 1;
            }
            Phase::Correct => self.uncorrected_steps = 0,
        }
        self.phase = to;
        if self.must_tell_why_full(config, now) {
            self.has_told_why_full = true;
            return Some(HybridEvent::Note(format!("staying in Full: {}", now.cost_in_words())));
        }
        let is_routine = matches!((from, to), (Phase::Predict | Phase::Correct, Phase::Predict | Phase::Correct));
        (from != to && !is_routine).then_some(HybridEvent::Phase { from, to, why })
    }

    /// True once in a Full phase that would have ended if the gate were open.
    fn must_tell_why_full(&self, config: &HybridConfig, now: &Situation<'_>) -> bool {
        let is_late = self.phase == Phase::Full && self.full_steps > config.gate_hold_steps;
        config.strategy.predicts() && is_late && !now.gate.is_open() && !self.has_told_why_full
    }

    fn decide(&mut self, config: &HybridConfig, now: &Situation<'_>) -> (Phase, String) {
        let forced = self.forced.take();
        match self.phase {
            Phase::Warmup if now.step <= now.warmup_steps => (Phase::Warmup, String::new()),
            Phase::Warmup => {
                // The gate has watched Warmup too, so what it must hold may lie behind already.
                self.full_steps_needed = 1;
                (Phase::Full, format!("warmup of {} steps is over", now.warmup_steps))
            }
            Phase::Full => match forced {
                Some(why) => self.back_to_full(config.gate_hold_steps, why),
                None => self.decide_in_full(config, now),
            },
            Phase::Predict | Phase::Correct => {
                if let Some(cosine) = now.cosine {
                    self.interval = next_interval(self.interval, config.correction_interval, cosine);
                }
                match forced.or_else(|| trouble(config, now)) {
                    Some(why) => {
                        self.horizon = (self.horizon / 2).max(MIN_HORIZON).min(config.max_predict_steps);
                        self.back_to_full(config.gate_hold_steps, why)
                    }
                    None => self.decide_in_predict(config),
                }
            }
        }
    }

    fn decide_in_full(&self, config: &HybridConfig, now: &Situation<'_>) -> (Phase, String) {
        let has_held = self.full_steps >= self.full_steps_needed && now.gate.open_steps() >= self.gate_steps_needed;
        let confidence = now.forecast_confidence.unwrap_or(0.0);
        if !(config.strategy.predicts() && has_held && confidence >= config.confidence_threshold) {
            return (Phase::Full, String::new());
        }
        let foreseen = format!("{:.0}% of the last losses were foreseen", 100.0 * confidence);
        let why = match (config.gate, config.strategy.samples()) {
            (GateRule::Open, _) | (_, false) => foreseen,
            (GateRule::ByCost, true) => {
                format!("gate open for {} steps: {}; {foreseen}", now.gate.open_steps(), now.cost_in_words())
            }
        };
        (Phase::Predict, why)
    }

    fn decide_in_predict(&mut self, config: &HybridConfig) -> (Phase, String) {
        if self.phase == Phase::Predict && self.uncorrected_steps >= self.interval {
            return (Phase::Correct, String::new());
        }
        if self.predict_steps >= self.horizon {
            let why = format!("horizon of {} predicted steps reached: making the forecast anew", self.horizon);
            self.horizon = (self.horizon + self.horizon.div_ceil(2)).min(config.max_predict_steps);
            return self.back_to_full(REFIT_STEPS, why);
        }
        (Phase::Predict, String::new())
    }

    fn back_to_full(&mut self, steps_needed: u32, why: String) -> (Phase, String) {
        self.full_steps = 0;
        (self.full_steps_needed, self.gate_steps_needed) = (steps_needed, steps_needed);
        (Phase::Full, why)
    }
}

/// Corrections come closer together where gradients agree less than well.
fn next_interval(now: u32, longest: u32, cosine: f64) -> u32 {
    if cosine < AGREEMENT { (now / 2).max(MIN_INTERVAL).min(longest) } else { (now + now.div_ceil(2)).min(longest) }
}

impl Situation<'_> {
    /// What the gate compares: "a slice of 9.0% costs 41% of a full step for the same progress (rho 0.06, by counting passes)".
    fn cost_in_words(&self) -> String {
        let rho = self.gate.rho().unwrap_or(1.0);
        let cost = 100.0 * self.costs.per_progress(self.slice_fraction, rho);
        let slice = 100.0 * self.slice_fraction;
        format!(
            "a slice of {slice:.1}% costs {cost:.0}% of a full step for the same progress (rho {rho:.2}, {})",
            self.source
        )
    }
}

/// What ends Predict before its horizon.
fn trouble(config: &HybridConfig, now: &Situation<'_>) -> Option<String> {
    if let Some(cosine) = now.cosine.filter(|&cosine| cosine < config.confidence_threshold) {
        let limit = config.confidence_threshold;
        return Some(format!("sampled and full gradient disagree: cosine {cosine:.2}, at least {limit:.2} wanted"));
    }
    if !now.gate.is_open() {
        return Some(format!("sampling no longer pays: {}", now.cost_in_words()));
    }
    None
}
