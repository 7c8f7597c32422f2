//! The trainer's mind: everything it decides with, without a tensor in it.
//!
//! `begin_step` says which phase a step runs in; the trainer computes; `judge` takes in what was measured
//! and says what to do with the gradient. Replaying measurements replays the decisions, which is how the
//! tests below work and why a resumed run decides as an unbroken one.

use serde::{Deserialize, Serialize};

use super::exact;
use super::forecast::{Forecaster, Observed, Plan};
use super::gate::{Gate, Source, StepCosts};
use super::guard::{Guard, Limits, Observation};
use super::ladder::Ladder;
use super::loss_scale::LossScale;
use super::phases::{PhaseMachine, Situation};
use super::report::{Correction, Divergence, DivergenceKind, Forecast, GuardSignals, HybridEvent, Phase, Recovery};
use super::{GateRule, HybridConfig, Strategy};
use crate::quant::QatConfig;

/// Agreement of sampled and full gradient below which the slice grows, and above which it shrinks.
const GROW_BELOW: f64 = 0.9;
const SHRINK_ABOVE: f64 = 0.98;

/// Slice in units of ρ, at first: sampling then adds about as much noise (ρ/f times the batch's own) as the batch has,
/// which on digits cost nothing that could be measured. Agreement of gradients makes it larger, up to the second.
const SLICE_PER_RHO: f64 = 1.0;
const MOST_SLICE_PER_RHO: f64 = 6.0;

/// Largest slice: beyond half a batch a full backward is the better deal.
pub(crate) const MAX_SLICE: f64 = 0.5;

/// What a cut leaves of the learning rate, and what a rollback does: at nearly the same rate, restored
/// weights would diverge again.
const CUT: f64 = 0.5;
const CUT_AT_RESTORE: f64 = 0.25;

/// What does not change during a run.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub config: HybridConfig,
    pub warmup_steps: u64,
    pub plan: Plan,
    pub qat: Option<QatConfig>,
    /// Whether there are earlier weights to go back to.
    pub keeps_snapshots: bool,
    /// Loss of a network that says the same of all classes, nats; 0 where that is not known.
    pub untrained_loss: f64,
}

impl Rules {
    /// Strength of the quantization in a step; 0 without quantization-aware training.
    fn strength(&self, step: u64) -> f64 {
        self.qat.map_or(0.0, |qat| qat.strength(step, self.plan.num_steps))
    }
}

/// What a step's passes measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    /// Mean loss of the whole batch, nats.
    pub loss: f64,
    /// E[q]²/E[q²] of the batch; `None` when the tier does not predict.
    pub rho: Option<f64>,
    /// Norm of the gradient to step with; `None` when the sample was empty.
    pub grad_norm: Option<f64>,
    /// Cosine between sampled and full gradient, in a Correct step.
    pub cosine: Option<f64>,
    /// Learning rate over its peak.
    pub learning_rate_factor: f64,
    /// False when a weight was found to be NaN or infinite.
    pub has_finite_weights: bool,
}

/// What to do with the step, and what to tell about it.
#[derive(Debug, Clone)]
pub(super) struct Judgement {
    /// Loss that was expected of this step, in Predict and Correct.
    pub forecast: Option<Forecast>,
    pub correction: Option<Correction>,
    pub signals: GuardSignals,
    /// With a divergence the gradient is not applied; the recovery is carried out instead.
    pub divergence: Option<(Divergence, Recovery)>,
}

/// State of the decisions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Control {
    step: u64,
    phases: PhaseMachine,
    gate: Gate,
    forecaster: Forecaster,
    guard: Guard,
    ladder: Ladder,
    /// Share of a batch to sample, in units of ρ; what agreement asks for.
    #[serde(with = "exact")]
    slice_per_rho: f64,
    /// What a Predict step costs, once it was measured in this run.
    costs: Option<StepCosts>,
    #[serde(with = "exact")]
    learning_rate_cut: f64,
    #[serde(with = "exact")]
    confidence: Option<f64>,
    /// Strength of the quantization in the present step. States from before there was one have none.
    #[serde(default, with = "exact")]
    strength: f64,
    /// Of losses, where products are in fp16.
    #[serde(default)]
    loss_scale: LossScale,
}

impl Control {
    /// Before the first step.
    pub(super) fn new(config: &HybridConfig) -> Self {
        Self {
            step: 0,
            phases: PhaseMachine::new(config),
            gate: Gate::default(),
            forecaster: Forecaster::default(),
            guard: Guard::default(),
            ladder: Ladder::default(),
            slice_per_rho: SLICE_PER_RHO,
            costs: None,
            learning_rate_cut: 1.0,
            confidence: None,
            strength: 0.0,
            loss_scale: LossScale::default(),
        }
    }

