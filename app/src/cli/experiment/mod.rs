//! `foretrain experiment`: one file for each experiment, with its options and what it prints.

mod arena;
mod corrections;
mod features;
mod growth;
mod ladder;
mod quantization;
mod tiers;

use std::path::{Path, PathBuf};

use foretrain_engine::device::Progress;
use foretrain_engine::experiment::{Estimate, Report};
use foretrain_engine::optim::OptimizerKind;
use foretrain_engine::session::{Command, EventKind, ExperimentJob, ExperimentKind, RunConfig, rewrite_report};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::driver::{self, Driver};
use super::{CliError, CommonArgs, output};

/// Measure what prediction saves and what it costs, against controls.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  foretrain experiment headline --quick --data path/to/mnist --json
  foretrain experiment arena --preset glyphs-cnn --seeds 3 --output reports/glyphs
  foretrain experiment corrections --preset glyphs-cnn --output reports/glyphs-corrections
  foretrain experiment tiers --preset glyphs-cnn --output reports/glyphs-tiers
  foretrain experiment ladder --rungs 100k,1m --minutes-per-rung 5
  foretrain experiment growth --preset grammar-gpt2-char --seeds 5 --output reports/growth
  foretrain experiment quantization --preset glyphs-cnn --output reports/glyphs-quantization
  foretrain experiment features --preset grammar-gpt2-char --output reports/features
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
    Arena(Box<arena::ArenaArgs>),
    /// The arena on MNIST: how many backward passes and how much time prediction saves there, and at what loss.
    #[command(after_help = "Examples:
  foretrain experiment headline --quick --data path/to/mnist --json
  foretrain experiment headline --data path/to/mnist --output docs/experiments/headline")]
    Headline(arena::HeadlineArgs),
    /// How good loss forecasts and corrections are, at several confidence thresholds and horizons.
    #[command(after_help = "Examples:
  foretrain experiment corrections --preset glyphs-cnn --strategy importance
  foretrain experiment corrections --confidence 0.55 --horizons 50 --seeds 3 --output reports/corrections --json")]
    Corrections(Box<corrections::CorrectionsArgs>),
    /// A recipe with each tier: speed-up, quality, stability and corrections against vanilla.
    #[command(after_help = "Examples:
  foretrain experiment tiers --preset mnist-cnn --data path/to/mnist --seeds 5
  foretrain experiment tiers --preset cifar-resnet20 --data path/to/cifar --steps 500 --output reports/cifar-tiers
  foretrain experiment tiers --preset grammar-gpt2-char --strategy importance --json")]
    Tiers(Box<tiers::TiersArgs>),
    /// Language models from small to large: each size opens when the one below kept its quality.
    #[command(after_help = "Examples:
  foretrain experiment ladder --rungs 100k,1m --minutes-per-rung 5
  foretrain experiment ladder --data input.txt --tokenizer char --steps 300 --batch-size 8 --output reports/ladder --json")]
    Ladder(Box<ladder::LadderArgs>),
    /// A deep language model grown from one of half its blocks, against full depth and half depth of as much time and
    /// against random new blocks; all tuned alike.
    #[command(after_help = "Examples:
  foretrain experiment growth --preset grammar-gpt2-char --seeds 5 --output reports/growth
  foretrain experiment growth --data input.txt --blocks 8 --share 0.5 --orders stacked --steps 400 --json")]
    Growth(Box<growth::GrowthArgs>),
    /// What fewer bits cost: full precision stored in them after training, against training for them at equal steps.
    #[command(after_help = "Examples:
  foretrain experiment quantization --preset mnist-cnn --data path/to/mnist --output reports/quantization
  foretrain experiment quantization --preset grammar-gpt2-char --qat ternary,int4 --qat-start 0.5 --json")]
    Quantization(Box<quantization::QuantizationArgs>),
    /// Ways to save memory, each alone against plain training: losses, and weights bit for bit where no arithmetic changes.
    #[command(after_help = "Examples:
  foretrain experiment features --preset grammar-gpt2-char --steps 100 --output reports/features
  foretrain experiment features --data input.txt --model gpt2-11m --batch-size 4 --features activation-checkpointing,8bit-states --json")]
    Features(Box<features::FeaturesArgs>),
    /// Write a report again from its report.json, without measuring again.
    #[command(after_help = "Examples:
  foretrain experiment render reports/glyphs --output reports/glyphs-again")]
    Render {
        /// Folder of the report.
        report: PathBuf,
        /// Folder to write it to; must not exist.
        #[arg(long)]
        output: PathBuf,
    },
}

