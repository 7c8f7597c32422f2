//! `foretrain train`.

use std::path::{Path, PathBuf};

use foretrain_engine::device::{ComputeDevice, Gauges, has_cuda};
use foretrain_engine::memory::{MemorySettings, format_bytes};
use foretrain_engine::session::{
    Command, Engine, EventKind, JobId, LogEntry, LogKind, RunConfig, RunSnapshot, RunStatus, StopReason,
    ValidationPoint, recipes, starting_point,
};
use indicatif::ProgressBar;
use serde_json::json;

use super::driver::{self, Driver};
use super::log::LogPrinter;
use super::offload::{self, OffloadArgs};
use super::qat_arg::QatArgs;
use super::recipe_arg::RecipeArgs;
use super::time_shares::time_shares;
use super::{CliError, CommonArgs, output, recipe_arg, run_arg};
use crate::folders;

/// Options that say what to train: a run that goes on has said so already. `runs` is not among them, because an
/// environment variable may give it.
const RECIPE_OPTIONS: [&str; 34] = [
    "preset",
    "from",
    "data",
    "kind",
    "tokenizer",
    "field",
    "image_size",
    "tier",
    "strategy",
    "model",
    "optimizer",
    "steps",
    "batch_size",
    "micro_batches",
    "precision",
    "activation_checkpointing",
    "optimizer_states",
    "optimizer_offload",
    "sequence_length",
    "learning_rate",
    "validation_interval",
    "checkpoint_interval",
    "seed",
    "threads",
    "memory_budget_bytes",
    "vram_limit_bytes",
    "name",
    "plan",
    "fit",
    "offload",
    "qat",
    "qat_start",
    "qat_ramp",
    "qat_rate",
];

/// Train a model, or go on with a run.
///
/// Every run gets a new folder with its recipe, metrics, events, samples and checkpoints. Ctrl-C saves and ends;
/// `--resume` goes on exactly where the last checkpoint was written.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  foretrain train --preset glyphs-cnn
  foretrain train --preset mnist-cnn --data path/to/mnist --tier vanilla
  foretrain train --preset shakespeare-gpt2-char --data input.txt --steps 2000 --json
  foretrain train --preset mnist-cnn --data path/to/mnist --qat ternary
  foretrain train --preset mnist-cnn --data path/to/mnist --from path/to/run --qat ternary --steps 500
  foretrain train --preset shakespeare-gpt2-char --from path/to/gpt2 --data input.txt --learning-rate 1e-4
  foretrain train --preset glyphs-cnn --plan
  foretrain train --preset shakespeare-gpt2-char --data input.txt --model gpt2-11m --memory-budget 1 --fit
  foretrain train --preset shakespeare-gpt2-char --data input.txt --device auto --vram-limit 6
  foretrain train --preset shakespeare-gpt2-char --model llama-7b --data input.txt --offload path/to/blocks --plan
  foretrain train --preset shakespeare-gpt2-char --from path/to/llama --data input.txt --offload path/to/blocks
  foretrain train --resume path/to/run")]
