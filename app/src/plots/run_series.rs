//! A run's history as series, kept up to date by reading only what is new.

use std::path::{Path, PathBuf};

use foretrain_engine::hybrid::{ForecastBias, Phase};
use foretrain_engine::session::{HistoryView, JobId, RunTimes, StepMetrics, ValidationPoint};

use super::phase_strip::PhaseTrack;
use super::reliability::Reliability;
use super::series::Series;

/// Which run the series are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeriesKey {
    /// The run that a job started.
    Job(JobId),
    /// A past run.
    Folder(PathBuf),
}

/// All curves of a run.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "the names are those of `StepMetrics`")]
pub struct RunSeries {
    key: Option<SeriesKey>,
    num_read: usize,
    /// 0 to below 1: weight of the past in the smoothed loss.
    smoothing: f32,
    smooth_sum: f64,
    smooth_weight: f64,
    pub loss: Series,
    pub loss_smooth: Series,
    /// Forecasts break between two Predict phases.
    pub forecast: Series,
    /// Two standard deviations around it, where there is no calibrated interval.
    pub forecast_low: Series,
    pub forecast_high: Series,
    /// Its calibrated 90% interval.
    pub interval_low: Series,
    pub interval_high: Series,
    /// How well those intervals hold what they say.
    pub reliability: Reliability,
    pub validation_loss: Series,
    pub validation_accuracy: Series,
    /// Of quantized weights, in quantization-aware training; the two above are of full precision then.
    pub quantized_loss: Series,
    pub quantized_accuracy: Series,
    /// "Validation, ternary"; empty until something was measured.
    pub quantized_name: String,
    pub error_before: Series,
    pub error_after: Series,
    pub cosine: Series,
    pub slice_fraction: Series,
    /// Signals as shares of their limits: 1 is the limit. They break where the guard measured nothing.
    pub loss_z: Series,
    pub grad_ratio: Series,
    pub oscillation: Series,
    pub given_back: Series,
    pub relative_error: Series,
    pub above_start: Series,
    pub grad_norm: Series,
    pub rho: Series,
    pub learning_rate: Series,
    /// Examples (or tokens) a second.
    pub throughput: Series,
    pub step_ms: Series,
    pub backward_share: Series,
    pub phases: PhaseTrack,
    /// Where the time went.
    pub times: RunTimes,
    /// Sums of the forecasts' errors before and after corrections, nats.
    error_sums: [f64; 2],
    /// Whether the forecasts lean to one side, as the last correction knew it.
    pub bias: Option<ForecastBias>,
}

impl RunSeries {
    /// Reads what is new; begins anew when the run is another one or shrank (resumed from an older checkpoint).
    pub fn update(&mut self, key: SeriesKey, history: &HistoryView, validations: &[ValidationPoint], smoothing: f32) {
        let is_other = self.key.as_ref() != Some(&key);
        if is_other || history.len() < self.num_read || validations.len() < self.validation_loss.len() {
            *self = Self {
                key: Some(key),
                smoothing,
                forecast: Series::with_gaps(1.5),
                forecast_low: Series::with_gaps(1.5),
                forecast_high: Series::with_gaps(1.5),
                interval_low: Series::with_gaps(1.5),
                interval_high: Series::with_gaps(1.5),
                loss_z: Series::with_gaps(1.5),
                grad_ratio: Series::with_gaps(1.5),
                oscillation: Series::with_gaps(1.5),
                given_back: Series::with_gaps(1.5),
                relative_error: Series::with_gaps(1.5),
                above_start: Series::with_gaps(1.5),
                ..Self::default()
            };
        }
        for index in self.num_read..history.len() {
            if let Some(row) = history.get(index) {
                self.push(row);
            }
        }
        self.num_read = history.len();
        self.reliability.settle();
        for point in validations.iter().skip(self.validation_loss.len()) {
            self.times.see_validation(point);
            self.validation_loss.push(point.step as f64, point.loss as f32);
            if let Some(accuracy) = point.accuracy {
                self.validation_accuracy.push(point.step as f64, accuracy as f32);
            }
            if let Some(quantized) = point.quantized {
                self.quantized_name = format!("Validation, {}", quantized.scheme.label());
                self.quantized_loss.push(point.step as f64, quantized.curve.loss as f32);
                if let Some(accuracy) = quantized.curve.accuracy {
                    self.quantized_accuracy.push(point.step as f64, accuracy as f32);
                }
            }
        }
        if smoothing.to_bits() != self.smoothing.to_bits() {
            self.smooth_again(smoothing);
        }
    }

