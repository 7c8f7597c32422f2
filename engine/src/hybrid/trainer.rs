//! The hybrid trainer: one step, readable top to bottom.

use std::sync::Arc;

use super::control::Measured;
use super::gate::StepCosts;
use super::lens::Lens;
use super::passes::{Errors, Passes, Seen, Teacher, examples_per_unit};
use super::pilot::{Outcome, Pilot};
use super::state::{self, Parts, TrainerState};
use super::step_part::marked;
use super::strategy::{PredictStep, Scene, Update, Work};
use super::{HybridConfig, HybridError, HybridEvent, Mark, Phase, Recovery, StepPart, StepReport};
use crate::data::Batch;
use crate::models::ops::Precision;
use crate::models::{BATCH_NORM_MOMENTUM, Growth, Network, ParamStore, Params, updated_running_stats};
use crate::optim::{Gradients, Optimizer, OptimizerConfig, Schedule, WeightAverage};
use crate::quant::{FakeQuantizer, QatConfig};

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
    /// Quantization-aware training, where it is wanted.
    pub qat: Option<QatConfig>,
    /// Steps of the whole run.
    pub num_steps: u64,
    /// Parts that a batch is cut into; 1 computes it whole.
    pub num_micro_batches: usize,
    /// Of matrix products in passes.
    pub precision: Precision,
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
    pub(super) pilot: Pilot,
    quantizer: Option<FakeQuantizer>,
    /// The weights of just before the switch, where those teach.
    teacher: Option<Params>,
    strategy: Box<dyn PredictStep>,
    num_micro_batches: usize,
    precision: Precision,
    /// What a recovery goes back to, and the step after which it was saved.
    good: TrainerState,
    good_step: u64,
}

impl HybridTrainer {
    /// A trainer before its first step. The weights as given are the first rollback snapshot (a copy); those at the
    /// end of Warmup are the second.
    /// Errors: [`HybridError::Config`], [`HybridError::Optim`], [`HybridError::Quant`] for settings out of range.
    pub fn new(setup: TrainerSetup) -> Result<Self, HybridError> {
        let mut pilot = Pilot::new(setup.hybrid.clone(), setup.schedule, setup.num_steps, setup.seed, setup.qat)?;
        pilot.set_num_classes(setup.network.config().data_shape().num_classes());
        let quantizer = match setup.qat {
            Some(qat) => {
                qat.check()?;
                Some(FakeQuantizer::new(&setup.network.specs(), qat.scheme).reading(qat.activations))
            }
            None => None,
        };
        let optimizer = Optimizer::new(&setup.optimizer, &setup.network.specs())?;
        let average = match setup.schedule.ema_decay() {
            Some(decay) => Some(WeightAverage::new(&setup.store, decay)?),
            None => None,
        };
        let strategy = setup.hybrid.strategy.start();
        let good = state::save(&setup.store, &optimizer, average.as_ref(), &*strategy, &pilot.control, None)?;
        Ok(Self {
            network: setup.network,
            store: setup.store,
            optimizer,
            average,
            pilot,
            quantizer,
            teacher: None,
            strategy,
            num_micro_batches: setup.num_micro_batches.max(1),
            precision: setup.precision,
            good,
            good_step: 0,
        })
    }

    /// Trains on one batch: decides the phase, computes, judges, applies or recovers.
    ///
    /// Images (n, c, h, w) with targets (n), or tokens (n, t) with targets (n, t).
    /// Errors: [`HybridError::Batch`]; [`HybridError::Stopped`] after the guard ended the run;
    /// what the network or the optimizer fails with.
    pub fn step(&mut self, batch: &Batch) -> Result<StepReport, HybridError> {
        self.step_marked(batch, &|_| {})
    }

