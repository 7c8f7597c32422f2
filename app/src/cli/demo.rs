//! `foretrain demo`: the studio's main job without a display, with its figures.

use std::path::{Path, PathBuf};
use std::time::Instant;

use comfy_table::Table;
use foretrain_engine::memory::format_bytes;
use foretrain_engine::quant::PostTraining;
use foretrain_engine::session::{Command, ExportJob, ExportReport, Naming, RunConfig, recipe, tier};
use serde_json::{Value, json};

use super::driver::Driver;
use super::train::{self, Figures};
use super::{CliError, export, output, path_arg};

/// The recipes of the demo, small enough for a minute each on two cores.
const RECIPES: [&str; 2] = ["demo-glyphs", "demo-grammar"];

/// Targets exported: one with int8 weights, one with ternary weights.
const TARGETS: [&str; 2] = ["gpu-low", "cpu-x86-64"];

/// The whole way in one go, without a display: train, quantize, export, read back, run.
///
/// Trains a digit classifier and a small language model on the built-in datasets, exports each with int8 and with
/// ternary weights, reads the packages back and runs them with foretrain-edge, the runtime for devices, which is built in
/// here (alone: cargo build --release -p foretrain-edge).
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  foretrain demo
  foretrain demo --json --output demo-results")]
pub struct DemoArgs {
    /// Folder for the demo's runs and packages, without those of an earlier demo; a new one below the temporary
    /// folder when left out.
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
    let folder = prepare_folder(args.output.as_deref())?;
    let configs = RECIPES.map(|name| config(name, &args.tier, &folder)).into_iter();
    let configs = configs.collect::<Result<Vec<_>, CliError>>()?;
    let mut driver = Driver::new()?;
    let mut table = output::table(&["model", "weights", "metric", "run by foretrain-edge", "file size", "bits/weight"]);
    let mut models = Vec::new();
    for (name, config) in RECIPES.into_iter().zip(configs) {
        let (training, exports) = train_and_export(&mut driver, name, config, &folder)?;
        add_rows(&mut table, name, &exports);
        models.push(model_json(name, &training, &exports));
    }
    driver.shut_down();
    let seconds = started.elapsed().as_secs_f64();
    output::line(table)?;
    let duration = output::duration(seconds);
    output::line(format_args!("{duration} in all; runs and packages: {}", folder.display()))?;
    if !args.json {
        return Ok(());
    }
    output::print_json(&json!({ "seconds": seconds, "folder": output::path_text(&folder), "models": models }))
}

/// The folder for everything, made; a new one unless one is named.
/// Errors: a package of an earlier demo is there, which would be found out only after training.
fn prepare_folder(asked: Option<&Path>) -> Result<PathBuf, CliError> {
    let folder = asked.map_or_else(temporary_folder, Path::to_owned);
    path_arg::check_folder("--output", &folder)?;
    let places_of = |name| TARGETS.map(|target| package_place(&folder, name, target));
    if let Some(taken) = RECIPES.into_iter().flat_map(places_of).find(|place| is_taken(place)) {
        return Err(CliError::Usage(format!(
            "--output: expected a folder without packages, found those of an earlier demo. \
             Choose another folder, or delete that one. {}",
            taken.display()
        )));
    }
    let packages = folder.join("packages");
    std::fs::create_dir_all(&packages).map_err(|error| {
        let hint = "Choose a folder that you may write to";
        CliError::Failed(format!("--output: creating a folder: {error}. {hint}. {}", packages.display()))
    })?;
    Ok(folder)
}

/// A folder that is not there yet.
fn temporary_folder() -> PathBuf {
    let numbered = |number: u32| std::env::temp_dir().join(format!("foretrain-demo-{}-{number}", std::process::id()));
    let mut candidates = (1..=u32::MAX).map(numbered);
    candidates.find(|place| !is_taken(place)).unwrap_or_else(|| numbered(0))
}

/// True when there is anything, be it a link to nowhere.
fn is_taken(place: &Path) -> bool {
    place.symlink_metadata().is_ok()
}

fn package_place(folder: &Path, name: &str, target: &str) -> PathBuf {
    folder.join("packages").join(format!("{name}-{target}"))
}

fn config(name: &str, tier_name: &str, folder: &Path) -> Result<RunConfig, CliError> {
    let tier = tier(tier_name).map_err(|error| CliError::Usage(error.to_string()))?;
    let recipe = recipe(name).map_err(CliError::from_display)?;
    let config = recipe.run_config(&tier, recipe.data.clone()).map_err(CliError::from_display)?;
    Ok(RunConfig { runs_folder: folder.join("runs"), ..config })
}

fn train_and_export(
    driver: &mut Driver,
    name: &str,
    config: RunConfig,
    folder: &Path,
) -> Result<(Figures, Vec<ExportReport>), CliError> {
    output::note(format_args!("{name}: training"));
    let run = train::train(driver, |job| Command::Start(job, Box::new(config)))?;
    let input = run.folder.clone().ok_or_else(|| CliError::Failed("the run left no folder".to_owned()))?;
    let mut exports = Vec::new();
    for target in TARGETS {
        output::note(format_args!("{name}: exporting for {target}, reading back, running"));
        let output = package_place(folder, name, target);
        let (input, target, options) = (input.clone(), target.to_owned(), PostTraining::default());
        let job =
            ExportJob { input, target, scheme: None, format: None, output, naming: Naming::Exact, data: None, options };
        exports.push(export::export(driver, job)?);
    }
    let figures = train::figures(&run);
    for (what, value) in &figures.rows {
        output::note(format_args!("  {what}: {value}"));
    }
    Ok((figures, exports))
}

/// A row for the weights as trained, one for each package.
fn add_rows(table: &mut Table, name: &str, exports: &[ExportReport]) {
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
    for report in exports {
        let quality = &report.quality;
        table.add_row(vec![
            name.into(),
            quality.scheme.label().into(),
            output::number(output::metric(&quality.metric, quality.after)),
            output::number(report.edge.map_or_else(String::new, |edge| output::metric(&quality.metric, edge.metric))),
            output::number(format_bytes(weight_file_bytes(report))),
            output::number(format!("{:.2}", quality.bits_per_weight)),
        ]);
    }
}

/// One model for the JSON line.
fn model_json(name: &str, training: &Figures, exports: &[ExportReport]) -> Value {
    let quantized: Vec<Value> = exports.iter().map(quantized_json).collect();
    let first = exports.first().map(|report| &report.quality);
    json!({
        "recipe": name,
        "metric": first.map(|quality| &quality.metric),
        "full_precision": first.map(|quality| quality.before),
        "full_precision_bytes": first.map(|quality| quality.bytes_before),
        "quantized": quantized,
        "training": training.json,
    })
}

/// One quantized model for the JSON line.
fn quantized_json(report: &ExportReport) -> Value {
    json!({
        "scheme": report.quality.scheme.label(),
        "target": report.target,
        "validation": report.quality.after,
        "validation_by_edge": report.edge.map(|edge| edge.metric),
        "edge_ms": report.edge.map(|edge| edge.ms_per_example),
        "bits_per_weight": report.quality.bits_per_weight,
        "weight_file_bytes": weight_file_bytes(report),
        "package": output::path_text(&report.package),
    })
}

/// Size of the package's weight file.
fn weight_file_bytes(report: &ExportReport) -> u64 {
    let is_weights = |name: &str| name.ends_with(".safetensors") || name.ends_with(".gguf");
    report.files.iter().filter(|(name, _)| is_weights(name)).map(|(_, bytes)| bytes).sum()
}
