//! Memory features: does each way of saving memory train as the plain path does?
//!
//! Each contender differs from plain training by one feature. All have the same seeds and take turns of a step in one
//! process; every step is a full one, nothing is tuned, and gradients are not clipped, because a streamed training could
//! clip them only block by block. Where the arithmetic is unchanged the weights must end equal, bit for bit; elsewhere
//! held-out losses are compared seed by seed, beside how far apart plain training's own seeds lie.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::race::{Contender, Ground, OnRace, RaceView};
use super::stages::{Eyes, Stages};
use super::trial::{CurvePoint, Exam, Trial, Unplotted};
use super::{ExperimentError, TrialRecipe};
use crate::data::BatchSource;
use crate::device::Watch;
use crate::hybrid::nullable;
use crate::models::ops::{Kept, Precision};
use crate::models::{ModelError, Network, Params};
use crate::offload::{
    Commit, OffloadError, OffloadSettings, OffloadTrainer, Precision as StoredPrecision, ScratchFolder,
};
use crate::optim::{OptimizerKind, StatePrecision};

/// A way to save memory, or time with memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "`what` says what each is")]
pub enum MemoryFeature {
    MicroBatches,
    ActivationCheckpointing,
    EightBitStates,
    Bf16Products,
    StreamedFull,
    StreamedCompact,
}

impl MemoryFeature {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::MicroBatches,
        Self::ActivationCheckpointing,
        Self::EightBitStates,
        Self::Bf16Products,
        Self::StreamedFull,
        Self::StreamedCompact,
    ];

    /// Name to type and to show.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::MicroBatches => "micro-batches",
            Self::ActivationCheckpointing => "activation-checkpointing",
            Self::EightBitStates => "8bit-states",
            Self::Bf16Products => "bf16-products",
            Self::StreamedFull => "streamed-full",
            Self::StreamedCompact => "streamed-compact",
        }
    }

    /// The feature called `label`.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|feature| feature.label() == label)
    }

    /// What it does, in words.
    #[must_use]
    pub fn what(self) -> &'static str {
        match self {
            Self::MicroBatches => "one sequence in the graph at a time, gradients added up",
            Self::ActivationCheckpointing => "layers keep their input and compute the rest again on the way back",
            Self::EightBitStates => "the optimizer's moments in 8 bits",
            Self::Bf16Products => "factors of matrix products rounded to bf16",
            Self::StreamedFull => "blocks streamed from disk, f32 weights and moments",
            Self::StreamedCompact => "blocks streamed from disk, bf16 weights and 8-bit moments",
        }
    }

    /// True when it changes no arithmetic, so that weights must end equal bit for bit.
    #[must_use]
    pub fn is_exact(self) -> bool {
        match self {
            Self::ActivationCheckpointing | Self::StreamedFull => true,
            // The first adds in another order, the others round.
            Self::MicroBatches | Self::EightBitStates | Self::Bf16Products | Self::StreamedCompact => false,
        }
    }

    /// What this machine lacks for it; `None` when nothing.
    #[must_use]
    pub fn missing(self) -> Option<&'static str> {
        if self == Self::Bf16Products { Precision::Bf16.missing() } else { None }
    }

    /// How its numbers lie on disk; `None` for what trains in memory.
    #[must_use]
    pub fn stored(self) -> Option<StoredPrecision> {
        match self {
            Self::StreamedFull => Some(StoredPrecision::Full),
            Self::StreamedCompact => Some(StoredPrecision::Compact),
            Self::MicroBatches | Self::ActivationCheckpointing | Self::EightBitStates | Self::Bf16Products => None,
        }
    }

    /// What layers keep with it.
    #[must_use]
    pub fn kept(self) -> Kept {
        if self == Self::ActivationCheckpointing { Kept::Input } else { Kept::Activations }
    }

    /// `recipe` with it.
    #[must_use]
    pub fn in_recipe(self, recipe: &TrialRecipe) -> TrialRecipe {
        let mut recipe = recipe.clone();
        match self {
            Self::MicroBatches => recipe.num_micro_batches = recipe.batch_size,
            Self::EightBitStates => recipe.optimizer.states = StatePrecision::EightBit,
            Self::Bf16Products => recipe.precision = Precision::Bf16,
            Self::ActivationCheckpointing | Self::StreamedFull | Self::StreamedCompact => {}
        }
        recipe
    }
}

