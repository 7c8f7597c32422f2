//! The arena's report in Markdown.

use std::fmt::Write;

use super::frame::{Parts, part_of};
use super::tuned::tuning;
use crate::experiment::words::{list, with_interval, with_spread};
use crate::experiment::{ArenaResult, HYBRID, TrialResult};

/// Contenders and ratios; below, where time went and what was tried in tuning.
pub(super) fn parts(result: &ArenaResult) -> Parts {
    Parts {
        figures: format!("{}\n{}", contenders(result), ratios(result)),
        details: format!("{}\n{}", phases(result), tuning(&result.tuned)),
        seeds: format!("{}; tuning seed {}", list(&result.plan.seeds), result.plan.tuning_seed),
    }
}

fn contenders(result: &ArenaResult) -> String {
    let has_accuracy = result.results.iter().flatten().any(|result| result.held_out().accuracy.is_some());
    let part = part_of(result.results.iter().flatten());
    let mut text = format!("| contender | steps x batch | seconds | cost | example-backwards | {part} loss, nats |");
    text.push_str(if has_accuracy { " accuracy, % |\n" } else { "\n" });
    text.push_str("| --- | --- | --- | --- | --- | --- |");
    text.push_str(if has_accuracy { " --- |\n" } else { "\n" });
    for (tuned, results) in result.tuned.iter().zip(&result.results) {
        let of = |figure: &dyn Fn(&TrialResult) -> f64| -> Vec<f64> { results.iter().map(figure).collect() };
        let recipe = &tuned.contender.recipe;
        let full = (result.plan.recipe.num_steps * result.plan.recipe.batch_size as u64) as f64;
        let _ = write!(
            text,
            "| {} | {} x {} | {} | {} % | {} % | {} |",
            tuned.contender.name,
            recipe.num_steps,
            recipe.batch_size,
            with_spread(&of(&|result| result.seconds), 1),
            with_spread(&of(&|result| 100.0 * result.example_cost / full / result.examples_per_unit as f64), 1),
            with_spread(
                &of(&|result| 100.0 * result.example_backwards as f64 / full / result.examples_per_unit as f64),
                1
            ),
            with_spread(&of(&|result| result.held_out().loss), 4),
        );
        if has_accuracy {
            let accuracy = of(&|result| 100.0 * result.held_out().accuracy.unwrap_or(f64::NAN));
            let _ = write!(text, " {} |", with_spread(&accuracy, 2));
        }
        text.push('\n');
    }
    text.push_str(
        "\nMean ± standard deviation between seeds. Cost counts a forward pass as 1/3 and a backward pass as 2/3 of an \
         example; 100 % is the recipe's steps, all full. Seconds are of training alone, measured in turns in one process.\n",
    );
    text
}

fn ratios(result: &ArenaResult) -> String {
    let summary = result.summary();
    let percent = |estimate| with_interval(estimate, 100.0, 1, " %");
    let ratio = |estimate| with_interval(estimate, 1.0, 3, "");
    let mut rows = vec![
        ("example-backwards saved", percent(summary.example_backwards_saved)),
        ("training time saved against as many vanilla steps", percent(summary.time_saved)),
        ("loss over that of as many vanilla steps", ratio(summary.loss_ratio)),
        ("loss over that of vanilla given the same time", ratio(summary.loss_ratio_equal_time)),
        ("loss over that of the frozen control", ratio(summary.loss_ratio_frozen)),
        ("time of \"vanilla, same time\" over the hybrid's", ratio(summary.time_ratio_equal_time)),
    ];
    if summary.accuracy_difference.is_some() {
        let points = with_interval(summary.accuracy_difference, 1.0, 2, " points");
        rows.push(("accuracy minus that of as many vanilla steps", points));
    }
    let mut text = "| the hybrid's | mean (95% interval over seeds) |\n| --- | --- |\n".to_owned();
    for (what, value) in rows {
        let _ = writeln!(text, "| {what} | {value} |");
    }
    text
}

fn phases(result: &ArenaResult) -> String {
    let Some(first) = result.results.get(HYBRID).and_then(|results| results.first()) else { return String::new() };
    let mut text =
        "## Where the hybrid's time went\n\n| phase | steps | seconds | ms per step |\n| --- | --- | --- | --- |\n"
            .to_owned();
    for (name, phase) in ["Warmup", "Full", "Predict", "Correct"].into_iter().zip(first.phases) {
        let each = if phase.num_steps == 0 { f64::NAN } else { 1e3 * phase.seconds / phase.num_steps as f64 };
        let each = if each.is_finite() { format!("{each:.2}") } else { "–".to_owned() };
        let _ = writeln!(text, "| {name} | {} | {:.2} | {each} |", phase.num_steps, phase.seconds);
    }
    let divergences: usize = result.results.iter().flatten().map(|result| result.divergences.len()).sum();
    let share = 100.0 * first.decision_seconds / first.seconds;
    let _ = write!(
        text,
        "\nSeed {}. Forecaster, guard, gate and phases took {share:.1} % of it. Divergences in all runs: {divergences}.\n",
        first.seed
    );
    text
}
