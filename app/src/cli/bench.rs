//! `foretrain bench`: speed on this machine.

use std::path::PathBuf;

use foretrain_engine::bench::{
    BenchModel, PeerOutcome, PeerPlan, PeerPython, TORCH_REQUIREMENT, TorchVariant, TrainBenchPlan, TrainSpeed,
};
use foretrain_engine::device::atomic_file;
use foretrain_engine::models::ops::Precision;
use foretrain_engine::session::{Command, EventKind};

use super::driver::Driver;
use super::recipe_arg::parse_precision;
use super::{CliError, experiment, number_arg, output};
use crate::folders;

/// Measure how fast this machine trains.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  foretrain bench train
  foretrain bench train --models gpt2-char,mnist-cnn --threads 1 --json
  foretrain bench train --against-torch --markdown training-speed.md")]
pub struct BenchArgs {
    /// What.
    #[command(subcommand)]
    pub command: BenchCommand,
    /// Print one JSON object as the last line of standard output.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to measure.
#[derive(Debug, clap::Subcommand)]
pub enum BenchCommand {
    /// Full training steps (forward, backward, AdamW) and forward passes of known models on made-up data.
    #[command(after_help = "Examples:
  foretrain bench train --models resnet-20 --threads 1
  foretrain bench train --against-torch --python path/to/python --torch-variants eager,compile --json")]
    Train(TrainBenchArgs),
}

/// Options of `bench train`.
#[derive(Debug, clap::Args)]
pub struct TrainBenchArgs {
    /// Models: gpt2-char, gpt2-11m, gpt2-124m, mnist-cnn, resnet-20, resnet-18; all that the precision allows when left
    /// out.
    #[arg(long, value_name = "MODELS", value_delimiter = ',', value_parser = parse_model)]
    pub models: Vec<BenchModel>,
    /// Numbers that our matrix products read: f32, or bf16, which takes language models.
    #[arg(long, default_value = "f32", value_parser = parse_precision)]
    pub precision: Precision,
    /// Processor threads of each side; 0 uses all.
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// Times that each side has its turn.
    #[arg(long, default_value_t = 5, value_parser = number_arg::parse_count::<usize>)]
    pub rounds: usize,
    /// Seconds of a turn; at least two steps are timed in any case.
    #[arg(long, default_value_t = 2.0, value_parser = number_arg::parse_above_zero)]
    pub seconds: f64,
    /// Take turns with PyTorch, on the same weights and batches. The first time it is installed from the Python package
    /// registry into an environment of its own (several GB), unless --python is given.
    #[arg(long)]
    pub against_torch: bool,
    /// A Python that has torch.
    #[arg(long, value_name = "FILE", requires = "against_torch")]
    pub python: Option<PathBuf>,
    /// Ways of computing with PyTorch.
    #[arg(long, value_name = "WAYS", value_delimiter = ',', requires = "against_torch")]
    #[arg(default_value = "eager,compile,eager-bf16,compile-bf16", value_parser = parse_variant)]
    pub torch_variants: Vec<TorchVariant>,
    /// File to write the tables to; must not exist.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}

fn parse_model(label: &str) -> Result<BenchModel, String> {
    let known = || BenchModel::ALL.map(BenchModel::label).join(", ");
    BenchModel::from_label(label).ok_or_else(|| format!("expected one of {}", known()))
}

fn parse_variant(label: &str) -> Result<TorchVariant, String> {
    let known = || TorchVariant::ALL.map(TorchVariant::label).join(", ");
    TorchVariant::from_label(label).ok_or_else(|| format!("expected one of {}", known()))
}

/// Those asked for, else all that can be in the precision asked for.
fn models(asked: &TrainBenchArgs) -> Vec<BenchModel> {
    if !asked.models.is_empty() {
        return asked.models.clone();
    }
    BenchModel::ALL.into_iter().filter(|model| asked.precision.is_full() || model.has_bf16_products()).collect()
}

/// Runs the subcommand.
pub(super) fn run(args: &BenchArgs) -> Result<(), CliError> {
    let BenchCommand::Train(asked) = &args.command;
    if let Some(file) = asked.markdown.as_deref().filter(|file| file.exists()) {
        return Err(CliError::Usage(format!("--markdown {}: it is there already; name a new file", file.display())));
    }
    let python = match &asked.python {
        Some(python) => PeerPython::Given(python.clone()),
        None => PeerPython::InstalledIn(folders::cache().join("torch")),
    };
    if let (true, PeerPython::InstalledIn(folder)) = (asked.against_torch, &python) {
        output::note(format_args!("PyTorch ({TORCH_REQUIREMENT}): environment {}", folder.display()));
    }
    let plan = TrainBenchPlan {
        models: models(asked),
        precision: asked.precision,
        num_threads: asked.threads,
        rounds: asked.rounds,
        seconds_per_turn: asked.seconds,
        peer: asked.against_torch.then(|| PeerPlan { python, variants: asked.torch_variants.clone() }),
        scratch: std::env::temp_dir(),
    };
    let mut driver = Driver::new()?;
    let speed = driver.ask_with_bar(
        |id| Command::BenchTrain(id, Box::new(plan)),
        |kind| match kind {
            EventKind::Benched(speed) => Ok(speed),
            other => Err(other),
        },
    )?;
    driver.shut_down();
    tell(&speed)?;
    if let Some(file) = &asked.markdown {
        atomic_file::write_bytes(file, page(&speed).as_bytes()).map_err(CliError::from_display)?;
        output::line(format_args!("written: {}", file.display()))?;
    }
    if args.json { output::print_json(&*speed) } else { Ok(()) }
}

/// The tables with a heading and how they came about.
fn page(speed: &TrainSpeed) -> String {
    let (version, day) = (env!("CARGO_PKG_VERSION"), jiff::Zoned::now().date());
    let commit = option_env!("FORETRAIN_COMMIT").map_or_else(String::new, |commit| format!(", commit {commit}"));
    let (tables, command) = (speed.markdown(), experiment::command_line());
    format!("# Speed of training\n\n{tables}\nForetrain {version}{commit}, {day}. Command: `{command}`\n")
}

fn tell(speed: &TrainSpeed) -> Result<(), CliError> {
    let mut table =
        output::table(&["model", "batch", "full step, ms", "a second", "forward, ms", "PyTorch's time over ours"]);
    for case in &speed.cases {
        let peers = case.peers.iter().map(|peer| {
            let label = peer.variant.label();
            match &peer.outcome {
                PeerOutcome::Measured { ratio, ratio_least, ratio_most, .. } => {
                    format!("{label} {ratio:.2} ({ratio_least:.2} to {ratio_most:.2})")
                }
                PeerOutcome::Unavailable(why) => format!("{label}: {why}"),
            }
        });
        let size = case.size;
        let batch = if size.tokens > 0 { format!("{} x {}", size.batch, size.tokens) } else { size.batch.to_string() };
        table.add_row(vec![
            case.model.label().into(),
            output::number(batch),
            output::number(format!("{:.1}", case.step.median_ms)),
            output::number(format!("{:.0} {}", case.examples_per_second(), case.model.unit())),
            output::number(format!("{:.1}", case.forward.median_ms)),
            peers.collect::<Vec<_>>().join("\n").into(),
        ]);
    }
    output::line(table)?;
    for variant in TorchVariant::ALL {
        if let Some([(slowest, low), (fastest, high)]) = speed.ratio_range(variant) {
            let label = variant.label();
            output::line(format_args!("{label}: {low:.2} ({slowest}) to {high:.2} ({fastest}) times its speed"))?;
        }
    }
    Ok(())
}
