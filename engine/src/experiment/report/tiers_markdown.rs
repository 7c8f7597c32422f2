//! The report on tiers in Markdown.

use super::frame::{Parts, part_of, table};
use crate::experiment::words::{list, number, spread, with_interval};
use crate::experiment::{TierFigures, TiersResult};

/// One row for each tier; below, stability and corrections.
pub(super) fn parts(result: &TiersResult) -> Parts {
    let tiers = result.figures();
    Parts {
        figures: figures(result, &tiers),
        details: format!("{}\n{}\n{}", stability(result, &tiers), corrections(&tiers), settings(result)),
        seeds: list(&result.plan.seeds),
    }
}

fn figures(result: &TiersResult, tiers: &[TierFigures]) -> String {
    let part = part_of(result.results.iter().flatten());
    let is_text = tiers.iter().any(|tier| tier.perplexity.is_some());
    let quality = if is_text { format!("{part} perplexity") } else { format!("{part} accuracy, %") };
    let loss = format!("{part} loss, nats");
    let head = [
        "tier",
        "seconds",
        "speed-up",
        "backwards saved, %",
        "steps predicted, %",
        &quality,
        &loss,
        "loss over vanilla's",
    ];
    let row = |tier: &TierFigures| {
        vec![
            tier.name.clone(),
            spread(tier.seconds, 1.0, 1),
            with_interval(tier.speed_up, 1.0, 2, ""),
            with_interval(tier.backwards_saved, 100.0, 1, ""),
            number(100.0 * tier.predicted_share, 1),
            if is_text { spread(tier.perplexity, 1.0, 3) } else { spread(tier.accuracy, 100.0, 2) },
            spread(tier.loss, 1.0, 4),
            with_interval(tier.loss_ratio, 1.0, 3, ""),
        ]
    };
    let rows: Vec<Vec<String>> = tiers.iter().map(row).collect();
    format!(
        "{}\nMean ± standard deviation between seeds; ratios to vanilla are seed by seed, with 95% intervals. Seconds are of \
         training alone, measured in turns in one process. Runs that diverged are left out here and counted below.\n",
        table(&head, &rows)
    )
}

fn stability(result: &TiersResult, tiers: &[TierFigures]) -> String {
    let variance = |tier: &TierFigures| tier.loss.and_then(|loss| loss.std).map_or(f64::NAN, |std| std * std);
    let row = |tier: &TierFigures| {
        let variance = variance(tier);
        let variance = if variance.is_finite() { format!("{variance:.2e}") } else { "–".to_owned() };
        vec![tier.name.clone(), variance, tier.num_divergences.to_string(), tier.num_diverged.to_string()]
    };
    let rows: Vec<Vec<String>> = tiers.iter().map(row).collect();
    format!(
        "## Stability\n\n{}\nThe variance needs two seeds or more; there are {}.\n",
        table(&["tier", "variance of the final loss between seeds", "divergences", "runs ended by the guard"], &rows),
        result.plan.seeds.len()
    )
}

fn corrections(tiers: &[TierFigures]) -> String {
    let row = |tier: &TierFigures| {
        let found = tier.corrections?;
        Some(vec![
            tier.name.clone(),
            found.count.to_string(),
            number(found.error_before, 4),
            number(found.error_after, 4),
            number(100.0 * found.error_reduction, 1),
            number(100.0 * found.median_reduction, 1),
            format!("{:.3} ({:.3})", found.cosine, found.lowest_cosine),
        ])
    };
    let rows: Vec<Vec<String>> = tiers.iter().filter_map(row).collect();
    if rows.is_empty() {
        return "## Corrections\n\nNo Correct step took place in any run.\n".to_owned();
    }
    let head = [
        "tier",
        "corrections",
        "error before, nats",
        "error after, nats",
        "error reduction, %",
        "median of single reductions, %",
        "cosine (lowest)",
    ];
    format!(
        "## Corrections\n\n{}\nErrors are those of the loss forecasts, the reduction is a ratio of sums over all Correct steps.\n",
        table(&head, &rows)
    )
}

fn settings(result: &TiersResult) -> String {
    let row = |tier: &crate::experiment::Contender| {
        let hybrid = &tier.recipe.hybrid;
        let mut row = vec![tier.name.clone(), hybrid.strategy.label().to_owned()];
        if hybrid.strategy.predicts() {
            row.extend([
                hybrid.max_predict_steps.to_string(),
                hybrid.confidence_threshold.to_string(),
                hybrid.correction_interval.to_string(),
                hybrid.slice_fraction.to_string(),
            ]);
        } else {
            row.extend(std::iter::repeat_n("–".to_owned(), 4));
        }
        row
    };
    let rows: Vec<Vec<String>> = result.plan.tiers.iter().map(row).collect();
    let recipe = result.plan.tiers.first().map(|tier| &tier.recipe);
    let recipe = recipe.map_or_else(String::new, |recipe| {
        format!(
            "\n{} steps of {} for each tier, at the recipe's learning rate of {}: none was tuned.\n",
            recipe.num_steps, recipe.batch_size, recipe.optimizer.learning_rate
        )
    });
    let head = ["tier", "strategy", "H", "confidence", "correction interval", "largest slice"];
    format!("## Settings\n\n{}{recipe}", table(&head, &rows))
}
