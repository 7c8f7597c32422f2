//! One training of one contender, timed step by step, without a window or a file.

use std::sync::Arc;
use std::time::Instant;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::race::{Beginning, Contender, Ground};
use super::{ExperimentError, Stopwatch, TrialRecipe};
use crate::data::{BatchConfig, BatchSource, DataError, SplitPart};
use crate::device::Watch;
use crate::evaluation::{Evaluation, evaluate};
use crate::hybrid::forecast::{ReliabilityPoint, reliability};
use crate::hybrid::{
    Correction, Forecast, HybridEvent, HybridTrainer, Phase, Recovery, StepCosts, StepPart, StepReport,
    measure_step_costs, nullable,
};
use crate::memory::step_flops;
use crate::models::{Growth, ModelConfig, Network, Params};

/// Steps averaged into one point of a curve.
const CURVE_POINTS: u64 = 100;

/// One point of a training curve: the mean over the steps since the last one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Steps done.
    pub step: u64,
    /// Seconds of training so far, validation left out.
    pub seconds: f64,
    /// Cost so far, in full steps of the recipe's batch: forward 1/3, backward 2/3 of each example; a network of the
    /// contender's own counts by its operations.
    pub cost: f64,
    /// Mean training loss, nats; every step's is measured over its whole batch.
    #[serde(with = "nullable")]
    pub loss: f64,
}

/// Where the steps went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PhaseShare {
    /// Steps in this phase.
    pub num_steps: u64,
    /// Seconds in it.
    pub seconds: f64,
    /// Seconds of its median step; `None` without steps, and in reports of earlier versions.
    #[serde(default)]
    pub median_step_seconds: Option<f64>,
    /// Cost, in examples: a forward pass counts 1/3, a backward pass 2/3; 0 in reports of earlier versions.
    #[serde(default)]
    pub example_cost: f64,
}

/// How often losses fell inside the intervals that forecasts stated, in Predict and Correct.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reliability {
    /// Forecasts with a calibrated interval.
    pub num_forecasts: usize,
    /// Stated and found shares; empty without such a forecast.
    pub curve: Vec<ReliabilityPoint>,
}

/// What is measured at the end of a training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exam {
    /// The test part too, which is looked at once, after everything was decided.
    pub with_test: bool,
    /// Most images or sequences of each part.
    pub max_examples: usize,
}

impl Exam {
    /// All of the validation part.
    pub const VALIDATION: Self = Self { with_test: false, max_examples: usize::MAX };
    /// All of the validation part and all of the test part.
    pub const FINAL: Self = Self { with_test: true, max_examples: usize::MAX };
}

/// Figures on held-out data.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// On the validation part.
    pub validation: Evaluation,
    /// On the test part; `None` for a dataset without one, or when nobody asked.
    pub test: Option<Evaluation>,
}

impl HeldOut {
    /// The test part's figures, or the validation part's where there is no test part.
    #[must_use]
    pub fn figures(&self) -> &Evaluation {
        self.test.as_ref().unwrap_or(&self.validation)
    }
}

