//! What a step reports.

use serde::{Deserialize, Serialize};

use super::{ForecastModel, nullable};

/// Phase of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Full backward while the learning rate rises.
    Warmup,
    /// Full backward; the forecaster learns, the gate watches.
    Full,
    /// Backward for the examples predicted to matter.
    Predict,
    /// Both backward passes, to see how good the prediction is; moves by the full one.
    Correct,
}

/// A loss that was forecast, not measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Expected loss, nats.
    #[serde(with = "nullable")]
    pub mean: f32,
    /// Standard deviation of the forecast, nats.
    #[serde(with = "nullable")]
    pub std: f32,
    /// The calibrated interval; `None` until enough forecasts of this range came true to calibrate it.
    #[serde(default)]
    pub interval: Option<Interval>,
    /// The model that made it; `None` in records of earlier versions.
    #[serde(default)]
    pub model: Option<ForecastModel>,
}

/// Where 90% of losses are to fall, 5% below and 5% above. Calibrated on this run's earlier forecasts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end, nats.
    #[serde(with = "nullable")]
    pub low: f32,
    /// Half of the losses are expected below it, nats.
    #[serde(with = "nullable")]
    pub median: f32,
    /// Upper end, nats.
    #[serde(with = "nullable")]
    pub high: f32,
}

/// What a Correct step found; there is none where its sample came out empty, which compares nothing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Correction {
    /// Cosine between the sampled and the full gradient of one batch.
    #[serde(with = "nullable")]
    pub cosine: f32,
    /// Loss forecast for this step before the correction, nats: when Predict began, or at its last Correct.
    #[serde(with = "nullable")]
    pub predicted_loss: f32,
    /// The forecast for this step after all losses measured since then went into it, nats. This step's own
    /// loss weighs little among them, so the batch's noise stays in the error.
    #[serde(with = "nullable")]
    pub corrected_loss: f32,
    /// Loss measured, nats.
    #[serde(with = "nullable")]
    pub actual_loss: f32,
    /// Share of the batch that Predict will use from here on.
    #[serde(with = "nullable")]
    pub slice_fraction: f32,
    /// Whether forecasts lean to one side; `None` after few Correct steps, and in records of earlier versions.
    #[serde(default)]
    pub bias: Option<ForecastBias>,
}

/// Whether forecasts lean to one side: the mean of ln(actual loss) − ln(predicted loss) over the newest Correct steps.
/// Above 0 the losses were higher than forecast.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ForecastBias {
    /// Correct steps that it was measured over.
    pub count: u32,
    /// Mean.
    #[serde(with = "nullable")]
    pub mean: f32,
    /// Its standard error.
    #[serde(with = "nullable")]
    pub std_error: f32,
}

impl Correction {
    /// |predicted − actual|, nats.
    #[must_use]
    pub fn error_before(&self) -> f32 {
        (self.predicted_loss - self.actual_loss).abs()
    }

    /// |corrected − actual|, nats.
    #[must_use]
    pub fn error_after(&self) -> f32 {
        (self.corrected_loss - self.actual_loss).abs()
    }
}

/// Divergence signals of a step, each in its own unit; limits travel with them so that a plot can show both.
/// A signal is `None` until enough steps were seen to measure it, and again after a divergence was answered (but for those
/// that look at the whole run: given back, above its start).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct GuardSignals {
    /// Standard deviations by which the loss lies above its forecast or trend; negative below.
    pub loss_z: Option<f32>,
    /// At which it is a divergence.
    #[serde(with = "nullable")]
    pub loss_z_limit: f32,
    /// Gradient norm over its running median.
    pub grad_ratio: Option<f32>,
    /// At which it is an explosion.
    #[serde(with = "nullable")]
    pub grad_ratio_limit: f32,
    /// Share of the last steps in which the loss change turned its sign, weighted by size, 0 to 1.
    pub oscillation: Option<f32>,
    /// At which it is an oscillation.
    #[serde(with = "nullable")]
    pub oscillation_limit: f32,
    /// Share of the run's progress (in ln loss, from its first level to its lowest) that the last steps gave back.
    #[serde(default)]
    pub given_back: Option<f32>,
    /// At which what was learned is being lost.
    #[serde(default, with = "nullable")]
    pub given_back_limit: f32,
    /// Relative forecast error of the last steps, above only: the loss over its forecast, less 1; negative below.
    #[serde(default)]
    pub relative_error: Option<f32>,
    /// At which the run has left its course. It follows from the calibrated interval of these forecasts.
    #[serde(default, with = "nullable")]
    pub relative_error_limit: f32,
    /// Loss of the last steps over the run's first.
    #[serde(default)]
    pub above_start: Option<f32>,
    /// At which the run is worse off than before its first step.
    #[serde(default, with = "nullable")]
    pub above_start_limit: f32,
}

