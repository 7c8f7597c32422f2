//! What leads a training: phases, gate, forecaster and guard, with the rules that they follow. It holds no weight.
//!
//! [`super::HybridTrainer`] computes in memory and is led by one. Who computes elsewhere, as `offload` does from disk,
//! asks before each step what to do ([`Pilot::begin_step`]), shows what the forward pass measured before anything moves
//! ([`Pilot::choose`]), and tells at the end what came of it ([`Pilot::end_step`]).

use serde::{Deserialize, Serialize};

use super::control::{Control, Judgement, Measured, Rules};
use super::forecast::{Plan, Rates};
use super::passes::Seen;
use super::sampler::{self, Sample};
use super::{HybridConfig, HybridError, HybridEvent, Phase, StepCosts, StepReport, Strategy};
use crate::optim::Schedule;
use crate::quant::QatConfig;

/// What a training is led by.
#[derive(Debug, Clone)]
pub struct Pilot {
    pub(super) control: Control,
    pub(super) rules: Rules,
    pub(super) schedule: Schedule,
    num_steps: u64,
    pub(super) seed: u64,
    /// To be told with the next step.
    untold: Option<HybridEvent>,
}

/// What a saved state of a trainer that computes elsewhere holds.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    /// Settings that led so far.
    config: HybridConfig,
    /// Peak learning rate so far; `None` in states from before it was kept.
    #[serde(default)]
    peak_learning_rate: Option<f64>,
    control: Control,
}

/// What a step of a trainer that computes elsewhere is to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct StepOrder {
    /// Learning rate over its peak.
    pub learning_rate_factor: f64,
    /// Whether predicted gradient norms are wanted of the forward pass.
    pub measures_errors: bool,
    /// Whether nothing, or a sample alone, is likely to go back, so that a forward pass need not prepare more.
    pub looks_first: bool,
}

/// Which units of a batch go back, once its losses are known.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Backward {
    /// None: the step moves nothing.
    Nothing,
    /// All, each with the same weight.
    All,
    /// These alone.
    Sample(Sample),
    /// All, and these once more, to compare.
    AllAndSample(Sample),
}

/// What came of a step's passes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outcome {
    /// Length of the gradient that moved the weights; `None` where none did.
    pub grad_norm: Option<f64>,
    /// Cosine of sampled and full gradient, where both were computed.
    pub cosine: Option<f64>,
    /// Units that went forward; one that went twice counts twice.
    pub units_forward: usize,
    /// Units that went backward; one that went twice counts twice.
    pub units_backward: usize,
    /// Images or tokens in each unit.
    pub examples_per_unit: usize,
    /// Peak learning rate.
    pub peak_learning_rate: f64,
    /// True when a number was NaN or infinite that says the same of weights.
    pub has_ruined_weights: bool,
}

/// Earlier weights to go back to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Good<'a> {
    /// After this step.
    pub step: u64,
    /// [`Pilot::state`] then.
    pub state: &'a str,
}

impl Pilot {
    /// Before the first step of a training of plain weights that keeps no snapshot to go back to, until
    /// [`Self::keep_snapshots`] says that it does.
    /// Errors: [`HybridError::Config`] for settings out of range, and for a strategy that keeps copies of the weights.
    pub fn without_snapshots(
        config: HybridConfig,
        schedule: Schedule,
        num_steps: u64,
        seed: u64,
    ) -> Result<Self, HybridError> {
        if config.strategy.weight_copies() > 0 {
            let (expected, found) = ("none, auto, importance or frozen", config.strategy.label().to_owned());
            return Err(HybridError::Config { name: "strategy", expected, found });
        }
        let mut pilot = Self::new(config, schedule, num_steps, seed, None)?;
        pilot.rules.keeps_snapshots = false;
        Ok(pilot)
    }

    /// Before the first step.
    pub(super) fn new(
        config: HybridConfig,
        schedule: Schedule,
        num_steps: u64,
        seed: u64,
        qat: Option<QatConfig>,
    ) -> Result<Self, HybridError> {
        config.check()?;
        let warmup_steps = (config.warmup_fraction * num_steps as f64).ceil() as u64;
        let plan = Plan { seed, num_steps, rates: Rates::Planned(schedule) };
        let control = Control::new(&config);
        let rules = Rules { config, warmup_steps, plan, qat, keeps_snapshots: true, untrained_loss: 0.0 };
        Ok(Self { control, rules, schedule, num_steps, seed, untold: None })
    }

    /// What is told with the next step.
    pub(crate) fn note(&mut self, what: String) {
        self.untold.get_or_insert(HybridEvent::Note(what));
    }

