//! The hybrid trainer: one step, readable top to bottom.

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;

use super::control::{Control, Judgement, Measured, Rules};
use super::forecast::{Plan, Rates};
use super::passes::{Errors, Passes, Seen, examples_per_unit};
use super::state::{self, TrainerState};
use super::{HybridConfig, HybridError, HybridEvent, Phase, Recovery, StepReport, sampler};
use crate::data::Batch;
use crate::device::seed::{Stream, stream};
use crate::models::{BATCH_NORM_MOMENTUM, Network, ParamStore, Params, updated_running_stats};
use crate::optim::{Gradients, Optimizer, OptimizerConfig, Schedule, WeightAverage};

/// Everything a trainer is built from.
#[derive(Debug)]
pub struct TrainerSetup {
    /// The network to train.
    pub network: Arc<Network>,
    /// Its weights and buffers.
    pub store: ParamStore,
    /// How it predicts.
    pub hybrid: HybridConfig,
    /// How weights move.
    pub optimizer: OptimizerConfig,
    /// Learning rate over the run.
    pub schedule: Schedule,
    /// Steps of the whole run.
    pub num_steps: u64,
    /// Parts that a batch is cut into; 1 computes it whole.
    pub num_micro_batches: usize,
    /// Seed of everything random.
    pub seed: u64,
}

/// Trains a network, predicting which examples are worth a backward pass where that pays.
///
/// Every loss it reports is measured over the whole batch. A step whose loss or gradient is not finite,
/// or that the guard judges a divergence, moves nothing.
#[derive(Debug)]
pub struct HybridTrainer {
    network: Arc<Network>,
    pub(super) store: ParamStore,
    pub(super) optimizer: Optimizer,
    pub(super) average: Option<WeightAverage>,
    pub(super) control: Control,
    rules: Rules,
    schedule: Schedule,
    num_steps: u64,
    num_micro_batches: usize,
    seed: u64,
    /// What a recovery goes back to, and the step after which it was saved.
    good: TrainerState,
    good_step: u64,
    /// To be told with the next step.
    untold: Option<HybridEvent>,
}

/// How a sample is drawn from the units' chances.
type Draw = fn(&[f64], &mut ChaCha8Rng) -> sampler::Sample;

/// What the passes of one step gave.
struct Work {
    seen: Seen,
    /// The gradient to step with; `None` when the sample was empty.
    gradient: Option<Gradients>,
    /// Cosine between sampled and full gradient, when both are known.
    cosine: Option<f64>,
    /// Units that went through a backward pass; one that went twice counts twice.
    units_backward: usize,
}

impl HybridTrainer {
    /// A trainer before its first step. The weights as given are the first rollback snapshot (a copy); those at the
    /// end of Warmup are the second.
    /// Errors: [`HybridError::Config`], [`HybridError::Optim`] for settings out of range.
    pub fn new(setup: TrainerSetup) -> Result<Self, HybridError> {
        setup.hybrid.check()?;
        let optimizer = Optimizer::new(&setup.optimizer, &setup.network.specs())?;
        let average = match setup.schedule.ema_decay() {
            Some(decay) => Some(WeightAverage::new(&setup.store, decay)?),
            None => None,
        };
        let warmup_steps = (setup.hybrid.warmup_fraction * setup.num_steps as f64).ceil() as u64;
        let control = Control::new(&setup.hybrid);
        let rates = Rates::Planned(setup.schedule);
        let plan = Plan { seed: setup.seed, num_steps: setup.num_steps, rates };
        let good = state::save(&setup.store, &optimizer, average.as_ref(), &control)?;
        Ok(Self {
            network: setup.network,
            store: setup.store,
            optimizer,
            average,
            control,
            rules: Rules { config: setup.hybrid, warmup_steps, plan },
            schedule: setup.schedule,
            num_steps: setup.num_steps,
            num_micro_batches: setup.num_micro_batches.max(1),
            seed: setup.seed,
            good,
            good_step: 0,
            untold: None,
        })
    }