/// Runs the subcommand.
pub(super) fn run(args: &ExperimentArgs) -> Result<(), CliError> {
    let common = &args.common;
    match &args.command {
        ExperimentCommand::Arena(asked) => arena::run(asked, common),
        ExperimentCommand::Headline(asked) => arena::run_headline(asked, common),
        ExperimentCommand::Corrections(asked) => corrections::run(asked, common),
        ExperimentCommand::Tiers(asked) => tiers::run(asked, common),
        ExperimentCommand::Ladder(asked) => ladder::run(asked, common),
        ExperimentCommand::Growth(asked) => growth::run(asked, common),
        ExperimentCommand::Quantization(asked) => quantization::run(asked, common),
        ExperimentCommand::Features(asked) => features::run(asked, common),
        ExperimentCommand::Render { report, output } => {
            let report = rewrite_report(report, output).map_err(|error| CliError::from_session(&error))?;
            tell(&report, output, common.json)
        }
    }
}

fn optimizer_name(config: &RunConfig) -> &'static str {
    match config.optimizer.kind {
        OptimizerKind::AdamW => "AdamW",
        OptimizerKind::Muon => "Muon",
    }
}

/// An experiment that was asked for.
struct Asked {
    kind: ExperimentKind,
    config: RunConfig,
    title: String,
    /// Folder of the report; a new one below the runs when left out.
    output: Option<PathBuf>,
}

/// Runs an experiment to its end and prints what it found.
fn ask(Asked { kind, config, title, output }: Asked, common: &CommonArgs) -> Result<(), CliError> {
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
    let mut shown = Shown::default();
    let answer = driver.ask(
        |id| Command::Experiment(id, Box::new(job)),
        |_, _, kind| shown.show(kind),
        |kind| match kind {
            EventKind::Experimented { report, folder } => Ok((report, folder)),
            other => Err(other),
        },
    );
    shown.bar.finish_and_clear();
    let (report, folder) = answer?;
    driver.shut_down();
    tell(&report, &folder, common.json)
}

/// How far an experiment is: its stage in words above a bar of the whole; where there is no terminal, a line a stage.
struct Shown {
    bar: ProgressBar,
    stage: String,
}

impl Default for Shown {
    fn default() -> Self {
        Self { bar: driver::spinner(), stage: String::new() }
    }
}

impl Shown {
    fn show(&mut self, kind: Option<&EventKind>) {
        let Some(EventKind::Progress(Progress { what, done, total })) = kind else { return };
        if self.bar.length() != *total {
            match total {
                Some(total) => {
                    self.bar.set_length(*total);
                    self.bar.set_style(driver::style("{wide_msg}\n{wide_bar} {percent}%"));
                }
                None => self.bar.set_style(driver::style("{spinner} {msg} {human_pos}")),
            }
        }
        self.bar.set_position(*done);
        if self.stage != *what {
            self.bar.set_message(what.clone());
            if self.bar.is_hidden() && total.is_some() {
                output::note(what);
            }
            self.stage.clone_from(what);
        }
    }
}

/// "20261128-091500-mnist-cnn".
fn folder_name(name: &str) -> String {
    let stamp = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
    let safe = name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' });
    format!("{stamp}-{}", safe.collect::<String>())
}

/// The command as it was typed, with the program's name in place of its path.
pub(super) fn command_line() -> String {
    let quoted = |argument: String| if argument.contains(' ') { format!("'{argument}'") } else { argument };
    std::iter::once("foretrain".to_owned()).chain(std::env::args().skip(1).map(quoted)).collect::<Vec<_>>().join(" ")
}

/// Prints figures, verdict and place of a report.
fn tell(report: &Report, folder: &Path, is_json: bool) -> Result<(), CliError> {
    let (table, mut figures) = match report {
        Report::Arena(report) => arena::figures(&report.result),
        Report::Corrections(report) => corrections::figures(&report.result),
        Report::Tiers(report) => tiers::figures(&report.result),
        Report::Ladder(report) => ladder::figures(&report.result),
        Report::Growth(report) => growth::figures(&report.result),
        Report::Quantization(report) => quantization::figures(&report.result),
        Report::Features(report) => features::figures(&report.result),
    };
    output::line(table)?;
    output::line(report.verdict())?;
    output::line(format_args!("report: {}", folder.display()))?;
    if !is_json {
        return Ok(());
    }
    if let Some(object) = figures.as_object_mut() {
        object.insert("verdict".to_owned(), json!(report.verdict()));
        object.insert("seconds".to_owned(), json!(report.conditions().seconds));
        object.insert("report".to_owned(), json!(output::path_text(folder)));
    }
    output::print_json(&figures)
}

/// A number of a table, or a dash.
fn cell(value: Option<f64>, decimals: usize) -> comfy_table::Cell {
    let value = value.filter(|value| value.is_finite());
    output::number(value.map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}")))
}

/// An estimate for programs.
fn estimate(estimate: Option<Estimate>) -> Value {
    json!(estimate.map(|Estimate { mean, std, interval, count }| {
        json!({ "mean": mean, "std": std, "interval_95": interval.map(|(low, high)| [low, high]), "seeds": count })
    }))
}