    /// Of so many classes or tokens the network says which: what it loses without having learned anything.
    pub(crate) fn set_num_classes(&mut self, num_classes: usize) {
        self.rules.untrained_loss = (num_classes as f64).ln();
    }

    /// From here on there are earlier weights to go back to.
    pub(crate) fn keep_snapshots(&mut self, are_kept: bool) {
        self.rules.keeps_snapshots = are_kept;
    }

    /// What a Predict step was measured to cost; [`Strategy::Auto`] decides by it from here on, unless a saved state that
    /// is restored later has costs of its own.
    pub fn set_step_costs(&mut self, costs: StepCosts) {
        self.control.set_costs(costs);
    }

    /// All that decides later steps, as JSON whose numbers are exact.
    pub(crate) fn state(&self, peak_learning_rate: f64) -> Result<String, HybridError> {
        let saved = Saved {
            config: self.rules.config.clone(),
            peak_learning_rate: Some(peak_learning_rate),
            control: self.control.clone(),
        };
        serde_json::to_string(&saved).map_err(|source| HybridError::Control { source })
    }

    /// The peak learning rate of a saved state; `None` in one from before it was kept, and where it is none.
    pub(crate) fn peak_learning_rate_of(state: &str) -> Option<f64> {
        serde_json::from_str::<Saved>(state).ok()?.peak_learning_rate
    }

    /// Goes on from a saved state. In Full, where another tier or strategy led before; and where the guard had ended the
    /// training, at the learning rate to which it was cut, unless another peak is asked for than led before: that one holds.
    /// Errors: [`HybridError::Control`].
    pub(crate) fn restore(&mut self, state: &str, peak_learning_rate: f64) -> Result<(), HybridError> {
        let measured = self.control.costs();
        let saved: Saved = serde_json::from_str(state).map_err(|source| HybridError::Control { source })?;
        self.control = saved.control;
        if saved.peak_learning_rate.is_some_and(|before| before.to_bits() != peak_learning_rate.to_bits()) {
            self.control.forget_learning_rate_cut();
        }
        if let Some(costs) = measured.filter(|_| self.control.costs().is_none()) {
            self.control.set_costs(costs);
        }
        self.take_up_again();
        if self.untold.is_none() && saved.config != self.rules.config {
            self.untold = self.control.follow_another_tier(&self.rules.config);
        }
        Ok(())
    }

    pub(super) fn take_up_again(&mut self) {
        self.untold = self.control.take_up_again(&self.rules);
    }

    /// Steps up to `step` were done without it.
    pub(crate) fn skip_to(&mut self, step: u64) {
        self.control.skip_to(step);
    }

    /// Steps done.
    pub(crate) fn num_steps_done(&self) -> u64 {
        self.control.step()
    }

    /// True once the guard ended the training.
    pub(crate) fn must_stop(&self) -> bool {
        self.control.must_stop()
    }

    /// Moves on to the next step and decides its phase; what is to be told of that.
    /// Errors: [`HybridError::Stopped`] after the guard ended the training.
    pub(super) fn advance(&mut self) -> Result<Vec<HybridEvent>, HybridError> {
        if self.control.must_stop() {
            return Err(HybridError::Stopped { step: self.control.step() + 1 });
        }
        let [quantization, phase] = self.control.begin_step(&self.rules);
        Ok([self.untold.take(), quantization, phase].into_iter().flatten().collect())
    }

    /// What the next step is to do, and what is to be told of it.
    /// Errors: [`HybridError::Stopped`] after the guard ended the training.
    pub(crate) fn begin_step(&mut self) -> Result<(StepOrder, Vec<HybridEvent>), HybridError> {
        let events = self.advance()?;
        let phase = self.control.phase();
        let order = StepOrder {
            learning_rate_factor: self.learning_rate_factor(),
            measures_errors: self.rules.config.strategy.predicts(),
            looks_first: phase == Phase::Predict && self.slice_fraction() < 1.0,
        };
        Ok((order, events))
    }

