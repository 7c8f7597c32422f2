//! How long an experiment will take, as far as that is known before.

use foretrain_engine::experiment::{ArenaSize, ArenaStage};

use crate::state::{ExperimentChoice, ExperimentsSaved};
use crate::widgets::number;

/// What an experiment on a recipe of `num_steps` does, one after the other, where there are `num_tiers`.
pub(super) fn stages_of(how: &ExperimentsSaved, (num_steps, num_tiers): (u64, usize)) -> Vec<ArenaStage> {
    match how.choice {
        ExperimentChoice::Arena => {
            let size = ArenaSize {
                num_steps,
                num_rates: how.rate_factors.len() as u64,
                num_batch_sizes: how.batch_divisors.len() as u64,
                num_seeds: how.num_seeds,
            };
            size.stages()
        }
        ExperimentChoice::Corrections => {
            let num_races = (how.thresholds.len() * how.horizons.len()) as u64 * how.num_seeds;
            vec![ArenaStage { what: "confidence".to_owned(), num_races, num_steps: num_races * num_steps }]
        }
        ExperimentChoice::Tiers => {
            let num_steps = how.num_seeds * num_tiers as u64 * num_steps;
            vec![ArenaStage { what: "all tiers".to_owned(), num_races: how.num_seeds, num_steps }]
        }
        ExperimentChoice::Ladder => {
            // Rungs have steps of different sizes, and as much time each.
            let num_races = how.rungs.len() as u64;
            vec![ArenaStage { what: "rung".to_owned(), num_races, num_steps: num_races }]
        }
    }
}

/// How much work it is, and how long that takes where a full step was measured: a line each.
pub(super) fn in_words(how: &ExperimentsSaved, extent: (u64, usize), full_step_ms: Option<f64>) -> [String; 2] {
    let steps: u64 = stages_of(how, extent).iter().map(|stage| stage.num_steps).sum();
    let trainings = match how.choice {
        ExperimentChoice::Arena => {
            let num_tuned = how.rate_factors.len() * (3 + how.batch_divisors.len());
            format!("{num_tuned} trainings to tune with, {} to compare", 4 * how.num_seeds)
        }
        ExperimentChoice::Corrections => {
            match how.thresholds.len() as u64 * how.horizons.len() as u64 * how.num_seeds {
                1 => "One training".to_owned(),
                count => format!("{count} trainings"),
            }
        }
        ExperimentChoice::Tiers => format!("{} trainings", how.num_seeds * extent.1 as u64),
        ExperimentChoice::Ladder => {
            let (count, minutes) = (how.rungs.len() as u32, how.minutes_per_rung);
            return [
                format!("{} trainings, two for each size.", 2 * count),
                format!(
                    "At most {} of steps; a size that needs more says how far it got.",
                    minutes_of(count * minutes)
                ),
            ];
        }
    };
    let work = format!("{trainings}: as much as {} full steps.", number::count(steps));
    let time = match full_step_ms {
        Some(step_ms) => format!(
            "About {} of steps, at {} for a full step as measured just now. Predicted steps may be cheaper; measuring on \
             held-out data comes on top.",
            number::seconds(steps as f64 * step_ms / 1e3),
            number::milliseconds(step_ms)
        ),
        None => "How long that takes is not known: no step of this recipe was measured yet.".to_owned(),
    };
    [work, time]
}

fn minutes_of(minutes: u32) -> String {
    if minutes == 1 { "a minute".to_owned() } else { format!("{minutes} minutes") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_told_only_where_a_step_was_measured() {
        let [work, time] = in_words(&ExperimentsSaved::quick(), (100, 4), Some(10.0));
        assert_eq!(work, "10 trainings to tune with, 4 to compare: as much as 2,580 full steps.");
        assert!(time.starts_with("About 26 s of steps, at 10.0 ms for a full step"), "{time}");
        let [_, time] = in_words(&ExperimentsSaved::quick(), (100, 4), None);
        assert!(time.contains("is not known"), "{time}");
    }

    #[test]
    fn corrections_are_a_training_for_each_setting_and_seed() {
        let how = ExperimentsSaved { choice: ExperimentChoice::Corrections, ..ExperimentsSaved::thorough() };
        let [work, _] = in_words(&how, (100, 4), None);
        assert_eq!(work, "27 trainings: as much as 2,700 full steps.");
        let quick = ExperimentsSaved { choice: ExperimentChoice::Corrections, ..ExperimentsSaved::quick() };
        assert_eq!(in_words(&quick, (100, 4), None)[0], "One training: as much as 100 full steps.");
    }

    #[test]
    fn tiers_are_a_training_each_and_a_ladder_has_a_limit_of_time() {
        let of = |choice| in_words(&ExperimentsSaved { choice, ..ExperimentsSaved::quick() }, (100, 4), None);
        assert_eq!(of(ExperimentChoice::Tiers)[0], "4 trainings: as much as 400 full steps.");
        let [work, time] = of(ExperimentChoice::Ladder);
        assert_eq!(work, "4 trainings, two for each size.");
        assert!(time.starts_with("At most 6 minutes"), "{time}");
    }
}
