//! `foretrain export`.

use std::path::PathBuf;

use foretrain_engine::export::PackageFormat;
use foretrain_engine::memory::format_bytes;
use foretrain_engine::quant::{QuantScheme, StrayTables};
use foretrain_engine::session::{Blame, Command, EventKind, ExportJob, ExportReport, Naming, targets};
use serde_json::{Value, json};

use super::data_arg::DataArgs;
use super::driver::Driver;
use super::error::Ended;
use super::quant_arg::QuantArgs;
use super::quantize::{self, print_quality};
use super::{CliError, CommonArgs, output, path_arg, run_arg};

/// Means every target.
const ALL: &str = "all";

/// Write a package for a hardware target and run it once.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  foretrain export --target list
  foretrain export --input path/to/run --target cpu-x86-64 --output packages/digits-cpu
  foretrain export --input path/to/run --target cpu-x86-64 --scheme int4 --method gptq
  foretrain export --input path/to/run --target gpu-high --format onnx --scheme f32
  foretrain export --input path/to/run --target edge-board --method gptq --ternary-scales row
  foretrain export --input path/to/run --target mobile --scheme ternary-base3 --embedding-type int3-k
  foretrain export --input path/to/llama --target edge-board --format transformers --scheme ternary
  foretrain export --input path/to/run --target all --output packages")]
