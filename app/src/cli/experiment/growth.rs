//! `foretrain experiment growth`.

use std::path::PathBuf;

use comfy_table::Table;
use foretrain_engine::experiment::{Estimate, GrowthResult, TrialResult, Tuned};
use foretrain_engine::models::BlockOrder;
use foretrain_engine::session::{ExperimentKind, RunConfig};
use serde_json::{Value, json};

use super::{Asked, ask, cell, estimate, optimizer_name};
use crate::cli::recipe_arg::{self, RecipeArgs};
use crate::cli::{CliError, CommonArgs, number_arg, output};

/// Arguments of `growth`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("preset", |preset| preset.default_value("grammar-gpt2-char")))]
pub struct GrowthArgs {
    /// What to train.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Blocks of the network at full depth, an even number; the model's own when left out.
    #[arg(long, value_parser = number_arg::parse_count::<usize>)]
    pub blocks: Option<usize>,
    /// Width of the network, with --heads; the model's own when left out.
    #[arg(long, requires = "heads", value_parser = number_arg::parse_count::<usize>)]
    pub width: Option<usize>,
    /// Attention heads of the network, with --width.
    #[arg(long, requires = "width", value_parser = number_arg::parse_count::<usize>)]
    pub heads: Option<usize>,
    /// Share of the steps that are trained at half depth.
    #[arg(long, default_value_t = 0.65, value_parser = number_arg::parse_above_zero)]
    pub share: f64,
    /// Where new blocks may stand: stacked (all after the old ones), interleaved (one after each).
    #[arg(long, value_delimiter = ',', default_value = "stacked,interleaved", value_parser = parse_order)]
    pub orders: Vec<BlockOrder>,
    /// Learning rates tried for each contender, as factors of the recipe's.
    #[arg(long, value_delimiter = ',', default_value = "0.5,1,2")]
    pub rates: Vec<f64>,
    /// Seeds of the comparison; one more tunes.
    #[arg(long, default_value_t = 5, value_parser = number_arg::parse_count::<u64>)]
    pub seeds: u64,
    /// Folder of the report; must not exist.
    #[arg(long)]
    pub output: Option<PathBuf>,
}

/// Every step is a full one.
const TIER: &str = "vanilla";

pub(super) fn run(args: &GrowthArgs, common: &CommonArgs) -> Result<(), CliError> {
    let refuse = |option: &str, found: &str| {
        Err(CliError::Usage(format!("{option}: expected none, because every step is a full one here, found {found}")))
    };
    if let Some(tier) = &args.recipe.tier {
        return refuse("--tier", tier);
    }
    if let Some(strategy) = args.recipe.strategy {
        return refuse("--strategy", strategy.label());
    }
    let recipe = RecipeArgs { tier: Some(TIER.to_owned()), ..args.recipe.clone() };
    let mut config = recipe_arg::config(&recipe, common)?;
    let num_blocks = take_blocks(&mut config, args.blocks)?;
    if let Some(model) = args.width.zip(args.heads).and_then(|(width, heads)| config.model.with_width(width, heads)) {
        config.model = model;
    }
    let (half, name, optimizer) = (num_blocks / 2, &config.name, optimizer_name(&config));
    let title = format!("{name} with {optimizer}: {num_blocks} blocks grown from {half}");
    let kind = ExperimentKind::Growth {
        share: args.share,
        orders: args.orders.clone(),
        rate_factors: args.rates.clone(),
        num_seeds: args.seeds,
    };
    ask(Asked { kind, config, title, output: args.output.clone() }, common)
}

/// Gives the model so many blocks, or leaves it its own; returns how many it has.
fn take_blocks(config: &mut RunConfig, num_blocks: Option<usize>) -> Result<usize, CliError> {
    let Some(own) = config.model.num_blocks() else {
        return Err(CliError::Usage(format!(
            "experiment growth: expected a recipe or model of transformer blocks, found {}",
            config.name
        )));
    };
    let num_blocks = num_blocks.unwrap_or(own);
    if !num_blocks.is_multiple_of(2) {
        return Err(CliError::Usage(format!("--blocks: expected an even number, found {num_blocks}")));
    }
    if let Some(model) = config.model.with_num_blocks(num_blocks) {
        config.model = model;
    }
    Ok(num_blocks)
}

fn parse_order(label: &str) -> Result<BlockOrder, String> {
    BlockOrder::from_label(label)
        .ok_or_else(|| format!("expected one of {}", BlockOrder::ALL.map(BlockOrder::label).join(", ")))
}

/// What to print: contenders, and everything for programs.
pub(super) fn figures(result: &GrowthResult) -> (Table, Value) {
    let mut table = output::table(&["contender", "setting", "steps", "loss, nats", "seconds", "operations, %"]);
    let full = result.flops.get(GrowthResult::FULL_SAME_STEPS).copied().unwrap_or(f64::NAN);
    let mut contenders = Vec::new();
    for ((tuned, results), flops) in result.tuned.iter().zip(&result.results).zip(&result.flops) {
        let over_seeds =
            |figure: &dyn Fn(&TrialResult) -> f64| Estimate::of(&results.iter().map(figure).collect::<Vec<_>>());
        let loss = over_seeds(&|result| result.held_out().loss);
        let seconds = over_seeds(&|result| result.seconds);
        let Tuned { contender, tried, best, .. } = tuned;
        let setting = tried.get(*best).map_or("", |tried| tried.setting.as_str());
        table.add_row(vec![
            contender.name.as_str().into(),
            setting.into(),
            output::number(contender.recipe.num_steps.to_string()),
            cell(loss.map(|loss| loss.mean), 4),
            cell(seconds.map(|seconds| seconds.mean), 1),
            cell(Some(100.0 * flops / full), 1),
        ]);
        contenders.push(json!({
            "name": contender.name, "setting": setting, "steps": contender.recipe.num_steps,
            "loss": estimate(loss), "seconds": estimate(seconds), "flops": flops,
        }));
    }
    let summary = result.summary();
    let [full, half, random] = summary.time_ratios;
    let json = json!({
        "experiment": "growth",
        "blocks": result.plan.model.num_blocks(),
        "half_depth_steps": result.plan.half_steps(),
        "contenders": contenders,
        "flops_saved": summary.flops_saved,
        "time_saved": estimate(summary.time_saved),
        "loss_ratio": estimate(summary.loss_ratio),
        "loss_ratio_full_depth_equal_time": estimate(summary.loss_ratio_full),
        "loss_ratio_half_depth_equal_time": estimate(summary.loss_ratio_half),
        "loss_ratio_random": estimate(summary.loss_ratio_random),
        "half_over_full_depth_loss_ratio": estimate(summary.depth_ratio),
        "time_ratios": { "full_depth": estimate(full), "half_depth": estimate(half), "random": estimate(random) },
        "beats_all_controls": summary.beats_all(),
    });
    (table, json)
}
