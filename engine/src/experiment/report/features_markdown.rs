//! The report on memory features in Markdown.

use super::frame::{Parts, table};
use crate::experiment::words::{list, spread, with_interval};
use crate::experiment::{FeatureFigures, FeaturesResult};
use crate::memory::format_bytes;

/// One row for plain training and each feature; below, how it was measured.
pub(super) fn parts(result: &FeaturesResult) -> Parts {
    let all = result.figures();
    let row = |figures: &FeatureFigures| {
        let is_plain = figures.name == FeaturesResult::PLAIN;
        let equal = format!("{} of {}", figures.num_equal, figures.num_seeds);
        let against = |estimate| if is_plain { "–".to_owned() } else { with_interval(estimate, 1.0, 4, "") };
        vec![
            figures.name.to_owned(),
            figures.what.to_owned(),
            spread(figures.loss, 1.0, 4),
            against(figures.loss_ratio),
            if is_plain { "–".to_owned() } else { equal },
            if figures.must_be_equal && !is_plain { "yes" } else { "–" }.to_owned(),
            spread(figures.step_seconds, 1.0, 3),
            if is_plain { "–".to_owned() } else { with_interval(figures.time_ratio, 1.0, 2, "") },
            format_bytes(figures.planned_bytes),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    let head = [
        "training",
        "what it does",
        "loss, nats",
        "loss over plain's",
        "seeds with plain's weights",
        "changes no arithmetic",
        "s per step",
        "time over plain's",
        "memory, planned",
    ];
    let plan = &result.plan;
    let recipe = &plan.recipe;
    Parts {
        figures: format!(
            "{}\nMean ± standard deviation between seeds on the validation part (at most {} sequences); ratios are to plain \
             training, seed by seed, with 95% intervals. Weights are compared bit for bit at the end. Planned memory is of one \
             such training by itself, from its config.\n",
            table(&head, &rows),
            plan.max_examples
        ),
        details: format!(
            "## Method\n\nAll train {} steps of {} sequences of {} tokens in turns of one step, at a learning rate of {}, \
             which was not tuned; every step is a full one, and gradients are not clipped, because a streamed training could clip \
             them only block by block.\n",
            recipe.num_steps, recipe.batch_size, recipe.sequence_length, recipe.optimizer.learning_rate
        ),
        seeds: list(&plan.seeds),
    }
}
