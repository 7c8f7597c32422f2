//! Which plots there are, and what each shows.

use serde::{Deserialize, Serialize};

use super::curve::{BandKind, Curve, CurveStyle};
use super::run_series::RunSeries;
use crate::theme::Palette;

/// A plot over steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "`title` and `about` say what each is")]
pub enum PlotKind {
    Loss,
    Accuracy,
    Correction,
    Cosine,
    Signals,
    GradientNorm,
    GateRatio,
    Backward,
    Throughput,
    StepTime,
    LearningRate,
}

impl PlotKind {
    /// All plots, in the order in which to show them.
    pub const ALL: [Self; 11] = [
        Self::Loss,
        Self::Accuracy,
        Self::Correction,
        Self::Cosine,
        Self::Signals,
        Self::GradientNorm,
        Self::GateRatio,
        Self::Backward,
        Self::Throughput,
        Self::StepTime,
        Self::LearningRate,
    ];

    /// The plots shown at first.
    pub const DEFAULT: [Self; 6] =
        [Self::Loss, Self::Correction, Self::Signals, Self::GradientNorm, Self::GateRatio, Self::Throughput];

    /// The name to show.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Loss => "Loss",
            Self::Accuracy => "Accuracy",
            Self::Correction => "Correction",
            Self::Cosine => "Confidence",
            Self::Signals => "Divergence",
            Self::GradientNorm => "Gradient norm",
            Self::GateRatio => "Gate ratio ρ",
            Self::Backward => "Backward share",
            Self::Throughput => "Throughput",
            Self::StepTime => "Step time",
            Self::LearningRate => "Learning rate",
        }
    }

    /// Unit of its values.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::Loss | Self::Correction => "nats",
            Self::Accuracy | Self::Backward => "share",
            Self::Cosine => "cosine",
            Self::Signals => "share of limit",
            Self::GradientNorm => "L2 norm",
            Self::GateRatio => "",
            Self::Throughput => "examples / s",
            Self::StepTime => "ms",
            Self::LearningRate => "",
        }
    }

    /// What it says, for who hovers its title.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::Loss => {
                "Mean loss of each batch as measured (solid), what the forecaster expected (dashed, never mixed with \
                 measurements), and measurements on the validation part (markers). In quantization-aware training these \
                 are of the full-precision weights, and open markers of the same weights quantized. The band is the interval in which \
                 90% of losses are to fall, calibrated on this run's earlier forecasts; before there are enough of \
                 them, two standard deviations as the forecaster claims them (σ), which nobody has checked."
            }
            Self::Accuracy => {
                "Share of right answers on the validation part. In quantization-aware training full markers are of \
                 full-precision weights, open ones of the same weights quantized."
            }
            Self::Correction => {
                "At each Correct step: how far the loss forecast was off before the step's residual went into it, and \
                 after. The figure at the right is the share of all that error that corrections took away, and the \
                 share of the time that they took."
            }
            Self::Cosine => {
                "At each Correct step: cosine between the sampled gradient that Predict uses and the full gradient of \
                 the same batch. Below the tier's threshold Predict ends."
            }
            Self::Signals => {
                "The guard's signals as shares of their limits: at 1 the guard acts. Loss: standard deviations above \
                 the forecast. Gradient: norm over its running median. Oscillation: how often the loss turns around. \
                 Given back: share of the run's progress that the last steps lost again. Forecast error: how far losses lie \
                 above what was forecast, as a share of it. Above start: the loss over the run's first. A gradient that vanishes is judged, too, and has no curve of \
                 its own: Gradient falls to 0, which no limit here marks; the events name it."
            }
            Self::GradientNorm => "Global L2 norm of the gradient before clipping. A gap is a skipped update.",
            Self::GateRatio => {
                "ρ = E[q]²/E[q²] over predicted gradient norms q. Near 1 all examples matter alike and sampling does \
                 not pay; small values open Predict."
            }
            Self::Backward => "Share of each batch that got a backward pass.",
            Self::Throughput => "Examples (or tokens) a second, whole steps with batch preparation.",
            Self::StepTime => "Wall time of each step.",
            Self::LearningRate => "Learning rate used.",
        }
    }

    /// A value that must not be crossed.
    #[must_use]
    pub fn limit(self) -> Option<f64> {
        match self {
            Self::Signals => Some(1.0),
            Self::Loss
            | Self::Accuracy
            | Self::Correction
            | Self::Cosine
            | Self::GradientNorm
            | Self::GateRatio
            | Self::Backward
            | Self::Throughput
            | Self::StepTime
            | Self::LearningRate => None,
        }
    }
}