    /// Trains on one batch: decides the phase, computes, judges, applies or recovers.
    ///
    /// Images (n, c, h, w) with targets (n), or tokens (n, t) with targets (n, t).
    /// Errors: [`HybridError::Batch`]; [`HybridError::Stopped`] after the guard ended the run;
    /// what the network or the optimizer fails with.
    pub fn step(&mut self, batch: &Batch) -> Result<StepReport, HybridError> {
        if self.control.must_stop() {
            return Err(HybridError::Stopped { step: self.control.step() + 1 });
        }
        let examples_per_unit = examples_per_unit(batch)?;
        let phase_event = self.control.begin_step(&self.rules);
        let phase = self.control.phase();
        let mut work = match phase {
            Phase::Warmup | Phase::Full => self.full_passes(batch)?,
            Phase::Predict => self.predict_passes(batch)?,
            Phase::Correct => self.correct_passes(batch)?,
        };
        let learning_rate_factor = self.learning_rate_factor();
        let measured = Measured {
            loss: work.seen.mean_loss(),
            rho: work.seen.rho(),
            grad_norm: work.gradient.as_mut().map(|gradient| self.norm_and_clip(gradient)).transpose()?,
            cosine: work.cosine,
            learning_rate_factor,
        };
        let judgement = self.control.judge(&self.rules, &measured);
        let is_applied = judgement.divergence.is_none() && work.gradient.is_some();
        match (&judgement.divergence, &work.gradient) {
            (Some((_, recovery)), _) => self.recover(*recovery)?,
            (None, Some(gradient)) => self.apply(gradient, &work.seen, learning_rate_factor)?,
            // An empty sample: the batch norm statistics are all there is to learn.
            (None, None) => self.update_buffers(&work.seen)?,
        }

        let Judgement { forecast, correction, signals, divergence } = judgement;
        let diverged = divergence.map(|(divergence, recovery)| {
            let restored_step = recovery.restores().then_some(self.good_step);
            HybridEvent::Diverged { divergence, recovery, restored_step }
        });
        if self.control.step() == self.rules.warmup_steps {
            // Until the first checkpoint, a recovery would lose all that was learned.
            self.mark_good()?;
        }
        Ok(StepReport {
            step: self.control.step(),
            phase,
            loss: measured.loss as f32,
            forecast,
            grad_norm: measured.grad_norm.filter(|_| is_applied).map(|norm| norm as f32),
            learning_rate: (self.optimizer.config().learning_rate * learning_rate_factor) as f32,
            rho: self.control.rho().map_or(f32::NAN, |rho| rho as f32),
            confidence: self.control.confidence().map(|cosine| cosine as f32),
            num_examples: (work.seen.losses.len() * examples_per_unit) as u32,
            num_backward: (work.units_backward * examples_per_unit) as u32,
            correction,
            signals,
            events: self.untold.take().into_iter().chain(phase_event).chain(diverged).collect(),
            must_stop: self.control.must_stop(),
        })
    }

    /// One full forward, backward and update, and nothing else: no step is counted, nothing is judged.
    /// To time what vanilla training costs; [`Self::restore`] undoes it.
    pub fn vanilla_step(&mut self, batch: &Batch) -> Result<(), HybridError> {
        let (seen, mut gradient) = self.passes().full(batch, Errors::Skip)?;
        self.norm_and_clip(&mut gradient)?;
        let factor = self.schedule.factor(self.control.step().max(1), self.num_steps);
        self.apply(&gradient, &seen, factor)
    }

    /// The weights to evaluate, with their batch-norm statistics: the running average of both when the schedule has
    /// one (a copy), else themselves, which the next step moves (copy what must stay).
    pub fn evaluation_params(&self) -> Result<Params, HybridError> {
        match &self.average {
            Some(average) => Ok(average.params(&self.store)?),
            None => Ok(self.store.detached()),
        }
    }

    /// Steps done.
    #[must_use]
    pub fn num_steps_done(&self) -> u64 {
        self.control.step()
    }

    /// The weights and buffers being trained.
    #[must_use]
    pub fn store(&self) -> &ParamStore {
        &self.store
    }

    /// Everything that decides later steps: a deep copy.
    pub fn state(&self) -> Result<TrainerState, HybridError> {
        state::save(&self.store, &self.optimizer, self.average.as_ref(), &self.control)
    }

    /// Goes back, or on, to a saved state, exactly. The rollback snapshot stays: see [`Self::set_good`].
    ///
    /// A run that the guard had ended goes on from its good weights in Full, at the learning rate to which the
    /// recoveries cut it; the next step's report says so.
    /// Errors: [`HybridError::Control`] and those of missing or misshapen tensors.
    pub fn restore(&mut self, saved: &TrainerState) -> Result<(), HybridError> {
        let control = saved.control()?;
        self.restore_tensors(saved)?;
        self.control = control;
        self.untold = self.control.take_up_again(&self.rules.config);
        Ok(())
    }

    /// The step after which the state was saved that a recovery restores: the last one that [`Self::mark_good`] or
    /// [`Self::set_good`] accepted, or the end of Warmup, which a step marks by itself; 0 for the initial weights.
    /// To go on exactly after a resume, save a checkpoint whenever this is the step just done.
    #[must_use]
    pub fn good_step(&self) -> u64 {
        self.good_step
    }