/// What a finished trial measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialResult {
    /// Seed of weights, order and samples.
    pub seed: u64,
    /// Steps done; fewer than asked when it diverged.
    pub num_steps: u64,
    /// Seconds of training, validation left out.
    pub seconds: f64,
    /// Seconds of them spent on deciding: forecaster, guard, gate, phases.
    #[serde(default)]
    pub decision_seconds: f64,
    /// Cost, in examples (images, or tokens): a forward pass counts 1/3, a backward pass 2/3; through a network of the
    /// contender's own as much less or more as it has operations.
    pub example_cost: f64,
    /// Examples that went through a backward pass: images, or tokens.
    pub example_backwards: u64,
    /// Examples in a unit of a batch: 1 for images, the sequence length for text.
    pub examples_per_unit: u64,
    /// Held-out loss and accuracy at the end, on the validation part: all of it, unless the experiment says otherwise.
    pub validation: Evaluation,
    /// The same on the test part, measured once; `None` in tuning, and for a dataset without one.
    pub test: Option<Evaluation>,
    /// Training curve.
    pub curve: Vec<CurvePoint>,
    /// Steps and seconds in Warmup, Full, Predict and Correct.
    pub phases: [PhaseShare; 4],
    /// What each Correct step found, with its step.
    pub corrections: Vec<(u64, Correction)>,
    /// How far the forecasts could be believed.
    #[serde(default)]
    pub reliability: Reliability,
    /// Divergences, with the answer to each.
    pub divergences: Vec<(u64, Recovery)>,
    /// Why phases changed, in words, with the step.
    pub events: Vec<(u64, String)>,
    /// What a Predict step was measured to cost before the start.
    pub costs: Option<StepCosts>,
    /// The guard ended it.
    pub has_diverged: bool,
}

impl TrialResult {
    /// The test part's figures, or the validation part's where there is no test part.
    #[must_use]
    pub fn held_out(&self) -> &Evaluation {
        self.test.as_ref().unwrap_or(&self.validation)
    }

    /// Steps and seconds in `phase`.
    #[must_use]
    pub fn phase(&self, phase: Phase) -> PhaseShare {
        self.phases[phase_index(phase)]
    }
}

/// A network that is to grow.
#[derive(Debug)]
struct Growing {
    after_steps: u64,
    growth: Growth,
    deep: Arc<Network>,
}

/// A training in progress.
#[derive(Debug)]
pub struct Trial {
    recipe: TrialRecipe,
    network: Arc<Network>,
    /// Work of a pass through it over that of one through the ground's network.
    network_cost: f64,
    /// What becomes of the network later.
    grows: Option<Growing>,
    trainer: HybridTrainer,
    batches: BatchSource,
    result: TrialResult,
    /// For held-out data, no more at once than a step takes.
    evaluation: BatchSource,
    /// Losses since the last point of the curve.
    unplotted: Unplotted,
    /// Seconds of each step, by phase.
    step_seconds: [Vec<f64>; 4],
    /// What was forecast, and what came.
    forecasts: Vec<(Forecast, f32)>,
}

impl Trial {
    /// A trial before its first step; for a strategy that samples, its step costs are measured first.
    pub fn begin(contender: &Contender, ground: &Ground, seed: u64, watch: Watch<'_>) -> Result<Self, ExperimentError> {
        let Contender { recipe, begins, .. } = contender;
        let Ground { network, dataset, device, .. } = ground;
        let flops = |model: &ModelConfig| step_flops(model, 1, recipe.sequence_length) as f64;
        let network_cost =
            begins.as_ref().map_or(1.0, |begins| flops(&begins.model) / flops(network.config()).max(1.0));
        let (network, grows) = match begins {
            None => (Arc::clone(network), None),
            Some(Beginning { model, grows }) => {
                let grows =
                    grows.map(|(after_steps, growth)| Growing { after_steps, growth, deep: Arc::clone(network) });
                (Arc::new(Network::keeping(model, network.kept())?), grows)
            }
        };
        let (mut trainer, batches) = recipe.begin(&network, dataset, seed, device.clone())?;
        let costs = if recipe.hybrid.strategy.samples() {
            let start = Instant::now();
            let clock = || start.elapsed().as_secs_f64();
            measure_step_costs(&mut trainer, &batches.train_batch(0)?, &clock, watch.cancel_flag())?
        } else {
            None
        };
        let batch_size = recipe.batch_size.div_ceil(recipe.num_micro_batches.max(1));
        let config = BatchConfig { batch_size, ..batches.config().clone() };
        let evaluation = BatchSource::new(Arc::clone(dataset), config)?;
        let nothing = Evaluation { loss: f64::NAN, accuracy: None, num_examples: 0, loss_error: f64::NAN };
        Ok(Self {
            recipe: recipe.clone(),
            network,
            network_cost,
            grows,
            trainer,
            batches,
            result: TrialResult {
                seed,
                num_steps: 0,
                seconds: 0.0,
                decision_seconds: 0.0,
                example_cost: 0.0,
                example_backwards: 0,
                examples_per_unit: 1,
                validation: nothing,
                test: None,
                curve: Vec::new(),
                phases: Default::default(),
                corrections: Vec::new(),
                reliability: Reliability::default(),
                divergences: Vec::new(),
                events: Vec::new(),
                costs,
                has_diverged: false,
            },
            evaluation,
            unplotted: Unplotted::default(),
            step_seconds: Default::default(),
            forecasts: Vec::new(),
        })
    }

