//! `foretrain export`.

use std::path::PathBuf;

use foretrain_engine::memory::format_bytes;
use foretrain_engine::session::{Command, EventKind, ExportJob, ExportReport, targets};

use super::data_arg::DataArgs;
use super::driver::Driver;
use super::quantize::print_quality;
use super::{CliError, CommonArgs, output};

/// Write a package for a hardware target and run it once.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  foretrain export --target list
  foretrain export --input path/to/run --target cpu-x86-64 --output packages/digits-cpu")]
pub struct ExportArgs {
    /// Checkpoint folder, or a run folder (its best checkpoint is taken).
    #[arg(long, value_name = "FOLDER", default_value = "", hide_default_value = true)]
    pub input: PathBuf,
    /// Hardware target; `list` names them.
    #[arg(long)]
    pub target: String,
    /// Folder to create; the target's name below the current folder when left out.
    #[arg(long, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
    /// Dataset for the figures in the package; the run's own when left out.
    #[command(flatten)]
    pub data: DataArgs,
    /// Common options.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Runs the subcommand.
pub(super) fn run(args: ExportArgs) -> Result<(), CliError> {
    if args.target == "list" {
        return list_targets();
    }
    if args.input.as_os_str().is_empty() {
        return Err(CliError::Failed("--input: expected a checkpoint or run folder, found nothing".to_owned()));
    }
    let job = ExportJob {
        data: args.data.spec()?,
        input: args.input,
        output: args.output.unwrap_or_else(|| PathBuf::from(format!("package-{}", args.target))),
        target: args.target,
    };
    let mut driver = Driver::new()?;
    let report = export(&mut driver, job)?;
    driver.shut_down();
    print_quality(&report.quality);
    let mut table = output::table(&["file", "size"]);
    for (name, bytes) in &report.files {
        table.add_row(vec![name.as_str().into(), output::number(format_bytes(*bytes))]);
    }
    println!("{table}");
    println!(
        "read back and run by foretrain-edge: {} on {} examples, {:.2} ms each",
        output::metric(&report.quality.metric, report.edge_metric),
        report.edge_examples,
        report.edge_ms
    );
    println!("package: {}\nrun it: {}", report.package.display(), report.run_command);
    if args.common.json { output::print_json(&report) } else { Ok(()) }
}

/// Exports with a progress bar.
pub(super) fn export(driver: &mut Driver, job: ExportJob) -> Result<ExportReport, CliError> {
    driver.ask_with_bar(
        |id| Command::Export(id, job),
        |kind| match kind {
            EventKind::Exported(report) => Ok(*report),
            other => Err(other),
        },
    )
}

fn list_targets() -> Result<(), CliError> {
    let mut table = output::table(&["target", "for", "weights", "why"]);
    for target in targets().map_err(CliError::from_display)? {
        let machines = format!("{} ({})", target.name, target.examples);
        table.add_row(vec![target.id, machines, target.scheme.label().to_owned(), target.why]);
    }
    println!("{table}");
    Ok(())
}