/// What kind of divergence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DivergenceKind {
    /// NaN or infinity in the loss or the gradient.
    NotFinite,
    /// Loss far above its forecast.
    LossSpike,
    /// Gradient norm far above its usual size.
    GradientExplosion,
    /// Gradient norm next to nothing while the loss is not.
    GradientVanishing,
    /// Loss swings without falling.
    Oscillation,
    /// Loss has climbed back by much of what it had fallen, however slowly.
    Regression,
    /// Loss far above that of the first step.
    AboveStart,
    /// Loss far above its forecast in proportion, by the forecasts' calibrated intervals.
    RelativeError,
    /// NaN or infinity in the weights, which no milder answer than restoring them can cure.
    WeightsNotFinite,
}

/// A divergence, as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// Which.
    pub kind: DivergenceKind,
    /// The signal's value; for [`DivergenceKind::NotFinite`] what was found, which a file gives back as NaN; for
    /// [`DivergenceKind::WeightsNotFinite`] NaN.
    #[serde(with = "nullable")]
    pub value: f32,
    /// Its limit.
    #[serde(with = "nullable")]
    pub limit: f32,
}

/// Rungs of the recovery ladder, mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Recovery {
    /// Leave Predict, back to Full.
    BackToFull,
    /// Learning rate halved from here on; phase Full.
    CutLearningRate,
    /// Weights, optimizer state and expectations restored from the last good snapshot, the learning rate as it was: the
    /// first answer to weights that are not finite, which came of no visible trouble.
    RestoreWeights,
    /// Weights, optimizer state and expectations restored from the last good snapshot, learning rate cut to a
    /// quarter (at nearly the same rate they would diverge again).
    Restore,
    /// Training ends with the last good weights.
    Stop,
    /// Training ends with the weights as they are, where no snapshot is kept.
    End,
}

impl Recovery {
    /// True when weights, optimizer state and expectations go back to the last good snapshot.
    #[must_use]
    pub fn restores(self) -> bool {
        match self {
            Self::BackToFull | Self::CutLearningRate | Self::End => false,
            Self::RestoreWeights | Self::Restore | Self::Stop => true,
        }
    }

    /// The same where there is no snapshot to go back to.
    pub(super) fn without_snapshots(self) -> Self {
        match self {
            Self::BackToFull | Self::CutLearningRate | Self::End => self,
            Self::RestoreWeights | Self::Restore => Self::CutLearningRate,
            Self::Stop => Self::End,
        }
    }
}

/// What happened inside a step that the user should read about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum HybridEvent {
    /// A phase began. Predict and Correct taking turns is routine and makes no event.
    Phase {
        /// The phase left.
        from: Phase,
        /// The phase entered.
        to: Phase,
        /// Why, in words with the numbers that decided.
        why: String,
    },
    /// A decision worth knowing that changed no phase, in words with the numbers that decided.
    Note(String),
    /// A divergence was seen and answered.
    Diverged {
        /// What was seen.
        divergence: Divergence,
        /// What was done.
        recovery: Recovery,
        /// After which step the weights were that came back, 0 for the initial ones; `None` when none came back.
        #[serde(default)]
        restored_step: Option<u64>,
    },
}

