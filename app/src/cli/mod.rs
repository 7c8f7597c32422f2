//! The command line: the same engine, the same files, the same presets as the window.
//!
//! Exit codes: 0 done, 1 failed while doing it, 2 wrong usage (a path that is not there or is taken counts as such), 3
//! refused for memory, 4 diverged, 130 interrupted (a run's steps so far are saved). With `--json`, the last line of standard output is one object: the answer, or
//! `{"error": …, "exit_code": …}`.
//!
//! Invariant: only `output` prints, so that a reader that goes away never makes a panic.

mod bench;
mod data_arg;
mod data_kind;
mod demo;
mod driver;
mod error;
mod experiment;
mod export;
mod infer;
mod log;
mod number_arg;
mod offload;
mod offload_lines;
mod output;
mod path_arg;
mod qat_arg;
mod quant_arg;
mod quantize;
mod recipe_arg;
mod run_arg;
mod runs;
mod time_shares;
mod train;
mod validate;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub use error::CliError;

/// Train, quantize and export models on one workstation.
///
/// Without a subcommand, the studio's window opens.
#[derive(Debug, Parser)]
#[command(name = "foretrain", version, max_term_width = 110)]
#[command(after_help = "Examples:
  foretrain
  foretrain demo
  foretrain train --preset glyphs-cnn
  foretrain runs list")]
pub struct Cli {
    /// What to do; nothing opens the window.
    #[command(subcommand)]
    pub command: Option<CliCommand>,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Train a model, or go on with a run.
    Train(Box<train::TrainArgs>),
    /// Measure a checkpoint on a dataset.
    Validate(validate::ValidateArgs),
    /// Quantize a checkpoint and measure what that costs.
    Quantize(quantize::QuantizeArgs),
    /// Write a package for a hardware target and run it once.
    Export(export::ExportArgs),
    /// Run a package: continue a prompt or classify images.
    Infer(infer::InferArgs),
    /// Measure what prediction saves and what it costs, against controls.
    Experiment(Box<experiment::ExperimentArgs>),
    /// Measure how fast this machine trains, side by side with PyTorch if wanted.
    Bench(bench::BenchArgs),
    /// List past runs, or show one.
    Runs(runs::RunsArgs),
    /// The whole way in one go, without a display: train, quantize, export, read back, run.
    Demo(demo::DemoArgs),
}

impl CliCommand {
    /// True when the answer is wanted as JSON.
    fn is_json(&self) -> bool {
        match self {
            Self::Train(args) => args.common.json,
            Self::Validate(args) => args.common.json,
            Self::Quantize(args) => args.common.json,
            Self::Export(args) => args.common.json,
            Self::Infer(args) => args.common.json,
            Self::Experiment(args) => args.common.json,
            Self::Bench(args) => args.json,
            Self::Runs(args) => args.common.json,
            Self::Demo(args) => args.json,
        }
    }
}

/// Options of most subcommands. Global, so that they may stand at the end: `runs list --json`.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// Print one JSON object as the last line of standard output.
    #[arg(long, global = true)]
    pub json: bool,
    /// Folder of all runs.
    #[arg(long, global = true, value_name = "FOLDER", env = crate::folders::RUNS_VARIABLE)]
    #[arg(default_value_os_t = crate::folders::default_runs())]
    pub runs: PathBuf,
}

impl CommonArgs {
    /// The folder of all runs, there or not yet. Errors: usage when it is something else.
    fn runs_folder(&self) -> Result<&Path, CliError> {
        path_arg::check_folder("--runs", &self.runs)?;
        Ok(&self.runs)
    }
}

/// Reads the process's arguments; ends the process on wrong usage (2), `--help` and `--version` (0).
#[must_use]
pub fn parse() -> Cli {
    Cli::try_parse().unwrap_or_else(|error| {
        // What was not understood cannot be asked whether it has the option.
        if error.use_stderr() && std::env::args_os().any(|arg| arg == "--json") {
            let rendered = error.render().to_string();
            // Without the program's own words around it: "error: ", usage, and where to read more.
            let cause = rendered.strip_prefix("error: ").unwrap_or(&rendered).split("\n\n").next().unwrap_or_default();
            let usage = CliError::Usage(cause.trim().to_owned());
            // A reader that went away does not want it.
            let _ = output::print_json(&usage.to_json());
        }
        error.exit()
    })
}

/// Runs a subcommand.
#[must_use]
pub fn run(command: CliCommand) -> ExitCode {
    let is_json = command.is_json();
    let result = match command {
        CliCommand::Train(args) => train::run(&args),
        CliCommand::Validate(args) => validate::run(&args),
        CliCommand::Quantize(args) => quantize::run(args),
        CliCommand::Export(args) => export::run(&args),
        CliCommand::Infer(args) => infer::run(&args),
        CliCommand::Experiment(args) => experiment::run(&args),
        CliCommand::Bench(args) => bench::run(&args),
        CliCommand::Runs(args) => runs::run(&args),
        CliCommand::Demo(args) => demo::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error, is_json);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Tells people on standard error and, with `--json`, programs on standard output.
fn report(error: &CliError, is_json: bool) {
    if matches!(error, CliError::ClosedPipe) {
        return;
    }
    output::note(error);
    if is_json {
        // The exit code says the same to a reader that went away.
        let _ = output::print_json(&error.to_json());
    }
}
