//! `foretrain experiment`.

use std::path::PathBuf;

use foretrain_engine::experiment::{ArenaReport, ArenaSummary, Estimate, HYBRID, TrialResult};
use foretrain_engine::optim::OptimizerKind;
use foretrain_engine::session::{
    Command, EventKind, ExperimentJob, ExperimentKind, RunConfig, read_report, write_report,
};
use serde_json::{Value, json};

use super::data_arg::DataArgs;
use super::driver::Driver;
use super::recipe_arg::{self, RecipeArgs};
use super::{CliError, CommonArgs, output};

/// Measure what prediction saves and what it costs, against controls.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  foretrain experiment headline --quick --data path/to/mnist --json
  foretrain experiment arena --preset glyphs-cnn --seeds 3 --output reports/glyphs
  foretrain experiment render reports/glyphs --output reports/glyphs-again")]
pub struct ExperimentArgs {
    /// Which.
    #[command(subcommand)]
    pub command: ExperimentCommand,
    /// Common options.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Which experiment.
#[derive(Debug, clap::Subcommand)]
pub enum ExperimentCommand {
    /// A recipe against vanilla with as many steps, vanilla with as much time, and a frozen control; all tuned alike.
    #[command(after_help = "Examples:
  foretrain experiment arena --preset glyphs-cnn --output reports/glyphs
  foretrain experiment arena --preset mnist-cnn --data path/to/mnist --optimizer adamw --seeds 5 --output reports/adamw")]
    Arena(Box<ArenaArgs>),
    /// The arena on MNIST: how many backward passes and how much time prediction saves there, and at what loss.
    #[command(after_help = "Examples:
  foretrain experiment headline --quick --data path/to/mnist --json
  foretrain experiment headline --data path/to/mnist --output docs/experiments/headline")]
    Headline(HeadlineArgs),
    /// Write a report again from its report.json, without measuring again.
    Render {
        /// Folder of the report.
        report: PathBuf,
        /// Folder to write it to; must not exist.
        #[arg(long)]
        output: PathBuf,
    },
}

/// How thorough a comparison is.
#[derive(Debug, clap::Args)]
pub struct Thoroughness {
    /// Seeds of the comparison; one more tunes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
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
    /// One seed and a small grid, in a few minutes.
    #[arg(long)]
    pub quick: bool,
    /// Optimizer instead of the recipe's Muon: adamw or muon.
    #[arg(long, value_parser = recipe_arg::parse_optimizer)]
    pub optimizer: Option<OptimizerKind>,
    /// Processor threads; 0 uses all.
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// Folder of the report; must not exist.
    #[arg(long)]
    pub output: Option<PathBuf>,
}

/// Recipe of the headline.
const HEADLINE_PRESET: &str = "mnist-cnn";

/// Runs the subcommand.
pub(super) fn run(args: &ExperimentArgs) -> Result<(), CliError> {
    match &args.command {
        ExperimentCommand::Arena(arena) => run_arena(args, arena),
        ExperimentCommand::Headline(headline) => run_headline(args, headline),
        ExperimentCommand::Render { report, output } => {
            let report = read_report(report).map_err(|error| CliError::from_session(&error))?;
            write_report(&report, output).map_err(|error| CliError::from_session(&error))?;
            tell(&report, output, args.common.json)
        }
    }
}

fn run_arena(args: &ExperimentArgs, arena: &ArenaArgs) -> Result<(), CliError> {
    let config = recipe_arg::config(&arena.recipe, &args.common)?;
    let Thoroughness { seeds, rates, batch_divisors, output } = &arena.thoroughness;
    let title = format!("{} with {}: prediction against its controls", config.name, optimizer_name(&config));
    let kind = ExperimentKind::Arena {
        rate_factors: rates.clone(),
        batch_divisors: batch_divisors.clone(),
        num_seeds: *seeds,
    };
    ask(config, kind, title, output.clone(), args.common.json)
}

fn run_headline(args: &ExperimentArgs, headline: &HeadlineArgs) -> Result<(), CliError> {
    let mut config = recipe_arg::preset_config(HEADLINE_PRESET, "conservative", headline.data.spec()?, &args.common)?;
    config.optimizer.kind = headline.optimizer.unwrap_or(config.optimizer.kind);
    config.num_threads = headline.threads;
    let kind = if headline.quick {
        ExperimentKind::Arena { rate_factors: vec![1.0, 2.0], batch_divisors: vec![1, 2], num_seeds: 1 }
    } else {
        ExperimentKind::Arena { rate_factors: vec![0.5, 1.0, 2.0, 4.0], batch_divisors: vec![1, 2, 4], num_seeds: 5 }
    };
    let title = format!("What prediction saves on MNIST, with {}", optimizer_name(&config));
    ask(config, kind, title, headline.output.clone(), args.common.json)
}

fn optimizer_name(config: &RunConfig) -> &'static str {
    match config.optimizer.kind {
        OptimizerKind::AdamW => "AdamW",
        OptimizerKind::Muon => "Muon",
    }
}

