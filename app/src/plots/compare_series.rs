//! A past run's curves for a comparison, over steps or over the time spent in steps.

use foretrain_engine::session::{HistoryView, ValidationPoint};

use super::series::Series;
use crate::state::CompareAxis;

/// Curves of one run.
#[derive(Debug, Clone, Default)]
pub struct CompareSeries {
    /// Smoothed loss.
    pub loss: Series,
    /// Validation loss.
    pub validation_loss: Series,
    /// Validation accuracy.
    pub validation_accuracy: Series,
    /// Examples (or tokens) a second, smoothed like the loss.
    pub throughput: Series,
}

/// Exponential mean whose start is not biased to 0.
#[derive(Default)]
struct Mean {
    sum: f64,
    weight: f64,
}

impl Mean {
    /// The mean with `value`; values that are not numbers stay out of it.
    fn push(&mut self, value: f64, smoothing: f64) -> Option<f32> {
        if !value.is_finite() {
            return None;
        }
        self.sum = smoothing * self.sum + (1.0 - smoothing) * value;
        self.weight = smoothing * self.weight + (1.0 - smoothing);
        Some((self.sum / self.weight) as f32)
    }
}

impl CompareSeries {
    /// The curves of a whole run; `smoothing` is the weight of the past, 0 to below 1.
    #[must_use]
    pub fn of(history: &HistoryView, validations: &[ValidationPoint], axis: CompareAxis, smoothing: f32) -> Self {
        let mut series = Self::default();
        let (mut loss, mut throughput) = (Mean::default(), Mean::default());
        let smoothing = f64::from(smoothing);
        let mut seconds = 0.0;
        let mut validations = validations.iter().peekable();
        for row in history.iter() {
            let step_ms = f64::from(row.step_ms);
            seconds += step_ms / 1e3;
            let x = match axis {
                CompareAxis::Steps => row.step as f64,
                CompareAxis::Seconds => seconds,
            };
            if let Some(mean) = loss.push(f64::from(row.loss), smoothing) {
                series.loss.push(x, mean);
            }
            if step_ms > 0.0
                && let Some(mean) = throughput.push(f64::from(row.num_examples) / step_ms * 1e3, smoothing)
            {
                series.throughput.push(x, mean);
            }
            while let Some(point) = validations.next_if(|point| point.step <= row.step) {
                let figures = point.on_curve();
                series.validation_loss.push(x, figures.loss as f32);
                if let Some(accuracy) = figures.accuracy {
                    series.validation_accuracy.push(x, accuracy as f32);
                }
            }
        }
        series
    }
}

#[cfg(test)]
mod tests {
    use foretrain_engine::hybrid::{GuardSignals, Phase};
    use foretrain_engine::session::StepMetrics;

    use super::*;

    fn row(step: u64) -> StepMetrics {
        StepMetrics {
            step,
            phase: Phase::Full,
            loss: 2.0,
            forecast: None,
            grad_norm: None,
            learning_rate: 1e-3,
            rho: 0.5,
            confidence: None,
            num_examples: 64,
            num_backward: 64,
            correction: None,
            signals: GuardSignals::default(),
            step_ms: 500.0,
            gate_ms: None,
            between_ms: None,
            operations: None,
            quantization: None,
            distillation: None,
        }
    }

    #[test]
    fn both_axes_hold_the_same_values() {
        let history: HistoryView = (1..=10).map(row).collect();
        let point = ValidationPoint {
            step: 4,
            loss: 1.5,
            accuracy: Some(0.5),
            num_examples: 100,
            seconds: 1.0,
            whole: None,
            quantized: None,
        };
        let steps = CompareSeries::of(&history, &[point], CompareAxis::Steps, 0.9);
        let seconds = CompareSeries::of(&history, &[point], CompareAxis::Seconds, 0.9);
        assert_eq!((steps.loss.last(), seconds.loss.last()), (Some((10.0, 2.0)), Some((5.0, 2.0))));
        assert_eq!(steps.validation_loss.last(), Some((4.0, 1.5)));
        assert_eq!(seconds.validation_accuracy.last(), Some((2.0, 0.5)));
        assert_eq!(seconds.throughput.last().map(|(_, y)| y.round()), Some(128.0));
    }
}
