//! The report on the ladder in Markdown.

use super::frame::{Parts, table};
use crate::experiment::words::number;
use crate::experiment::{LadderResult, RungOutcome, RungResult, TrialResult};
use crate::hybrid::Phase;
use crate::memory::format_bytes;

/// One row for each rung; below, how rungs open.
pub(super) fn parts(result: &LadderResult) -> Parts {
    let rows: Vec<Vec<String>> = result.rungs.iter().map(|rung| row(result, rung)).collect();
    let head = [
        "rung",
        "parameters",
        "steps",
        "loss, vanilla",
        "loss, hybrid",
        "hybrid over vanilla",
        "speed-up",
        "steps predicted",
        "s per step, vanilla",
        "s per step, hybrid",
    ];
    let plan = &result.plan;
    let seconds = plan.seconds_per_rung;
    Parts {
        figures: format!(
            "{}\nLoss in nats per token on the validation part (at most {} sequences), after equally many steps of both; a \
             speed-up of 2 is half of vanilla's training time for them.\n",
            table(&head, &rows),
            plan.max_examples
        ),
        details: format!(
            "## How rungs open\n\n\
             - Each rung trains vanilla and the hybrid in turns of one step, {} steps of {} sequences of {} tokens as planned, \
             until its {:.1} minutes are over; those begin with the measuring of step costs, where the strategy does that.\n\
             - The next one opens while the hybrid's loss is at most {}% above vanilla's, after all steps or as many as there \
             was time for.\n\
             - All rungs train at the recipe's learning rates, which were not tuned for each size; one seed, so differences as \
             small as between seeds mean nothing. A batch is cut into as few parts as the memory budget allows: {}.\n",
            plan.recipe.num_steps,
            plan.recipe.batch_size,
            plan.recipe.sequence_length,
            seconds / 60.0,
            100.0 * plan.loss_tolerance,
            parts_in_words(&result.rungs)
        ),
        seeds: plan.seed.to_string(),
    }
}

fn parts_in_words(rungs: &[RungResult]) -> String {
    let part = |rung: &RungResult| format!("{} on rung {}", rung.num_micro_batches, rung.size.label());
    rungs.iter().map(part).collect::<Vec<_>>().join(", ")
}

fn row(result: &LadderResult, rung: &RungResult) -> Vec<String> {
    let mut row = vec![rung.size.label().to_owned(), rung.num_params.to_string()];
    match &rung.outcome {
        RungOutcome::Trained { vanilla, hybrid } => {
            let done = vanilla.num_steps.min(hybrid.num_steps);
            let planned = result.plan.recipe.num_steps;
            let predicted = hybrid.phase(Phase::Predict).num_steps;
            let ratio = rung.loss_ratio();
            row.extend([
                if done < planned { format!("{done} of {planned}, out of time") } else { done.to_string() },
                loss(vanilla),
                loss(hybrid),
                ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{:+.2} %", 100.0 * (ratio - 1.0))),
                number(rung.speed_up().unwrap_or(f64::NAN), 2),
                predicted.to_string(),
                number(vanilla.seconds / vanilla.num_steps as f64, 3),
                number(hybrid.seconds / hybrid.num_steps as f64, 3),
            ]);
            if vanilla.has_diverged || hybrid.has_diverged {
                row[2] = format!("{done} of {planned}, diverged");
            }
        }
        RungOutcome::NoMemory { needed_bytes, budget_bytes, .. } => {
            let (needed, budget) = (format_bytes(*needed_bytes), format_bytes(*budget_bytes));
            row.push(format!("none: needs {needed} of {budget}"));
        }
        RungOutcome::NotOpened => row.push("none: not opened".to_owned()),
    }
    row.resize(10, "–".to_owned());
    row
}

fn loss(result: &TrialResult) -> String {
    number(result.held_out().loss, 4)
}
