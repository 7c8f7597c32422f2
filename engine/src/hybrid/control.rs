//! The trainer's mind: everything it decides with, without a tensor in it.
//!
//! `begin_step` says which phase a step runs in; the trainer computes; `judge` takes in what was measured
//! and says what to do with the gradient. Replaying measurements replays the decisions, which is how the
//! tests below work and why a resumed run decides as an unbroken one.

use serde::{Deserialize, Serialize};

use super::HybridConfig;
use super::exact;
use super::forecaster::Forecaster;
use super::gate::Gate;
use super::guard::{Guard, Limits, Observation};
use super::ladder::Ladder;
use super::phases::{PhaseMachine, Situation};
use super::report::{Correction, Divergence, Forecast, GuardSignals, HybridEvent, Phase, Recovery};

/// Agreement of sampled and full gradient below which the slice grows, and above which it shrinks.
const GROW_BELOW: f64 = 0.9;
const SHRINK_ABOVE: f64 = 0.98;

/// Largest slice: beyond half a batch a full backward is the better deal.
const MAX_SLICE: f64 = 0.5;

/// What a cut leaves of the learning rate, and what a rollback does: at nearly the same rate, restored
/// weights would diverge again.
const CUT: f64 = 0.5;
const CUT_AT_RESTORE: f64 = 0.25;

