//! What a streamed training says on its way, in lines.

use std::cmp::Ordering;

use foretrain_engine::hybrid::{HybridEvent, Strategy};
use foretrain_engine::memory::{MemoryPlan, counted, format_bytes, grouped};
use foretrain_engine::offload::{Commit, DiskRoom, StreamedStep};
use foretrain_engine::session::{OffloadForecast, ValidationPoint};

use super::{log, output};
use crate::widgets::number;

/// What a training takes, and where it goes on, in a few lines, for its start.
pub(super) fn summary(forecast: &OffloadForecast, strategy: Strategy) -> String {
    let (plan, disk) = (&forecast.plan, &forecast.disk);
    let planned = |memory: &MemoryPlan| {
        format!("{} planned of {}", format_bytes(memory.total_bytes()), format_bytes(memory.budget_bytes))
    };
    let gpu = plan.gpu.as_ref().map_or_else(String::new, |gpu| format!("; GPU memory: {}", planned(gpu)));
    let mut lines = vec![
        forecast.place().unwrap_or_else(|| "Computing on the processor.".to_owned()),
        format!("{} parameters; memory: {}{gpu}", grouped(plan.num_params), planned(&plan.memory)),
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
        let gpu =
            predict.gpu_bytes.map_or_else(String::new, |bytes| format!(", {} of the GPU's,", format_bytes(bytes)));
        lines.push(format!(
            "a Predict step: {} of memory{gpu} with {} on the way back{seconds}",
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
pub(super) fn is_rehearsed(forecast: &OffloadForecast) -> bool {
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
    let snapshot =
        if disk.keeps_snapshot { "with a snapshot to go back to" } else { "no room for a snapshot to go back to" };
    format!("disk: {} at most ({commit}, {snapshot}); {free} free{held}", format_bytes(disk.needed_bytes))
}

/// What held-out data said, in a line.
pub(super) fn validation_line(point: &ValidationPoint) -> String {
    let (tokens, time) = (counted(point.num_examples, "token"), output::duration(point.seconds));
    format!("step {}: validation loss {:.4} on {tokens}, {time}", point.step, point.loss)
}

/// A step in lines: what it began with, itself, and how the guard judged it.
pub(super) fn step_lines(step: &StreamedStep) -> Vec<String> {
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

/// Seconds that something adds, or saves.
pub(super) fn more_or_less(seconds: f64) -> String {
    let size = output::duration(seconds.abs());
    match seconds.total_cmp(&0.0) {
        Ordering::Less => format!("-{size}"),
        Ordering::Equal => "nothing".to_owned(),
        Ordering::Greater => format!("+{size}"),
    }
}

#[cfg(test)]
mod tests {
    use foretrain_engine::hybrid::{Divergence, DivergenceKind, GuardSignals, Phase, Recovery, StepReport};

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
            gate_seconds: 0.0,
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
}