/// What to train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeaturesPlan {
    /// Plain training: vanilla, whole batches, everything in f32, no clipping.
    pub recipe: TrialRecipe,
    /// Features, each tried alone.
    pub features: Vec<MemoryFeature>,
    /// Seeds, the same for all.
    pub seeds: Vec<u64>,
    /// Most held-out sequences to measure on.
    pub max_examples: usize,
}

/// One training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureRun {
    /// Its seed.
    pub seed: u64,
    /// Seconds of training.
    pub seconds: f64,
    /// Training loss.
    pub curve: Vec<CurvePoint>,
    /// Loss on the validation part, nats; NaN when the guard saw a divergence, or a number was not finite.
    #[serde(with = "nullable")]
    pub loss: f64,
    /// Its weights end with the same bits as plain training's with this seed.
    pub has_plain_weights: bool,
}

/// A feature's trainings, or plain ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureResult {
    /// `None` for plain training.
    pub feature: Option<MemoryFeature>,
    /// Peak of memory that the plan says, bytes, of one such training by itself.
    pub planned_bytes: u64,
    /// One for each seed.
    pub runs: Vec<FeatureRun>,
}

/// Everything measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeaturesResult {
    /// The plan.
    pub plan: FeaturesPlan,
    /// Plain training, then the features in the plan's order.
    pub results: Vec<FeatureResult>,
}

impl FeaturesPlan {
    /// `recipe` without what is a feature, and without clipping.
    #[must_use]
    pub fn new(recipe: TrialRecipe, features: Vec<MemoryFeature>, seeds: Vec<u64>, max_examples: usize) -> Self {
        let mut recipe = TrialRecipe { num_micro_batches: 1, precision: Precision::F32, ..recipe };
        (recipe.optimizer.clip_norm, recipe.optimizer.states) = (None, StatePrecision::F32);
        Self { recipe, features, seeds, max_examples }
    }

    /// Errors: [`ExperimentError::Plan`].
    pub fn check(&self, network: &Network) -> Result<(), ExperimentError> {
        let refuse = |expected, found: String| Err(ExperimentError::Plan { expected, found });
        if self.features.is_empty() || self.seeds.is_empty() {
            return refuse("at least one feature and one seed", "none".to_owned());
        }
        if self.recipe.hybrid.strategy.predicts() {
            return refuse("full steps only", "a recipe that predicts".to_owned());
        }
        if network.config().max_positions().is_none() {
            return refuse(
                "a language model, whose layers can be computed again and streamed",
                "one of images".to_owned(),
            );
        }
        let streams = self.features.iter().any(|feature| feature.stored().is_some());
        if streams && self.recipe.optimizer.kind != OptimizerKind::AdamW {
            let found = self.recipe.optimizer.kind.name().to_owned();
            return refuse("AdamW, which streamed training has", found);
        }
        if streams && self.recipe.schedule.ema_decay().is_some() {
            return refuse(
                "a schedule without weight average, which streamed training has none of",
                "one with".to_owned(),
            );
        }
        match self.features.iter().find_map(|feature| Some((feature, feature.missing()?))) {
            Some((feature, missing)) => {
                refuse("features that this machine has", format!("{}: {missing}", feature.label()))
            }
            None => Ok(()),
        }
    }
}

