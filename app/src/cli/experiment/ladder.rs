//! `foretrain experiment ladder`.

use std::path::PathBuf;

use comfy_table::Table;
use foretrain_engine::experiment::{LadderResult, RungOutcome, RungResult, RungSize};
use foretrain_engine::session::ExperimentKind;
use serde_json::{Value, json};

use super::{Asked, ask, cell, optimizer_name};
use crate::cli::recipe_arg::{self, RecipeArgs};
use crate::cli::{CliError, CommonArgs, number_arg, output};

/// Arguments of `ladder`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("preset", |preset| preset.default_value("grammar-gpt2-char")))]
pub struct LadderArgs {
    /// What to train.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Sizes, smallest first: 100k, 1m, 11m, 124m.
    #[arg(long, value_name = "SIZES", value_delimiter = ',', default_value = "100k,1m,11m,124m", value_parser = parse_size)]
    pub rungs: Vec<RungSize>,
    /// Minutes that the two trainings of a rung may take together; a rung that needs more says how far it got.
    #[arg(long, value_name = "MINUTES", default_value_t = 10.0, value_parser = number_arg::parse_above_zero)]
    pub minutes_per_rung: f64,
    /// Percent by which the hybrid's loss may lie above vanilla's for the next rung to open.
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0, value_parser = number_arg::parse_at_least_zero)]
    pub tolerance: f64,
    /// Folder of the report; must not exist.
    #[arg(long)]
    pub output: Option<PathBuf>,
}

pub(super) fn run(args: &LadderArgs, common: &CommonArgs) -> Result<(), CliError> {
    if let Some(model) = &args.recipe.model {
        return Err(CliError::Usage(format!(
            "--model: expected none, because --rungs names the ladder's sizes, found {model}"
        )));
    }
    let config = recipe_arg::config(&args.recipe, common)?;
    let title = format!("{} with {}: from small to large", config.name, optimizer_name(&config));
    let kind = ExperimentKind::Ladder {
        sizes: args.rungs.clone(),
        minutes_per_rung: args.minutes_per_rung,
        loss_tolerance: args.tolerance / 100.0,
    };
    ask(Asked { kind, config, title, output: args.output.clone() }, common)
}

fn parse_size(label: &str) -> Result<RungSize, String> {
    RungSize::from_label(label)
        .ok_or_else(|| format!("expected one of {}", RungSize::ALL.map(RungSize::label).join(", ")))
}

/// What to print: rungs, and everything for programs.
pub(super) fn figures(result: &LadderResult) -> (Table, Value) {
    let head = ["rung", "parameters", "steps", "loss, vanilla", "loss, hybrid", "hybrid over vanilla", "speed-up"];
    let mut table = output::table(&head);
    for rung in &result.rungs {
        let [steps, vanilla, hybrid] = match &rung.outcome {
            RungOutcome::Trained { vanilla, hybrid } => [
                output::number(vanilla.num_steps.min(hybrid.num_steps).to_string()),
                cell(Some(vanilla.held_out().loss), 4),
                cell(Some(hybrid.held_out().loss), 4),
            ],
            RungOutcome::NoMemory { .. } => ["no memory".into(), cell(None, 0), cell(None, 0)],
            RungOutcome::NotOpened => ["not opened".into(), cell(None, 0), cell(None, 0)],
        };
        table.add_row(vec![
            rung.size.label().into(),
            output::number(rung.num_params.to_string()),
            steps,
            vanilla,
            hybrid,
            cell(rung.loss_ratio(), 4),
            cell(rung.speed_up(), 2),
        ]);
    }
    let rungs: Vec<Value> = result.rungs.iter().map(|rung| rung_json(result, rung)).collect();
    (table, json!({ "experiment": "ladder", "planned_steps": result.plan.recipe.num_steps, "rungs": rungs }))
}

fn rung_json(result: &LadderResult, rung: &RungResult) -> Value {
    let mut json = json!({
        "size": rung.size.label(),
        "num_params": rung.num_params,
        "num_micro_batches": rung.num_micro_batches,
    });
    let figures = match &rung.outcome {
        RungOutcome::Trained { vanilla, hybrid } => json!({
            "outcome": "trained",
            "steps": vanilla.num_steps.min(hybrid.num_steps),
            "loss_vanilla": vanilla.held_out().loss,
            "loss_hybrid": hybrid.held_out().loss,
            "loss_ratio": rung.loss_ratio(),
            "speed_up": rung.speed_up(),
            "seconds_vanilla": vanilla.seconds,
            "seconds_hybrid": hybrid.seconds,
            "has_kept_quality": rung.has_kept_quality(result.plan.loss_tolerance),
        }),
        RungOutcome::NoMemory { needed_bytes, budget_bytes, .. } => {
            json!({ "outcome": "no memory", "needed_bytes": needed_bytes, "budget_bytes": budget_bytes })
        }
        RungOutcome::NotOpened => json!({ "outcome": "not opened" }),
    };
    if let (Some(object), Value::Object(figures)) = (json.as_object_mut(), figures) {
        object.extend(figures);
    }
    json
}
