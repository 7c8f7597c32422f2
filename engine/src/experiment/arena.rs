//! The arena: does prediction beat what it must be compared with?
//!
//! | contender | what it shows |
//! | --- | --- |
//! | hybrid | the recipe, predicting |
//! | vanilla, same steps | what as many full steps reach: the quality to keep |
//! | vanilla, same time | what the saved time would have bought without prediction: the honest competitor |
//! | frozen | what predicting nothing gives: the hybrid's phases with weights standing still in Predict |
//!
//! Each is tuned on the validation part with a seed of its own; "same time" over its batch size too. Then all train with
//! every seed of the comparison, in turns in one process, and the test part is measured once, at the end.

use serde::{Deserialize, Serialize};

use super::race::{Contender, Ground, OnRace, Terms, race_alone, race_seeds};
use super::stages::{Eyes, Stages};
use super::trial::TrialResult;
use super::tune::{Tuned, tune};
use super::words::{compared, interval};
use super::{Estimate, ExperimentError, TrialRecipe};
use crate::device::Watch;
use crate::hybrid::{HybridConfig, Strategy};

/// Races of all contenders that give "vanilla, same time" its number of steps.
pub(super) const MATCHING_RACES: u64 = 2;

/// Steps of the short race that measures what a step of each batch size costs.
pub(super) const PACE_STEPS: u64 = 60;

/// What to compare, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArenaPlan {
    /// The hybrid's recipe.
    pub recipe: TrialRecipe,
    /// What vanilla's guard watches.
    pub vanilla: HybridConfig,
    /// Learning rates tried for each contender, as factors of the recipe's.
    pub rate_factors: Vec<f64>,
    /// Batch sizes tried for "vanilla, same time": the recipe's divided by each of these. Its rates are scaled by the
    /// square root of the batch size, then by the factors.
    pub batch_divisors: Vec<usize>,
    /// Seeds of the comparison.
    pub seeds: Vec<u64>,
    /// Seed of the tuning; not among `seeds`.
    pub tuning_seed: u64,
}

/// Everything measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArenaResult {
    /// The plan.
    pub plan: ArenaPlan,
    /// Contenders as tuned: hybrid, vanilla with the same steps, vanilla with the same time, frozen.
    pub tuned: Vec<Tuned>,
    /// For each contender, in that order, one result per seed.
    pub results: Vec<Vec<TrialResult>>,
}

/// Places of the contenders in [`ArenaResult`].
pub const HYBRID: usize = 0;
#[allow(missing_docs, reason = "named by the one above")]
pub const SAME_STEPS: usize = 1;
#[allow(missing_docs, reason = "named by the one above")]
pub const SAME_TIME: usize = 2;
#[allow(missing_docs, reason = "named by the one above")]
pub const FROZEN: usize = 3;

/// What the comparison says; ratios are seed by seed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ArenaSummary {
    /// Share of example-backwards that the hybrid saved against as many vanilla steps.
    pub example_backwards_saved: Option<Estimate>,
    /// Share of measured training time that it saved against as many vanilla steps.
    pub time_saved: Option<Estimate>,
    /// Its loss over that of as many vanilla steps: 1.02 is 2% worse.
    pub loss_ratio: Option<Estimate>,
    /// Its loss over that of vanilla given the same time.
    pub loss_ratio_equal_time: Option<Estimate>,
    /// Its loss over that of the frozen control.
    pub loss_ratio_frozen: Option<Estimate>,
    /// Its accuracy minus that of as many vanilla steps, in points; `None` for text.
    pub accuracy_difference: Option<Estimate>,
    /// Measured training time of "vanilla, same time" over the hybrid's: 1 if the match came out.
    pub time_ratio_equal_time: Option<Estimate>,
}

