//! The report on growth in Markdown.

use super::frame::{Parts, part_of, table};
use super::tuned::tuning;
use crate::experiment::words::{list, with_interval, with_spread};
use crate::experiment::{GrowthResult, TrialResult, Tuned};

/// Contenders and ratios; below, how it was matched and what was tried in tuning.
pub(super) fn parts(result: &GrowthResult) -> Parts {
    Parts {
        figures: format!("{}\n{}", contenders(result), ratios(result)),
        details: format!("{}\n{}", method(result), tuning(&result.tuned)),
        seeds: format!("{}; tuning seed {}", list(&result.plan.seeds), result.plan.tuning_seed),
    }
}

fn contenders(result: &GrowthResult) -> String {
    let part = part_of(result.results.iter().flatten());
    let full = result.flops.get(GrowthResult::FULL_SAME_STEPS).copied().unwrap_or(f64::NAN);
    let row = |((tuned, results), flops): ((&Tuned, &Vec<TrialResult>), &f64)| {
        let of = |figure: &dyn Fn(&TrialResult) -> f64| -> Vec<f64> { results.iter().map(figure).collect() };
        vec![
            tuned.contender.name.clone(),
            tuned.contender.what.clone(),
            tuned.contender.recipe.num_steps.to_string(),
            with_spread(&of(&|result| result.seconds), 1),
            format!("{flops:.2e}"),
            format!("{:.1}", 100.0 * flops / full),
            with_spread(&of(&|result| result.held_out().loss), 4),
        ]
    };
    let rows: Vec<Vec<String>> = result.tuned.iter().zip(&result.results).zip(&result.flops).map(row).collect();
    let loss = format!("{part} loss, nats");
    let head = ["contender", "what it trains", "steps", "seconds", "operations", "of full depth's, %", &loss];
    format!(
        "{}\nMean ± standard deviation between seeds. Operations are floating-point ones of products of tensors for every \
         token, forward and backward, the optimizer's left out. Seconds are of training alone, growing included, measured \
         in turns in one process.\n",
        table(&head, &rows)
    )
}

fn ratios(result: &GrowthResult) -> String {
    let summary = result.summary();
    let ratio = |estimate| with_interval(estimate, 1.0, 3, "");
    let [full, half, random] = summary.time_ratios;
    let row = |what: &str, value: String| vec![what.to_owned(), value];
    let rows = [
        row(
            "training time saved against as many steps at full depth",
            with_interval(summary.time_saved, 100.0, 1, " %"),
        ),
        row("loss over that of as many steps at full depth", ratio(summary.loss_ratio)),
        row("loss over that of full depth given the same time", ratio(summary.loss_ratio_full)),
        row("loss over that of half depth given the same time", ratio(summary.loss_ratio_half)),
        row("loss over that of growing by random blocks", ratio(summary.loss_ratio_random)),
        row("time of \"full depth, same time\" over its own", ratio(full)),
        row("time of \"half depth, same time\" over its own", ratio(half)),
        row("time of growing by random blocks over its own", ratio(random)),
        row("half depth's loss over full depth's, both given that time", ratio(summary.depth_ratio)),
    ];
    table(&["growing by copies", "mean (95% interval over seeds)"], &rows)
}

fn method(result: &GrowthResult) -> String {
    let plan = &result.plan;
    let blocks = plan.model.num_blocks().unwrap_or_default();
    let [full, half] = [result.pace.full_step_seconds, result.pace.half_step_seconds].map(|seconds| 1e3 * seconds);
    format!(
        "## Method\n\nThe two that grow train {} of {} steps with {} of {blocks} blocks, then go on with all: each tensor of a copied block \
         is copied, a random block is drawn as the deep network's are. The optimizer begins anew there, the learning rate's \
         schedule goes on over the whole run. A step took {full:.1} ms at full depth and {half:.1} ms at half depth, measured in \
         turns before the tuning; \"same time\" is as many steps as take, by that, what growing takes.\n",
        plan.half_steps(),
        plan.recipe.num_steps,
        blocks / 2,
    )
}
