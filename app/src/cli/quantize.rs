//! `foretrain quantize`.

use std::path::{Path, PathBuf};

use foretrain_engine::export::PackageFormat;
use foretrain_engine::memory::format_bytes;
use foretrain_engine::quant::{LayerFigures, QuantScheme, StrayTables};
use foretrain_engine::session::{Command, EventKind, QuantizeJob, QuantizeReport};

use super::data_arg::DataArgs;
use super::driver::Driver;
use super::quant_arg::QuantArgs;
use super::{CliError, CommonArgs, number_arg, output, run_arg};

/// Quantize a checkpoint and measure what that costs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  foretrain quantize --input glyphs-cnn --scheme int8
  foretrain quantize --input path/to/run --scheme ternary --output model_2bit.safetensors --json
  foretrain quantize --input path/to/run --scheme int8 --method gptq --report path/to/report
  foretrain quantize --input path/to/run --scheme ternary --method gptq --mixed --budget-bits 5")]
pub struct QuantizeArgs {
    /// Checkpoint folder, run by its folder or name (its best checkpoint is taken), folder of Hugging Face transformers or
    /// GGUF file; the last two need --data.
    #[arg(long, value_name = "FOLDER|FILE|NAME")]
    pub input: PathBuf,
    /// f32, bf16, f16, int8, int4-k, int4, ternary or ternary-base3.
    #[arg(long, value_parser = parse_scheme)]
    pub scheme: QuantScheme,
    /// Safetensors file to write, which `foretrain validate` measures; without it, only the cost is measured. Packages that
    /// run, GGUF and ONNX among them, are what `foretrain export` writes.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Dataset to measure on; the run's own when left out.
    #[command(flatten)]
    pub data: DataArgs,
    /// Most validation images or sequences to measure on.
    #[arg(long, default_value_t = QuantizeJob::DEFAULT_EXAMPLES, value_parser = number_arg::parse_count::<usize>)]
    pub samples: usize,
    /// New folder for a report: figures and charts of every layer.
    #[arg(long, value_name = "FOLDER")]
    pub report: Option<PathBuf>,
    /// How weights are quantized.
    #[command(flatten)]
    pub quant: QuantArgs,
    /// Common options.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// A scheme by its label.
pub(super) fn parse_scheme(label: &str) -> Result<QuantScheme, String> {
    QuantScheme::from_label(label).ok_or_else(|| {
        let known: Vec<&str> = QuantScheme::ALL.into_iter().map(QuantScheme::label).collect();
        format!("expected one of {}", known.join(", "))
    })
}

/// Runs the subcommand.
pub(super) fn run(args: QuantizeArgs) -> Result<(), CliError> {
    if let Some(output) = &args.output {
        refuse_other_container(output, args.scheme)?;
    }
    let job = QuantizeJob {
        data: args.data.spec()?,
        input: run_arg::model("--input", &args.input, args.common.runs_folder()?)?,
        scheme: args.scheme,
        output: args.output,
        max_examples: args.samples,
        options: args.quant.options(StrayTables::Refuse),
        report: args.report,
    };
    let mut driver = Driver::new()?;
    let report = driver.ask_with_bar(
        |id| Command::Quantize(id, job),
        |kind| match kind {
            EventKind::Quantized(report) => Ok(report),
            other => Err(other),
        },
    )?;
    driver.shut_down();
    print_quality(&report)?;
    if args.common.json { output::print_json(&for_json(*report)) } else { Ok(()) }
}

/// Refuses a name that promises another container than safetensors.
fn refuse_other_container(output: &Path, scheme: QuantScheme) -> Result<(), CliError> {
    let ending = output.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
    let Some(format) = PackageFormat::from_label(&ending).filter(|format| *format != PackageFormat::Safetensors) else {
        return Ok(());
    };
    Err(CliError::Usage(format!(
        "--output: expected a safetensors file, found a name that ends in .{ending}. `foretrain export --target TARGET \
         --format {} --scheme {} --input …` writes a package in that format; `foretrain export --target list` names the \
         targets. {}",
        format.label(),
        scheme.label(),
        output.display()
    )))
}

/// The report with a path that JSON can hold.
pub(super) fn for_json(report: QuantizeReport) -> QuantizeReport {
    let text = |path: Option<PathBuf>| path.map(|path| output::path_text(&path).into());
    QuantizeReport { output: text(report.output), report: text(report.report), ..report }
}

/// The quality table and notes.
pub(super) fn print_quality(report: &QuantizeReport) -> Result<(), CliError> {
    let mut table = output::table(&["", "before", "after"]);
    let metric = |value| output::number(output::metric(&report.metric, value));
    let loss = |value| output::number(output::metric("loss", value));
    if report.metric != "loss" {
        table.add_row(vec![report.metric.clone().into(), metric(report.before), metric(report.after)]);
    }
    table.add_row(vec!["loss".into(), loss(report.loss_before), loss(report.loss_after)]);
    let bytes = |bytes| output::number(format_bytes(bytes));
    table.add_row(vec!["weights".into(), bytes(report.bytes_before), bytes(report.bytes_after)]);
    let bits = output::number(format!("{:.2}", report.bits_per_weight));
    table.add_row(vec!["bits per weight".into(), output::number("32.00"), bits]);
    output::line(table)?;
    let scheme = report.scheme.label();
    output::line(format_args!(
        "{scheme}, {}; on {} validation {}",
        report.method,
        report.num_examples,
        report.example_unit()
    ))?;
    print_layers(report)?;
    for note in &report.notes {
        output::line(format_args!("- {note}"))?;
    }
    if let Some(path) = &report.output {
        output::line(format_args!("written: {}", path.display()))?;
    }
    match &report.report {
        Some(path) => output::line(format_args!("report: {}", path.display())),
        None => Ok(()),
    }
}

/// What calibration knows of each layer; nothing without one.
fn print_layers(report: &QuantizeReport) -> Result<(), CliError> {
    let is_told = |layer: &&LayerFigures| layer.output_error.is_some() || layer.loss_increase.is_some();
    let told: Vec<&LayerFigures> = report.layers.iter().filter(is_told).collect();
    if told.is_empty() {
        return Ok(());
    }
    let mut table = output::table(&["tensor", "storage", "weights lost", "outputs lost", "rounded alone", "loss"]);
    let percent =
        |error: Option<f64>| output::number(error.map_or_else(String::new, |error| format!("{:.2}%", error * 100.0)));
    for layer in told {
        table.add_row(vec![
            layer.name.as_str().into(),
            layer.storage.as_str().into(),
            percent(Some(layer.weight_error)),
            percent(layer.output_error),
            percent(layer.nearest_output_error),
            output::number(layer.loss_increase.map_or_else(String::new, |loss| format!("{loss:+.4}"))),
        ]);
    }
    output::line(table)
}