/// One step, as the trainer saw it. Everything here is measured, except `forecast`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Step number, from 1.
    pub step: u64,
    /// Phase in which it ran.
    pub phase: Phase,
    /// Mean loss of the whole batch before the update, nats per example or token.
    #[serde(with = "nullable")]
    pub loss: f32,
    /// The loss that the forecaster expected, in Predict and Correct.
    pub forecast: Option<Forecast>,
    /// Global L2 norm of the gradient before clipping; `None` when the update was skipped.
    pub grad_norm: Option<f32>,
    /// Learning rate used.
    #[serde(with = "nullable")]
    pub learning_rate: f32,
    /// Gate ratio ρ = E[q]²/E[q²], smoothed; NaN when the tier does not predict, and so does not measure it.
    #[serde(with = "nullable")]
    pub rho: f32,
    /// Confidence in the sampled gradient: the last Correct's cosine; `None` before the first one and after one
    /// that compared nothing.
    pub confidence: Option<f32>,
    /// Examples (images, or tokens for text) in the batch.
    pub num_examples: u32,
    /// How many went through a forward pass; one that went twice counts twice.
    pub num_forward: u32,
    /// How many got a backward pass. In a Correct step every example gets one, and the sample a second.
    pub num_backward: u32,
    /// What a Correct step found.
    pub correction: Option<Correction>,
    /// Divergence signals.
    pub signals: GuardSignals,
    /// Strength of the quantization, 0 to 1; `None` without quantization-aware training.
    pub quantization: Option<f32>,
    /// Mean distillation loss over the batch, nats; `None` without a teacher, and in Predict, where only a sample learns.
    pub distillation: Option<f32>,
    /// What the user should read about.
    pub events: Vec<HybridEvent>,
    /// The ladder's last rung was reached: end the run.
    pub must_stop: bool,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// `value` written as JSON and read again.
    fn through_json<T: Serialize + for<'de> Deserialize<'de>>(value: &T) -> T {
        serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
    }

    #[test]
    fn a_report_of_nan_and_infinity_reads_back() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let divergence = Divergence { kind: DivergenceKind::NotFinite, value, limit: f32::MAX };
            let event = HybridEvent::Diverged { divergence, recovery: Recovery::Restore, restored_step: Some(40) };
            let HybridEvent::Diverged { divergence, restored_step, .. } = through_json(&event) else {
                panic!("another event came back");
            };
            assert!(divergence.value.is_nan() && divergence.limit == f32::MAX && restored_step == Some(40));
            let interval = Some(Interval { low: value, median: 1.0, high: value });
            let model = Some(ForecastModel::Recurrent);
            let forecast = through_json(&Forecast { mean: value, std: value, interval, model });
            assert!(forecast.mean.is_nan() && forecast.std.is_nan() && forecast.model == model);
            assert!(forecast.interval.is_some_and(|found| found.low.is_nan() && found.median == 1.0));
            let correction = Correction {
                cosine: value,
                predicted_loss: value,
                corrected_loss: value,
                actual_loss: value,
                slice_fraction: 0.25,
                bias: Some(ForecastBias { count: 8, mean: value, std_error: value }),
            };
            let back = through_json(&correction);
            assert!(back.cosine.is_nan() && back.error_before().is_nan() && back.error_after().is_nan());
            assert_eq!(back.slice_fraction, 0.25);
            let signals = GuardSignals { loss_z: Some(value), grad_ratio_limit: value, ..GuardSignals::default() };
            let back = through_json(&signals);
            assert!(back.loss_z.is_none() && back.grad_ratio_limit.is_nan());
        }
    }

    #[test]
    fn reports_of_earlier_versions_read_still() {
        let event = r#"{"Diverged":{"divergence":{"kind":"LossSpike","value":3.5,"limit":2.2},"recovery":"Restore"}}"#;
        let event: HybridEvent = serde_json::from_str(event).unwrap();
        assert!(matches!(event, HybridEvent::Diverged { restored_step: None, .. }));
        let signals = r#"{"loss_z":0.5,"loss_z_limit":2.2,"grad_ratio":1.0,"grad_ratio_limit":10.0,
            "oscillation":0.25,"oscillation_limit":0.6}"#;
        let signals: GuardSignals = serde_json::from_str(signals).unwrap();
        assert_eq!((signals.loss_z, signals.oscillation), (Some(0.5), Some(0.25)));
        let forecast: Forecast = serde_json::from_str(r#"{"mean":0.5,"std":0.25}"#).unwrap();
        assert_eq!(forecast, Forecast { mean: 0.5, std: 0.25, interval: None, model: None });
    }
}
