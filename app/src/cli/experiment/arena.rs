//! `foretrain experiment arena` and `headline`.

use std::path::PathBuf;

use comfy_table::Table;
use foretrain_engine::data::DatasetSpec;
use foretrain_engine::device::ComputeDevice;
use foretrain_engine::experiment::{ArenaResult, ArenaSummary, HYBRID, TrialResult, Tuned};
use foretrain_engine::optim::OptimizerKind;
use foretrain_engine::session::ExperimentKind;
use serde_json::{Value, json};

use super::{Asked, ask, cell, estimate, optimizer_name};
use crate::cli::data_arg::DataArgs;
use crate::cli::recipe_arg::{self, RecipeArgs};
use crate::cli::{CliError, CommonArgs, number_arg, output};

/// How thorough a comparison is.
#[derive(Debug, clap::Args)]
pub struct Thoroughness {
    /// Seeds of the comparison; one more tunes.
    #[arg(long, default_value_t = 3, value_parser = number_arg::parse_count::<u64>)]
    pub seeds: u64,
    /// Learning rates tried for each contender, as factors of the recipe's.
    #[arg(long, value_delimiter = ',', default_value = "0.5,1,2,4")]
    pub rates: Vec<f64>,
    /// Batch sizes tried for vanilla with as much time: the recipe's divided by each of these.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4")]
    pub batch_divisors: Vec<usize>,
    /// Folder of the report; must not exist.
    #[arg(long)]
    pub output: Option<PathBuf>,
}

/// Arguments of `arena`.
#[derive(Debug, clap::Args)]
pub struct ArenaArgs {
    /// What to train.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// How thoroughly to compare.
    #[command(flatten)]
    pub thoroughness: Thoroughness,
}

/// Arguments of `headline`.
#[derive(Debug, clap::Args)]
pub struct HeadlineArgs {
    /// Folder with the four IDX files of MNIST.
    #[command(flatten)]
    pub data: DataArgs,
    /// One seed and a small grid: about five minutes on two cores for MNIST.
    #[arg(long)]
    pub quick: bool,
    /// Seeds of the comparison; one more tunes. 5 when left out.
    #[arg(long, conflicts_with = "quick", value_parser = number_arg::parse_count::<u64>)]
    pub seeds: Option<u64>,
    /// Optimizer instead of the recipe's Muon: adamw or muon.
    #[arg(long, value_parser = recipe_arg::parse_optimizer)]
    pub optimizer: Option<OptimizerKind>,
    /// Processor threads; 0 uses all.
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// Where to compute: cpu, cuda:N or auto; cpu when left out.
    #[arg(long, value_name = "auto|cpu|cuda:N")]
    pub device: Option<ComputeDevice>,
    /// Folder of the report; must not exist.
    #[arg(long)]
    pub output: Option<PathBuf>,
}

/// Recipe of the headline.
const HEADLINE_PRESET: &str = "mnist-cnn";

pub(super) fn run(arena: &ArenaArgs, common: &CommonArgs) -> Result<(), CliError> {
    let config = recipe_arg::config(&arena.recipe, common)?;
    let Thoroughness { seeds, rates, batch_divisors, output } = &arena.thoroughness;
    let title = format!("{} with {}: prediction against its controls", config.name, optimizer_name(&config));
    let kind = ExperimentKind::Arena {
        rate_factors: rates.clone(),
        batch_divisors: batch_divisors.clone(),
        num_seeds: *seeds,
    };
    ask(Asked { kind, config, title, output: output.clone() }, common)
}

