//! The report on quantization in Markdown.

use std::collections::BTreeSet;

use super::frame::{Parts, part_of, table};
use crate::experiment::words::{list, number, spread, with_interval};
use crate::experiment::{Contender, QuantizationFigures, QuantizationResult};

/// One row for each way to fewer bits; below, what training for them cost and how.
pub(super) fn parts(result: &QuantizationResult) -> Parts {
    let all = result.figures();
    Parts {
        figures: figures(result, &all),
        details: format!("{}\n{}", training(result, &all), method(result)),
        seeds: list(&result.plan.seeds),
    }
}

fn figures(result: &QuantizationResult, all: &[QuantizationFigures]) -> String {
    let part = part_of(result.trained.iter().flatten());
    let is_text = all.iter().any(|figures| figures.perplexity.is_some());
    let (quality, unit) = if is_text { ("perplexity", "%") } else { ("accuracy, %", "points") };
    let (quality, loss) = (format!("{part} {quality}"), format!("{part} loss, nats"));
    let cost = format!("costs, {unit}");
    let row = |figures: &QuantizationFigures| {
        let is_reference = figures.name == all.first().map_or("", |first| first.name.as_str());
        let verdict = match figures.is_met() {
            Some(true) => "met",
            Some(false) => "missed",
            None => "–",
        };
        vec![
            figures.name.clone(),
            number(figures.bits_per_weight, 2),
            if is_text { spread(figures.perplexity, 1.0, 3) } else { spread(figures.accuracy, 100.0, 2) },
            spread(figures.loss, 1.0, 4),
            with_interval(figures.lost.filter(|_| !is_reference), 1.0, 2, ""),
            figures.limit.map_or_else(|| "–".to_owned(), |limit| limit.to_string()),
            verdict.to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    let inputs = result.plan.contenders.iter().filter_map(|contender| contender.recipe.qat);
    let inputs: BTreeSet<&str> = inputs.map(|qat| qat.activations.label()).collect();
    let inputs = list(&inputs.into_iter().collect::<Vec<_>>());
    format!(
        "{}\nMean ± standard deviation between seeds; costs are against full precision, seed by seed, with 95% intervals, and a \
         demand is met when their mean is within it. Bits count all tensors, embeddings and scales. Weights are measured as a \
         package stores them; what is trained for reads inputs as it did in training ({inputs}), all else reads floats. Runs that diverged are left out here and counted below.\n",
        table(&["weights", "bits per weight", &quality, &loss, &cost, "at most", "demand"], &rows)
    )
}

fn training(result: &QuantizationResult, all: &[QuantizationFigures]) -> String {
    let row = |(contender, figures): (&Contender, &QuantizationFigures)| {
        vec![
            contender.name.clone(),
            contender.what.clone(),
            contender.recipe.num_steps.to_string(),
            spread(figures.seconds, 1.0, 1),
            with_interval(figures.cost_ratio, 1.0, 3, ""),
            figures.num_diverged.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = result.plan.contenders.iter().zip(all).map(row).collect();
    let head =
        ["trained", "what it trains", "steps", "seconds", "cost over full precision's", "runs ended by the guard"];
    format!(
        "## Training\n\n{}\nSeconds are of training alone, in turns in one process. Cost counts passes of the network over \
         examples: a forward pass 1/3, a backward pass 2/3.\n",
        table(&head, &rows)
    )
}

fn method(result: &QuantizationResult) -> String {
    let recipe = result.plan.contenders.first().map(|contender| &contender.recipe);
    let recipe = recipe.map_or_else(String::new, |recipe| {
        format!(
            "All train {} steps of {}, at the recipe's learning rate of {}: none was tuned. ",
            recipe.num_steps, recipe.batch_size, recipe.optimizer.learning_rate
        )
    });
    format!(
        "## Method\n\n{recipe}\"After training\" stores the weights of full precision: each rounded by itself, or (gptq) column \
         by column, calibrated on {} examples of the training part.\n",
        result.plan.calibration_samples
    )
}