    /// What losses are multiplied by, where products are in fp16.
    pub(super) fn loss_scale(&self) -> &LossScale {
        &self.loss_scale
    }

    /// Moves on to the next step and decides its phase; tells what changed of quantization and phase.
    pub(super) fn begin_step(&mut self, rules: &Rules) -> [Option<HybridEvent>; 2] {
        self.step += 1;
        let quantization = self.quantize(rules);
        let before = self.phases.phase();
        let (costs, source) = self.costs_for(&rules.config);
        let situation = Situation {
            step: self.step,
            warmup_steps: rules.warmup_steps,
            gate: &self.gate,
            slice_fraction: self.slice_fraction(&rules.config),
            costs,
            source,
            forecast_confidence: self.forecaster.confidence(),
            cosine: self.confidence.filter(|_| before == Phase::Correct),
        };
        let event = self.phases.advance(&rules.config, &situation);
        match (before, self.phase()) {
            (Phase::Warmup | Phase::Full, Phase::Predict | Phase::Correct) => self.forecaster.stand(&rules.plan),
            (_, Phase::Warmup | Phase::Full) => self.forecaster.withdraw(),
            (Phase::Predict | Phase::Correct, Phase::Predict | Phase::Correct) => {}
        }
        [quantization, event]
    }

    /// Takes the step's strength of quantization. Where it changes, the network computes another function: losses and
    /// gradients of before say nothing about those to come, so that forecaster and guard start afresh, in Full, until it
    /// no longer changes. NaN and infinity are judged all the same.
    fn quantize(&mut self, rules: &Rules) -> Option<HybridEvent> {
        let (before, strength) = (self.strength, rules.strength(self.step));
        let qat = rules.qat?;
        let scheme = qat.scheme.label();
        if before.to_bits() == strength.to_bits() {
            return None;
        }
        self.strength = strength;
        self.expect_nothing();
        self.phases.force_full(format!("quantization changes what the network computes ({scheme})"));
        let how = if strength >= 1.0 {
            format!("compute with {scheme} weights from here on")
        } else if before <= 0.0 {
            format!("turn to {scheme} weights step by step")
        } else {
            return None;
        };
        let rate = match qat.learning_rate_factor {
            1.0 => String::new(),
            factor if strength >= 1.0 => format!(", the learning rate is {factor} times that of full precision"),
            factor => format!(", the learning rate rises to {factor} times its value with them"),
        };
        Some(HybridEvent::Note(format!("forward passes {how}; the optimizer's state is kept{rate}")))
    }

    /// Forgets what was usual; what was measured of examples and of this machine stays.
    fn expect_nothing(&mut self) {
        self.forecaster = Forecaster::default();
        self.guard = Guard::default();
        self.confidence = None;
    }

    /// Takes in what the step measured.
    pub(super) fn judge(&mut self, rules: &Rules, measured: &Measured) -> Judgement {
        let (phase, loss) = (self.phase(), measured.loss);
        let outlook = self.forecaster.outlook(self.step, phase, &rules.plan);
        let forecast = outlook.filter(|_| phase.predicts()).map(|outlook| outlook.in_nats());
        let observation = Observation {
            loss,
            surprise: outlook.map(|outlook| outlook.surprise(loss)),
            excess: outlook.map(|outlook| outlook.excess(loss)),
            grad_norm: measured.grad_norm,
            is_sampled: phase == Phase::Predict,
            has_finite_weights: measured.has_finite_weights,
        };
        let limits = limits(rules);
        let divergence = self.guard.judge(&observation, &limits);

        // After a divergence, losses still too high do not teach the forecaster that this is normal.
        let is_trusted = self.ladder.is_calm(self.step) && divergence.is_none();
        let is_high = observation.surprise.is_some_and(|surprise| surprise > limits.divergence_sigma);
        if loss.is_finite() && (is_trusted || !is_high) {
            let observed = Observed {
                step: self.step,
                phase,
                loss,
                grad_norm: measured.grad_norm,
                rho: self.gate.rho(),
                learning_rate_factor: measured.learning_rate_factor,
            };
            self.forecaster.observe(&observed, outlook.as_ref(), &rules.plan);
        }
        self.watch_gate(&rules.config, measured.rho.filter(|rho| rho.is_finite()));
        let correction = (phase == Phase::Correct && divergence.is_none())
            .then(|| self.correct(rules, measured, forecast))
            .flatten();
        // The answer forgets them, and this step is the one at which they matter most.
        let signals = self.guard.signals();
        let divergence = divergence.map(|found| (found, self.answer(&found, rules.keeps_snapshots)));
        Judgement { forecast, correction, signals, divergence }
    }

