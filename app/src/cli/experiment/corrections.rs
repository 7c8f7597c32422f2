//! `foretrain experiment corrections`.

use std::path::PathBuf;

use comfy_table::Table;
use foretrain_engine::experiment::{CorrectionsResult, SettingResult};
use foretrain_engine::session::ExperimentKind;
use serde_json::{Value, json};

use super::{Asked, ask, cell, estimate, optimizer_name};
use crate::cli::recipe_arg::{self, RecipeArgs};
use crate::cli::{CliError, CommonArgs, number_arg, output};

/// Arguments of `corrections`.
#[derive(Debug, clap::Args)]
pub struct CorrectionsArgs {
    /// What to train.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Confidence thresholds, 0 to 1.
    #[arg(long, value_name = "SHARES", value_delimiter = ',', default_value = "0.65,0.60,0.55")]
    #[arg(value_parser = number_arg::parse_share)]
    pub confidence: Vec<f64>,
    /// Most predicted steps in a row, H.
    #[arg(long, value_name = "STEPS", value_delimiter = ',', default_value = "30,50,75")]
    #[arg(value_parser = number_arg::parse_count::<u32>)]
    pub horizons: Vec<u32>,
    /// Seeds, the same for each setting.
    #[arg(long, default_value_t = 1, value_parser = number_arg::parse_count::<u64>)]
    pub seeds: u64,
    /// Folder of the report; must not exist.
    #[arg(long)]
    pub output: Option<PathBuf>,
}

pub(super) fn run(args: &CorrectionsArgs, common: &CommonArgs) -> Result<(), CliError> {
    let config = recipe_arg::config(&args.recipe, common)?;
    let title = format!("{} with {}: forecasts and corrections", config.name, optimizer_name(&config));
    let kind = ExperimentKind::Corrections {
        confidence_thresholds: args.confidence.clone(),
        horizons: args.horizons.clone(),
        num_seeds: args.seeds,
    };
    ask(Asked { kind, config, title, output: args.output.clone() }, common)
}

/// What to print: settings, and everything for programs.
pub(super) fn figures(result: &CorrectionsResult) -> (Table, Value) {
    let head =
        ["confidence", "H", "corrections", "before, nats", "after, nats", "reduction, %", "cosine", "overhead, %"];
    let mut table = output::table(&head);
    for setting in &result.settings {
        let figures = setting.figures();
        let found = figures.corrections;
        table.add_row(vec![
            output::number(setting.confidence_threshold.to_string()),
            output::number(setting.max_predict_steps.to_string()),
            output::number(found.map_or(0, |found| found.count).to_string()),
            cell(found.map(|found| found.error_before), 4),
            cell(found.map(|found| found.error_after), 4),
            cell(found.map(|found| 100.0 * found.error_reduction), 1),
            cell(found.map(|found| found.cosine), 3),
            cell(figures.overhead_by_medians.map(|overhead| 100.0 * overhead.mean), 1),
        ]);
    }
    let settings: Vec<Value> = result.settings.iter().map(setting_json).collect();
    (table, json!({ "experiment": "corrections", "settings": settings }))
}

fn setting_json(setting: &SettingResult) -> Value {
    let figures = setting.figures();
    json!({
        "confidence": setting.confidence_threshold,
        "horizon": setting.max_predict_steps,
        "corrections": figures.corrections,
        "error_reduction_by_seed": estimate(figures.error_reduction),
        "overhead": estimate(figures.overhead),
        "overhead_by_medians": estimate(figures.overhead_by_medians),
        "overhead_by_counting": estimate(figures.overhead_by_counting),
        "predicted_share": figures.predicted_share,
        "divergences": figures.num_divergences,
    })
}
