//! Growth: do a shallow network's weights predict a deep one's?
//!
//! | contender | what it shows |
//! | --- | --- |
//! | grown | half the blocks for a share of the steps, then all of them, the new ones copies |
//! | full depth, same steps | what as many steps of the deep network reach: the quality to keep |
//! | full depth, same time | what the saved time would have bought without growing |
//! | half depth, same time | whether depth matters here at all |
//! | grown, random | the same growth with new blocks that hold nothing: what copies are worth |
//!
//! Each is tuned on the validation part with a seed of its own: all over the learning rate, the two that grow over the
//! order of blocks too. "Same time" is by a race of the two depths that measures what their steps take. Then all train
//! with every seed of the comparison, in turns in one process, and the test part is measured once, at the end.

use serde::{Deserialize, Serialize};

use super::race::{Beginning, Contender, Ground, OnRace, Terms, race_alone, race_seeds};
use super::stages::{Eyes, Stages};
use super::trial::TrialResult;
use super::tune::{Tuned, tune};
use super::{ExperimentError, TrialRecipe};
use crate::device::Watch;
use crate::memory::step_flops;
use crate::models::{BlockOrder, Growth, ModelConfig, NewBlocks};

/// Steps of the race that measures what a step of either depth takes: a quarter of the recipe's, at least this many.
const PACE_STEPS: u64 = 60;

/// What to compare, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GrowthPlan {
    /// How all train; its steps are those of "full depth, same steps" and of the two that grow.
    pub recipe: TrialRecipe,
    /// The network at full depth: a transformer with an even number of blocks.
    pub model: ModelConfig,
    /// Share of the steps that are trained at half depth.
    pub share: f64,
    /// Orders of blocks tried for the two that grow.
    pub orders: Vec<BlockOrder>,
    /// Learning rates tried for each contender, as factors of the recipe's.
    pub rate_factors: Vec<f64>,
    /// Seeds of the comparison.
    pub seeds: Vec<u64>,
    /// Seed of the tuning; not among `seeds`.
    pub tuning_seed: u64,
}

/// What a step takes at either depth, measured in turns.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pace {
    /// Seconds of a step at full depth.
    pub full_step_seconds: f64,
    /// Seconds of a step at half depth.
    pub half_step_seconds: f64,
}

/// Everything measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GrowthResult {
    /// The plan.
    pub plan: GrowthPlan,
    /// What "same time" goes by.
    pub pace: Pace,
    /// Contenders as tuned, in the order of the places below.
    pub tuned: Vec<Tuned>,
    /// For each contender, in that order: floating-point operations of its training, see [`GrowthPlan::flops`].
    pub flops: Vec<f64>,
    /// For each contender, in that order, one result per seed.
    pub results: Vec<Vec<TrialResult>>,
}

impl GrowthResult {
    /// Place of the one that grows by copies.
    pub const GROWN: usize = 0;
    /// Place of the deep network with as many steps.
    pub const FULL_SAME_STEPS: usize = 1;
    /// Place of the deep network with as much time.
    pub const FULL_SAME_TIME: usize = 2;
    /// Place of the shallow network with as much time.
    pub const HALF_SAME_TIME: usize = 3;
    /// Place of the one that grows by random blocks.
    pub const GROWN_RANDOM: usize = 4;
}

impl GrowthPlan {
    /// Most trainings that take turns.
    pub const NUM_SIDE_BY_SIDE: usize = 5;

