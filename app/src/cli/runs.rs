//! `foretrain runs`.

use std::path::PathBuf;

use foretrain_engine::session::{RunSummary, StopReason, list_runs, summarize};

use super::{CliError, CommonArgs, output};

/// List past runs, or show one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  foretrain runs list
  foretrain runs show path/to/run --json")]
pub struct RunsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: RunsCommand,
    /// Common options.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// What to do with past runs.
#[derive(Debug, clap::Subcommand)]
pub enum RunsCommand {
    /// One line for each, newest first.
    List,
    /// Figures of one.
    Show {
        /// Run folder.
        run: PathBuf,
    },
}

/// Runs the subcommand.
pub(super) fn run(args: &RunsArgs) -> Result<(), CliError> {
    let summaries = match &args.command {
        RunsCommand::List => list_runs(&args.common.runs).map_err(CliError::from_display)?,
        RunsCommand::Show { run } => vec![summarize(run).map_err(CliError::from_display)?],
    };
    if summaries.is_empty() {
        println!("no runs in {}; make one with: foretrain train", args.common.runs.display());
    } else {
        let mut table = output::table(&["run", "dataset", "model", "tier", "steps", "validation", "state"]);
        for run in &summaries {
            table.add_row(vec![
                run.folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                run.dataset.clone(),
                run.model.clone(),
                run.tier.clone(),
                format!("{}/{}", run.step, run.num_steps),
                validation(run),
                state(run),
            ]);
        }
        println!("{table}");
    }
    if args.common.json { output::print_json(&summaries) } else { Ok(()) }
}

fn validation(run: &RunSummary) -> String {
    match (run.validation_accuracy, run.validation_loss) {
        (Some(accuracy), _) => output::metric("accuracy", accuracy),
        (None, Some(loss)) => output::metric("loss", loss),
        (None, None) => "not measured".to_owned(),
    }
}

fn state(run: &RunSummary) -> String {
    let state = match &run.ended {
        _ if run.is_running => "running".to_owned(),
        Some(StopReason::Finished) => "finished".to_owned(),
        Some(StopReason::User) => "stopped".to_owned(),
        Some(StopReason::Diverged) => "diverged".to_owned(),
        Some(StopReason::Failed(message) | StopReason::Crashed(message)) => format!("failed: {message}"),
        None => "interrupted".to_owned(),
    };
    if run.is_resumable { format!("{state}, can be resumed") } else { state }
}