    /// [`Self::step`], telling `mark` when parts of it begin and end: for a clock, which this room does not read. Without
    /// its [`StepPart::ErrorNorms`], a Warmup or Full step takes what a step of the vanilla tier takes.
    pub fn step_marked(&mut self, batch: &Batch, mark: &dyn Fn(Mark)) -> Result<StepReport, HybridError> {
        let examples_per_unit = examples_per_unit(batch)?;
        let mut events = marked(mark, StepPart::Decisions, || self.pilot.advance())?;
        events.extend(self.appoint_teacher()?);
        let phase = self.pilot.control.phase();
        let mut work = match phase {
            Phase::Warmup | Phase::Full => self.full_passes(batch, mark)?,
            Phase::Predict => self.in_scene(|strategy, scene| strategy.predict(scene, batch))?,
            Phase::Correct => {
                events.extend(self.roll_back_prediction(batch)?);
                self.in_scene(|strategy, scene| strategy.correct(scene, batch))?
            }
        };
        let grad_norm = marked(mark, StepPart::Update, || match &mut work.update {
            Update::Gradient(gradient) => self.norm_and_clip(gradient).map(Some),
            Update::Weights(_) | Update::Statistics | Update::Nothing => Ok(None),
        })?;
        let learning_rate_factor = self.pilot.learning_rate_factor();
        let (loss, rho) = (work.seen.mean_loss(), work.seen.rho());
        let is_finite = loss.is_finite() && grad_norm.is_none_or(f64::is_finite);
        let must_look = !is_finite || self.pilot.control.is_check_due(&self.pilot.rules);
        let has_finite_weights = !must_look || self.store.is_finite()?;
        let cosine = work.cosine;
        let measured = Measured { loss, rho, grad_norm, cosine, learning_rate_factor, has_finite_weights };
        let Pilot { control, rules, .. } = &mut self.pilot;
        let judgement = marked(mark, StepPart::Decisions, || control.judge(rules, &measured));
        let is_applied = judgement.divergence.is_none() && grad_norm.is_some();
        match &judgement.divergence {
            Some((_, recovery)) => self.recover(phase, *recovery)?,
            None => self.apply(phase, work.update, &work.seen, learning_rate_factor, mark)?,
        }
        if let Some(why) = work.exhausted.filter(|_| judgement.divergence.is_none()) {
            self.pilot.control.end_prediction(why);
        }

        if let Some((divergence, recovery)) = judgement.divergence {
            let restored_step = recovery.restores().then_some(self.good_step);
            events.push(HybridEvent::Diverged { divergence, recovery, restored_step });
        }
        if self.pilot.is_at_end_of_warmup() {
            // Until the first checkpoint, a recovery would lose all that was learned.
            self.mark_good()?;
        }
        let outcome = Outcome {
            grad_norm: grad_norm.filter(|_| is_applied),
            cosine,
            units_forward: work.units_forward,
            units_backward: work.units_backward,
            examples_per_unit,
            peak_learning_rate: self.optimizer.config().learning_rate,
            has_ruined_weights: !has_finite_weights,
        };
        Ok(self.pilot.report(&work.seen, &measured, &judgement, outcome, events))
    }

    /// One full forward, backward and update, and nothing else: no step is counted, nothing is judged.
    /// To time what vanilla training costs; [`Self::restore`] undoes it.
    pub fn vanilla_step(&mut self, batch: &Batch) -> Result<(), HybridError> {
        let (seen, mut gradient) = self.in_scene(|_, scene| scene.passes.full(batch, Errors::Skip))?;
        self.norm_and_clip(&mut gradient)?;
        let factor = self.pilot.planned_learning_rate_factor();
        self.move_by(&gradient, &seen, factor)
    }

    /// A Predict step's passes, forward passes alone if `with_sample` is false, that move nothing: to time them.
    /// The share of the batch that was sampled; 0 for a strategy that samples nothing.
    pub fn rehearse(&mut self, batch: &Batch, with_sample: bool) -> Result<f64, HybridError> {
        if !with_sample {
            self.in_scene(|_, scene| scene.passes.look(batch))?;
            return Ok(0.0);
        }
        let work = self.in_scene(|strategy, scene| strategy.predict(scene, batch))?;
        Ok(work.units_backward as f64 / work.seen.losses.len() as f64)
    }

    /// What a Predict step was measured to cost on this machine; [`super::Strategy::Auto`] decides by it from here on.
    /// Part of the state: a resumed run decides by the same costs.
    pub fn set_step_costs(&mut self, costs: StepCosts) {
        self.pilot.set_step_costs(costs);
    }

    /// The full-precision weights, with their batch-norm statistics: the running average of both when the schedule has
    /// one (a copy), else themselves, which the next step moves (copy what must stay).
    pub fn trained_params(&self) -> Result<Params, HybridError> {
        match &self.average {
            Some(average) => Ok(average.params(&self.store)?),
            None => Ok(self.store.detached()),
        }
    }

    /// [`Self::trained_params`], quantized as an export would store them; `None` without quantization-aware training.
    pub fn quantized_params(&self) -> Result<Option<Params>, HybridError> {
        match &self.quantizer {
            Some(quantizer) => Ok(Some(quantizer.quantized(&self.trained_params()?)?)),
            None => Ok(None),
        }
    }

