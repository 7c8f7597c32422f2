//! `foretrain train --offload`: models that are larger than memory.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use foretrain_engine::hybrid::{Phase, Strategy};
use foretrain_engine::memory::{counted, format_bytes};
use foretrain_engine::models::Network;
use foretrain_engine::offload::{Commit, Precision, StreamedStep};
use foretrain_engine::optim::{OptimizerKind, usual_learning_rate};
use foretrain_engine::session::{
    Command, EventKind, OffloadBatches, OffloadEnding, OffloadForecast, OffloadGoal, OffloadJob, OffloadReport,
    OffloadedModel,
};
use serde_json::{Value, json};

use super::driver::{self, Driver};
use super::offload_lines::{is_rehearsed, more_or_less, step_lines, summary, validation_line};
use super::recipe_arg::{self, RecipeArgs};
use super::train::{self, TrainArgs};
use super::{CliError, output, path_arg};

/// Options of streamed training.
#[derive(Debug, clap::Args)]
pub struct OffloadArgs {
    /// Train a gpt2 or llama model that is larger than memory: weights and optimizer state lie in this folder and are read
    /// and written block by block, by AdamW. The tier is vanilla unless --tier names another. A folder of the same training
    /// goes on. At the end the model is in FOLDER/model, in the layout of transformers.
    #[arg(long, value_name = "FOLDER",
        conflicts_with_all = ["qat", "micro_batches", "optimizer_states", "optimizer_offload", "name"])]
    pub offload: Option<PathBuf>,
    /// How numbers lie on disk: bf16 weights and 8-bit moments, 4 bytes a weight; or all in f32, 12 bytes.
    #[arg(long, value_enum, value_name = "PRECISION", default_value = "compact", requires = "offload")]
    pub offload_precision: PrecisionArg,
    /// What of a broken step counts: all or nothing, for twice the disk space, or each block by itself. By steps where the
    /// disk has room for that, when left out.
    #[arg(long, value_enum, value_name = "UNIT", requires = "offload")]
    pub offload_commit: Option<CommitArg>,
    /// Learn the first batch again and again: its loss falls, or something is broken.
    #[arg(long, requires = "offload")]
    pub repeat_batch: bool,
    /// Leave the trained weights in their blocks; the same command without this option writes the model.
    #[arg(long, requires = "offload")]
    pub blocks_only: bool,
}

/// `--offload-precision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrecisionArg {
    /// bf16 weights, 8-bit moments.
    Compact,
    /// f32.
    Full,
}

/// `--offload-commit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CommitArg {
    /// Whole steps.
    Step,
    /// Blocks.
    Block,
}

/// Trains, or with `--plan` says what that would take.
pub(super) fn run(args: &TrainArgs, folder: &Path) -> Result<(), CliError> {
    let job = job(args, folder)?;
    train::note_kernel(&job.config);
    if args.recipe.activation_checkpointing {
        output::note(
            "--activation-checkpointing changes nothing here: streaming computes each block again in any case",
        );
    }
    let mut driver = Driver::new()?;
    let bar = driver::spinner();
    let goal = job.goal;
    let (rate, strategy) = (job.config.optimizer.learning_rate, job.config.hybrid.strategy);
    let mut forecast = None;
    let on_tick = |_: &_, _, kind: Option<&EventKind>| {
        driver::show_event(&bar, kind);
        match kind {
            Some(EventKind::OffloadPlanned(planned)) => {
                if goal == OffloadGoal::Train {
                    let summary = summary(planned, strategy);
                    bar.suspend(|| output::note(format_args!("{summary}\npeak learning rate: {rate}")));
                }
                forecast = Some(planned.clone());
            }
            Some(EventKind::Validated(point)) => bar.suspend(|| output::note(validation_line(point))),
            Some(EventKind::Streamed(step)) => bar.suspend(|| step_lines(step).iter().for_each(output::note)),
            _ => {}
        }
    };
    let answer = driver.ask(
        |id| Command::Offload(id, Box::new(job)),
        on_tick,
        |kind| match (goal, kind) {
            (OffloadGoal::Plan, EventKind::OffloadPlanned(planned)) => Ok(Answer::Planned(planned)),
            (_, EventKind::Offloaded(report)) => Ok(Answer::Trained(report)),
            (_, other) => Err(other),
        },
    );
    bar.finish_and_clear();
    let answer = answer?;
    driver.shut_down();
    match answer {
        Answer::Planned(planned) => show_plan(&planned, strategy, args.common.json),
        Answer::Trained(report) => show_report(&report, forecast.as_deref(), args),
    }
}

enum Answer {
    Planned(Box<OffloadForecast>),
    Trained(Box<OffloadReport>),
}