    /// Errors: [`ExperimentError::Plan`].
    pub fn check(&self) -> Result<(), ExperimentError> {
        let refuse = |expected, found: String| Err(ExperimentError::Plan { expected, found });
        if self.half().is_none() {
            let found = self.model.num_blocks().map_or_else(|| "another network".to_owned(), |n| format!("{n} blocks"));
            return refuse("a transformer with an even number of blocks", found);
        }
        if self.seeds.is_empty() || self.seeds.contains(&self.tuning_seed) {
            return refuse("at least one seed that is not the tuning's", format!("{:?}", self.seeds));
        }
        if self.rate_factors.is_empty() || self.rate_factors.iter().any(|rate| !(rate.is_finite() && *rate > 0.0)) {
            return refuse("learning-rate factors above 0", format!("{:?}", self.rate_factors));
        }
        if self.orders.is_empty() {
            return refuse("at least one order of blocks", "none".to_owned());
        }
        let steps = self.half_steps();
        if !(self.share > 0.0 && self.share < 1.0) || steps == 0 || steps >= self.recipe.num_steps {
            let found = format!("a share of {} of {} steps", self.share, self.recipe.num_steps);
            return refuse("a share above 0 and below 1 that leaves both depths a step", found);
        }
        if self.recipe.hybrid.strategy.predicts() {
            let found = format!("strategy {}", self.recipe.hybrid.strategy.label());
            return refuse("a recipe of full steps, since growing is what is compared", found);
        }
        Ok(())
    }

    /// The network at half depth; `None` when there is no such one.
    #[must_use]
    pub fn half(&self) -> Option<ModelConfig> {
        let num_blocks = self.model.num_blocks().filter(|&n| n > 0 && n.is_multiple_of(2))?;
        self.model.with_num_blocks(num_blocks / 2)
    }

    /// Steps at half depth of those that grow.
    #[must_use]
    pub fn half_steps(&self) -> u64 {
        (self.share * self.recipe.num_steps as f64).round() as u64
    }

    /// Floating-point operations of `contender`'s first `num_steps` steps, forward and backward: products of tensors for
    /// every token, a multiplication with its addition as two; the optimizer's are not counted.
    #[must_use]
    pub fn flops(&self, contender: &Contender, num_steps: u64) -> f64 {
        let TrialRecipe { batch_size, sequence_length, .. } = contender.recipe;
        // A backward pass takes twice a forward pass.
        let of = |model: &ModelConfig| 3.0 * step_flops(model, batch_size, sequence_length) as f64;
        match &contender.begins {
            None => num_steps as f64 * of(&self.model),
            Some(Beginning { model, grows }) => {
                let shallow = grows.map_or(num_steps, |(after_steps, _)| after_steps.min(num_steps));
                shallow as f64 * of(model) + (num_steps - shallow) as f64 * of(&self.model)
            }
        }
    }

    /// [`Self::flops`] of one step at full depth.
    #[must_use]
    pub fn full_step_flops(&self) -> f64 {
        3.0 * step_flops(&self.model, self.recipe.batch_size, self.recipe.sequence_length) as f64
    }

    /// Orders to try: copies of a single block stand behind it in either.
    fn orders(&self) -> &[BlockOrder] {
        let is_single = self.model.num_blocks() == Some(2);
        self.orders.get(..1).filter(|_| is_single).unwrap_or(&self.orders)
    }

    /// Trainings, those side by side counted once: the race that measures paces, the grids, and the seeds.
    fn num_stages(&self) -> u64 {
        (1 + self.rate_factors.len() * (3 + 2 * self.orders().len()) + self.seeds.len()) as u64
    }

    /// Each learning rate of the grid.
    fn rates(&self, contender: &Contender) -> Vec<(String, Contender)> {
        let at = |&factor: &f64| {
            let recipe = contender.recipe.clone().with_rate(factor);
            let setting = format!("learning rate {:.2e}", recipe.optimizer.learning_rate);
            (setting, Contender { recipe, ..contender.clone() })
        };
        self.rate_factors.iter().map(at).collect()
    }

    /// Each order of blocks with each learning rate.
    fn orders_and_rates(&self, name: &str, what: &str, half: &ModelConfig, new: NewBlocks) -> Vec<(String, Contender)> {
        let in_order = |&order: &BlockOrder| {
            let grows = Some((self.half_steps(), Growth { order, new_blocks: new }));
            let begins = Some(Beginning { model: half.clone(), grows });
            let grid = self.rates(&self.contender(name, what, self.recipe.num_steps, begins));
            grid.into_iter().map(move |(setting, contender)| (format!("{}, {setting}", order.label()), contender))
        };
        self.orders().iter().flat_map(in_order).collect()
    }

