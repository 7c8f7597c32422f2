//! The command line: the same engine, the same files, the same presets as the window.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage (by clap), 3 refused for memory, 4 diverged,
//! 130 interrupted (what was done so far is saved).
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a command line does")]

mod data_arg;
mod demo;
mod driver;
mod export;
mod infer;
mod output;
mod quantize;
mod runs;
mod train;
mod validate;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub use driver::CliError;

/// Train, quantize and export models on one workstation.
///
/// Without a subcommand, the studio's window opens.
#[derive(Debug, Parser)]
#[command(name = "foretrain", version, max_term_width = 110)]
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
    /// List past runs, or show one.
    Runs(runs::RunsArgs),
    /// The whole way in one go, without a display: train, quantize, export, read back, run.
    Demo(demo::DemoArgs),
}

/// Options of every subcommand.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// Print one JSON object as the last line of standard output.
    #[arg(long)]
    pub json: bool,
    /// Folder of all runs.
    #[arg(long, value_name = "FOLDER", env = "FORETRAIN_RUNS", default_value_os_t = crate::folders::default_runs())]
    pub runs: PathBuf,
}

/// Runs a subcommand.
#[must_use]
pub fn run(command: CliCommand) -> ExitCode {
    let result = match command {
        CliCommand::Train(args) => train::run(&args),
        CliCommand::Validate(args) => validate::run(&args),
        CliCommand::Quantize(args) => quantize::run(args),
        CliCommand::Export(args) => export::run(args),
        CliCommand::Infer(args) => infer::run(&args),
        CliCommand::Runs(args) => runs::run(&args),
        CliCommand::Demo(args) => demo::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            error.exit_code()
        }
    }
}