    /// The run that was read, if any.
    #[must_use]
    pub fn key(&self) -> Option<&SeriesKey> {
        self.key.as_ref()
    }

    /// The folder of a past run.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match &self.key {
            Some(SeriesKey::Folder(folder)) => Some(folder),
            Some(SeriesKey::Job(_)) | None => None,
        }
    }

    /// Steps read.
    #[must_use]
    pub fn len(&self) -> usize {
        self.num_read
    }

    /// True before the first step.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.num_read == 0
    }

    /// The last step.
    #[must_use]
    pub fn last_step(&self) -> f64 {
        self.loss.last().map_or(0.0, |(x, _)| x)
    }

    /// Share of the forecasts' error that corrections took away; negative where they added to it. `None` before the
    /// first correction.
    #[must_use]
    pub fn error_reduction(&self) -> Option<f64> {
        let [before, after] = self.error_sums;
        (before > 0.0).then(|| 1.0 - after / before)
    }

    /// Share of the time in steps that Correct steps took; `None` before the first step.
    #[must_use]
    pub fn correction_time(&self) -> Option<f64> {
        self.times.share_of_steps(Phase::Correct)
    }

    fn push(&mut self, row: &StepMetrics) {
        let x = row.step as f64;
        self.loss.push(x, row.loss);
        self.push_smooth(x, row.loss);
        if let Some(forecast) = row.forecast {
            self.forecast.push(x, forecast.mean);
            match forecast.interval {
                Some(interval) => {
                    self.interval_low.push(x, interval.low);
                    self.interval_high.push(x, interval.high);
                }
                None => {
                    self.forecast_low.push(x, forecast.mean - 2.0 * forecast.std);
                    self.forecast_high.push(x, forecast.mean + 2.0 * forecast.std);
                }
            }
            self.reliability.push(forecast, row.loss);
        }
        if let Some(correction) = row.correction {
            self.error_before.push(x, correction.error_before());
            self.error_after.push(x, correction.error_after());
            let errors = [correction.error_before(), correction.error_after()];
            // One that is not a number would make nothing of all the others.
            if errors.iter().all(|error| error.is_finite()) {
                for (sum, error) in self.error_sums.iter_mut().zip(errors) {
                    *sum += f64::from(error);
                }
            }
            self.bias = correction.bias;
            self.cosine.push(x, correction.cosine);
            self.slice_fraction.push(x, correction.slice_fraction);
        }
        let signals = row.signals;
        for (series, value, limit) in [
            (&mut self.loss_z, signals.loss_z, signals.loss_z_limit),
            (&mut self.grad_ratio, signals.grad_ratio, signals.grad_ratio_limit),
            (&mut self.oscillation, signals.oscillation, signals.oscillation_limit),
            (&mut self.given_back, signals.given_back, signals.given_back_limit),
            (&mut self.relative_error, signals.relative_error, signals.relative_error_limit),
            (&mut self.above_start, signals.above_start, signals.above_start_limit),
        ] {
            // A limit of 0 means that nothing is watched yet.
            if let Some(value) = value.filter(|_| limit > 0.0) {
                series.push(x, value / limit);
            }
        }
        if let Some(norm) = row.grad_norm {
            self.grad_norm.push(x, norm);
        }
        self.rho.push(x, row.rho);
        self.learning_rate.push(x, row.learning_rate);
        if row.step_ms > 0.0 {
            self.throughput.push(x, row.num_examples as f32 / row.step_ms * 1000.0);
        }
        self.step_ms.push(x, row.step_ms);
        if row.num_examples > 0 {
            self.backward_share.push(x, row.num_backward as f32 / row.num_examples as f32);
        }
        self.phases.push(x, row.phase);
        self.times.see_step(row);
    }

    /// Exponential mean whose start is not biased to 0. Values that are not numbers stay out of it.
    fn push_smooth(&mut self, x: f64, loss: f32) {
        if loss.is_finite() {
            let keep = f64::from(self.smoothing);
            self.smooth_sum = keep * self.smooth_sum + (1.0 - keep) * f64::from(loss);
            self.smooth_weight = keep * self.smooth_weight + (1.0 - keep);
            self.loss_smooth.push(x, (self.smooth_sum / self.smooth_weight) as f32);
        }
    }

    fn smooth_again(&mut self, smoothing: f32) {
        self.smoothing = smoothing;
        (self.smooth_sum, self.smooth_weight) = (0.0, 0.0);
        self.loss_smooth = Series::default();
        let raw: Vec<_> = self.loss.iter().collect();
        for (x, y) in raw {
            self.push_smooth(x, y);
        }
    }
}