impl ArenaPlan {
    /// Errors: [`ExperimentError::Plan`].
    pub fn check(&self) -> Result<(), ExperimentError> {
        let refuse = |expected, found: String| Err(ExperimentError::Plan { expected, found });
        if self.seeds.is_empty() || self.seeds.contains(&self.tuning_seed) {
            return refuse("at least one seed that is not the tuning's", format!("{:?}", self.seeds));
        }
        if self.rate_factors.is_empty() || self.rate_factors.iter().any(|rate| !(rate.is_finite() && *rate > 0.0)) {
            return refuse("learning-rate factors above 0", format!("{:?}", self.rate_factors));
        }
        let fits = |&divisor: &usize| divisor > 0 && self.recipe.batch_size.is_multiple_of(divisor);
        if self.batch_divisors.is_empty() || !self.batch_divisors.iter().all(fits) {
            let found = format!("{:?} for a batch of {}", self.batch_divisors, self.recipe.batch_size);
            return refuse("divisors of the batch size", found);
        }
        if !self.recipe.hybrid.strategy.predicts() {
            return refuse("a recipe that predicts, to compare with vanilla", "strategy none".to_owned());
        }
        Ok(())
    }

    /// Trainings, those side by side counted once: three grids of rates, one of rates and batch sizes, two races that
    /// measure paces, those that match times, and the seeds.
    fn num_stages(&self) -> u64 {
        (self.rate_factors.len() * (3 + self.batch_divisors.len()) + 2 + self.seeds.len()) as u64 + MATCHING_RACES
    }

    /// Most trainings that take turns: those of the comparison, or of the race that measures paces.
    #[must_use]
    pub fn num_side_by_side(&self) -> usize {
        4.max(self.batch_divisors.len() + 1)
    }

    /// The recipe with `hybrid` in place of its own, at each rate of the grid.
    fn rates(&self, name: &str, what: &str, hybrid: &HybridConfig) -> Vec<(String, Contender)> {
        let recipe = TrialRecipe { hybrid: hybrid.clone(), ..self.recipe.clone() };
        let at = |&factor: &f64| {
            let recipe = recipe.clone().with_rate(factor);
            let setting = format!("learning rate {}", recipe.optimizer.learning_rate);
            (setting, Contender { name: name.to_owned(), what: what.to_owned(), recipe, begins: None })
        };
        self.rate_factors.iter().map(at).collect()
    }
}

/// Runs the whole comparison. Errors: a plan that cannot be, and whatever a training fails with.
pub fn arena(ground: &Ground, plan: &ArenaPlan, eyes: (Watch<'_>, OnRace<'_>)) -> Result<ArenaResult, ExperimentError> {
    plan.check()?;
    let seed = plan.tuning_seed;
    let stages = Stages::new(plan.num_stages());
    let eyes = Eyes::new(eyes, &stages);
    let frozen = HybridConfig { strategy: Strategy::Frozen, ..plan.recipe.hybrid.clone() };
    let hybrid = plan.rates("hybrid", "the recipe, predicting", &plan.recipe.hybrid);
    let hybrid = tune(ground, hybrid, seed, eyes)?;
    let same_steps = plan.rates("vanilla, same steps", "as many steps, all full", &plan.vanilla);
    let same_steps = tune(ground, same_steps, seed, eyes)?;
    let control = plan.rates("frozen", "the hybrid's phases, weights standing still in Predict", &frozen);
    let control = tune(ground, control, seed, eyes)?;
    let grid = same_time_grid(ground, plan, (&hybrid.contender, &same_steps.contender), eyes)?;
    let same_time = tune(ground, grid, seed, eyes)?;
    let mut tuned = vec![hybrid, same_steps, same_time, control];
    match_time(ground, seed, &mut tuned, eyes)?;

    let contenders: Vec<&Contender> = tuned.iter().map(|tuned| &tuned.contender).collect();
    let what = |seed| format!("comparing: seed {seed}");
    let results = race_seeds(ground, &contenders, &plan.seeds, what, eyes)?;
    Ok(ArenaResult { plan: plan.clone(), tuned, results })
}

