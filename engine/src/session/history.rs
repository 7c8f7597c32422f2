//! What a run did, step by step: the rows of `metrics.jsonl` and what plots draw.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::StopReason;
use super::operation_times::OperationTimes;
use crate::hybrid::{Correction, Forecast, GuardSignals, HybridEvent, Phase, StepReport, nullable};
use crate::quant::QuantScheme;

/// One optimizer step. Everything is measured, except `forecast`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// From 1.
    pub step: u64,
    /// Phase in which it ran.
    pub phase: Phase,
    /// Mean loss of the batch before the update, nats per example or token.
    #[serde(with = "nullable")]
    pub loss: f32,
    /// Loss the forecaster expected.
    pub forecast: Option<Forecast>,
    /// Global L2 norm of the gradient before clipping.
    pub grad_norm: Option<f32>,
    /// Learning rate.
    pub learning_rate: f32,
    /// Gate ratio ρ.
    #[serde(with = "nullable")]
    pub rho: f32,
    /// Cosine of the last correction.
    pub confidence: Option<f32>,
    /// Images, or tokens, in the batch.
    pub num_examples: u32,
    /// Of these, how many got a backward pass.
    pub num_backward: u32,
    /// What a Correct step found.
    pub correction: Option<Correction>,
    /// Divergence signals.
    pub signals: GuardSignals,
    /// Wall time of the step, batch preparation included.
    pub step_ms: f32,
    /// Of it, the time of what vanilla training would not do: measuring error norms for the gate, and remembering how the
    /// weights moved for a prediction. `None` in Predict and Correct, in runs that do not predict, and in old runs.
    #[serde(default)]
    pub gate_ms: Option<f32>,
    /// Wall time between the step before this one and it, without validation and pauses: checkpoints, samples, records.
    /// `None` in the first step of a process, and in old runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub between_ms: Option<f32>,
    /// What the threads were busy with, in steps that were sampled for it: one of 20, on the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations: Option<OperationTimes>,
    /// Strength of the quantization with which the loss was computed, 0 to 1; `None` without quantization-aware training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization: Option<f32>,
    /// Mean distillation loss, nats; `None` without a teacher, and in Predict, where only a sample learns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distillation: Option<f32>,
}

impl StepMetrics {
    /// What a trainer reports of a step that took so long; what was measured besides is left out.
    pub(super) fn of(report: &StepReport, elapsed: Duration) -> Self {
        Self {
            step: report.step,
            phase: report.phase,
            loss: report.loss,
            forecast: report.forecast,
            grad_norm: report.grad_norm,
            learning_rate: report.learning_rate,
            rho: report.rho,
            confidence: report.confidence,
            num_examples: report.num_examples,
            num_backward: report.num_backward,
            correction: report.correction,
            signals: report.signals,
            step_ms: (elapsed.as_secs_f64() * 1e3) as f32,
            gate_ms: None,
            between_ms: None,
            operations: None,
            quantization: report.quantization,
            distillation: report.distillation,
        }
    }

    /// What this step would have cost in vanilla training: its wall time without the gate's part. `None` where the step
    /// was not a vanilla one but for that, or the gate's part was not measured.
    #[must_use]
    pub fn vanilla_ms(&self) -> Option<f64> {
        match self.phase {
            Phase::Warmup | Phase::Full => Some(f64::from(self.step_ms) - f64::from(self.gate_ms?)),
            Phase::Predict | Phase::Correct => None,
        }
    }
}

/// Loss and accuracy, with how many examples they stand for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ValidationFigures {
    /// Mean loss, nats per example or token.
    #[serde(with = "nullable")]
    pub loss: f64,
    /// Share of right answers, for images.
    pub accuracy: Option<f64>,
    /// Examples or tokens measured.
    pub num_examples: u64,
}

/// What quantized weights are worth, beside the full-precision ones that they come from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct QuantizedFigures {
    /// What the weights are quantized to.
    pub scheme: QuantScheme,
    /// Strength of the quantization that training had come to, 0 to 1. Whatever it was, these figures are of weights that
    /// are quantized altogether.
    pub strength: f64,
    /// On the examples of the validation curve.
    pub curve: ValidationFigures,
    /// On the whole validation part: at the end of a run whose curve uses less of it, else `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<ValidationFigures>,
}

impl QuantizedFigures {
    /// The figures on the most examples.
    #[must_use]
    pub fn figures(&self) -> ValidationFigures {
        self.whole.unwrap_or(self.curve)
    }
}

/// A measurement on the validation part: a point of the validation curve, all of whose points are measured on the same
/// examples. (The last point of runs from before `whole` was kept was measured on all examples.)
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ValidationPoint {
    /// After this step.
    pub step: u64,
    /// Mean loss, nats per example or token.
    #[serde(with = "nullable")]
    pub loss: f64,
    /// Share of right answers, for images.
    pub accuracy: Option<f64>,
    /// Examples or tokens measured.
    pub num_examples: u64,
    /// Wall time of the measurement, that of `whole` included.
    pub seconds: f64,
    /// The same weights on the whole validation part: at the end of a run whose curve uses less of it, else `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<ValidationFigures>,
    /// The same weights quantized, in quantization-aware training. All other figures are of full precision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantized: Option<QuantizedFigures>,
}