/// What does not change during a run.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub config: HybridConfig,
    pub warmup_steps: u64,
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
    #[serde(with = "exact")]
    slice_fraction: f64,
    #[serde(with = "exact")]
    learning_rate_cut: f64,
    #[serde(with = "exact")]
    confidence: Option<f64>,
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
            slice_fraction: config.slice_fraction,
            learning_rate_cut: 1.0,
            confidence: None,
        }
    }

    /// Moves on to the next step and decides its phase.
    pub(super) fn begin_step(&mut self, rules: &Rules) -> Option<HybridEvent> {
        self.step += 1;
        let before = self.phases.phase();
        let situation = Situation {
            step: self.step,
            warmup_steps: rules.warmup_steps,
            gate: &self.gate,
            slice_fraction: self.slice_fraction,
            forecast_confidence: self.forecaster.confidence(),
            cosine: self.confidence.filter(|_| before == Phase::Correct),
        };
        let event = self.phases.advance(&rules.config, &situation);
        match (before, self.phase()) {
            (Phase::Warmup | Phase::Full, Phase::Predict | Phase::Correct) => self.forecaster.stand(),
            (_, Phase::Warmup | Phase::Full) => self.forecaster.withdraw(),
            (Phase::Predict | Phase::Correct, Phase::Predict | Phase::Correct) => {}
        }
        event
    }

    /// Takes in what the step measured.
    pub(super) fn judge(&mut self, rules: &Rules, measured: &Measured) -> Judgement {
        let (phase, loss) = (self.phase(), measured.loss);
        let outlook = self.forecaster.outlook(self.step);
        let forecast = outlook.filter(|_| phase.predicts()).map(|outlook| outlook.in_nats());
        let observation = Observation {
            loss,
            surprise: outlook.map(|outlook| outlook.surprise(loss)),
            grad_norm: measured.grad_norm,
            is_sampled: phase == Phase::Predict,
        };
        let limits =
            Limits { divergence_sigma: rules.config.divergence_sigma, check_interval: rules.config.check_interval };
        let divergence = self.guard.judge(&observation, &limits);

        // After a divergence, losses still too high do not teach the forecaster that this is normal.
        let is_trusted = self.ladder.is_calm(self.step) && divergence.is_none();
        let is_high = observation.surprise.is_some_and(|surprise| surprise > limits.divergence_sigma);
        if loss.is_finite() && (is_trusted || !is_high) {
            self.forecaster.observe(self.step, loss, outlook.as_ref());
        }
        if let Some(rho) = measured.rho.filter(|rho| rho.is_finite()) {
            self.gate.observe(rho, self.slice_fraction, rules.config.gate_cost);
        }
        let correction = (phase == Phase::Correct && divergence.is_none())
            .then(|| self.correct(rules, measured, forecast))
            .flatten();
        // The answer forgets them, and this step is the one at which they matter most.
        let signals = self.guard.signals();
        let divergence = divergence.map(|found| (found, self.answer(&found)));
        Judgement { forecast, correction, signals, divergence }
    }

    /// After a rollback: expectations go back to the snapshot's, so that restored losses are not surprising;
    /// steps, ladder and learning rate go on.
    pub(super) fn roll_back(&mut self, good: &Self) {
        self.forecaster = good.forecaster.clone();
        self.forecaster.withdraw();
        self.guard = good.guard.clone();
        self.guard.forgive();
    }

    /// When the guard had ended the run, makes it ready to go on: the ladder starts afresh and Full is next, while
    /// the learning rate stays cut. The event says so; `None` when nothing had ended it.
    pub(super) fn take_up_again(&mut self, config: &HybridConfig) -> Option<HybridEvent> {
        if !self.must_stop() {
            return None;
        }
        self.ladder = Ladder::default();
        let from = self.phases.restart_in_full(config);
        let rate = 100.0 * self.learning_rate_cut;
        let why = format!(
            "taken up again after the guard ended the run: last good weights, learning rate at {rate:.2}% of its schedule"
        );
        Some(HybridEvent::Phase { from, to: Phase::Full, why })
    }

    /// Step number, from 1; 0 before the first.
    pub(super) fn step(&self) -> u64 {
        self.step
    }

    /// Phase of the current step.
    pub(super) fn phase(&self) -> Phase {
        self.phases.phase()
    }

    /// Share of a batch that gets a backward pass in Predict.
    pub(super) fn slice_fraction(&self) -> f64 {
        self.slice_fraction
    }

    /// Factor on the learning rate that divergences left.
    pub(super) fn learning_rate_cut(&self) -> f64 {
        self.learning_rate_cut
    }

    /// A blow-up to recover from.
    #[cfg(test)]
    pub(super) fn scale_learning_rate(&mut self, factor: f64) {
        self.learning_rate_cut *= factor;
    }

    /// Smoothed ρ.
    pub(super) fn rho(&self) -> Option<f64> {
        self.gate.rho()
    }

    /// Cosine of the last Correct; `None` before it, and when it compared nothing.
    pub(super) fn confidence(&self) -> Option<f64> {
        self.confidence
    }

    /// False shortly after a divergence.
    pub(super) fn is_calm(&self) -> bool {
        self.ladder.is_calm(self.step)
    }

    /// True once the ladder's last rung was reached.
    pub(super) fn must_stop(&self) -> bool {
        self.ladder.must_stop()
    }

    fn correct(&mut self, rules: &Rules, measured: &Measured, forecast: Option<Forecast>) -> Option<Correction> {
        // Without one the next step must not decide by that of an earlier Correct.
        self.confidence = measured.cosine;
        if let Some(cosine) = measured.cosine {
            self.slice_fraction = self.next_slice(&rules.config, cosine);
        }
        let corrected = self.forecaster.correct(self.step);
        Some(Correction {
            cosine: measured.cosine? as f32,
            predicted_loss: forecast?.mean,
            corrected_loss: corrected?.mean,
            actual_loss: measured.loss as f32,
            slice_fraction: self.slice_fraction as f32,
        })
    }

    /// The slice that suits this agreement of gradients. It does not shrink below ρ, where it would begin to
    /// cost more than it saves and shut the gate by itself.
    fn next_slice(&self, config: &HybridConfig, cosine: f64) -> f64 {
        let now = self.slice_fraction;
        if cosine < GROW_BELOW {
            (1.5 * now).min(MAX_SLICE.max(config.slice_fraction))
        } else if cosine > SHRINK_ABOVE {
            let least = config.min_slice_fraction.max(self.gate.rho().unwrap_or(1.0));
            (0.9 * now).max(least).min(now)
        } else {
            now
        }
    }

    fn answer(&mut self, divergence: &Divergence) -> Recovery {
        let recovery = self.ladder.climb(self.step);
        match recovery {
            Recovery::BackToFull | Recovery::Stop => {}
            Recovery::CutLearningRate => self.learning_rate_cut *= CUT,
            Recovery::Restore => self.learning_rate_cut *= CUT_AT_RESTORE,
        }
        self.guard.forgive();
        let Divergence { kind, value, limit } = divergence;
        self.phases.force_full(format!("divergence: {kind:?}, {value:.3} against a limit of {limit:.3}"));
        recovery
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
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::synthetic::LossCurve;
    use super::*;

    fn conservative() -> HybridConfig {
        HybridConfig {
            predict: true,
            max_predict_steps: 50,
            confidence_threshold: 0.6,
            correction_interval: 15,
            divergence_sigma: 2.2,
            check_interval: 3,
            slice_fraction: 0.125,
            min_slice_fraction: 0.0625,
            gate_cost: 0.9,
            gate_hold_steps: 20,
            warmup_fraction: 0.05,
        }
    }

    /// What a calm run measures: sampling pays, gradients agree.
    fn calm(loss: f64) -> Measured {
        Measured { loss, rho: Some(0.1), grad_norm: Some(1.0), cosine: Some(0.95) }
    }

    /// Runs `num_steps` of `measure(step, phase)`: the phases in runs ("W5 F20 P15"), and the divergences.
    fn replay(
        config: HybridConfig,
        num_steps: u64,
        measure: impl Fn(u64, Phase) -> Measured,
    ) -> (String, Vec<(u64, Divergence, Recovery)>) {
        let rules = Rules { config, warmup_steps: 5 };
        let mut control = Control::new(&rules.config);
        let mut runs: Vec<(Phase, usize)> = Vec::new();
        let mut divergences = Vec::new();
        for step in 1..=num_steps {
            control.begin_step(&rules);
            let phase = control.phase();
            match runs.last_mut() {
                Some((last, count)) if *last == phase => *count += 1,
                Some(_) | None => runs.push((phase, 1)),
            }
            let judgement = control.judge(&rules, &measure(step, phase));
            divergences.extend(judgement.divergence.map(|(found, recovery)| (step, found, recovery)));
        }
        let letter = |phase| match phase {
            Phase::Warmup => 'W',
            Phase::Full => 'F',
            Phase::Predict => 'P',
            Phase::Correct => 'C',
        };
        let text: Vec<String> = runs.iter().map(|&(phase, count)| format!("{}{count}", letter(phase))).collect();
        (text.join(" "), divergences)
    }

    #[track_caller]
    fn check(config: HybridConfig, num_steps: u64, measure: impl Fn(u64, Phase) -> Measured, phases: &str) {
        let (found, divergences) = replay(config, num_steps, measure);
        assert_eq!(found, phases, "{divergences:?}");
    }

    fn falling(step: u64) -> f64 {
        LossCurve::falling(1, 0.05).measured(step)
    }

    #[test]
    fn an_open_gate_makes_most_steps_predict() {
        check(
            conservative(),
            140,
            |step, _| calm(falling(step)),
            "W5 F20 P15 C1 P15 C1 P15 C1 P5 F5 P15 C1 P15 C1 P15 C1 P5 F4",
        );
    }

    #[test]
    fn vanilla_never_predicts() {
        let vanilla = HybridConfig { predict: false, ..conservative() };
        check(vanilla, 140, |step, _| Measured { rho: None, ..calm(falling(step)) }, "W5 F135");
    }

    #[test]
    fn a_shut_gate_stays_in_full() {
        check(conservative(), 140, |step, _| Measured { rho: Some(0.9), ..calm(falling(step)) }, "W5 F135");
    }

    #[test]
    fn a_gate_that_shuts_ends_prediction() {
        let rho = |step| if step < 40 { 0.1 } else { 0.9 };
        check(
            conservative(),
            80,
            |step, _| Measured { rho: Some(rho(step)), ..calm(falling(step)) },
            "W5 F20 P15 C1 P1 F38",
        );
    }

    #[test]
    fn disagreeing_gradients_end_prediction() {
        let doubtful = |step: u64, _| Measured { cosine: Some(0.4), ..calm(falling(step)) };
        check(conservative(), 62, doubtful, "W5 F20 P15 C1 F20 P1");
    }

    #[test]
    fn an_unforeseen_loss_delays_prediction() {
        let patient = HybridConfig { gate_hold_steps: 60, confidence_threshold: 0.85, ..conservative() };
        check(patient.clone(), 70, |step, _| calm(falling(step)), "W5 F60 P5");
        // Shortly before Predict would begin, the loss drops to a fifth: good news, but not what was forecast.
        let dropping = |step| if step < 57 { falling(step) } else { 0.2 * falling(step) };
        let (phases, divergences) = replay(patient, 120, |step, _| calm(dropping(step)));
        let full_steps: u32 = phases.split(' ').nth(1).and_then(|run| run.strip_prefix('F')?.parse().ok()).unwrap();
        assert!((61..110).contains(&full_steps) && divergences.is_empty(), "{phases} {divergences:?}");
    }

    #[test]
    fn a_spike_that_stays_ends_prediction() {
        let loss = |step| if step < 50 { falling(step) } else { 9.0 };
        let (phases, divergences) = replay(conservative(), 60, |step, _| calm(loss(step)));
        assert_eq!(phases, "W5 F20 P15 C1 P13 F6");
        let (step, found, recovery) = divergences[0];
        assert_eq!((step, recovery), (54, Recovery::BackToFull));
        assert!(found.value > found.limit);
    }

    #[test]
    fn the_step_that_diverged_shows_the_signal_that_told() {
        let rules = Rules { config: conservative(), warmup_steps: 5 };
        let mut control = Control::new(&rules.config);
        let diverged = (1..=60).find_map(|step| {
            control.begin_step(&rules);
            let loss = if step < 50 { falling(step) } else { 9.0 };
            let judgement = control.judge(&rules, &calm(loss));
            judgement.divergence.map(|(found, _)| (found, judgement.signals))
        });
        let (found, signals) = diverged.unwrap();
        assert_eq!(signals.loss_z, Some(found.value));
        control.begin_step(&rules);
        let after = control.judge(&rules, &calm(9.0)).signals;
        assert_eq!(after.loss_z, None, "the answer to it gets time to work");
    }

    #[test]
    fn a_correct_that_compared_nothing_decides_nothing() {
        let rules = Rules { config: conservative(), warmup_steps: 5 };
        let mut control = Control::new(&rules.config);
        let mut corrections = Vec::new();
        for step in 1..=73 {
            control.begin_step(&rules);
            // The first Correct finds good agreement, the second an empty sample.
            let cosine = (step < 50).then_some(0.95);
            let judgement = control.judge(&rules, &Measured { cosine, ..calm(falling(step)) });
            if control.phase() == Phase::Correct {
                corrections.push((judgement.correction.map(|correction| correction.cosine), control.confidence()));
            }
        }
        assert_eq!(corrections[..2], [(Some(0.95), Some(0.95)), (None, None)]);
        assert_eq!(control.phase(), Phase::Correct, "prediction went on");
    }

    #[test]
    fn a_run_that_the_guard_ended_can_be_taken_up_again() {
        let rules = Rules { config: conservative(), warmup_steps: 5 };
        let mut control = Control::new(&rules.config);
        assert_eq!(control.take_up_again(&rules.config), None, "nothing ended it");
        let mut step = 0;
        while !control.must_stop() {
            step += 1;
            control.begin_step(&rules);
            control.judge(&rules, &calm(if step < 50 { falling(step) } else { 9.0 }));
        }
        let event = control.take_up_again(&rules.config);
        assert!(matches!(event, Some(HybridEvent::Phase { to: Phase::Full, .. })), "{event:?}");
        assert!(!control.must_stop() && control.is_calm());
        assert_eq!(control.learning_rate_cut(), CUT * CUT_AT_RESTORE, "the learning rate stays cut");
        control.begin_step(&rules);
        assert_eq!(control.phase(), Phase::Full);
        let again = control.judge(&rules, &calm(f64::NAN)).divergence;
        assert!(matches!(again, Some((_, Recovery::BackToFull))), "the ladder starts at its first rung");
    }

    #[test]
    fn a_lasting_divergence_climbs_the_ladder() {
        let loss = |step| if step < 50 { falling(step) } else { 9.0 };
        let (_, divergences) = replay(conservative(), 100, |step, _| calm(loss(step)));
        let recoveries: Vec<Recovery> = divergences.iter().map(|&(_, _, recovery)| recovery).collect();
        let ladder = [Recovery::BackToFull, Recovery::CutLearningRate, Recovery::Restore, Recovery::Stop];
        assert_eq!(recoveries[..4], ladder);
    }

    #[test]
    fn nan_is_answered_at_once() {
        let measure = |step, _| calm(if step == 30 { f64::NAN } else { falling(step) });
        let (phases, divergences) = replay(conservative(), 60, measure);
        assert_eq!(divergences.len(), 1);
        assert!(matches!(divergences[0], (30, _, Recovery::BackToFull)));
        assert_eq!(phases, "W5 F20 P5 F20 P10");
    }

    #[test]
    fn healthy_runs_of_any_noise_trigger_nothing() {
        for noise in [0.005, 0.05, 0.2, 0.5, 0.9] {
            for seed in 0..20 {
                let curve = LossCurve::falling(seed, noise);
                let norms = LossCurve::falling(seed + 1000, 1.5 * noise);
                let measure = |step, phase| {
                    let sampled = if phase == Phase::Predict { 1.7 } else { 1.0 };
                    Measured { grad_norm: Some(sampled * norms.measured(step)), ..calm(curve.measured(step)) }
                };
                let (phases, divergences) = replay(conservative(), 1000, measure);
                assert!(divergences.is_empty(), "noise {noise}, seed {seed}: {divergences:?}");
                assert!(phases.contains('P'), "noise {noise}, seed {seed}: a foreseeable run predicts: {phases}");
            }
        }
    }

    #[test]
    fn the_slice_follows_the_agreement() {
        let rules = Rules { config: conservative(), warmup_steps: 5 };
        let mut control = Control::new(&rules.config);
        control.gate.observe(0.1, 0.125, 0.9);
        assert!((control.next_slice(&rules.config, 0.99) - 0.1125).abs() < 1e-12);
        assert!((control.next_slice(&rules.config, 0.95) - 0.125).abs() < 1e-12);
        assert!((control.next_slice(&rules.config, 0.8) - 0.1875).abs() < 1e-12);
        control.slice_fraction = 0.11;
        assert!((control.next_slice(&rules.config, 0.99) - 0.1).abs() < 1e-12, "not below rho");
        control.slice_fraction = 0.4;
        assert!((control.next_slice(&rules.config, 0.1) - 0.5).abs() < 1e-12, "not above half");
    }

    #[test]
    fn a_saved_control_decides_like_the_original() {
        let rules = Rules { config: conservative(), warmup_steps: 5 };
        let mut control = Control::new(&rules.config);
        let go = |control: &mut Control, steps: std::ops::Range<u64>| {
            for step in steps {
                control.begin_step(&rules);
                control.judge(&rules, &calm(falling(step)));
            }
        };
        go(&mut control, 1..45);
        let text = serde_json::to_string(&control).unwrap();
        let mut twin: Control = serde_json::from_str(&text).unwrap();
        assert_eq!(twin, control);
        go(&mut control, 45..150);
        go(&mut twin, 45..150);
        assert_eq!(twin, control);
    }
}