/// Trains plainly and with each feature, with every seed. `planned_bytes`: of plain training and of each feature; blocks
/// lie in `folder` while they are streamed.
/// Errors: a plan that cannot be, and whatever a training fails with.
pub fn features(
    ground: &Ground,
    plan: &FeaturesPlan,
    (planned_bytes, folder): (&[u64], &Path),
    eyes: (Watch<'_>, OnRace<'_>),
) -> Result<FeaturesResult, ExperimentError> {
    plan.check(&ground.network)?;
    let stages = Stages::new(plan.seeds.len() as u64);
    let eyes = Eyes::new(eyes, &stages);
    let all = std::iter::once(None).chain(plan.features.iter().copied().map(Some));
    let result = |(feature, &planned_bytes)| FeatureResult { feature, planned_bytes, runs: Vec::new() };
    let mut results: Vec<FeatureResult> = all.zip(planned_bytes).map(result).collect();
    for &seed in &plan.seeds {
        let runs = ground.lanes.alone(|| with_seed(ground, plan, (seed, folder), eyes))?;
        results.iter_mut().zip(runs).for_each(|(result, run)| result.runs.push(run));
    }
    Ok(FeaturesResult { plan: plan.clone(), results })
}

/// One training of each, in turns.
fn with_seed(
    ground: &Ground,
    plan: &FeaturesPlan,
    (seed, folder): (u64, &Path),
    eyes: Eyes<'_>,
) -> Result<Vec<FeatureRun>, ExperimentError> {
    let stage = eyes.begin(&format!("all in turns, seed {seed}"));
    eyes.tell(&stage, 0.0)?;
    let watch = eyes.watch();
    let mut plain = trial(ground, (plan.recipe.clone(), Kept::Activations), seed, watch)?;
    let begin = |&feature: &MemoryFeature| Racer::begin(feature, ground, (&plan.recipe, seed, folder), watch);
    let mut racers = plan.features.iter().map(begin).collect::<Result<Vec<_>, _>>()?;
    for step in 0..plan.recipe.num_steps {
        plain.advance(watch)?;
        for racer in &mut racers {
            racer.advance(watch)?;
        }
        eyes.tell(&stage, (step + 1) as f64 / plan.recipe.num_steps as f64)?;
        let named = plan.features.iter().zip(&racers);
        let curves = named.map(|(feature, racer)| (feature.label().to_owned(), racer.curve().to_vec()));
        let curves =
            std::iter::once((FeaturesResult::PLAIN.to_owned(), plain.curve().to_vec())).chain(curves).collect();
        eyes.show(&stage, RaceView { what: format!("all in turns, seed {seed}"), curves });
    }
    let exam = Exam { with_test: false, max_examples: plan.max_examples };
    let reference = plain.params()?;
    let loss_of = |params: &Params| Ok::<_, ExperimentError>(plain.measured(params, exam, watch)?.validation.loss);
    let (curve, seconds) = (plain.curve().to_vec(), plain.seconds());
    let loss = if plain.had_divergence() { f64::NAN } else { loss_of(&reference)? };
    let mut runs = vec![FeatureRun { seed, seconds, curve, loss, has_plain_weights: true }];
    for racer in &racers {
        let params = racer.params()?;
        let loss = if racer.had_divergence() { f64::NAN } else { loss_of(&params)? };
        let has_plain_weights = has_same_bits(&params, &reference)?;
        let (curve, seconds) = (racer.curve().to_vec(), racer.seconds());
        runs.push(FeatureRun { seed, seconds, curve, loss, has_plain_weights });
    }
    eyes.end(&stage);
    Ok(runs)
}

/// A training in memory whose layers keep `kept`.
fn trial(
    ground: &Ground,
    (recipe, kept): (TrialRecipe, Kept),
    seed: u64,
    watch: Watch<'_>,
) -> Result<Trial, ExperimentError> {
    let network = Arc::new(Network::keeping(ground.network.config(), kept)?);
    let contender = Contender { name: String::new(), what: String::new(), recipe, begins: None };
    Trial::begin(&contender, &Ground { network, ..ground.clone() }, seed, watch)
}

/// A training with a feature.
enum Racer {
    Held(Box<Trial>),
    Streamed(Box<Streamed>),
}

/// A training whose blocks lie on disk.
struct Streamed {
    recipe: TrialRecipe,
    trainer: OffloadTrainer,
    batches: BatchSource,
    seconds: f64,
    curve: Vec<CurvePoint>,
    unplotted: Unplotted,
    /// It came to numbers that are not finite, and stays where it was.
    has_diverged: bool,
    /// Removed with it.
    _folder: ScratchFolder,
}

