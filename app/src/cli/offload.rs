//! `foretrain train --offload`: models that are larger than memory.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use foretrain_engine::hybrid::{HybridEvent, Phase, Strategy};
use foretrain_engine::memory::{counted, format_bytes, grouped};
use foretrain_engine::models::Network;
use foretrain_engine::offload::{Commit, DiskRoom, Precision, StreamedStep};
use foretrain_engine::optim::OptimizerKind;
use foretrain_engine::session::{
    Command, EventKind, OffloadBatches, OffloadEnding, OffloadForecast, OffloadGoal, OffloadJob, OffloadReport,
    OffloadedModel,
};
use serde_json::{Value, json};

use super::driver::{self, Driver};
use super::recipe_arg::{self, RecipeArgs};
use super::train::{self, TrainArgs};
use super::{CliError, log, output, path_arg};
use crate::widgets::number;

/// Options of streamed training.
#[derive(Debug, clap::Args)]
pub struct OffloadArgs {
    /// Train a gpt2 or llama model that is larger than memory: weights and optimizer state lie in this folder and are read
    /// and written block by block, by AdamW. The tier is vanilla unless --tier names another. A folder of the same training
    /// goes on. At the end the model is in FOLDER/model, in the layout of transformers.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["qat", "micro_batches", "optimizer_states", "name"])]
    #[arg(conflicts_with_all = ["validation_interval", "checkpoint_interval"])]
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
    train::note_kernel(job.config.precision);
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
        let most = rate_for(network.num_params() as u64);
        config.optimizer.learning_rate = config.optimizer.learning_rate.min(most);
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

/// The peak rate of AdamW for a model of this many weights: recipes are for small models, whose rates are too high for it.
/// Source: Brown et al. 2020, arXiv 2005.14165, table 2.1.
fn rate_for(num_params: u64) -> f64 {
    const RATES: [(u64, f64); 6] = [
        (125_000_000, 6e-4),
        (350_000_000, 3e-4),
        (760_000_000, 2.5e-4),
        (1_300_000_000, 2e-4),
        (2_700_000_000, 1.6e-4),
        (6_700_000_000, 1.2e-4),
    ];
    // Three fifths of a size count as it: the vocabulary, a third of GPT-2's 124M, is not known before the data is read.
    let reached = RATES.iter().rev().find(|(size, _)| num_params >= size / 10 * 6);
    reached.map_or(f64::INFINITY, |(_, rate)| *rate)
}

/// What a training takes, and where it goes on, in a few lines, for its start.
fn summary(forecast: &OffloadForecast, strategy: Strategy) -> String {
    let (plan, disk) = (&forecast.plan, &forecast.disk);
    let mut lines = vec![
        format!(
            "{} parameters; memory: {} planned of {}",
            grouped(plan.num_params),
            format_bytes(plan.memory.total_bytes()),
            format_bytes(plan.memory.budget_bytes),
        ),
        disk_line(disk),
        format!(
            "the model at the end: {} more, where the disk has room for it then",
            format_bytes(forecast.model_bytes)
        ),
    ];
    let (num_done, num_left) = (disk.num_steps, forecast.num_steps_left);
    if num_left == 0 {
        lines.push(format!("{} done, and none is left", counted(num_done, "step")));
        return lines.join("\n");
    }
    let about = if is_rehearsed(forecast) { "about" } else { "at least" };
    let traffic = format!("{} read, {} written", format_bytes(plan.read_bytes), format_bytes(plan.written_bytes));
    lines.push(match forecast.step_seconds {
        Some(seconds) => format!(
            "a step: {traffic}, {about} {}; {}: {about} {}",
            output::duration(seconds),
            counted(num_left, "step"),
            output::duration(seconds * num_left as f64)
        ),
        None => format!("a step: {traffic}"),
    });
    if let Some(predict) = plan.predict {
        let seconds = forecast.predict_seconds.map_or_else(String::new, |seconds| {
            format!(", about {}, where the gate lets one happen", output::duration(seconds))
        });
        lines.push(format!(
            "a Predict step: {} of memory with {} on the way back{seconds}",
            format_bytes(predict.memory_bytes),
            counted(predict.num_sequences as u64, "sequence")
        ));
    }
    if strategy == Strategy::Frozen {
        let read = format_bytes(plan.forward_read_bytes);
        lines.push(format!("a Predict step goes forward alone: {read} read, nothing written"));
    }
    if num_done > 0 {
        lines.push(format!("going on after step {num_done} of {}", num_done + num_left));
    }
    lines.join("\n")
}

/// True when the time of a step was foretold by steps of a part of the model.
fn is_rehearsed(forecast: &OffloadForecast) -> bool {
    forecast.rates.is_some_and(|rates| rates.streamed_weights.is_some())
}

/// The disk in a line.
fn disk_line(disk: &DiskRoom) -> String {
    let commit = match disk.commit {
        Commit::Step => "steps are committed whole",
        Commit::Block => "blocks are committed one by one",
    };
    let free = disk.free_bytes.map_or_else(|| "an unknown part".to_owned(), format_bytes);
    let held = match disk.held_bytes {
        0 => String::new(),
        bytes => format!(", {} held already", format_bytes(bytes)),
    };
    format!("disk: {} at most ({commit}); {free} free{held}", format_bytes(disk.needed_bytes))
}

/// A step in lines: what it began with, itself, and how the guard judged it.
fn step_lines(step: &StreamedStep) -> Vec<String> {
    let events = step.hybrid.iter().flat_map(|hybrid| &hybrid.events);
    let (judged, begun): (Vec<_>, Vec<_>) = events.partition(|event| matches!(event, HybridEvent::Diverged { .. }));
    let told = |event: &HybridEvent| format!("step {}: {}", step.step, log::hybrid_line(event));
    begun.into_iter().map(told).chain([step_line(step)]).chain(judged.into_iter().map(told)).collect()
}

/// A step in a line.
fn step_line(step: &StreamedStep) -> String {
    let waited = output::duration(step.read_wait_seconds + step.write_wait_seconds);
    let kept = match step.num_kept {
        0 => String::new(),
        1 => ", finished: 1 block had moved before".to_owned(),
        count => format!(", finished: {count} blocks had moved before"),
    };
    let gradient = |norm: f64| format!("gradient {}", number::value(norm));
    let gradient = step.grad_norm.map_or_else(|| "nothing moved".to_owned(), gradient);
    let phase = step.hybrid.as_ref().map_or_else(String::new, |hybrid| format!("{:<7}  ", hybrid.phase));
    let forecast = step.hybrid.as_ref().and_then(|hybrid| hybrid.forecast);
    let forecast = forecast.map_or_else(String::new, |forecast| format!(" (predicted {:.4})", forecast.mean));
    format!(
        "step {}: {phase}loss {:.4}{forecast}, {gradient}, {}, of which {waited} waiting for the disk{kept}",
        step.step,
        step.loss,
        output::duration(step.seconds)
    )
}

fn show_plan(forecast: &OffloadForecast, strategy: Strategy, is_json: bool) -> Result<(), CliError> {
    let OffloadForecast { plan, disk, rates, step_seconds, .. } = forecast;
    output::line(output::plan_table(&plan.memory))?;
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
    if !plan.memory.fits() {
        return Err(CliError::Memory { message: "over the memory budget".to_owned(), figures, remedy: None });
    }
    if let Err(error) = disk.check() {
        return Err(CliError::Disk { message: error.to_string(), figures });
    }
    if is_json { output::print_json(&figures) } else { Ok(()) }
}

/// Seconds that something adds, or saves.
fn more_or_less(seconds: f64) -> String {
    let size = output::duration(seconds.abs());
    match seconds.total_cmp(&0.0) {
        Ordering::Less => format!("-{size}"),
        Ordering::Equal => "nothing".to_owned(),
        Ordering::Greater => format!("+{size}"),
    }
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
    let share = (report.peak_bytes as f64 / report.planned_bytes as f64 - 1.0) * 100.0;
    row(
        "memory at its peak",
        format!("{} (planned {}, {share:+.1} %)", format_bytes(report.peak_bytes), format_bytes(report.planned_bytes)),
    );
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
            "seconds_a_step": last.map(|_| mean_seconds(report)),
            "read_bytes_a_step": last.map(|_| mean_bytes(report, |step| step.read_bytes)),
            "written_bytes_a_step": last.map(|_| mean_bytes(report, |step| step.written_bytes)),
            "is_stopped_by_guard": report.is_stopped_by_guard,
            "phases": phases(report),
            "losses": report.steps.iter().map(|step| step.loss).collect::<Vec<_>>(),
            "steps": report.steps,
        },
        "forecast": forecast.map(forecast_json),
    })
}

