//! `foretrain experiment tiers`.

use std::path::PathBuf;

use comfy_table::Table;
use foretrain_engine::experiment::{TierFigures, TiersResult};
use foretrain_engine::session::ExperimentKind;
use serde_json::{Value, json};

use super::{Asked, ask, cell, estimate, optimizer_name};
use crate::cli::recipe_arg::{self, RecipeArgs};
use crate::cli::{CliError, CommonArgs, number_arg, output};

/// Arguments of `tiers`.
#[derive(Debug, clap::Args)]
pub struct TiersArgs {
    /// What to train.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Seeds, the same for each tier.
    #[arg(long, default_value_t = 3, value_parser = number_arg::parse_count::<u64>)]
    pub seeds: u64,
    /// Folder of the report; must not exist.
    #[arg(long)]
    pub output: Option<PathBuf>,
}

pub(super) fn run(args: &TiersArgs, common: &CommonArgs) -> Result<(), CliError> {
    if let Some(tier) = &args.recipe.tier {
        return Err(CliError::Usage(format!("--tier: expected none, because all are compared, found {tier}")));
    }
    let config = recipe_arg::config(&args.recipe, common)?;
    let title = format!("{} with {}: tiers compared", config.name, optimizer_name(&config));
    let kind = ExperimentKind::Tiers { strategy: args.recipe.strategy, num_seeds: args.seeds };
    ask(Asked { kind, config, title, output: args.output.clone() }, common)
}

/// What to print: tiers, and everything for programs.
pub(super) fn figures(result: &TiersResult) -> (Table, Value) {
    let tiers = result.figures();
    let is_text = tiers.iter().any(|tier| tier.perplexity.is_some());
    let quality = if is_text { "perplexity" } else { "accuracy, %" };
    let head = ["tier", "seconds", "speed-up", "loss, nats", quality, "predicted, %", "reduction, %", "divergences"];
    let mut table = output::table(&head);
    for tier in &tiers {
        let quality = if is_text { tier.perplexity } else { tier.accuracy };
        let (factor, decimals) = if is_text { (1.0, 3) } else { (100.0, 2) };
        table.add_row(vec![
            tier.name.as_str().into(),
            cell(tier.seconds.map(|seconds| seconds.mean), 1),
            cell(tier.speed_up.map(|ratio| ratio.mean), 2),
            cell(tier.loss.map(|loss| loss.mean), 4),
            cell(quality.map(|quality| factor * quality.mean), decimals),
            cell(Some(100.0 * tier.predicted_share), 1),
            cell(tier.corrections.map(|found| 100.0 * found.error_reduction), 1),
            output::number(tier.num_divergences.to_string()),
        ]);
    }
    let tiers: Vec<Value> = tiers.iter().map(tier_json).collect();
    (table, json!({ "experiment": "tiers", "tiers": tiers }))
}

fn tier_json(tier: &TierFigures) -> Value {
    json!({
        "name": tier.name,
        "seconds": estimate(tier.seconds),
        "speed_up": estimate(tier.speed_up),
        "example_backwards_saved": estimate(tier.backwards_saved),
        "loss": estimate(tier.loss),
        "loss_ratio": estimate(tier.loss_ratio),
        "accuracy": estimate(tier.accuracy),
        "perplexity": estimate(tier.perplexity),
        "predicted_share": tier.predicted_share,
        "divergences": tier.num_divergences,
        "diverged_runs": tier.num_diverged,
        "corrections": tier.corrections,
    })
}