    /// After a rollback: expectations go back to the snapshot's, so that restored losses are not surprising;
    /// steps, ladder and learning rate go on.
    pub(super) fn roll_back(&mut self, good: &Self) {
        if good.strength.to_bits() != self.strength.to_bits() {
            // Its expectations are of another function.
            return self.expect_nothing();
        }
        self.forecaster = good.forecaster.clone();
        self.forecaster.roll_back();
        self.guard = good.guard.clone();
        self.guard.forgive();
    }

    /// After the network was replaced by another: what was expected of that one's losses and gradients, and usual for
    /// them, does not hold for this one; steps, ladder and learning rate go on.
    pub(super) fn meet_another_network(&mut self) {
        self.gate = Gate::default();
        self.forecaster = Forecaster::default();
        self.guard = Guard::default();
        self.slice_per_rho = SLICE_PER_RHO;
        self.confidence = None;
        if self.phase().predicts() {
            self.phases.force_full("the network grew".to_owned());
        }
    }

    /// Steps up to `step` were done elsewhere; nothing was measured of them.
    pub(super) fn skip_to(&mut self, step: u64) {
        self.step = step;
    }

    /// When the guard had ended the run, makes it ready to go on: the ladder starts afresh and Full is next, while
    /// the learning rate stays cut. The event says so; `None` when nothing had ended it.
    pub(super) fn take_up_again(&mut self, rules: &Rules) -> Option<HybridEvent> {
        if !self.must_stop() {
            return None;
        }
        self.ladder = Ladder::default();
        let from = self.phases.restart_in_full(&rules.config);
        let weights = if rules.keeps_snapshots { "last good weights, " } else { "" };
        let rate = 100.0 * self.learning_rate_cut;
        let why = format!(
            "taken up again after the guard ended the run: {weights}learning rate at {rate:.2}% of its schedule"
        );
        Some(HybridEvent::Phase { from, to: Phase::Full, why })
    }

    /// Lets other settings lead from here on, of another tier or strategy: what was measured stays, phases begin in Full. `None` in Warmup,
    /// which is the same for all.
    pub(super) fn follow_another_tier(&mut self, config: &HybridConfig) -> Option<HybridEvent> {
        if self.phase() == Phase::Warmup {
            return None;
        }
        let from = self.phases.restart_in_full(config);
        self.forecaster.withdraw();
        let why =
            format!("other settings of prediction lead from here on, with the strategy {}", config.strategy.label());
        Some(HybridEvent::Phase { from, to: Phase::Full, why })
    }

    /// True when the guard looks at its signals at the end of this step.
    pub(super) fn is_check_due(&self, rules: &Rules) -> bool {
        self.guard.is_check_due(&limits(rules))
    }

    /// Step number, from 1; 0 before the first.
    pub(super) fn step(&self) -> u64 {
        self.step
    }

    /// Phase of the current step.
    pub(super) fn phase(&self) -> Phase {
        self.phases.phase()
    }

    /// Share of a batch that gets a backward pass in Predict: in proportion to ρ, within the tier's bounds. A tier's
    /// upper bound yields, up to half a batch, where sampled and full gradient disagree.
    pub(super) fn slice_fraction(&self, config: &HybridConfig) -> f64 {
        let wanted = self.slice_per_rho * self.gate.rho().unwrap_or(1.0);
        let slack = (self.slice_per_rho / SLICE_PER_RHO).max(1.0);
        let most = (slack * config.slice_fraction).min(MAX_SLICE.max(config.slice_fraction));
        wanted.clamp(config.min_slice_fraction, most)
    }

    /// What a Predict step was measured to cost.
    pub(super) fn costs(&self) -> Option<StepCosts> {
        self.costs
    }

    /// What a Predict step costs on this machine, which [`Strategy::Auto`] decides by.
    pub(super) fn set_costs(&mut self, costs: StepCosts) {
        self.costs = Some(costs);
    }

    /// Factor on the learning rate that divergences left.
    pub(super) fn learning_rate_cut(&self) -> f64 {
        self.learning_rate_cut
    }

    /// Forgets the cuts of the learning rate.
    pub(super) fn forget_learning_rate_cut(&mut self) {
        self.learning_rate_cut = 1.0;
    }

    /// A blow-up to recover from.
    #[cfg(test)]
    pub(super) fn scale_learning_rate(&mut self, factor: f64) {
        self.learning_rate_cut *= factor;
    }