pub(super) fn run_headline(headline: &HeadlineArgs, common: &CommonArgs) -> Result<(), CliError> {
    let data = headline.data.spec()?;
    if data.as_ref().is_some_and(|data| !matches!(data, DatasetSpec::Idx { .. })) {
        let what = "--data: expected IDX files, as MNIST has them. `experiment arena` compares on other data";
        return Err(CliError::Usage(what.to_owned()));
    }
    let mut config = recipe_arg::preset_config(HEADLINE_PRESET, "conservative", data, common)?;
    config.optimizer.switch_to(headline.optimizer.unwrap_or(config.optimizer.kind));
    config.num_threads = headline.threads;
    config.device = headline.device.unwrap_or(config.device);
    let kind = if headline.quick {
        ExperimentKind::Arena { rate_factors: vec![1.0, 2.0], batch_divisors: vec![1, 2], num_seeds: 1 }
    } else {
        ExperimentKind::Arena {
            rate_factors: vec![0.5, 1.0, 2.0, 4.0],
            batch_divisors: vec![1, 2, 4, 8],
            num_seeds: headline.seeds.unwrap_or(5),
        }
    };
    let title = format!("What prediction saves on MNIST, with {}", optimizer_name(&config));
    ask(Asked { kind, config, title, output: headline.output.clone() }, common)
}

/// What to print: contenders, and everything for programs.
pub(super) fn figures(result: &ArenaResult) -> (Table, Value) {
    let mut table = output::table(&["contender", "loss, nats", "accuracy, %", "seconds", "cost, %", "backwards, %"]);
    for row in rows(result) {
        table.add_row(vec![
            row.name.as_str().into(),
            cell(Some(row.loss), 4),
            cell(row.accuracy.map(|share| 100.0 * share), 2),
            cell(Some(row.seconds), 1),
            cell(Some(100.0 * row.cost), 1),
            cell(Some(100.0 * row.example_backwards), 1),
        ]);
    }
    (table, to_json(result))
}

/// A contender's means over seeds.
struct Row {
    name: String,
    loss: f64,
    accuracy: Option<f64>,
    seconds: f64,
    /// In the recipe's steps, all full.
    cost: f64,
    /// Share of those of the recipe's steps, all full.
    example_backwards: f64,
}

fn rows(result: &ArenaResult) -> Vec<Row> {
    let plan = &result.plan;
    let all = (plan.recipe.num_steps * plan.recipe.batch_size as u64) as f64;
    let row = |(tuned, results): (&Tuned, &Vec<TrialResult>)| {
        let mean = |figure: &dyn Fn(&TrialResult) -> f64| {
            results.iter().map(figure).sum::<f64>() / results.len().max(1) as f64
        };
        let accuracy = mean(&|result| result.held_out().accuracy.unwrap_or(f64::NAN));
        Row {
            name: tuned.contender.name.clone(),
            loss: mean(&|result| result.held_out().loss),
            accuracy: accuracy.is_finite().then_some(accuracy),
            seconds: mean(&|result| result.seconds),
            cost: mean(&|result| result.example_cost / all / result.examples_per_unit as f64),
            example_backwards: mean(&|result| result.example_backwards as f64 / all / result.examples_per_unit as f64),
        }
    };
    result.tuned.iter().zip(&result.results).map(row).collect()
}

fn to_json(result: &ArenaResult) -> Value {
    let contenders = rows(result).into_iter().map(|row| {
        json!({
            "name": row.name, "loss": row.loss, "accuracy": row.accuracy, "seconds": row.seconds, "cost": row.cost,
            "example_backwards": row.example_backwards,
        })
    });
    let ArenaSummary {
        example_backwards_saved,
        time_saved,
        loss_ratio,
        loss_ratio_equal_time,
        loss_ratio_frozen,
        accuracy_difference,
        time_ratio_equal_time,
    } = result.summary();
    let divergences: usize =
        result.results.get(HYBRID).into_iter().flatten().map(|result| result.divergences.len()).sum();
    json!({
        "experiment": "arena",
        "contenders": contenders.collect::<Vec<_>>(),
        "example_backwards_saved": estimate(example_backwards_saved),
        "time_saved": estimate(time_saved),
        "loss_ratio": estimate(loss_ratio),
        "loss_ratio_equal_time": estimate(loss_ratio_equal_time),
        "loss_ratio_frozen": estimate(loss_ratio_frozen),
        "accuracy_difference_points": estimate(accuracy_difference),
        "time_ratio_equal_time": estimate(time_ratio_equal_time),
        "divergences": divergences,
    })
}