/// Settings for "vanilla, same time": each batch size with as many steps as take the hybrid's measured time.
fn same_time_grid(
    ground: &Ground,
    plan: &ArenaPlan,
    (hybrid, vanilla): (&Contender, &Contender),
    eyes: Eyes<'_>,
) -> Result<Vec<(String, Contender)>, ExperimentError> {
    let seed = plan.tuning_seed;
    // Both in one race, because two tunings may have met a machine differently busy.
    let what = "measuring the hybrid's pace against vanilla's";
    let paced = race_alone(ground, &[hybrid, vanilla], &Terms::new(what, seed), eyes)?;
    let (hybrid_seconds, step_seconds) = match paced.as_slice() {
        [hybrid, vanilla] => (hybrid.seconds, vanilla.seconds / vanilla.num_steps.max(1) as f64),
        _ => return Err(ExperimentError::Plan { expected: "two paces", found: paced.len().to_string() }),
    };
    let of_size = |&divisor: &usize| {
        let batch_size = plan.recipe.batch_size / divisor;
        // Parts only save memory; a smaller batch needs no more of them.
        let num_micro_batches = plan.recipe.num_micro_batches.div_ceil(divisor);
        let hybrid = plan.vanilla.clone();
        let recipe = TrialRecipe { hybrid, batch_size, num_micro_batches, ..plan.recipe.clone() };
        (divisor, recipe)
    };
    let sizes: Vec<(usize, TrialRecipe)> = plan.batch_divisors.iter().map(of_size).collect();
    let short = |(divisor, recipe): &(usize, TrialRecipe)| Contender {
        name: format!("batch {}", recipe.batch_size),
        what: String::new(),
        recipe: TrialRecipe { num_steps: PACE_STEPS * *divisor as u64, ..recipe.clone() },
        begins: None,
    };
    let mut shorts: Vec<Contender> = sizes.iter().map(short).collect();
    shorts
        .push(Contender { recipe: TrialRecipe { num_steps: PACE_STEPS, ..vanilla.recipe.clone() }, ..vanilla.clone() });
    let shorts: Vec<&Contender> = shorts.iter().collect();
    let paces = race_alone(ground, &shorts, &Terms::new("measuring the pace of batch sizes", seed), eyes)?;
    let pace = |result: &TrialResult| result.seconds / result.num_steps.max(1) as f64;
    let reference = paces.last().map_or(f64::NAN, pace);
    let mut grid = Vec::new();
    for ((divisor, recipe), result) in sizes.iter().zip(&paces) {
        let seconds = step_seconds * pace(result) / reference;
        let num_steps = (hybrid_seconds / seconds).round().max(1.0) as u64;
        for &factor in &plan.rate_factors {
            let recipe = TrialRecipe { num_steps, ..recipe.clone() }.with_rate(factor / (*divisor as f64).sqrt());
            let rate = recipe.optimizer.learning_rate;
            let setting = format!("batch {}, {num_steps} steps, learning rate {rate:.2e}", recipe.batch_size);
            let what = "as much time, all full steps; batch size tuned too".to_owned();
            grid.push((setting, Contender { name: "vanilla, same time".to_owned(), what, recipe, begins: None }));
        }
    }
    Ok(grid)
}

/// Gives "vanilla, same time" as many steps as take the hybrid's time, by whole races of all contenders, as the
/// comparison will be: paces of short races are off by up to a third, and in races of the two alone small batches went
/// 13 to 17% faster than in the comparison.
fn match_time(ground: &Ground, seed: u64, tuned: &mut [Tuned], eyes: Eyes<'_>) -> Result<(), ExperimentError> {
    let (mut hybrid_seconds, mut step_seconds) = (0.0, 0.0);
    for _ in 0..MATCHING_RACES {
        let contenders: Vec<&Contender> = tuned.iter().map(|tuned| &tuned.contender).collect();
        let terms = Terms::new("matching the time of vanilla, same time", seed);
        let paced = race_alone(ground, &contenders, &terms, eyes)?;
        if let (Some(hybrid), Some(vanilla)) = (paced.get(HYBRID), paced.get(SAME_TIME)) {
            hybrid_seconds += hybrid.seconds;
            step_seconds += vanilla.seconds / vanilla.num_steps.max(1) as f64;
        }
        let num_steps = hybrid_seconds / step_seconds;
        if let (true, Some(same_time)) = (num_steps.is_finite(), tuned.get_mut(SAME_TIME)) {
            same_time.contender.recipe.num_steps = num_steps.round().max(1.0) as u64;
        }
    }
    Ok(())
}