pub struct ExportArgs {
    /// Checkpoint folder, run by its folder or name (its best checkpoint is taken), folder of Hugging Face transformers or
    /// GGUF file; the last two need --data.
    #[arg(long, value_name = "FOLDER|FILE|NAME")]
    pub input: Option<PathBuf>,
    /// Hardware target; `all` takes each, `list` names them.
    #[arg(long)]
    pub target: String,
    /// How weights are stored (f32, bf16, f16, int8, int4-k, int4, ternary, ternary-base3); the target's own way when left
    /// out.
    #[arg(long, value_parser = quantize::parse_scheme)]
    pub scheme: Option<QuantScheme>,
    /// In which container (safetensors, gguf, transformers, onnx); the target's own when left out. `transformers` holds only
    /// what that library loads: GPT-2 and Llama in floats, Llama in ternary as its BitNet integration has it. ONNX is for
    /// image models, in f32 or int8; int8 is calibrated on --calibration-samples images of the training part.
    #[arg(long, value_parser = parse_format)]
    pub format: Option<PackageFormat>,
    /// Folder to create; package-TARGET below the current folder, or package-TARGET-2 and so on, when left out. With
    /// `--target all`, the folder in which each target gets its own.
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
pub(super) fn run(args: &ExportArgs) -> Result<(), CliError> {
    if args.target == "list" {
        return list_targets(args.common.json);
    }
    let missing = || CliError::Usage("--input: expected a checkpoint or run folder, found nothing".to_owned());
    let targets = chosen_targets(&args.target)?;
    let data = args.data.spec()?;
    let input = run_arg::model("--input", args.input.as_ref().ok_or_else(missing)?, args.common.runs_folder()?)?;
    if let Some(output) = args.output.as_ref().filter(|_| args.target == ALL) {
        path_arg::check_folder("--output", output)?;
    }
    let job = |target: &str| ExportJob {
        data: data.clone(),
        input: input.clone(),
        // A name that was asked for is meant; one that was left out need only be free.
        naming: if args.output.is_some() { Naming::Exact } else { Naming::NextFree },
        output: match &args.output {
            Some(output) if args.target == ALL => output.join(target),
            Some(output) => output.clone(),
            None => PathBuf::from(format!("package-{target}")),
        },
        scheme: args.scheme,
        format: args.format,
        target: target.to_owned(),
        // Of all targets, those that have no choice of tables go without.
        options: args.quant.options(if args.target == ALL { StrayTables::LeaveOut } else { StrayTables::Refuse }),
    };
    let mut driver = Driver::new()?;
    if args.target == ALL {
        return export_all(driver, targets.iter().map(|target| job(target)), args.common.json);
    }
    let report = export(&mut driver, job(&args.target))?;
    driver.shut_down();
    print_report(&report)?;
    if args.common.json { output::print_json(&for_json(report)) } else { Ok(()) }
}

/// Exports each job; one that fails does not keep the others from being done.
/// Errors: once all were tried, what failed by target and why, and what was written; a cancel at once.
fn export_all(
    mut driver: Driver,
    mut jobs: impl ExactSizeIterator<Item = ExportJob>,
    is_json: bool,
) -> Result<(), CliError> {
    let (mut reports, mut failures) = (Vec::new(), Vec::new());
    while let Some(job) = jobs.next() {
        let target = job.target.clone();
        match export(&mut driver, job) {
            Ok(report) => {
                output::line(format_args!("== {target}"))?;
                print_report(&report)?;
                reports.push(for_json(report));
            }
            Err(
                error @ (CliError::Failed(_) | CliError::Usage(_) | CliError::Memory { .. } | CliError::Disk { .. }),
            ) => failures.push((target, error)),
            Err(CliError::Interrupted) if !reports.is_empty() => {
                let (done, all) = (reports.len(), reports.len() + 1 + jobs.len());
                return Err(CliError::Packages {
                    message: format!("interrupted; {done} of {all} packages are written, the others left nothing"),
                    figures: json!({ "packages": reports, "failed": failed_json(&failures) }),
                    ended: Ended::Interrupted,
                });
            }
            Err(
                error @ (CliError::Diverged
                | CliError::Interrupted
                | CliError::Saved { .. }
                | CliError::Offloaded { .. }
                | CliError::OffloadDiverged { .. }
                | CliError::Packages { .. }
                | CliError::ClosedPipe),
            ) => return Err(error),
        }
    }
    driver.shut_down();
    if !failures.is_empty() {
        return Err(partial_failure(&reports, &failures));
    }
    if is_json { output::print_json(&json!({ "packages": reports, "failed": [] })) } else { Ok(()) }
}

/// What failed, each cause once, and what was written all the same. Wrong usage only where nothing was begun.
fn partial_failure(reports: &[ExportReport], failures: &[(String, CliError)]) -> CliError {
    let mut causes: Vec<(String, Vec<&str>)> = Vec::new();
    for (target, error) in failures {
        let cause = error.to_string();
        match causes.iter_mut().find(|(told, _)| *told == cause) {
            Some((_, targets)) => targets.push(target),
            None => causes.push((cause, vec![target])),
        }
    }
    let told = causes.iter().map(|(cause, targets)| format!("\n  {}: {cause}", targets.join(", ")));
    let (done, all) = (reports.len(), reports.len() + failures.len());
    let is_usage = reports.is_empty() && failures.iter().all(|(_, error)| matches!(error, CliError::Usage(_)));
    CliError::Packages {
        message: format!("{done} of {all} packages written{}", told.collect::<String>()),
        figures: json!({ "packages": reports, "failed": failed_json(failures) }),
        ended: Ended::Blaming(if is_usage { Blame::Request } else { Blame::Work }),
    }
}

fn failed_json(failures: &[(String, CliError)]) -> Vec<Value> {
    failures.iter().map(|(target, error)| json!({ "target": target, "error": error.to_string() })).collect()
}

fn print_report(report: &ExportReport) -> Result<(), CliError> {
    print_quality(&report.quality)?;
    let mut table = output::table(&["file", "size"]);
    for (name, bytes) in &report.files {
        table.add_row(vec![name.as_str().into(), output::number(format_bytes(*bytes))]);
    }
    output::line(table)?;
    match &report.edge {
        Some(edge) => output::line(format_args!(
            "read back and run by foretrain-edge: {} on {} {}, {:.2} ms each",
            output::metric(&report.quality.metric, edge.metric),
            edge.num_examples,
            report.quality.example_unit(),
            edge.ms_per_example
        ))?,
        None => output::line("read back and compared; the figures are of the graph in the file")?,
    }
    output::line(format_args!("package: {}\nrun it: {}", report.package.display(), report.run_command))?;
    for note in report.notes.iter().filter(|note| !report.quality.notes.contains(note)) {
        output::line(format_args!("- {note}"))?;
    }
    Ok(())
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

/// The ids of the targets that `asked` means; an unknown one is refused before anything is read.
fn chosen_targets(asked: &str) -> Result<Vec<String>, CliError> {
    let all = targets().map_err(CliError::from_display)?;
    let ids: Vec<String> = all.into_iter().map(|target| target.id).collect();
    if asked == ALL {
        return Ok(ids);
    }
    if ids.iter().any(|id| id == asked) {
        return Ok(vec![asked.to_owned()]);
    }
    let known = ids.join(", ");
    Err(CliError::Usage(format!("--target: expected list, all or one of {known}, found {asked:?}")))
}

/// The report with paths that JSON can hold.
fn for_json(report: ExportReport) -> ExportReport {
    let package = output::path_text(&report.package).into();
    ExportReport { package, quality: quantize::for_json(report.quality), ..report }
}

/// A container by its label.
fn parse_format(label: &str) -> Result<PackageFormat, String> {
    let known = PackageFormat::ALL.map(PackageFormat::label).join(", ");
    PackageFormat::from_label(label).ok_or_else(|| format!("expected one of {known}"))
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