impl Racer {
    fn begin(
        feature: MemoryFeature,
        ground: &Ground,
        (recipe, seed, folder): (&TrialRecipe, u64, &Path),
        watch: Watch<'_>,
    ) -> Result<Self, ExperimentError> {
        let recipe = feature.in_recipe(recipe);
        let Some(precision) = feature.stored() else {
            return Ok(Self::Held(Box::new(trial(ground, (recipe, feature.kept()), seed, watch)?)));
        };
        let folder = ScratchFolder::new(folder)?;
        let settings = OffloadSettings {
            folder: folder.path().to_owned(),
            precision,
            commit: Some(Commit::Block),
            seed,
            data: format!("{} {}", ground.dataset.name(), ground.dataset.fingerprint()),
            start: None,
        };
        // Progress is that of the experiment.
        let quiet = Watch::new(watch.cancel_flag(), &|_| {});
        let trainer = OffloadTrainer::open(Arc::clone(&ground.network), &recipe.optimizer, &settings, None, quiet)?;
        Ok(Self::Streamed(Box::new(Streamed {
            batches: recipe.batches(&ground.dataset, seed, ground.device.clone())?,
            recipe,
            trainer,
            seconds: 0.0,
            curve: Vec::new(),
            unplotted: Unplotted::default(),
            has_diverged: false,
            _folder: folder,
        })))
    }

    fn advance(&mut self, watch: Watch<'_>) -> Result<(), ExperimentError> {
        match self {
            Self::Held(trial) => trial.advance(watch),
            Self::Streamed(streamed) => streamed.advance(watch),
        }
    }

    fn curve(&self) -> &[CurvePoint] {
        match self {
            Self::Held(trial) => trial.curve(),
            Self::Streamed(streamed) => &streamed.curve,
        }
    }

    fn seconds(&self) -> f64 {
        match self {
            Self::Held(trial) => trial.seconds(),
            Self::Streamed(streamed) => streamed.seconds,
        }
    }

    fn had_divergence(&self) -> bool {
        match self {
            Self::Held(trial) => trial.had_divergence(),
            Self::Streamed(streamed) => streamed.has_diverged,
        }
    }

    fn params(&self) -> Result<Params, ExperimentError> {
        match self {
            Self::Held(trial) => trial.params(),
            Self::Streamed(streamed) => Ok(streamed.trainer.params()?),
        }
    }
}

impl Streamed {
    fn advance(&mut self, watch: Watch<'_>) -> Result<(), ExperimentError> {
        watch.check()?;
        if self.has_diverged {
            return Ok(());
        }
        let started = Instant::now();
        let (done, num_steps) = (self.trainer.num_steps(), self.recipe.num_steps);
        let factor = self.recipe.schedule.factor(done + 1, num_steps);
        let quiet = Watch::new(watch.cancel_flag(), &|_| {});
        let step = match self.trainer.step(&self.batches.train_batch(done)?, factor, quiet) {
            Err(OffloadError::NotFinite { .. }) => {
                self.has_diverged = true;
                return Ok(());
            }
            step => step?,
        };
        self.seconds += started.elapsed().as_secs_f64();
        if let Some(loss) = self.unplotted.add(step.loss, num_steps, step.step == num_steps) {
            let (seconds, cost) = (self.seconds, step.step as f64);
            self.curve.push(CurvePoint { step: step.step, seconds, cost, loss });
        }
        Ok(())
    }
}

/// True when both hold the same tensors with the same bits, buffers aside, which language models have none of.
fn has_same_bits(a: &Params, b: &Params) -> Result<bool, ExperimentError> {
    let bits = |tensor: &Tensor| -> Result<Vec<u32>, ModelError> {
        let numbers = tensor.flatten_all()?.to_vec1::<f32>()?;
        Ok(numbers.into_iter().map(f32::to_bits).collect())
    };
    for (name, a) in a.iter() {
        let Some(b) = b.find(name) else { return Ok(false) };
        if bits(a)? != bits(b)? {
            return Ok(false);
        }
    }
    Ok(a.len() == b.len())
}

#[cfg(test)]
#[path = "features_tests.rs"]
mod tests;