#[cfg(test)]
mod tests {
    use foretrain_engine::hybrid::{Divergence, DivergenceKind, GuardSignals, Recovery, StepReport};

    use super::*;

    #[test]
    fn what_a_step_began_with_is_told_before_it_and_its_judgement_after() {
        let divergence = Divergence { kind: DivergenceKind::LossSpike, value: 6.5, limit: 4.0 };
        let phase = |from, why: &str| HybridEvent::Phase { from, to: Phase::Full, why: why.to_owned() };
        let hybrid = StepReport {
            step: 7,
            phase: Phase::Full,
            loss: 2.5,
            forecast: None,
            grad_norm: None,
            learning_rate: 1e-3,
            rho: 0.5,
            confidence: None,
            num_examples: 24,
            num_forward: 24,
            num_backward: 24,
            correction: None,
            signals: GuardSignals::default(),
            quantization: None,
            distillation: None,
            events: vec![
                phase(Phase::Predict, "gate shut"),
                phase(Phase::Full, "taken up again"),
                HybridEvent::Diverged { divergence, recovery: Recovery::BackToFull, restored_step: None },
            ],
            must_stop: false,
        };
        let step = StreamedStep {
            step: 7,
            loss: 2.5,
            grad_norm: Some(1.25e7),
            num_clipped: 0,
            num_kept: 0,
            seconds: 0.0123,
            read_wait_seconds: 0.0002,
            write_wait_seconds: 0.0001,
            reading_seconds: 0.001,
            writing_seconds: 0.001,
            read_bytes: 1,
            written_bytes: 1,
            hybrid: Some(hybrid),
        };
        let expected = [
            "step 7: Predict -> Full: gate shut",
            "step 7: Full: taken up again",
            "step 7: Full     loss 2.5000, gradient 1.25e7, 12.3 ms, of which 0.30 ms waiting for the disk",
            "step 7: divergence: loss spike (6.500 against a limit of 4.000); answer: back to Full",
        ];
        assert_eq!(step_lines(&step), expected);
    }

    #[test]
    fn what_costs_nothing_is_told_as_that() {
        assert_eq!([-0.5, 0.0, 2.3].map(more_or_less), ["-500 ms", "nothing", "+2.3 s"]);
    }

    #[test]
    fn rates_are_the_papers() {
        let of = [800_000, 124_439_808, 354_823_168, 1_100_048_384, 6_738_415_616].map(rate_for);
        assert_eq!(of, [f64::INFINITY, 6e-4, 3e-4, 2e-4, 1.2e-4]);
        // The same with a vocabulary of characters.
        let of = [85_900_000, 303_400_000, 969_200_000, 6_476_500_000].map(rate_for);
        assert_eq!(of, [6e-4, 3e-4, 2e-4, 1.2e-4]);
    }
}