    /// What goes back of a batch that the forward pass has measured. Nothing where its loss is a divergence, which
    /// [`Self::end_step`] will say.
    pub(crate) fn choose(&self, seen: &Seen) -> Backward {
        let measured = self.measured(seen, Outcome::default());
        if self.control.clone().judge(&self.rules, &measured).divergence.is_some() {
            return Backward::Nothing;
        }
        let samples = self.rules.config.strategy.samples();
        match self.control.phase() {
            Phase::Warmup | Phase::Full => Backward::All,
            Phase::Predict if samples && self.slice_fraction() < 1.0 => match self.draw(seen, sampler::draw) {
                sample if sample.indices.is_empty() => Backward::Nothing,
                sample => Backward::Sample(sample),
            },
            Phase::Predict if self.rules.config.strategy == Strategy::Frozen => Backward::Nothing,
            Phase::Correct if samples => Backward::AllAndSample(self.draw(seen, sampler::draw_to_compare)),
            Phase::Predict | Phase::Correct => Backward::All,
        }
    }

    /// Takes in what a step measured and did; `events` are those of its beginning.
    ///
    /// Where a divergence is answered with earlier weights, these are `good`'s: its expectations hold from here on, and the
    /// report says so. Errors: [`HybridError::Control`] for a state of `good` that is none.
    pub(crate) fn end_step(
        &mut self,
        seen: &Seen,
        outcome: Outcome,
        mut events: Vec<HybridEvent>,
        good: Option<Good<'_>>,
    ) -> Result<StepReport, HybridError> {
        let measured = self.measured(seen, outcome);
        let judgement = self.control.judge(&self.rules, &measured);
        if let Some((divergence, recovery)) = judgement.divergence {
            let good = good.filter(|_| recovery.restores());
            if let Some(good) = good {
                let saved: Saved =
                    serde_json::from_str(good.state).map_err(|source| HybridError::Control { source })?;
                self.control.roll_back(&saved.control);
            }
            events.push(HybridEvent::Diverged { divergence, recovery, restored_step: good.map(|good| good.step) });
        }
        Ok(self.report(seen, &measured, &judgement, outcome, events))
    }

    /// True where the state after the last step may be one to go back to.
    pub(crate) fn is_trusted(&self) -> bool {
        self.control.is_trusted(&self.rules)
    }

    fn measured(&self, seen: &Seen, outcome: Outcome) -> Measured {
        Measured {
            loss: seen.mean_loss(),
            rho: seen.rho(),
            grad_norm: outcome.grad_norm,
            cosine: outcome.cosine,
            learning_rate_factor: self.learning_rate_factor(),
            has_finite_weights: !outcome.has_ruined_weights,
        }
    }

    /// The step as the control saw it.
    pub(super) fn report(
        &self,
        seen: &Seen,
        measured: &Measured,
        judgement: &Judgement,
        outcome: Outcome,
        events: Vec<HybridEvent>,
    ) -> StepReport {
        let examples = |units: usize| (units * outcome.examples_per_unit) as u32;
        StepReport {
            step: self.control.step(),
            phase: self.control.phase(),
            loss: measured.loss as f32,
            forecast: judgement.forecast,
            grad_norm: outcome.grad_norm.map(|norm| norm as f32),
            learning_rate: (outcome.peak_learning_rate * measured.learning_rate_factor) as f32,
            rho: self.control.rho().map_or(f32::NAN, |rho| rho as f32),
            confidence: self.control.confidence().map(|cosine| cosine as f32),
            num_examples: examples(seen.losses.len()),
            num_forward: examples(outcome.units_forward),
            num_backward: examples(outcome.units_backward),
            correction: judgement.correction,
            signals: judgement.signals,
            quantization: self.rules.qat.is_some().then(|| self.control.strength() as f32),
            distillation: seen.mean_distillation().map(|loss| loss as f32),
            events,
            must_stop: self.control.must_stop(),
        }
    }

    /// True after the last step of Warmup.
    pub(crate) fn is_at_end_of_warmup(&self) -> bool {
        self.control.step() == self.rules.warmup_steps
    }

    /// Share of a batch that a sample takes.
    pub(super) fn slice_fraction(&self) -> f64 {
        self.control.slice_fraction(&self.rules.config)
    }

    /// The sample of this step.
    fn draw(&self, seen: &Seen, draw: sampler::Draw) -> Sample {
        sampler::of_step(&seen.errors, self.slice_fraction(), (self.seed, self.control.step()), draw)
    }

    /// Learning rate of this step over its peak.
    pub(super) fn learning_rate_factor(&self) -> f64 {
        let of_quantization = self.rules.qat.map_or(1.0, |qat| qat.learning_rate_factor_at(self.control.strength()));
        self.planned_learning_rate_factor() * of_quantization * self.control.learning_rate_cut()
    }

    /// The same by the schedule alone; of the first step before it.
    pub(super) fn planned_learning_rate_factor(&self) -> f64 {
        self.schedule.factor(self.control.step().max(1), self.num_steps)
    }
}
