//! Tuning: each contender gets the best of a stated grid, by validation loss on a seed that the comparison does not use.

use serde::{Deserialize, Serialize};

use super::ExperimentError;
use super::race::{Contender, Ground, Terms, race};
use super::stages::Eyes;

/// One setting that was tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// What was changed, in words: "learning rate x2, batch 128".
    pub setting: String,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Images or sequences per step.
    pub batch_size: usize,
    /// Steps.
    pub num_steps: u64,
    /// Validation loss at the end, nats; `None` when it diverged.
    pub validation_loss: Option<f64>,
    /// Seconds of training.
    pub seconds: f64,
}

/// A contender with the grid it was chosen from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tuned {
    /// The best.
    pub contender: Contender,
    /// All that were tried, in order.
    pub tried: Vec<Tried>,
    /// Seed of the tuning.
    pub seed: u64,
    /// Which of them won.
    pub best: usize,
    /// The best lies at an end of the learning-rate grid: a wider grid might find a better one.
    pub is_at_edge: bool,
}

/// Trains every candidate of `grid` once with `seed`; the lowest validation loss wins.
///
/// `grid`: setting in words with the contender that has it; at least one.
/// Errors: [`ExperimentError::Plan`] without candidates, [`ExperimentError::AllDiverged`].
pub fn tune(
    ground: &Ground,
    grid: Vec<(String, Contender)>,
    seed: u64,
    eyes: Eyes<'_>,
) -> Result<Tuned, ExperimentError> {
    let one = |(setting, contender): &(String, Contender)| {
        let what = format!("tuning {}: {setting}", contender.name);
        race(ground, &[contender], &Terms::new(&what, seed), eyes)
    };
    let mut tried = Vec::with_capacity(grid.len());
    for ((setting, contender), results) in grid.iter().zip(ground.lanes.side_by_side(&grid, one)?) {
        let recipe = &contender.recipe;
        tried.extend(results.into_iter().map(|result| Tried {
            setting: setting.clone(),
            learning_rate: recipe.optimizer.learning_rate,
            batch_size: recipe.batch_size,
            num_steps: recipe.num_steps,
            validation_loss: Some(result.validation.loss).filter(|loss| loss.is_finite()),
            seconds: result.seconds,
        }));
    }
    let losses = tried.iter().enumerate().filter_map(|(index, tried)| Some((index, tried.validation_loss?)));
    let best = losses.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(index, _)| index);
    let Some((best, (_, contender))) = best.and_then(|best| Some((best, grid.get(best)?))) else {
        return Err(match grid.first() {
            Some((_, contender)) => {
                ExperimentError::AllDiverged { contender: contender.name.clone(), tried: grid.len() }
            }
            None => ExperimentError::Plan { expected: "a grid of at least one setting", found: "none".to_owned() },
        });
    };
    let is_at_edge = is_at_edge(&tried, best);
    Ok(Tuned { contender: contender.clone(), tried, seed, best, is_at_edge })
}

/// True when the best setting has the lowest or highest learning rate of those with its batch size.
fn is_at_edge(tried: &[Tried], best: usize) -> bool {
    let Some(chosen) = tried.get(best) else { return false };
    let same_batch = tried.iter().filter(|other| other.batch_size == chosen.batch_size);
    let rates: Vec<f64> = same_batch.map(|other| other.learning_rate).collect();
    let is_end = |end: fn(f64, f64) -> f64, start: f64| rates.iter().copied().fold(start, end) == chosen.learning_rate;
    rates.len() > 1 && (is_end(f64::min, f64::INFINITY) || is_end(f64::max, f64::NEG_INFINITY))
}