fn job(args: &TrainArgs, folder: &Path) -> Result<OffloadJob, CliError> {
    path_arg::check_folder("--offload", folder)?;
    let folder = std::path::absolute(folder).map_err(CliError::from_display)?;
    let tier = args.recipe.tier.clone().unwrap_or_else(|| "vanilla".to_owned());
    let recipe = RecipeArgs { tier: Some(tier), ..args.recipe.clone() };
    let mut config = recipe_arg::config(&recipe, &args.common)?;
    if args.recipe.optimizer.is_none() {
        config.optimizer.switch_to(OptimizerKind::AdamW);
        config.optimizer.learning_rate = args.recipe.learning_rate.unwrap_or(config.optimizer.learning_rate);
    }
    if let Some(path) = &args.from {
        train::start_from(&mut config, path, args)?;
    }
    if args.recipe.learning_rate.is_none() && (args.recipe.model.is_some() || args.from.is_some()) {
        let network = Network::new(&config.model).map_err(|error| CliError::from_session(&error.into()))?;
        let most = usual_learning_rate(network.num_params() as u64);
        config.optimizer.learning_rate = config.optimizer.learning_rate.min(most.unwrap_or(f64::INFINITY));
    }
    Ok(OffloadJob {
        config,
        folder,
        precision: match args.offload.offload_precision {
            PrecisionArg::Compact => Precision::Compact,
            PrecisionArg::Full => Precision::Full,
        },
        commit: args.offload.offload_commit.map(|commit| match commit {
            CommitArg::Step => Commit::Step,
            CommitArg::Block => Commit::Block,
        }),
        batches: if args.offload.repeat_batch { OffloadBatches::First } else { OffloadBatches::Data },
        goal: if args.plan { OffloadGoal::Plan } else { OffloadGoal::Train },
        ending: if args.offload.blocks_only { OffloadEnding::Blocks } else { OffloadEnding::Model },
    })
}

fn show_plan(forecast: &OffloadForecast, strategy: Strategy, is_json: bool) -> Result<(), CliError> {
    let OffloadForecast { plan, disk, rates, step_seconds, .. } = forecast;
    output::line(output::plan_table(&plan.memory))?;
    if let Some(gpu) = &plan.gpu {
        output::line("of the GPU's memory:")?;
        output::line(output::plan_table(gpu))?;
    }
    output::line(summary(forecast, strategy))?;
    output::line(format_args!(
        "disk to commit whole steps: {}; block by block: {}",
        format_bytes(plan.disk_bytes_by_step),
        format_bytes(plan.disk_bytes_by_block),
    ))?;
    if !forecast.costs.is_empty() {
        let mut table = output::table(&["what saves", "saved", "costs a step"]);
        for cost in &forecast.costs {
            let saved = format!("{} of {}", format_bytes(cost.saved_bytes), cost.saves);
            table.add_row(vec![cost.measure.clone(), saved, more_or_less(cost.seconds)]);
        }
        output::line(table)?;
    }
    if let (Some(rates), Some(seconds)) = (rates, step_seconds) {
        output::line(format_args!(
            "{} a step{}: {} of passes and updates alone, {} of disk beside them, by rates measured now",
            output::duration(*seconds),
            if is_rehearsed(forecast) { " by a rehearsal with a few layers" } else { " at least" },
            output::duration(rates.compute_seconds(plan)),
            output::duration(rates.disk_seconds(plan)),
        ))?;
    }
    let figures = json!({ "offload": forecast_json(forecast) });
    if !plan.fits() {
        let budget = if plan.memory.fits() { "over the budget of the GPU's memory" } else { "over the memory budget" };
        return Err(CliError::Memory { message: budget.to_owned(), figures, remedy: None });
    }
    if let Err(error) = disk.check() {
        return Err(CliError::Disk { message: error.to_string(), figures });
    }
    if is_json { output::print_json(&figures) } else { Ok(()) }
}

/// The forecast with a path that JSON can hold.
fn forecast_json(forecast: &OffloadForecast) -> OffloadForecast {
    let mut forecast = forecast.clone();
    forecast.disk.folder = output::path_text(&forecast.disk.folder).into();
    forecast
}