pub struct TrainArgs {
    /// What to train.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Quantization-aware training.
    #[command(flatten)]
    pub qat: QatArgs,
    /// Start from the weights of this model: a checkpoint folder, a run by its folder or name, a folder of Hugging Face
    /// transformers (GPT-2 or Llama: config.json, tokenizer.json, safetensors), or a GGUF file. Network and tokenizer are
    /// that model's own.
    #[arg(long, value_name = "FOLDER|FILE|NAME", conflicts_with_all = ["model", "tokenizer"])]
    pub from: Option<PathBuf>,
    /// Training of models that are larger than memory.
    #[command(flatten)]
    pub offload: OffloadArgs,
    /// Only show what the run would need.
    #[arg(long)]
    pub plan: bool,
    /// Where the run does not fit its memory budget, take the mildest settings that make it fit: smaller micro-batches; with
    /// activation checkpointing; with optimizer states of 8 bits; with both.
    #[arg(long, conflicts_with = "offload")]
    pub fit: bool,
    /// Go on with this run (its folder, the folder's name, or its name where only one has it) as its own recipe says;
    /// options that say what to train are refused, but `--device` may name another one to go on with.
    #[arg(long, value_name = "NAME|FOLDER", conflicts_with_all = RECIPE_OPTIONS)]
    pub resume: Option<PathBuf>,
    /// Common options.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Runs the subcommand.
pub(super) fn run(args: &TrainArgs) -> Result<(), CliError> {
    if args.recipe.preset == "list" {
        return list_presets(args.common.json);
    }
    if let Some(folder) = &args.offload.offload {
        return offload::run(args, folder);
    }
    if args.plan {
        return plan(config(args)?, args);
    }
    let make: Box<dyn Fn(JobId, Option<MemorySettings>) -> Command> = match &args.resume {
        Some(asked) => {
            let folder = run_arg::find("--resume", asked, args.common.runs_folder()?)?;
            match args.recipe.device {
                None => Box::new(move |job, _| Command::ResumeRun(job, folder.clone())),
                Some(device) => Box::new(move |job, _| Command::ResumeRunOn(job, folder.clone(), device)),
            }
        }
        None => {
            let config = config(args)?;
            note_kernel(&config);
            Box::new(move |job, settings| Command::Start(job, Box::new(with(&config, settings))))
        }
    };
    let mut driver = Driver::new()?;
    let snapshot = match train(&mut driver, |job| make(job, None)) {
        Err(CliError::Memory { remedy: Some(remedy), .. }) if args.fit && remedy.settings.is_some() => {
            output::note(format_args!("taking {remedy}"));
            train(&mut driver, |job| make(job, remedy.settings))?
        }
        trained => trained?,
    };
    driver.shut_down();
    let num_steps = snapshot.config.num_steps;
    let had_all = |entry: &LogEntry| matches!(entry.kind, LogKind::Started { step } if step == num_steps);
    if snapshot.log.iter().any(had_all) {
        output::note(format_args!("all {num_steps} steps had been done before: nothing was trained"));
    }
    report(&snapshot, args.common.json)
}

/// Says which instructions multiply, where f32 are not multiplied as such and the processor is sure to compute.
pub(super) fn note_kernel(config: &RunConfig) {
    let is_here = config.device == ComputeDevice::Cpu || !has_cuda();
    if let (true, Some(kernel)) = (is_here, config.precision.kernel()) {
        output::note(format_args!("matrix products in {} by {kernel}", config.precision.label()));
    }
}

/// Trains with a live line on standard error; returns the run as it ended.
pub(super) fn train(
    driver: &mut Driver,
    make: impl FnOnce(JobId) -> Command,
) -> Result<std::sync::Arc<RunSnapshot>, CliError> {
    let bar = driver::spinner();
    let mut printed = LogPrinter::default();
    let on_tick = |engine: &Engine, job: JobId, kind: Option<&EventKind>| {
        driver::show_event(&bar, kind);
        // Until this run is published, the snapshot is an earlier one's.
        if let Some(run) = engine.snapshot().filter(|run| run.job == job) {
            show_run(&bar, &run, &mut printed);
            if matches!(run.status, RunStatus::Unsaved { .. }) {
                // A script has nobody who makes room: end with the error. A full queue is tried again at the next tick.
                let _ = engine.try_send(Command::Stop);
            }
        }
    };
    let reason = driver.ask(make, on_tick, |kind| match kind {
        EventKind::Ended(reason) => Ok(reason),
        other => Err(other),
    })?;
    bar.finish_and_clear();
    let run = driver.engine().snapshot().ok_or_else(|| CliError::Failed("the run left no result".to_owned()))?;
    match reason {
        StopReason::Finished => Ok(run),
        StopReason::User => Err(match &run.folder {
            Some(folder) => CliError::Saved { step: run.step, folder: folder.clone() },
            None => CliError::Interrupted,
        }),
        StopReason::Diverged => Err(CliError::Diverged),
        StopReason::Failed(message) | StopReason::Crashed(message) => Err(CliError::Failed(message)),
    }
}

/// The recipe, with the model to start from where one is named, and quantization-aware training where that is asked for.
fn config(args: &TrainArgs) -> Result<RunConfig, CliError> {
    let mut config = recipe_arg::config(&args.recipe, &args.common)?;
    if let Some(path) = &args.from {
        start_from(&mut config, path, args)?;
    }
    args.qat.put_into(&mut config)?;
    Ok(config)
}

pub(super) fn start_from(config: &mut RunConfig, path: &Path, args: &TrainArgs) -> Result<(), CliError> {
    let path = run_arg::model("--from", path, args.common.runs_folder()?)?;
    let path = std::path::absolute(path).map_err(CliError::from_display)?;
    let start = starting_point(&path, &folders::cache()).map_err(|error| CliError::from_session(&error.into()))?;
    if let Some(tokenizer) = &start.tokenizer {
        config.data = config.data.with_tokenizer(tokenizer);
    }
    if args.recipe.sequence_length.is_none()
        && let Some(most) = start.model.max_positions()
    {
        config.sequence_length = config.sequence_length.min(most);
    }
    config.model = start.model;
    config.start_from = Some(path);
    Ok(())
}

/// The recipe, with settings of a memory plan where there are some.
fn with(config: &RunConfig, settings: Option<MemorySettings>) -> RunConfig {
    let mut config = config.clone();
    if let Some(settings) = settings {
        config.take_memory_settings(settings);
    }
    config
}

/// Says what a run would need: as it is, or with settings that make it fit where those are asked for.
fn plan(config: RunConfig, args: &TrainArgs) -> Result<(), CliError> {
    let mut driver = Driver::new()?;
    let mut ask = |config: RunConfig| {
        driver.ask_with_bar(
            |job| Command::Plan(job, Box::new(config)),
            |kind| match kind {
                EventKind::Planned(planned) => Ok(planned),
                other => Err(other),
            },
        )
    };
    let mut planned = ask(config.clone())?;
    let remedy = planned.plan.remedies.first().filter(|remedy| args.fit && remedy.settings.is_some()).cloned();
    let settings = remedy.as_ref().and_then(|remedy| remedy.settings);
    if let Some(remedy) = remedy {
        let (needs, budget) = (format_bytes(planned.plan.total_bytes()), format_bytes(planned.plan.budget_bytes));
        output::line(format_args!("{needs} do not fit the budget of {budget}; with {remedy}"))?;
        planned = ask(with(&config, settings))?;
    }
    driver.shut_down();
    output::line(output::plan_table(&planned.plan))?;
    output::line(format_args!("{} parameters", planned.num_params))?;
    if let (Some(step_ms), Some(seconds)) = (planned.full_step_ms, planned.vanilla_seconds) {
        let all = output::duration(seconds);
        output::line(format_args!("{step_ms:.1} ms per vanilla step, measured now; {all} for all steps"))?;
    }
    if let Some(step_ms) = planned.remedy_step_ms {
        output::line(format_args!("{step_ms:.1} ms per vanilla step with the settings of --fit, measured now"))?;
    }
    for warning in &planned.warnings {
        output::line(format_args!("note: {warning}"))?;
    }
    let figures = json!({
        "num_params": planned.num_params,
        "plan": planned.plan,
        "taken_settings": settings,
        "full_step_ms": planned.full_step_ms,
        "remedy_step_ms": planned.remedy_step_ms,
        "vanilla_seconds": planned.vanilla_seconds,
    });
    if !planned.plan.fits() {
        let remedy = planned.plan.remedies.first().cloned();
        return Err(CliError::Memory { message: "over the memory budget".to_owned(), figures, remedy });
    }
    if args.common.json { output::print_json(&figures) } else { Ok(()) }
}

fn list_presets(is_json: bool) -> Result<(), CliError> {
    let recipes = recipes().map_err(CliError::from_display)?;
    let mut table = output::table(&["preset", "what it trains"]);
    for recipe in &recipes {
        table.add_row(vec![&recipe.name, &recipe.summary]);
    }
    output::line(table)?;
    if !is_json {
        return Ok(());
    }
    let presets = recipes.iter().map(|recipe| json!({ "name": recipe.name, "summary": recipe.summary }));
    output::print_json(&json!({ "presets": presets.collect::<Vec<_>>() }))
}

/// Keeps the bar at the run's step and prints new log entries above it.
fn show_run(bar: &ProgressBar, run: &RunSnapshot, printed: &mut LogPrinter) {
    let lines = printed.new_lines(&run.log);
    for line in lines.into_iter().chain(printed.new_validations(&run.log, &run.validations)) {
        bar.suspend(|| output::note(line));
    }
    match &run.status {
        RunStatus::Preparing { what } => bar.set_message(what.clone()),
        RunStatus::Unsaved { why } => bar.set_message(why.clone()),
        RunStatus::Training | RunStatus::Validating | RunStatus::Paused => {
            if bar.length() != Some(run.config.num_steps) {
                bar.set_length(run.config.num_steps);
                bar.set_style(driver::style("{wide_bar} {pos}/{len} {msg}"));
            }
            bar.set_position(run.step);
            let loss = run.history.last().map_or_else(String::new, |row| format!("loss {:.4}", row.loss));
            let left = run.seconds_left.map_or_else(String::new, |left| format!(", {} left", output::duration(left)));
            bar.set_message(format!("{} {loss}{left}", run.phase));
        }
        RunStatus::Ended(_) => {}
    }
}

/// The figures of a finished run, as a table or as JSON.
fn report(run: &RunSnapshot, is_json: bool) -> Result<(), CliError> {
    let Figures { mut rows, mut json } = figures(run);
    // A GPU's plan is about its own memory.
    let plan = run.plan.as_ref().filter(|_| run.config.device == ComputeDevice::Cpu);
    let (peak, planned) = (Gauges::default().read().process_peak_bytes, plan.map(|plan| plan.total_bytes()));
    // Where it ran comes last.
    let row = rows.len() - usize::from(run.folder.is_some());
    rows.insert(row, ("memory at its peak", output::peak_and_plan(peak, planned)));
    (json["peak_bytes"], json["planned_bytes"]) = (json!(peak), json!(planned));
    let mut table = output::table(&["figure", "value"]);
    for (name, value) in rows {
        table.add_row(vec![name.to_owned(), value]);
    }
    output::line(table)?;
    if is_json { output::print_json(&json) } else { Ok(()) }
}

/// Final figures of a run, for people and for programs.
pub(super) struct Figures {
    pub(super) rows: Vec<(&'static str, String)>,
    pub(super) json: serde_json::Value,
}

/// Everything measured in `run`; what was not measured is absent.
pub(super) fn figures(run: &RunSnapshot) -> Figures {
    let savings = &run.savings;
    let last = run.validations.last();
    let validation = last.map(ValidationPoint::figures);
    let mut rows = vec![
        ("model", format!("{} parameters", run.num_params)),
        ("steps", run.step.to_string()),
        ("training time", output::duration(savings.measured_ms / 1e3)),
    ];
    if let Some(point) = last {
        rows.extend(output::validation_rows(point));
    }
    if let Some(share) = savings.backward_share_saved() {
        rows.push(("example-backwards saved", format!("{:.1} %", share * 100.0)));
    }
    if let (Some(share), Some(step_ms)) = (savings.time_share_saved(), savings.vanilla_step_ms) {
        let label = format!("{:.1} % (vanilla step {step_ms:.1} ms, measured in this run)", share * 100.0);
        rows.push(("time saved against vanilla, same steps", label));
    }
    let (shares, times) = time_shares(run);
    rows.extend(shares);
    rows.push(("divergences", run.num_divergences().to_string()));
    if let Some(folder) = &run.folder {
        rows.push(("run", folder.display().to_string()));
    }
    let json = json!({
        "run": run.folder.as_deref().map(output::path_text),
        "num_params": run.num_params,
        "steps": run.step,
        "seconds": savings.measured_ms / 1e3,
        "validation_loss": validation.map(|figures| figures.loss),
        "validation_accuracy": validation.and_then(|figures| figures.accuracy),
        "validation_examples": validation.map(|figures| figures.num_examples),
        "last_validation": last,
        "example_backwards_saved": savings.backward_share_saved(),
        "time_saved_against_vanilla_steps": savings.time_share_saved(),
        "vanilla_step_ms": savings.vanilla_step_ms,
        "times": times,
        "num_divergences": run.num_divergences(),
    });
    Figures { rows, json }
}