    /// The weights that training has come to: the quantized ones once the network computes with those alone, until
    /// then, and without quantization-aware training, the full-precision ones.
    pub fn evaluation_params(&self) -> Result<Params, HybridError> {
        let quantized = if self.quantization_strength() >= 1.0 { self.quantized_params()? } else { None };
        quantized.map_or_else(|| self.trained_params(), Ok)
    }

    /// Strength of the quantization in the last step: 0 before the switch, 1 once the network computes with quantized
    /// weights alone.
    #[must_use]
    pub fn quantization_strength(&self) -> f64 {
        self.pilot.control.strength()
    }

    /// Steps done.
    #[must_use]
    pub fn num_steps_done(&self) -> u64 {
        self.pilot.control.step()
    }

    /// The weights and buffers being trained.
    #[must_use]
    pub fn store(&self) -> &ParamStore {
        &self.store
    }

    /// Everything that decides later steps: a deep copy.
    pub fn state(&self) -> Result<TrainerState, HybridError> {
        let average = self.average.as_ref();
        state::save(&self.store, &self.optimizer, average, &*self.strategy, &self.pilot.control, self.teacher.as_ref())
    }

    /// Goes back, or on, to a saved state, exactly. The rollback snapshot stays: see [`Self::set_good`].
    ///
    /// A run that the guard had ended goes on from its good weights in Full, at the learning rate to which the
    /// recoveries cut it; the next step's report says so.
    /// Errors: [`HybridError::Control`] and those of missing or misshapen tensors.
    pub fn restore(&mut self, saved: &TrainerState) -> Result<(), HybridError> {
        let control = saved.control()?;
        self.restore_tensors(saved)?;
        self.pilot.control = control;
        self.pilot.take_up_again();
        Ok(())
    }