    /// Makes the present state the one that a recovery restores.
    /// Shortly after a divergence it is not to be trusted: then nothing changes and the answer is false.
    pub fn mark_good(&mut self) -> Result<bool, HybridError> {
        self.set_good(self.state()?)
    }

    /// Makes `saved` the state that a recovery restores, unless it was saved shortly after a divergence.
    pub fn set_good(&mut self, saved: TrainerState) -> Result<bool, HybridError> {
        let control = saved.control()?;
        let is_calm = control.is_calm();
        if is_calm {
            (self.good, self.good_step) = (saved, control.step());
        }
        Ok(is_calm)
    }

    /// Everything forward and backward; errors only where the gate needs them.
    fn full_passes(&self, batch: &Batch) -> Result<Work, HybridError> {
        let errors = if self.rules.config.predict { Errors::Measure } else { Errors::Skip };
        let (seen, gradient) = self.passes().full(batch, errors)?;
        let units_backward = seen.losses.len();
        Ok(Work { seen, gradient: Some(gradient), cosine: None, units_backward })
    }

    /// Everything forward, a sample forward and backward.
    fn predict_passes(&self, batch: &Batch) -> Result<Work, HybridError> {
        let seen = self.passes().look(batch)?;
        let sample = self.draw_sample(&seen, sampler::draw);
        let gradient = self.passes().sampled(batch, &seen.stats, &sample)?;
        Ok(Work { seen, gradient, cosine: None, units_backward: sample.indices.len() })
    }

    /// Everything forward and backward, and the sample again as Predict would have done it, to compare.
    fn correct_passes(&self, batch: &Batch) -> Result<Work, HybridError> {
        let (seen, gradient) = self.passes().full(batch, Errors::Measure)?;
        let sample = self.draw_sample(&seen, sampler::draw_to_compare);
        let sampled = self.passes().sampled(batch, &seen.stats, &sample)?;
        let cosine = sampled.map(|sampled| sampled.cosine(&gradient)).transpose()?;
        let units_backward = seen.losses.len() + sample.indices.len();
        Ok(Work { seen, gradient: Some(gradient), cosine, units_backward })
    }

    fn draw_sample(&self, seen: &Seen, draw: Draw) -> sampler::Sample {
        // A poisoned batch is not worth a backward pass; the guard will see its loss.
        if !seen.mean_loss().is_finite() {
            return sampler::Sample::default();
        }
        let chances = sampler::probabilities(&seen.errors, self.control.slice_fraction());
        draw(&chances, &mut stream(self.seed, Stream::Importance, self.control.step()))
    }

    fn passes(&self) -> Passes<'_> {
        Passes { network: &self.network, store: &self.store, num_micro_batches: self.num_micro_batches }
    }

    /// Norm before clipping.
    fn norm_and_clip(&self, gradient: &mut Gradients) -> Result<f64, HybridError> {
        match self.optimizer.config().clip_norm {
            Some(max_norm) => Ok(gradient.clip(max_norm)?),
            None => Ok(gradient.norm()?),
        }
    }

    fn learning_rate_factor(&self) -> f64 {
        self.schedule.factor(self.control.step(), self.num_steps) * self.control.learning_rate_cut()
    }

    fn apply(&mut self, gradient: &Gradients, seen: &Seen, learning_rate_factor: f64) -> Result<(), HybridError> {
        self.optimizer.step(&self.store, gradient, learning_rate_factor)?;
        self.update_buffers(seen)?;
        if let Some(average) = &mut self.average {
            average.update(&self.store)?;
        }
        Ok(())
    }

    fn update_buffers(&mut self, seen: &Seen) -> Result<(), HybridError> {
        for stats in &seen.stats {
            let updates = updated_running_stats(self.store.buffers(), stats, BATCH_NORM_MOMENTUM)?;
            self.store.update_buffers(updates);
        }
        Ok(())
    }

    /// Carries out what the ladder decided; the learning rate and the phase are the control's own.
    fn recover(&mut self, recovery: Recovery) -> Result<(), HybridError> {
        if recovery.restores() {
            let good = self.good.clone();
            self.restore_tensors(&good)?;
            self.control.roll_back(&good.control()?);
        }
        Ok(())
    }

    fn restore_tensors(&mut self, saved: &TrainerState) -> Result<(), HybridError> {
        state::load(saved, &mut self.store, &mut self.optimizer, self.average.as_mut())
    }
}
