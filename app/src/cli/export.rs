//! `foretrain export`.

use std::path::PathBuf;

use foretrain_engine::memory::format_bytes;
use foretrain_engine::session::{Command, EventKind, ExportJob, ExportReport, Naming, targets};
use serde_json::json;

use super::data_arg::DataArgs;
use super::driver::Driver;
use super::quant_arg::QuantArgs;
use super::quantize::{self, print_quality};
use super::{CliError, CommonArgs, output};

/// Write a package for a hardware target and run it once.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  foretrain export --target list
  foretrain export --input path/to/run --target cpu-x86-64 --output packages/digits-cpu
  foretrain export --input path/to/run --target edge-board --method gptq --ternary-scales row")]
pub struct ExportArgs {
    /// Checkpoint folder, or a run folder (its best checkpoint is taken).
    #[arg(long, value_name = "FOLDER")]
    pub input: Option<PathBuf>,
    /// Hardware target; `list` names them.
    #[arg(long)]
    pub target: String,
    /// Folder to create; package-TARGET below the current folder, or package-TARGET-2 and so on, when left out.
    #[arg(long, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
    /// Dataset for the figures in the package; the run's own when left out.
    #[command(flatten)]
    pub data: DataArgs,
    /// How weights are quantized.
    #[command(flatten)]
    pub quant: QuantArgs,
    /// Common options.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Runs the subcommand.
pub(super) fn run(args: ExportArgs) -> Result<(), CliError> {
    if args.target == "list" {
        return list_targets(args.common.json);
    }
    let missing = || CliError::Usage("--input: expected a checkpoint or run folder, found nothing".to_owned());
    check_target(&args.target)?;
    let job = ExportJob {
        data: args.data.spec()?,
        input: args.input.ok_or_else(missing)?,
        // A name that was asked for is meant; one that was left out need only be free.
        naming: if args.output.is_some() { Naming::Exact } else { Naming::NextFree },
        output: args.output.unwrap_or_else(|| PathBuf::from(format!("package-{}", args.target))),
        target: args.target,
        options: args.quant.options(),
    };
    let mut driver = Driver::new()?;
    let report = export(&mut driver, job)?;
    driver.shut_down();
    print_quality(&report.quality)?;
    let mut table = output::table(&["file", "size"]);
    for (name, bytes) in &report.files {
        table.add_row(vec![name.as_str().into(), output::number(format_bytes(*bytes))]);
    }
    output::line(table)?;
    output::line(format_args!(
        "read back and run by foretrain-edge: {} on {} examples, {:.2} ms each",
        output::metric(&report.quality.metric, report.edge_metric),
        report.edge_examples,
        report.edge_ms
    ))?;
    output::line(format_args!("package: {}\nrun it: {}", report.package.display(), report.run_command))?;
    for note in report.notes.iter().filter(|note| !report.quality.notes.contains(note)) {
        output::line(format_args!("- {note}"))?;
    }
    if args.common.json { output::print_json(&for_json(report)) } else { Ok(()) }
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

/// Refuses an unknown target before anything is read.
fn check_target(id: &str) -> Result<(), CliError> {
    let all = targets().map_err(CliError::from_display)?;
    if all.iter().any(|target| target.id == id) {
        return Ok(());
    }
    let known = all.iter().map(|target| target.id.as_str()).collect::<Vec<_>>().join(", ");
    Err(CliError::Usage(format!("--target: expected list or one of {known}, found {id:?}")))
}

/// The report with paths that JSON can hold.
fn for_json(report: ExportReport) -> ExportReport {
    let package = output::path_text(&report.package).into();
    ExportReport { package, quality: quantize::for_json(report.quality), ..report }
}

fn list_targets(is_json: bool) -> Result<(), CliError> {
    let targets = targets().map_err(CliError::from_display)?;
    let mut table = output::table(&["target", "for", "weights", "why"]);
    for target in &targets {
        let machines = format!("{} ({})", target.name, target.examples);
        table.add_row(vec![target.id.as_str(), machines.as_str(), target.scheme.label(), target.why.as_str()]);
    }
    output::line(table)?;
    if !is_json {
        return Ok(());
    }
    let targets = targets.iter().map(|target| {
        json!({
            "id": target.id, "name": target.name, "examples": target.examples, "scheme": target.scheme.label(),
            "memory_bytes": target.memory_bytes, "why": target.why,
        })
    });
    output::print_json(&json!({ "targets": targets.collect::<Vec<_>>() }))
}