    /// Goes on with `deep`, twice as many blocks whose first weights `growth` makes of the present ones.
    ///
    /// Steps and the learning rate's schedule go on. The optimizer and the weight average begin anew, as do gate,
    /// forecaster and guard: what they know is of another network. A recovery goes back to here.
    /// Errors: those of [`Growth::grown`], with nothing changed.
    pub fn grow(&mut self, deep: Arc<Network>, growth: Growth) -> Result<(), HybridError> {
        let device = self.store.device();
        // Another seed than the shallow network's, whose draws new blocks would repeat.
        let weights = growth.grown((&self.network, &deep), &self.store.detached(), (!self.pilot.seed, &device))?;
        let store = ParamStore::new(weights, Params::default(), &device)?;
        let optimizer = Optimizer::new(self.optimizer.config(), &deep.specs())?;
        let average = self.pilot.schedule.ema_decay().map(|decay| WeightAverage::new(&store, decay)).transpose()?;
        (self.network, self.store, self.optimizer, self.average) = (deep, store, optimizer, average);
        self.strategy = self.pilot.rules.config.strategy.start();
        self.pilot.control.meet_another_network();
        (self.good, self.good_step) = (self.state()?, self.pilot.control.step());
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
    /// Shortly after a divergence, while the last losses look like one, and with NaN or infinity in it, it is not to be
    /// trusted: then nothing changes and the answer is false.
    pub fn mark_good(&mut self) -> Result<bool, HybridError> {
        self.set_good(self.state()?)
    }

    /// Makes `saved` the state that a recovery restores, unless it is not to be trusted: see [`Self::mark_good`].
    pub fn set_good(&mut self, saved: TrainerState) -> Result<bool, HybridError> {
        let control = saved.control()?;
        let is_good = control.is_trusted(&self.pilot.rules) && saved.tensors.is_finite()?;
        if is_good {
            (self.good, self.good_step) = (saved, control.step());
        }
        Ok(is_good)
    }

    /// Keeps the weights of just before the switch, where those teach; tells when it does.
    fn appoint_teacher(&mut self) -> Result<Option<HybridEvent>, HybridError> {
        let Pilot { control, rules, .. } = &self.pilot;
        let is_due = rules.qat.is_some_and(|qat| qat.distillation.is_some()) && control.strength() > 0.0;
        if !is_due || self.teacher.is_some() {
            return Ok(None);
        }
        let copied = self.trained_params()?.map(|_, tensor| Ok::<_, HybridError>(tensor.copy()?))?;
        self.teacher = Some(copied);
        let what = "the full-precision weights teach from here on: a forward pass more for each example that learns";
        Ok(Some(HybridEvent::Note(what.to_owned())))
    }

    /// Everything forward and backward; errors only where the gate needs them.
    fn full_passes(&mut self, batch: &Batch, mark: &dyn Fn(Mark)) -> Result<Work, HybridError> {
        let is_watched = self.pilot.rules.config.strategy.predicts();
        let errors = if is_watched { Errors::MeasureMarked(mark) } else { Errors::Skip };
        self.in_scene(|_, scene| Work::full(scene, batch, errors))
    }

    /// Lets the strategy work on what there is now.
    fn in_scene<T>(
        &mut self,
        work: impl FnOnce(&mut dyn PredictStep, &Scene<'_>) -> Result<T, HybridError>,
    ) -> Result<T, HybridError> {
        let lens = Lens { quantizer: self.quantizer.as_ref(), strength: self.pilot.control.strength() };
        let store = lens.read(&self.store)?;
        let distillation = self.pilot.rules.qat.and_then(|qat| qat.distillation);
        let teacher = self.teacher.as_ref().zip(distillation);
        let teacher = teacher.map(|(params, distillation)| Teacher { params, distillation });
        let scene = Scene {
            passes: Passes {
                network: &self.network,
                store: &store,
                num_micro_batches: self.num_micro_batches,
                precision: self.precision,
                loss_scale: (self.precision == Precision::F16).then(|| self.pilot.control.loss_scale()),
                teacher,
            },
            store: &self.store,
            lens,
            slice_fraction: self.pilot.slice_fraction(),
            seed: self.pilot.seed,
            step: self.pilot.control.step(),
        };
        work(&mut *self.strategy, &scene)
    }

    /// Before a Correct step: undoes predicted moves that turn out to have made things worse.
    fn roll_back_prediction(&mut self, batch: &Batch) -> Result<Option<HybridEvent>, HybridError> {
        let Some((weights, what)) = self.in_scene(|strategy, scene| strategy.roll_back(scene, batch))? else {
            return Ok(None);
        };
        self.store.set_weights(&weights)?;
        Ok(Some(HybridEvent::Note(what)))
    }

    /// Norm before clipping.
    fn norm_and_clip(&self, gradient: &mut Gradients) -> Result<f64, HybridError> {
        match self.optimizer.config().clip_norm {
            Some(max_norm) => Ok(gradient.clip(max_norm)?),
            None => Ok(gradient.norm()?),
        }
    }

    fn apply(
        &mut self,
        phase: Phase,
        update: Update,
        seen: &Seen,
        learning_rate_factor: f64,
        mark: &dyn Fn(Mark),
    ) -> Result<(), HybridError> {
        let is_by_gradient = matches!(update, Update::Gradient(_));
        marked(mark, StepPart::Update, || match update {
            Update::Gradient(gradient) => self.move_by(&gradient, seen, learning_rate_factor),
            Update::Weights(weights) => {
                self.store.set_weights(&weights)?;
                self.settle(seen)
            }
            Update::Statistics => self.update_buffers(seen),
            Update::Nothing => Ok(()),
        })?;
        match phase {
            Phase::Warmup | Phase::Full | Phase::Correct if !is_by_gradient => Ok(()),
            Phase::Warmup | Phase::Full if self.pilot.rules.config.strategy.predicts() => {
                marked(mark, StepPart::Memory, || self.strategy.moved(&self.store))
            }
            Phase::Warmup | Phase::Full | Phase::Correct => self.strategy.moved(&self.store),
            Phase::Predict => Ok(()),
        }
    }

    fn move_by(&mut self, gradient: &Gradients, seen: &Seen, learning_rate_factor: f64) -> Result<(), HybridError> {
        self.optimizer.step(&self.store, gradient, learning_rate_factor)?;
        self.settle(seen)
    }

    /// After the weights moved: what follows them.
    fn settle(&mut self, seen: &Seen) -> Result<(), HybridError> {
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
    fn recover(&mut self, phase: Phase, recovery: Recovery) -> Result<(), HybridError> {
        if recovery.restores() {
            let good = self.good.clone();
            self.restore_tensors(&good)?;
            self.pilot.control.roll_back(&good.control()?);
        } else if let Some(weights) = self.strategy.retreat().filter(|_| phase.predicts()) {
            self.store.set_weights(&weights)?;
        }
        Ok(())
    }

    fn restore_tensors(&mut self, saved: &TrainerState) -> Result<(), HybridError> {
        let average = self.average.as_mut();
        let strategy = &mut *self.strategy;
        self.teacher = saved.teacher(&self.store.device())?;
        state::load(saved, Parts { store: &mut self.store, optimizer: &mut self.optimizer, average, strategy })
    }
}