fn ask(
    config: RunConfig,
    kind: ExperimentKind,
    title: String,
    output: Option<PathBuf>,
    is_json: bool,
) -> Result<(), CliError> {
    let job = ExperimentJob {
        kind,
        output: output.unwrap_or_else(|| config.runs_folder.join("experiments").join(folder_name(&config.name))),
        config,
        title,
        command: command_line(),
        commit: option_env!("FORETRAIN_COMMIT").map(str::to_owned),
        day: jiff::Zoned::now().date().to_string(),
    };
    let mut driver = Driver::new()?;
    let (report, folder) = driver.ask_with_bar(
        |id| Command::Experiment(id, Box::new(job)),
        |kind| match kind {
            EventKind::Experimented { report, folder } => Ok((report, folder)),
            other => Err(other),
        },
    )?;
    driver.shut_down();
    tell(&report, &folder, is_json)
}

/// "20261128-091500-mnist-cnn".
fn folder_name(name: &str) -> String {
    let stamp = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
    let safe = name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' });
    format!("{stamp}-{}", safe.collect::<String>())
}

/// The command as it was typed, with the program's name in place of its path.
fn command_line() -> String {
    let quoted = |argument: String| if argument.contains(' ') { format!("'{argument}'") } else { argument };
    std::iter::once("foretrain".to_owned()).chain(std::env::args().skip(1).map(quoted)).collect::<Vec<_>>().join(" ")
}

fn tell(report: &ArenaReport, folder: &std::path::Path, is_json: bool) -> Result<(), CliError> {
    let mut table = output::table(&["contender", "loss, nats", "accuracy, %", "seconds", "cost, %", "backwards, %"]);
    for row in rows(report) {
        let number = |value: Option<f64>, decimals: usize| {
            output::number(value.map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}")))
        };
        table.add_row(vec![
            row.name.as_str().into(),
            number(Some(row.loss), 4),
            number(row.accuracy.map(|share| 100.0 * share), 2),
            number(Some(row.seconds), 1),
            number(Some(100.0 * row.cost), 1),
            number(Some(100.0 * row.example_backwards), 1),
        ]);
    }
    output::line(table)?;
    output::line(report.result.verdict())?;
    output::line(format_args!("report: {}", folder.display()))?;
    if is_json { output::print_json(&to_json(report, folder)) } else { Ok(()) }
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

fn rows(report: &ArenaReport) -> Vec<Row> {
    let plan = &report.result.plan;
    let all = (plan.recipe.num_steps * plan.recipe.batch_size as u64) as f64;
    let row = |(tuned, results): (&foretrain_engine::experiment::Tuned, &Vec<TrialResult>)| {
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
    report.result.tuned.iter().zip(&report.result.results).map(row).collect()
}

fn to_json(report: &ArenaReport, folder: &std::path::Path) -> Value {
    let contenders = rows(report).into_iter().map(|row| {
        json!({
            "name": row.name, "loss": row.loss, "accuracy": row.accuracy, "seconds": row.seconds, "cost": row.cost,
            "example_backwards": row.example_backwards,
        })
    });
    let estimate = |estimate: Option<Estimate>| {
        estimate.map(|Estimate { mean, interval, count, .. }| {
            json!({ "mean": mean, "interval_95": interval.map(|(low, high)| [low, high]), "seeds": count })
        })
    };
    let ArenaSummary {
        example_backwards_saved,
        time_saved,
        loss_ratio,
        loss_ratio_equal_time,
        loss_ratio_frozen,
        accuracy_difference,
        time_ratio_equal_time,
    } = report.result.summary();
    let divergences: usize =
        report.result.results.get(HYBRID).into_iter().flatten().map(|result| result.divergences.len()).sum();
    json!({
        "contenders": contenders.collect::<Vec<_>>(),
        "example_backwards_saved": estimate(example_backwards_saved),
        "time_saved": estimate(time_saved),
        "loss_ratio": estimate(loss_ratio),
        "loss_ratio_equal_time": estimate(loss_ratio_equal_time),
        "loss_ratio_frozen": estimate(loss_ratio_frozen),
        "accuracy_difference_points": estimate(accuracy_difference),
        "time_ratio_equal_time": estimate(time_ratio_equal_time),
        "divergences": divergences,
        "verdict": report.result.verdict(),
        "seconds": report.conditions.seconds,
        "report": output::path_text(folder),
    })
}