impl ValidationPoint {
    /// What training had come to, as measured on the most examples: quantized weights once the network computed with those
    /// alone, else full precision.
    #[must_use]
    pub fn figures(&self) -> ValidationFigures {
        let trained_for = self.quantized.filter(|quantized| quantized.strength >= 1.0);
        trained_for.map_or_else(|| self.full_precision(), |quantized| quantized.figures())
    }

    /// What training had come to, on the examples of the curve.
    #[must_use]
    pub fn on_curve(&self) -> ValidationFigures {
        let Self { loss, accuracy, num_examples, .. } = *self;
        let trained_for = self.quantized.filter(|quantized| quantized.strength >= 1.0);
        trained_for.map_or(ValidationFigures { loss, accuracy, num_examples }, |quantized| quantized.curve)
    }

    /// What the full-precision weights are worth, as measured on the most examples: those of `whole`, else the curve's.
    #[must_use]
    pub fn full_precision(&self) -> ValidationFigures {
        let Self { loss, accuracy, num_examples, .. } = *self;
        self.whole.unwrap_or(ValidationFigures { loss, accuracy, num_examples })
    }
}

/// What the event log says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum LogKind {
    /// From the trainer: phases, divergences, recoveries.
    Hybrid(HybridEvent),
    /// The run began, or went on from a checkpoint at `step`.
    Started {
        /// Step it starts after; 0 for a new run.
        step: u64,
    },
    /// A checkpoint is complete.
    Saved(PathBuf),
    /// Paused.
    Paused,
    /// Went on.
    Resumed,
    /// Where it computes and why, in words: its recipe left that open, or it goes on elsewhere.
    Placed(String),
    /// Something to know, in words.
    Warning(String),
    /// Ended.
    Ended(StopReason),
}

/// A line of the event log and of `events.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    /// At this step.
    pub step: u64,
    /// Milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// What happened.
    pub kind: LogKind,
}

impl LogEntry {
    /// True for a divergence with its answer.
    #[must_use]
    pub fn is_divergence(&self) -> bool {
        matches!(self.kind, LogKind::Hybrid(HybridEvent::Diverged { .. }))
    }
}

/// Divergences that `log` tells of, each with its answer.
pub(super) fn num_divergences(log: &[LogEntry]) -> u64 {
    log.iter().filter(|entry| entry.is_divergence()).count() as u64
}

/// Rows per sealed block.
const BLOCK_ROWS: usize = 1024;

/// A growing history. Full blocks are sealed and shared; only the tail is copied for a view.
#[derive(Debug, Clone, Default)]
pub struct History {
    sealed: Vec<Arc<[StepMetrics]>>,
    tail: Vec<StepMetrics>,
}

impl History {
    /// Adds a step.
    pub fn push(&mut self, row: StepMetrics) {
        self.tail.push(row);
        if self.tail.len() == BLOCK_ROWS {
            self.sealed.push(Arc::from(std::mem::take(&mut self.tail)));
        }
    }

    /// What is true now, cheaply.
    #[must_use]
    pub fn view(&self) -> HistoryView {
        HistoryView { sealed: self.sealed.clone(), tail: Arc::from(self.tail.as_slice()) }
    }
}

/// A frozen history.
#[derive(Debug, Clone, Default)]
pub struct HistoryView {
    sealed: Vec<Arc<[StepMetrics]>>,
    tail: Arc<[StepMetrics]>,
}

impl HistoryView {
    /// Steps in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &StepMetrics> {
        self.sealed.iter().flat_map(|block| block.iter()).chain(self.tail.iter())
    }

    /// How many steps.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sealed.len() * BLOCK_ROWS + self.tail.len()
    }

    /// True before the first step.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `index`th step from the beginning.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&StepMetrics> {
        match self.sealed.get(index / BLOCK_ROWS) {
            Some(block) => block.get(index % BLOCK_ROWS),
            None => self.tail.get(index - self.sealed.len() * BLOCK_ROWS),
        }
    }

    /// The newest step.
    #[must_use]
    pub fn last(&self) -> Option<&StepMetrics> {
        self.tail.last().or_else(|| self.sealed.last().and_then(|block| block.last()))
    }
}

impl FromIterator<StepMetrics> for HistoryView {
    fn from_iter<I: IntoIterator<Item = StepMetrics>>(iter: I) -> Self {
        let mut history = History::default();
        iter.into_iter().for_each(|row| history.push(row));
        history.view()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_gates_time_is_taken_out_of_full_steps_where_it_was_measured() {
        // A line of a run from before that was measured.
        let old = r#"{"step":1,"phase":"Full","loss":1.0,"forecast":null,"grad_norm":1.0,"learning_rate":0.1,"rho":0.5,
            "confidence":null,"num_examples":8,"num_backward":8,"correction":null,"signals":{"loss_z":null,
            "loss_z_limit":2.0,"grad_ratio":null,"grad_ratio_limit":10.0,"oscillation":null,"oscillation_limit":0.6},
            "step_ms":10.0}"#;
        let old: StepMetrics = serde_json::from_str(old).unwrap();
        assert_eq!((old.gate_ms, old.vanilla_ms()), (None, None));
        assert_eq!((old.between_ms, old.operations), (None, None));
        let full = StepMetrics { gate_ms: Some(1.5), ..old };
        assert_eq!(full.vanilla_ms(), Some(8.5));
        assert_eq!(StepMetrics { phase: Phase::Warmup, ..full }.vanilla_ms(), Some(8.5));
        assert_eq!(StepMetrics { phase: Phase::Predict, ..full }.vanilla_ms(), None);
    }
}
