//! What an arena does one after the other, for whoever wants to know beforehand how far it is.

use super::arena::{MATCHING_RACES, PACE_STEPS};

/// A stage of an experiment: one race, or several of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArenaStage {
    /// Beginning of what the progress of its races says that is done: "tuning hybrid:".
    pub what: String,
    /// Races in it, one after the other.
    pub num_races: u64,
    /// Steps of all contenders in all of them, in full steps of the recipe's batch. An upper bound where steps are
    /// predicted or fewer steps of another size take as long.
    pub num_steps: u64,
}

/// Size of an arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArenaSize {
    /// Steps of the recipe.
    pub num_steps: u64,
    /// Learning rates tried for each contender.
    pub num_rates: u64,
    /// Batch sizes tried for vanilla with as much time.
    pub num_batch_sizes: u64,
    /// Seeds of the comparison.
    pub num_seeds: u64,
}

impl ArenaSize {
    /// The stages of [`super::arena`] in order.
    #[must_use]
    pub fn stages(self) -> Vec<ArenaStage> {
        let Self { num_steps, num_rates, num_batch_sizes, num_seeds } = self;
        let stage =
            |what: &str, num_races: u64, num_steps: u64| ArenaStage { what: what.to_owned(), num_races, num_steps };
        let tuned = |name: &str, num_races: u64| stage(&format!("tuning {name}:"), num_races, num_races * num_steps);
        vec![
            tuned("hybrid", num_rates),
            tuned("vanilla, same steps", num_rates),
            tuned("frozen", num_rates),
            stage("measuring the hybrid's pace", 1, 2 * num_steps),
            // As many examples for each batch size, and once more for the recipe's own.
            stage("measuring the pace of batch sizes", 1, PACE_STEPS * (num_batch_sizes + 1)),
            tuned("vanilla, same time", num_rates * num_batch_sizes),
            stage("matching the time", MATCHING_RACES, MATCHING_RACES * 4 * num_steps),
            stage("comparing: seed", num_seeds, 4 * num_steps * num_seeds),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_arena_by_hand() {
        let stages = ArenaSize { num_steps: 100, num_rates: 2, num_batch_sizes: 2, num_seeds: 1 }.stages();
        let steps: Vec<u64> = stages.iter().map(|stage| stage.num_steps).collect();
        assert_eq!(steps, [200, 200, 200, 200, 180, 400, 800, 400]);
        assert_eq!(stages.iter().map(|stage| stage.num_races).sum::<u64>(), 2 + 2 + 2 + 1 + 1 + 4 + 2 + 1);
    }
}