#[cfg(test)]
mod tests {
    use foretrain_engine::hybrid::{Correction, Forecast, GuardSignals, Interval};
    use foretrain_engine::quant::QuantScheme;
    use foretrain_engine::session::{QuantizedFigures, ValidationFigures};

    use super::*;
    use crate::plots::{PlotKind, curves_of};
    use crate::theme::DARK;

    fn row(step: u64, loss: f32) -> StepMetrics {
        let is_predict = (10..20).contains(&step) || (30..40).contains(&step);
        StepMetrics {
            step,
            phase: if is_predict { Phase::Predict } else { Phase::Full },
            loss,
            forecast: is_predict.then_some(Forecast { mean: loss, std: 0.1, interval: None, model: None }),
            grad_norm: Some(1.0),
            learning_rate: 1e-3,
            rho: 0.5,
            confidence: None,
            num_examples: 64,
            num_backward: if is_predict { 8 } else { 64 },
            correction: (step == 20).then_some(Correction {
                cosine: 0.98,
                predicted_loss: 1.2,
                corrected_loss: 1.05,
                actual_loss: 1.0,
                slice_fraction: 0.125,
                bias: None,
            }),
            signals: GuardSignals { loss_z: Some(1.0), loss_z_limit: 4.0, ..GuardSignals::default() },
            step_ms: 16.0,
            gate_ms: None,
            between_ms: None,
            operations: None,
            quantization: None,
            distillation: None,
        }
    }

    fn key() -> SeriesKey {
        SeriesKey::Job(JobId(1))
    }

    #[test]
    fn curves_hold_what_was_measured() {
        let history: HistoryView = (1..=50).map(|step| row(step, 1.0)).collect();
        let mut series = RunSeries::default();
        series.update(key(), &history, &[], 0.0);
        assert_eq!(series.len(), 50);
        assert_eq!(series.forecast.len(), 20);
        assert_eq!(series.forecast.draw(0.0, 50.0, 1000).runs.len(), 2, "two Predict phases, two dashed lines");
        let (before, after) =
            (series.error_before.last().unwrap_or_default(), series.error_after.last().unwrap_or_default());
        assert!((before.1 - 0.2).abs() < 1e-6 && (after.1 - 0.05).abs() < 1e-6);
        assert_eq!(series.loss_z.last(), Some((50.0, 0.25)));
        assert!(series.oscillation.is_empty(), "no limit, no curve");
        assert_eq!(series.throughput.last(), Some((50.0, 4000.0)));
    }