    /// True when no step is left.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.result.has_diverged || self.result.num_steps >= self.recipe.num_steps
    }

    /// Steps done.
    #[must_use]
    pub fn num_steps(&self) -> u64 {
        self.result.num_steps
    }

    /// The curve so far.
    #[must_use]
    pub fn curve(&self) -> &[CurvePoint] {
        &self.result.curve
    }

    /// Seconds of training so far.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.result.seconds
    }

    /// Trains for one step, if one is left; only the step and its batch count as training time.
    pub fn advance(&mut self, watch: Watch<'_>) -> Result<(), ExperimentError> {
        if self.is_done() {
            return Ok(());
        }
        watch.check()?;
        let started = Instant::now();
        self.grow_if_due()?;
        let batch = self.batches.train_batch(self.result.num_steps)?;
        let decisions = Stopwatch::new(StepPart::Decisions);
        let report = self.trainer.step_marked(&batch, &|mark| decisions.mark(mark))?;
        self.result.decision_seconds += decisions.total().unwrap_or_default().as_secs_f64();
        self.record(report, started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Turns the network into the one it grows into, once its steps are done; counts as training time.
    fn grow_if_due(&mut self) -> Result<(), ExperimentError> {
        let step = self.result.num_steps;
        let Some(Growing { growth, deep, .. }) = self.grows.take_if(|grows| grows.after_steps == step) else {
            return Ok(());
        };
        self.trainer.grow(Arc::clone(&deep), growth)?;
        let num_blocks = |network: &Network| network.config().num_blocks().unwrap_or_default();
        let what = format!("grew from {} to {} blocks", num_blocks(&self.network), num_blocks(&deep));
        self.result.events.push((step, what));
        (self.network, self.network_cost) = (deep, 1.0);
        Ok(())
    }

    /// Ends the training here, and measures what `exam` asks for, unless it diverged.
    pub fn finish(mut self, exam: Exam, watch: Watch<'_>) -> Result<TrialResult, ExperimentError> {
        for (phase, seconds) in self.result.phases.iter_mut().zip(std::mem::take(&mut self.step_seconds)) {
            phase.median_step_seconds = median(seconds);
        }
        let (num_forecasts, curve) = reliability(std::mem::take(&mut self.forecasts));
        self.result.reliability = Reliability { num_forecasts, curve };
        if !self.result.has_diverged {
            let HeldOut { validation, test } = self.measured(&self.params()?, exam, watch)?;
            (self.result.validation, self.result.test) = (validation, test);
        }
        Ok(self.result)
    }

    /// The guard saw a divergence, whether it ended the training or not.
    pub(super) fn had_divergence(&self) -> bool {
        self.result.has_diverged || !self.result.divergences.is_empty()
    }

    /// The guard ended it.
    #[must_use]
    pub fn has_diverged(&self) -> bool {
        self.result.has_diverged
    }

    /// The weights that training has come to: see [`HybridTrainer::evaluation_params`].
    pub(super) fn params(&self) -> Result<Params, ExperimentError> {
        Ok(self.trainer.evaluation_params()?)
    }

    /// `params` of the trial's network on the parts that `exam` asks for.
    pub(super) fn measured(&self, params: &Params, exam: Exam, watch: Watch<'_>) -> Result<HeldOut, ExperimentError> {
        // Progress of the experiment as a whole is told by its steps.
        let quiet = Watch::new(watch.cancel_flag(), &|_| {});
        let on = |part| {
            let batches = self.evaluation.evaluation_batches(part, exam.max_examples);
            evaluate(&self.network, params, batches, quiet)
        };
        let validation = on(SplitPart::Validation)?;
        let has_test = exam.with_test && self.evaluation.num_examples(SplitPart::Test) > 0;
        Ok(HeldOut { validation, test: if has_test { Some(on(SplitPart::Test)?) } else { None } })
    }

    /// Batches of `count` images or sequences as the network reads them, evenly spread over the training part.
    pub(super) fn training_inputs(&self, count: usize) -> Result<Vec<Tensor>, ExperimentError> {
        let batches = self.evaluation.evaluation_batches(SplitPart::Train, count);
        Ok(batches.map(|batch| Ok(batch?.inputs)).collect::<Result<_, DataError>>()?)
    }

    fn record(&mut self, report: StepReport, seconds: f64) {
        let result = &mut self.result;
        result.num_steps = report.step;
        result.seconds += seconds;
        result.example_backwards += u64::from(report.num_backward);
        let example_cost = self.network_cost * example_cost(&report);
        result.example_cost += example_cost;
        result.examples_per_unit = u64::from(report.num_examples) / self.recipe.batch_size.max(1) as u64;
        let index = phase_index(report.phase);
        let phase = &mut result.phases[index];
        phase.num_steps += 1;
        phase.seconds += seconds;
        phase.example_cost += example_cost;
        self.step_seconds[index].push(seconds);
        self.forecasts.extend(report.forecast.map(|forecast| (forecast, report.loss)));
        result.corrections.extend(report.correction.map(|correction| (report.step, correction)));
        for event in &report.events {
            match event {
                HybridEvent::Diverged { recovery, .. } => result.divergences.push((report.step, *recovery)),
                HybridEvent::Phase { why, .. } | HybridEvent::Note(why) => {
                    result.events.push((report.step, why.clone()));
                }
            }
        }
        result.has_diverged |= report.must_stop;
        let is_done = self.is_done();
        if let Some(loss) = self.unplotted.add(f64::from(report.loss), self.recipe.num_steps, is_done) {
            let examples = self.recipe.batch_size as u64 * self.result.examples_per_unit;
            let cost = self.result.example_cost / examples.max(1) as f64;
            let (step, seconds) = (report.step, self.result.seconds);
            self.result.curve.push(CurvePoint { step, seconds, cost, loss });
        }
    }
}

/// Losses of steps that are in no point of a curve yet.
#[derive(Debug, Default)]
pub(super) struct Unplotted {
    sum: f64,
    count: u64,
}

impl Unplotted {
    /// Adds a step of `num_steps` in all; returns the mean since the last point when it is time for one.
    pub(super) fn add(&mut self, loss: f64, num_steps: u64, is_last: bool) -> Option<f64> {
        self.sum += loss;
        self.count += 1;
        (self.count >= num_steps.div_ceil(CURVE_POINTS) || is_last).then(|| {
            let Self { sum, count } = std::mem::take(self);
            sum / count as f64
        })
    }
}

/// Examples' worth of a step: a forward pass counts 1/3, a backward pass 2/3.
fn example_cost(report: &StepReport) -> f64 {
    (f64::from(report.num_forward) + 2.0 * f64::from(report.num_backward)) / 3.0
}

/// The upper one of two in the middle; `None` without values.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Place of a phase in [`TrialResult::phases`].
#[must_use]
pub fn phase_index(phase: Phase) -> usize {
    match phase {
        Phase::Warmup => 0,
        Phase::Full => 1,
        Phase::Predict => 2,
        Phase::Correct => 3,
    }
}
