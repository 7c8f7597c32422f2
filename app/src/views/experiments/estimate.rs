//! How long an arena will take, as far as that is known before.

use foretrain_engine::experiment::{ArenaSize, ArenaStage};

use crate::state::ExperimentsSaved;
use crate::widgets::number;

/// The size of an arena of `num_steps` that is done like `how`.
pub(super) fn size_of(how: &ExperimentsSaved, num_steps: u64) -> ArenaSize {
    ArenaSize {
        num_steps,
        num_rates: how.rate_factors.len() as u64,
        num_batch_sizes: how.batch_divisors.len() as u64,
        num_seeds: how.num_seeds,
    }
}

/// How much work it is, and how long that takes where a full step was measured: a line each.
pub(super) fn in_words(how: &ExperimentsSaved, num_steps: u64, full_step_ms: Option<f64>) -> [String; 2] {
    let steps: u64 = size_of(how, num_steps).stages().iter().map(|stage: &ArenaStage| stage.num_steps).sum();
    let work = format!(
        "{} trainings to tune with, {} to compare: as much as {} full steps.",
        how.rate_factors.len() * (3 + how.batch_divisors.len()),
        4 * how.num_seeds,
        number::count(steps)
    );
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_told_only_where_a_step_was_measured() {
        let [work, time] = in_words(&ExperimentsSaved::quick(), 100, Some(10.0));
        assert_eq!(work, "10 trainings to tune with, 4 to compare: as much as 1,980 full steps.");
        assert!(time.starts_with("About 20 s of steps, at 10.0 ms for a full step"), "{time}");
        let [_, time] = in_words(&ExperimentsSaved::quick(), 100, None);
        assert!(time.contains("is not known"), "{time}");
    }
}
