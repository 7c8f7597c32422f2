//! `foretrain demo`: the studio's main job without a display, with its figures.

use std::path::{Path, PathBuf};
use std::time::Instant;

use foretrain_engine::memory::format_bytes;
use foretrain_engine::session::{Command, ExportJob, ExportReport, recipe, tier};
use serde_json::json;

use super::driver::Driver;
use super::{CliError, export, output, train};

/// The recipes of the demo, small enough for a minute each on two cores.
const RECIPES: [&str; 2] = ["demo-glyphs", "demo-grammar"];

/// Targets exported: one with int8 weights, one with ternary weights.
const TARGETS: [&str; 2] = ["gpu-low", "cpu-x86-64"];

/// The whole way in one go, without a display: train, quantize, export, read back, run.
///
/// Trains a digit classifier and a small language model on the built-in datasets, exports each with int8 and with
/// ternary weights, reads the packages back and runs them with foretrain-edge.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  foretrain demo
  foretrain demo --json --output demo-results")]
pub struct DemoArgs {
    /// Folder for the demo's runs and packages; a new one below the temporary folder when left out.
    #[arg(long, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
    /// How daring prediction is.
    #[arg(long, default_value = "conservative")]
    pub tier: String,
    /// Print one JSON object as the last line of standard output.
    #[arg(long)]
    pub json: bool,
}

/// Runs the subcommand.
pub(super) fn run(args: &DemoArgs) -> Result<(), CliError> {
    let started = Instant::now();
    let output = args
        .output
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("foretrain-demo-{}", std::process::id())));
    let mut driver = Driver::new()?;
    let mut table = output::table(&["model", "weights", "metric", "run by foretrain-edge", "file size", "bits/weight"]);
    let mut models = Vec::new();
    for name in RECIPES {
        eprintln!("{name}: training");
        let tier = tier(&args.tier).map_err(CliError::from_display)?;
        let recipe = recipe(name).map_err(CliError::from_display)?;
        let mut config = recipe.run_config(&tier, recipe.data.clone()).map_err(CliError::from_display)?;
        config.runs_folder = output.join("runs");
        let run = train::train(&mut driver, |job| Command::Start(job, Box::new(config)))?;
        let folder = run.folder.clone().ok_or_else(|| CliError::Failed("the run left no folder".to_owned()))?;
        let mut exports = Vec::new();
        for target in TARGETS {
            eprintln!("{name}: exporting for {target}, reading back, running");
            let package = output.join("packages").join(format!("{name}-{target}"));
            exports.push(export::export(&mut driver, job(&folder, target, package)?)?);
        }
        if let Some(first) = exports.first() {
            let quality = &first.quality;
            table.add_row(vec![
                name.into(),
                "f32, as trained".into(),
                output::number(output::metric(&quality.metric, quality.before)),
                output::number(""),
                output::number(format_bytes(quality.bytes_before)),
                output::number("32.00"),
            ]);
        }
        for report in &exports {
            let quality = &report.quality;
            table.add_row(vec![
                name.into(),
                quality.scheme.label().into(),
                output::number(output::metric(&quality.metric, quality.after)),
                output::number(output::metric(&quality.metric, report.edge_metric)),
                output::number(format_bytes(weight_file_bytes(report))),
                output::number(format!("{:.2}", quality.bits_per_weight)),
            ]);
        }
        let figures = train::figures(&run);
        for (what, value) in figures.rows {
            eprintln!("  {what}: {value}");
        }
        let quantized: Vec<serde_json::Value> = exports.iter().map(quantized_json).collect();
        let first = exports.first().map(|report| &report.quality);
        models.push(json!({
            "recipe": name,
            "metric": first.map(|quality| &quality.metric),
            "full_precision": first.map(|quality| quality.before),
            "full_precision_bytes": first.map(|quality| quality.bytes_before),
            "quantized": quantized,
            "training": figures.json,
        }));
    }
    driver.shut_down();
    let seconds = started.elapsed().as_secs_f64();
    println!("{table}");
    println!("{} in all; runs and packages: {}", output::duration(seconds), output.display());
    if args.json {
        output::print_json(&json!({ "seconds": seconds, "folder": output, "models": models }))?;
    }
    Ok(())
}

fn job(run: &Path, target: &str, package: PathBuf) -> Result<ExportJob, CliError> {
    let parent = package.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)
        .map_err(|error| CliError::Failed(format!("creating {}: {error}", parent.display())))?;
    Ok(ExportJob { input: run.to_owned(), target: target.to_owned(), output: package, data: None })
}

/// One quantized model for the JSON line.
fn quantized_json(report: &ExportReport) -> serde_json::Value {
    json!({
        "scheme": report.quality.scheme.label(),
        "target": report.target,
        "validation": report.quality.after,
        "validation_by_edge": report.edge_metric,
        "edge_ms": report.edge_ms,
        "bits_per_weight": report.quality.bits_per_weight,
        "weight_file_bytes": weight_file_bytes(report),
        "package": report.package,
    })
}

/// Size of the package's weight file.
fn weight_file_bytes(report: &ExportReport) -> u64 {
    let is_weights = |name: &str| name.ends_with(".safetensors") || name.ends_with(".gguf");
    report.files.iter().filter(|(name, _)| is_weights(name)).map(|(_, bytes)| bytes).sum()
}