    fn contender(&self, name: &str, what: &str, num_steps: u64, begins: Option<Beginning>) -> Contender {
        let recipe = TrialRecipe { num_steps, ..self.recipe.clone() };
        Contender { name: name.to_owned(), what: what.to_owned(), recipe, begins }
    }
}

/// Runs the whole comparison; the ground's network is the plan's at full depth.
/// Errors: a plan that cannot be, and whatever a training fails with.
pub fn growth(
    ground: &Ground,
    plan: &GrowthPlan,
    eyes: (Watch<'_>, OnRace<'_>),
) -> Result<GrowthResult, ExperimentError> {
    plan.check()?;
    let Some(half) = plan.half().filter(|_| *ground.network.config() == plan.model) else {
        let found = format!("{:?}", ground.network.config());
        return Err(ExperimentError::Plan { expected: "the plan's network as the ground's", found });
    };
    let stages = Stages::new(plan.num_stages());
    let eyes = Eyes::new(eyes, &stages);
    let seed = plan.tuning_seed;
    let shallow = || Some(Beginning { model: half.clone(), grows: None });

    let pace = measure_pace(ground, plan, &half, eyes)?;
    let all = plan.recipe.num_steps;
    let (at_half, at_full) = (plan.half_steps() as f64, (all - plan.half_steps()) as f64);
    let seconds = at_half * pace.half_step_seconds + at_full * pace.full_step_seconds;
    let steps_in = |step_seconds: f64| (seconds / step_seconds).round().max(1.0) as u64;

    let copied = "half depth, then full depth, the new blocks copies";
    let random = "half depth, then full depth, the new blocks random";
    let same_time = steps_in(pace.full_step_seconds);
    let same_time = plan.contender("full depth, same time", "as much time, all at full depth", same_time, None);
    let half_depth = steps_in(pace.half_step_seconds);
    let half_depth = plan.contender("half depth, same time", "as much time, all at half depth", half_depth, shallow());
    let grids = [
        plan.orders_and_rates("grown", copied, &half, NewBlocks::Copied),
        plan.rates(&plan.contender("full depth, same steps", "as many steps, all at full depth", all, None)),
        plan.rates(&same_time),
        plan.rates(&half_depth),
        plan.orders_and_rates("grown, random", random, &half, NewBlocks::Random),
    ];
    let tuned = grids.into_iter().map(|grid| tune(ground, grid, seed, eyes)).collect::<Result<Vec<_>, _>>()?;

    let contenders: Vec<&Contender> = tuned.iter().map(|tuned| &tuned.contender).collect();
    let what = |seed| format!("comparing: seed {seed}");
    let results = race_seeds(ground, &contenders, &plan.seeds, what, eyes)?;
    let flops = contenders.iter().map(|contender| plan.flops(contender, contender.recipe.num_steps)).collect();
    Ok(GrowthResult { plan: plan.clone(), pace, tuned, flops, results })
}

/// What a step takes at either depth, in turns, since two tunings may have met a machine differently busy.
fn measure_pace(
    ground: &Ground,
    plan: &GrowthPlan,
    half: &ModelConfig,
    eyes: Eyes<'_>,
) -> Result<Pace, ExperimentError> {
    let num_steps = (plan.recipe.num_steps / 4).max(PACE_STEPS).min(plan.recipe.num_steps);
    let full = plan.contender("full depth", "", num_steps, None);
    let shallow = Beginning { model: half.clone(), grows: None };
    let half = plan.contender("half depth", "", num_steps, Some(shallow));
    let paced =
        race_alone(ground, &[&full, &half], &Terms::new("measuring the pace of both depths", plan.tuning_seed), eyes)?;
    let of = |result: &TrialResult| result.seconds / result.num_steps.max(1) as f64;
    match paced.as_slice() {
        [full, half] if of(full) > 0.0 && of(half) > 0.0 => {
            Ok(Pace { full_step_seconds: of(full), half_step_seconds: of(half) })
        }
        other => {
            let found = other.iter().map(|result| format!("{} s", result.seconds)).collect::<Vec<_>>().join(", ");
            Err(ExperimentError::Plan { expected: "two paces", found })
        }
    }
}

#[cfg(test)]
#[path = "growth_tests.rs"]
mod tests;
