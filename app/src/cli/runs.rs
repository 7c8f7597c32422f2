//! `foretrain runs`.

use std::path::{Path, PathBuf};

use comfy_table::Table;
use foretrain_engine::session::{RunSummary, StopReason, list_runs, summarize};
use serde_json::json;

use super::{CliError, CommonArgs, output, run_arg};

/// List past runs, or show one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  foretrain runs list
  foretrain runs list --runs path/to/runs --json
  foretrain runs show digits --json")]
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
    #[command(after_help = "Examples:
  foretrain runs list
  foretrain runs list --runs path/to/runs --json")]
    List,
    /// Figures of one.
    #[command(after_help = "Examples:
  foretrain runs show path/to/run
  foretrain runs show 20261123-064400-digits
  foretrain runs show digits --json")]
    Show {
        /// Its folder, the folder's name, or the run's name where only one has it.
        #[arg(value_name = "NAME|FOLDER")]
        run: PathBuf,
    },
}

/// Runs the subcommand.
pub(super) fn run(args: &RunsArgs) -> Result<(), CliError> {
    match &args.command {
        RunsCommand::List => list(args),
        RunsCommand::Show { run } => {
            show(&run_arg::find("runs show", run, args.common.runs_folder()?)?, args.common.json)
        }
    }
}

fn list(args: &RunsArgs) -> Result<(), CliError> {
    let runs = list_runs(args.common.runs_folder()?).map_err(CliError::from_display)?;
    if runs.is_empty() {
        let folder = args.common.runs.display();
        output::line(format_args!("no runs in {folder}; make one with: foretrain train"))?;
    } else {
        output::line(table(&runs))?;
    }
    if !args.common.json {
        return Ok(());
    }
    let runs: Vec<RunSummary> = runs.into_iter().map(for_json).collect();
    output::print_json(&json!({ "runs": runs }))
}

fn show(folder: &Path, is_json: bool) -> Result<(), CliError> {
    let run = summarize(folder).map_err(CliError::from_display)?;
    output::line(table(std::slice::from_ref(&run)))?;
    for (name, value) in run.last_validation.iter().flat_map(output::validation_rows) {
        output::line(format_args!("{name}: {value}"))?;
    }
    output::line(format_args!("divergences: {}", run.num_divergences))?;
    if is_json { output::print_json(&for_json(run)) } else { Ok(()) }
}

fn table(runs: &[RunSummary]) -> Table {
    let mut table = output::table(&["run", "dataset", "model", "tier", "steps", "validation", "state"]);
    for run in runs {
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
    table
}

/// The summary with a folder that JSON can hold.
fn for_json(run: RunSummary) -> RunSummary {
    RunSummary { folder: output::path_text(&run.folder).into(), ..run }
}

fn validation(run: &RunSummary) -> String {
    match (run.validation_accuracy, run.validation_loss) {
        (Some(accuracy), _) => output::metric("accuracy", accuracy),
        (None, Some(loss)) => output::metric("loss", loss),
        (None, None) => "not measured".to_owned(),
    }
}

fn state(run: &RunSummary) -> String {
    if let Some(problem) = &run.problem {
        return format!("cannot be read: {problem}");
    }
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
