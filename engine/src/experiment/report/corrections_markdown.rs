//! The report on corrections in Markdown.

use super::frame::{Parts, table};
use crate::experiment::words::{list, number, with_interval};
use crate::experiment::{CorrectionsResult, DEMANDED_OVERHEAD, DEMANDED_REDUCTION, SettingResult};

/// One row for each setting; below, what the figures mean.
pub(super) fn parts(result: &CorrectionsResult) -> Parts {
    let errors: Vec<Vec<String>> = result.settings.iter().map(error_row).collect();
    let costs: Vec<Vec<String>> = result.settings.iter().map(cost_row).collect();
    let errors = table(
        &[
            "confidence",
            "H",
            "corrections",
            "error before, nats",
            "error after, nats",
            "error reduction, %",
            "median of single reductions, %",
            "cosine (lowest)",
        ],
        &errors,
    );
    let costs = table(
        &[
            "confidence",
            "H",
            "steps predicted, %",
            "overhead, % of the time of Predict",
            "the same by median steps, %",
            "the same by counting passes, %",
            "divergences",
            "validation loss, nats",
        ],
        &costs,
    );
    Parts { figures: format!("{errors}\n{costs}"), details: explanation(result), seeds: list(&result.plan.seeds) }
}

fn error_row(setting: &SettingResult) -> Vec<String> {
    let figures = setting.figures();
    let mut row = vec![setting.confidence_threshold.to_string(), setting.max_predict_steps.to_string()];
    match figures.corrections {
        Some(found) => row.extend([
            found.count.to_string(),
            number(found.error_before, 4),
            number(found.error_after, 4),
            // Over all corrections; the interval is that of the seeds' own.
            match figures.error_reduction.and_then(|estimate| estimate.interval) {
                Some((low, high)) => {
                    format!("{:.1} ({:.1} to {:.1})", 100.0 * found.error_reduction, 100.0 * low, 100.0 * high)
                }
                None => number(100.0 * found.error_reduction, 1),
            },
            number(100.0 * found.median_reduction, 1),
            format!("{:.3} ({:.3})", found.cosine, found.lowest_cosine),
        ]),
        None => {
            row.push("0".to_owned());
            row.extend(std::iter::repeat_n("–".to_owned(), 5));
        }
    }
    row
}

fn cost_row(setting: &SettingResult) -> Vec<String> {
    let figures = setting.figures();
    let losses = setting.results.iter().filter(|result| !result.has_diverged).map(|result| result.validation.loss);
    let loss = crate::experiment::Estimate::of(&losses.collect::<Vec<_>>());
    vec![
        setting.confidence_threshold.to_string(),
        setting.max_predict_steps.to_string(),
        number(100.0 * figures.predicted_share, 1),
        with_interval(figures.overhead, 100.0, 1, ""),
        with_interval(figures.overhead_by_medians, 100.0, 1, ""),
        with_interval(figures.overhead_by_counting, 100.0, 1, ""),
        figures.num_divergences.to_string(),
        with_interval(loss, 1.0, 4, ""),
    ]
}

fn explanation(result: &CorrectionsResult) -> String {
    let recipe = &result.plan.recipe;
    format!(
        "## How to read this\n\n\
         - Settings: strategy {}, {} steps of {}, a correction after at most {} predicted steps; only confidence and H differ.\n\
         - Predicted loss: the forecast that stood for a Correct step since Predict began, or since the last correction. \
         Corrected loss: the forecast for the same step after all losses measured since then, its own among them, went \
         into it. Error: how far each lies from the loss measured. Both hold what no forecast can know: how much harder or \
         easier this one batch is than others.\n\
         - Error reduction: 1 − Σ|corrected − actual| / Σ|predicted − actual| over all Correct steps (interval: 95%, over \
         seeds). The mean of single ratios is not shown, because a forecast that happened to be right has next to no error \
         to divide by. Demanded at confidence 0.55: at least {:.0}%.\n\
         - Overhead: time of Correct steps beyond that of as many Full steps, over the time of Predict steps: by all of \
         them, by the median step of each phase, which a busy machine disturbs less, and by counting passes, which it does \
         not disturb (a forward pass is 1/3, a backward pass 2/3 of an example). Demanded: below {:.0}%.\n\
         - Cosine: between the gradient of the sample, by which Predict moves, and the full one, in Correct steps.\n\
         - Reliability: of the losses in Predict and Correct, the share that fell inside the interval stated to hold that \
         share. A forecaster whose intervals can be believed is on the diagonal.\n",
        recipe.hybrid.strategy.label(),
        recipe.num_steps,
        recipe.batch_size,
        recipe.hybrid.correction_interval,
        100.0 * DEMANDED_REDUCTION,
        100.0 * DEMANDED_OVERHEAD
    )
}