    #[test]
    fn both_precisions_have_curves_of_their_own() {
        let figures = |loss| ValidationFigures { loss, accuracy: Some(0.5), num_examples: 10 };
        let point = |step, quantized: Option<f64>| ValidationPoint {
            step,
            loss: 1.0,
            accuracy: Some(0.75),
            num_examples: 10,
            seconds: 0.1,
            whole: None,
            quantized: quantized.map(|loss| QuantizedFigures {
                scheme: QuantScheme::Ternary,
                strength: 1.0,
                curve: figures(loss),
                whole: None,
            }),
        };
        let mut series = RunSeries::default();
        let history: HistoryView = (1..=2).map(|step| row(step, 1.0)).collect();
        series.update(key(), &history, &[point(1, None)], 0.0);
        let names = |series: &RunSeries, kind| -> Vec<String> {
            curves_of(kind, series, &DARK, false).iter().map(|curve| curve.name.to_owned()).collect()
        };
        assert_eq!(names(&series, PlotKind::Loss), ["Measured", "Forecast", "Validation"]);
        series.update(SeriesKey::Job(JobId(2)), &history, &[point(1, Some(3.0)), point(2, Some(1.25))], 0.0);
        assert_eq!(series.validation_loss.last(), Some((2.0, 1.0)));
        assert_eq!((series.quantized_loss.len(), series.quantized_loss.last()), (2, Some((2.0, 1.25))));
        assert_eq!(series.quantized_accuracy.last(), Some((2.0, 0.5)));
        assert_eq!(names(&series, PlotKind::Loss).last().map(String::as_str), Some("Validation, ternary"));
        assert!(names(&series, PlotKind::Accuracy).contains(&"Validation, ternary".to_owned()));
    }

    #[test]
    fn a_calibrated_interval_takes_the_place_of_deviations() {
        let history: HistoryView = (1..=40)
            .map(|step| {
                let mut row = row(step, 1.0);
                if let Some(forecast) = row.forecast.as_mut().filter(|_| step >= 30) {
                    forecast.interval = Some(Interval { low: 0.7, median: 1.0, high: 1.4 });
                }
                row
            })
            .collect();
        let mut series = RunSeries::default();
        series.update(key(), &history, &[], 0.0);
        assert_eq!((series.forecast_low.len(), series.interval_low.len(), series.forecast.len()), (10, 10, 20));
        assert_eq!((series.interval_high.last(), series.forecast_high.last()), (Some((39.0, 1.4)), Some((19.0, 1.2))));
    }

    #[test]
    fn corrections_are_summed_up_by_error_and_by_time() {
        let mut rows: Vec<_> = (1..=50).map(|step| row(step, 1.0)).collect();
        let mut series = RunSeries::default();
        series.update(key(), &HistoryView::default(), &[], 0.0);
        assert_eq!((series.error_reduction(), series.correction_time()), (None, None));
        rows[19].phase = Phase::Correct;
        rows[20].correction = rows[19].correction.map(|found| Correction { predicted_loss: f32::NAN, ..found });
        series.update(key(), &rows.into_iter().collect(), &[], 0.0);
        // From 0.2 to 0.05; the one that is not a number does not count.
        assert!(
            series.error_reduction().is_some_and(|share| (share - 0.75).abs() < 1e-5),
            "{:?}",
            series.error_reduction()
        );
        assert_eq!(series.correction_time(), Some(0.02));
    }

    #[test]
    fn only_new_steps_are_read_and_another_run_starts_over() {
        let rows: Vec<_> = (1..=3000).map(|step| row(step, step as f32)).collect();
        let mut series = RunSeries::default();
        for end in [10, 1024, 1025, 3000] {
            series.update(key(), &rows[..end].iter().copied().collect(), &[], 0.5);
            assert_eq!(series.loss.len(), end);
        }
        series.update(key(), &rows[..5].iter().copied().collect(), &[], 0.5);
        assert_eq!(series.loss.len(), 5, "a shorter history is another one");
        series.update(SeriesKey::Job(JobId(2)), &rows[..7].iter().copied().collect(), &[], 0.5);
        assert_eq!(series.loss.len(), 7);
    }

    #[test]
    fn smoothing_is_unbiased_and_can_change() {
        let history: HistoryView = (1..=100).map(|step| row(step, 2.0)).collect();
        let mut series = RunSeries::default();
        series.update(key(), &history, &[], 0.9);
        assert!(series.loss_smooth.iter().all(|(_, y)| (y - 2.0).abs() < 1e-6));
        series.update(key(), &history, &[], 0.0);
        assert_eq!(series.loss_smooth.len(), 100);
    }
}