fn show_report(report: &OffloadReport, forecast: Option<&OffloadForecast>, args: &TrainArgs) -> Result<(), CliError> {
    let figures = figures(report, forecast);
    if report.is_stopped_by_guard {
        return Err(CliError::OffloadDiverged { saved: report.saved.clone(), figures });
    }
    if !report.is_finished {
        return Err(CliError::Offloaded { saved: report.saved.clone(), figures });
    }
    let mut table = output::table(&["figure", "value"]);
    let mut row = |name: &str, value: String| {
        table.add_row(vec![name.to_owned(), value]);
    };
    row("steps", report.step.to_string());
    match (report.steps.first(), report.steps.last()) {
        (Some(first), Some(last)) => {
            row("loss", format!("{:.4} at step {}, {:.4} at step {}", first.loss, first.step, last.loss, last.step));
            row("time a step", output::duration(mean_seconds(report)));
            row("read a step", format_bytes(mean_bytes(report, |step| step.read_bytes)));
            row("written a step", format_bytes(mean_bytes(report, |step| step.written_bytes)));
        }
        _ => {
            let done = counted(report.step, "step");
            output::note(format_args!("{done} had been done before: nothing was trained"));
        }
    }
    if let Some(point) = report.validations.last() {
        let tokens = counted(point.num_examples, "token");
        row("validation loss", format!("{:.4} at step {}, on {tokens}", point.loss, point.step));
    }
    for phase in phases(report) {
        let seconds = output::duration(phase.seconds / phase.num_steps as f64);
        let share = 100.0 * phase.num_backward as f64 / phase.num_examples as f64;
        // To compare: what Correct does.
        let twice = if phase.num_backward > phase.num_examples { " (a sample twice)" } else { "" };
        row(
            &format!("{} steps", phase.phase),
            format!("{}, {seconds} each, {share:.0} % of tokens on the way back{twice}", phase.num_steps),
        );
    }
    row("memory at its peak", output::peak_and_plan(report.peak_bytes, Some(report.planned_bytes)));
    if let Some(planned) = report.planned_gpu_bytes {
        let seen = report.peak_gpu_bytes.map_or_else(|| "not told by its driver".to_owned(), format_bytes);
        row("GPU memory at its peak", format!("{seen} (planned {})", format_bytes(planned)));
    }
    row("computed on", report.device.to_string());
    row("blocks", output::path_text(&report.folder));
    row(
        "model",
        match &report.model {
            OffloadedModel::Written(folder) => output::path_text(folder),
            OffloadedModel::Blocks => "in its blocks; the same command without --blocks-only writes it out".to_owned(),
            OffloadedModel::NoRoom { needed_bytes, free_bytes } => format!(
                "in its blocks: written out it takes {}, the disk has {} free; the same command tries again",
                format_bytes(*needed_bytes),
                format_bytes(*free_bytes)
            ),
        },
    );
    output::line(table)?;
    if args.common.json { output::print_json(&figures) } else { Ok(()) }
}

/// What the steps of a phase took.
#[derive(Debug, Clone, Copy, serde::Serialize)]
struct PhaseFigures {
    phase: Phase,
    num_steps: u64,
    seconds: f64,
    num_examples: u64,
    num_backward: u64,
}

/// The phases that this process's steps were in, where there were others than Warmup and Full.
fn phases(report: &OffloadReport) -> Vec<PhaseFigures> {
    let led = || report.steps.iter().filter_map(|step| Some((step, step.hybrid.as_ref()?)));
    if !led().any(|(_, hybrid)| hybrid.phase.predicts()) {
        return Vec::new();
    }
    let of = |phase: Phase| {
        let steps = led().filter(|(_, hybrid)| hybrid.phase == phase);
        let none = PhaseFigures { phase, num_steps: 0, seconds: 0.0, num_examples: 0, num_backward: 0 };
        steps.fold(none, |sum, (step, hybrid)| PhaseFigures {
            phase,
            num_steps: sum.num_steps + 1,
            seconds: sum.seconds + step.seconds,
            num_examples: sum.num_examples + u64::from(hybrid.num_examples),
            num_backward: sum.num_backward + u64::from(hybrid.num_backward),
        })
    };
    let all = [Phase::Warmup, Phase::Full, Phase::Predict, Phase::Correct].map(of);
    all.into_iter().filter(|phase| phase.num_steps > 0).collect()
}

/// Mean length of this process's steps; 0 without any.
fn mean_seconds(report: &OffloadReport) -> f64 {
    report.steps.iter().map(|step| step.seconds).sum::<f64>() / report.steps.len().max(1) as f64
}

/// Mean of a figure over this process's steps, which differ by phase; 0 without any.
fn mean_bytes(report: &OffloadReport, of: fn(&StreamedStep) -> u64) -> u64 {
    report.steps.iter().map(of).sum::<u64>() / report.steps.len().max(1) as u64
}

/// What was planned and what was measured, for programs.
fn figures(report: &OffloadReport, forecast: Option<&OffloadForecast>) -> Value {
    let last = report.steps.last();
    let model = match &report.model {
        OffloadedModel::Written(folder) => Some(output::path_text(folder)),
        OffloadedModel::Blocks | OffloadedModel::NoRoom { .. } => None,
    };
    json!({
        "offload": {
            "folder": output::path_text(&report.folder),
            "model": model,
            "step": report.step,
            "is_finished": report.is_finished,
            "saved": report.saved,
            "commit": report.commit,
            "planned_bytes": report.planned_bytes,
            "peak_bytes": report.peak_bytes,
            "device": report.device.to_string(),
            "planned_gpu_bytes": report.planned_gpu_bytes,
            "peak_gpu_bytes": report.peak_gpu_bytes,
            "seconds_a_step": last.map(|_| mean_seconds(report)),
            "read_bytes_a_step": last.map(|_| mean_bytes(report, |step| step.read_bytes)),
            "written_bytes_a_step": last.map(|_| mean_bytes(report, |step| step.written_bytes)),
            "is_stopped_by_guard": report.is_stopped_by_guard,
            "phases": phases(report),
            "losses": report.steps.iter().map(|step| step.loss).collect::<Vec<_>>(),
            "steps": report.steps,
            "validations": report.validations,
        },
        "forecast": forecast.map(forecast_json),
    })
}