/// The curves of a plot, back to front.
#[must_use]
pub fn curves_of<'a>(kind: PlotKind, run: &'a RunSeries, p: &Palette, is_smoothed: bool) -> Vec<Curve<'a>> {
    use CurveStyle::{Dashed, Faint, Marks, OpenMarks, Solid};
    let [first, second, third, fourth, fifth, sixth, ..] = p.series;
    let full_precision = if run.quantized_loss.is_empty() { "Validation" } else { "Validation, f32" };
    match kind {
        PlotKind::Loss => {
            let forecast = Curve::new("Forecast", p.forecast, Dashed, &run.forecast)
                .with_band(BandKind::Calibrated, &run.interval_low, &run.interval_high)
                .with_band(BandKind::Deviations, &run.forecast_low, &run.forecast_high);
            let mut curves = if is_smoothed {
                let raw = Curve::new("Measured", p.measured, Faint, &run.loss);
                vec![raw, Curve::new("Smoothed", p.measured, Solid, &run.loss_smooth)]
            } else {
                vec![Curve::new("Measured", p.measured, Solid, &run.loss)]
            };
            curves.extend([forecast, Curve::new(full_precision, p.validation, Marks, &run.validation_loss)]);
            if !run.quantized_loss.is_empty() {
                curves.push(Curve::new(&run.quantized_name, p.quantized, OpenMarks, &run.quantized_loss));
            }
            curves
        }
        PlotKind::Accuracy => {
            let mut curves = vec![
                Curve::new(full_precision, p.validation, Solid, &run.validation_accuracy).silent(),
                Curve::new(full_precision, p.validation, Marks, &run.validation_accuracy),
            ];
            if !run.quantized_accuracy.is_empty() {
                let name = &run.quantized_name;
                curves.push(Curve::new(name, p.quantized, Solid, &run.quantized_accuracy).silent());
                curves.push(Curve::new(name, p.quantized, OpenMarks, &run.quantized_accuracy));
            }
            curves
        }
        PlotKind::Correction => vec![
            Curve::new("Before", p.predict, OpenMarks, &run.error_before),
            Curve::new("After", p.correct, Marks, &run.error_after),
        ],
        PlotKind::Cosine => vec![
            Curve::new("Cosine", p.correct, Solid, &run.cosine).silent(),
            Curve::new("Cosine", p.correct, Marks, &run.cosine),
        ],
        PlotKind::Signals => vec![
            Curve::new("Loss", first, Solid, &run.loss_z),
            Curve::new("Gradient", second, Solid, &run.grad_ratio),
            Curve::new("Oscillation", fourth, Solid, &run.oscillation),
            Curve::new("Given back", third, Solid, &run.given_back),
            Curve::new("Forecast error", fifth, Solid, &run.relative_error),
            Curve::new("Above start", sixth, Solid, &run.above_start),
        ],
        PlotKind::GradientNorm => vec![Curve::new("Norm", first, Solid, &run.grad_norm)],
        PlotKind::GateRatio => vec![Curve::new("ρ", second, Solid, &run.rho)],
        PlotKind::Backward => vec![Curve::new("Share", third, Solid, &run.backward_share)],
        PlotKind::Throughput => vec![Curve::new("Rate", third, Solid, &run.throughput)],
        PlotKind::StepTime => vec![Curve::new("Time", first, Solid, &run.step_ms)],
        PlotKind::LearningRate => vec![Curve::new("Rate", fourth, Solid, &run.learning_rate)],
    }
}