    /// Strength of the quantization in the current step.
    pub(super) fn strength(&self) -> f64 {
        self.strength
    }

    /// Smoothed ρ.
    pub(super) fn rho(&self) -> Option<f64> {
        self.gate.rho()
    }

    /// Cosine of the last Correct; `None` before it, and when it compared nothing.
    pub(super) fn confidence(&self) -> Option<f64> {
        self.confidence
    }

    /// False shortly after a divergence, and while the last losses look like one.
    pub(super) fn is_trusted(&self, rules: &Rules) -> bool {
        self.ladder.is_calm(self.step) && !self.guard.is_wary(&limits(rules))
    }

    /// The strategy has nothing more to give: the next step leaves Predict.
    pub(super) fn end_prediction(&mut self, why: String) {
        self.phases.force_full(why);
    }

    /// True once the ladder's last rung was reached.
    pub(super) fn must_stop(&self) -> bool {
        self.ladder.must_stop()
    }

    fn correct(&mut self, rules: &Rules, measured: &Measured, forecast: Option<Forecast>) -> Option<Correction> {
        // Without one the next step must not decide by that of an earlier Correct.
        self.confidence = measured.cosine;
        if let Some(cosine) = measured.cosine {
            self.slice_per_rho = next_slice_per_rho(self.slice_per_rho, cosine);
        }
        let corrected = self.forecaster.correct(self.step, measured.loss, &rules.plan);
        Some(Correction {
            cosine: measured.cosine? as f32,
            predicted_loss: forecast?.mean,
            corrected_loss: corrected?.mean,
            actual_loss: measured.loss as f32,
            slice_fraction: self.slice_fraction(&rules.config) as f32,
            bias: self.forecaster.bias(),
        })
    }

    /// What the gate counts with, and how it is known.
    fn costs_for(&self, config: &HybridConfig) -> (StepCosts, Source) {
        match self.costs.filter(|_| config.strategy == Strategy::Auto) {
            Some(costs) => (costs, Source::Measured),
            None => (StepCosts::IDEAL, Source::Counted),
        }
    }

    fn watch_gate(&mut self, config: &HybridConfig, rho: Option<f64>) {
        let smooth = rho.map(|rho| self.gate.smooth(rho));
        match (config.gate, smooth) {
            (GateRule::Open, _) => self.gate.observe(0.0, config.gate_cost),
            (GateRule::ByCost, Some(rho)) => {
                let (costs, _) = self.costs_for(config);
                self.gate.observe(costs.per_progress(self.slice_fraction(config), rho), config.gate_cost);
            }
            (GateRule::ByCost, None) => {}
        }
    }

    fn answer(&mut self, divergence: &Divergence, keeps_snapshots: bool) -> Recovery {
        let recovery = match divergence.kind {
            DivergenceKind::WeightsNotFinite => self.ladder.climb_to_restore(self.step),
            DivergenceKind::NotFinite
            | DivergenceKind::LossSpike
            | DivergenceKind::GradientExplosion
            | DivergenceKind::GradientVanishing
            | DivergenceKind::Oscillation
            | DivergenceKind::Regression
            | DivergenceKind::AboveStart
            | DivergenceKind::RelativeError => self.ladder.climb(self.step),
        };
        let recovery = if keeps_snapshots { recovery } else { recovery.without_snapshots() };
        match recovery {
            Recovery::BackToFull | Recovery::RestoreWeights | Recovery::Stop | Recovery::End => {}
            Recovery::CutLearningRate => self.learning_rate_cut *= CUT,
            Recovery::Restore => self.learning_rate_cut *= CUT_AT_RESTORE,
        }
        self.guard.forgive();
        self.phases.force_full(format!("divergence: {divergence}"));
        recovery
    }
}

fn limits(rules: &Rules) -> Limits {
    let Rules { config, untrained_loss, .. } = rules;
    Limits {
        divergence_sigma: config.divergence_sigma,
        check_interval: config.check_interval,
        untrained_loss: *untrained_loss,
    }
}

/// The slice that suits this agreement of gradients, in units of ρ.
fn next_slice_per_rho(now: f64, cosine: f64) -> f64 {
    if cosine < GROW_BELOW {
        (1.5 * now).min(MOST_SLICE_PER_RHO)
    } else if cosine > SHRINK_ABOVE {
        (0.9 * now).max(SLICE_PER_RHO)
    } else {
        now
    }
}

impl Phase {
    /// True in Predict and Correct, while a forecast stands.
    #[must_use]
    pub fn predicts(self) -> bool {
        match self {
            Self::Warmup | Self::Full => false,
            Self::Predict | Self::Correct => true,
        }
    }
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