impl ArenaResult {
    /// What the figures say.
    #[must_use]
    pub fn summary(&self) -> ArenaSummary {
        let pairs = |other: usize, figure: &dyn Fn(&TrialResult) -> f64| -> Vec<(f64, f64)> {
            let of = |index: usize| self.results.get(index).into_iter().flatten().map(figure);
            of(HYBRID).zip(of(other)).collect()
        };
        let ratio = |other, figure: &dyn Fn(&TrialResult) -> f64| Estimate::of_ratio(&pairs(other, figure));
        let saved = |figure: &dyn Fn(&TrialResult) -> f64| {
            let shares: Vec<f64> = pairs(SAME_STEPS, figure).iter().map(|(hybrid, full)| 1.0 - hybrid / full).collect();
            Estimate::of(&shares)
        };
        let loss = |result: &TrialResult| result.held_out().loss;
        let accuracy = |result: &TrialResult| result.held_out().accuracy.unwrap_or(f64::NAN);
        let differences: Vec<f64> = pairs(SAME_STEPS, &accuracy).iter().map(|(a, b)| 100.0 * (a - b)).collect();
        let times: Vec<(f64, f64)> =
            pairs(SAME_TIME, &|result| result.seconds).iter().map(|&(hybrid, other)| (other, hybrid)).collect();
        ArenaSummary {
            example_backwards_saved: saved(&|result| result.example_backwards as f64),
            time_saved: saved(&|result| result.seconds),
            loss_ratio: ratio(SAME_STEPS, &loss),
            loss_ratio_equal_time: ratio(SAME_TIME, &loss),
            loss_ratio_frozen: ratio(FROZEN, &loss),
            accuracy_difference: Estimate::of(&differences),
            time_ratio_equal_time: Estimate::of_ratio(&times),
        }
    }

    /// The verdict in words, with its uncertainty.
    #[must_use]
    pub fn verdict(&self) -> String {
        self.summary().verdict()
    }
}

impl ArenaSummary {
    /// True when every step of every seed was full and ended at as many vanilla steps' loss.
    fn never_predicted(&self) -> bool {
        let is_exactly = |estimate: Option<Estimate>, value: f64| {
            estimate
                .is_some_and(|found| found.mean == value && found.interval.is_none_or(|ends| ends == (value, value)))
        };
        is_exactly(self.example_backwards_saved, 0.0) && is_exactly(self.loss_ratio, 1.0)
    }

    /// One sentence for each question, as far as it was measured.
    #[must_use]
    pub fn verdict(&self) -> String {
        let mut sentences = Vec::new();
        let same_steps = self.loss_ratio.filter(|_| !self.never_predicted());
        let frozen = self.loss_ratio_frozen.filter(|_| !self.never_predicted());
        if self.never_predicted() {
            sentences
                .push("It never predicted, so it trained as vanilla does: nothing was saved, nothing lost.".to_owned());
        } else if let (Some(backwards), Some(time)) = (self.example_backwards_saved, self.time_saved) {
            sentences.push(format!(
                "Prediction saved {} of the example-backwards and {} of the training time of as many vanilla steps.",
                interval(&backwards, 100.0, 1, "%"),
                interval(&time, 100.0, 1, "%")
            ));
        }
        if let Some(ratio) = same_steps {
            sentences.push(compared("Its loss is", &ratio, "what as many vanilla steps reach"));
        }
        if let Some(ratio) = self.loss_ratio_equal_time {
            sentences.push(compared("Against vanilla given the same time its loss is", &ratio, "what that reaches"));
        }
        if let Some(ratio) = frozen {
            sentences.push(compared(
                "Against predicting nothing its loss is",
                &ratio,
                "what the frozen control reaches",
            ));
        }
        sentences.join(" ")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::literal;
    use super::*;

    #[test]
    fn a_hybrid_that_never_predicted_says_so() {
        let mut result = literal::arena();
        assert!(result.verdict().starts_with("Prediction saved"), "{}", result.verdict());
        result.results[HYBRID] = result.results[SAME_STEPS].clone();
        let verdict = result.verdict();
        assert!(verdict.starts_with("It never predicted") && !verdict.contains("0.0%"), "{verdict}");
        assert!(verdict.contains("given the same time"), "{verdict}");
    }
}
