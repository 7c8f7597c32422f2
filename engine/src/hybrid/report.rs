//! What a step reports.

use serde::{Deserialize, Serialize};

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
    pub mean: f32,
    /// Standard deviation of the forecast, nats.
    pub std: f32,
}

/// What a Correct step found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Correction {
    /// Cosine between the sampled and the full gradient of one batch.
    pub cosine: f32,
    /// Loss forecast for this step before the correction, nats: when Predict began, or at its last Correct.
    pub predicted_loss: f32,
    /// The forecast for this step after all losses measured since then went into it, nats. This step's own
    /// loss is one among up to 64 of them, so the batch's noise stays in the error.
    pub corrected_loss: f32,
    /// Loss measured, nats.
    pub actual_loss: f32,
    /// Share of the batch that Predict will use from here on.
    pub slice_fraction: f32,
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
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct GuardSignals {
    /// Standard deviations by which the loss lies above its forecast or trend; negative below.
    pub loss_z: f32,
    /// At which it is a divergence.
    pub loss_z_limit: f32,
    /// Gradient norm over its running median.
    pub grad_ratio: f32,
    /// At which it is an explosion.
    pub grad_ratio_limit: f32,
    /// Share of the last steps in which the loss change turned its sign, weighted by size, 0 to 1.
    pub oscillation: f32,
    /// At which it is an oscillation.
    pub oscillation_limit: f32,
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
}

/// A divergence, as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// Which.
    pub kind: DivergenceKind,
    /// The signal's value.
    pub value: f32,
    /// Its limit.
    pub limit: f32,
}

/// Rungs of the recovery ladder, mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Recovery {
    /// Leave Predict, back to Full.
    BackToFull,
    /// Learning rate halved from here on; phase Full.
    CutLearningRate,
    /// Weights, optimizer state and expectations restored from the last good snapshot, learning rate cut to a
    /// quarter (at nearly the same rate they would diverge again).
    Restore,
    /// Training ends with the last good weights.
    Stop,
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
    /// A divergence was seen and answered.
    Diverged {
        /// What was seen.
        divergence: Divergence,
        /// What was done.
        recovery: Recovery,
    },
}

/// One step, as the trainer saw it. Everything here is measured, except `forecast`.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Step number, from 1.
    pub step: u64,
    /// Phase in which it ran.
    pub phase: Phase,
    /// Mean loss of the whole batch before the update, nats per example or token.
    pub loss: f32,
    /// The loss that the forecaster expected, in Predict and Correct.
    pub forecast: Option<Forecast>,
    /// Global L2 norm of the gradient before clipping; `None` when the update was skipped.
    pub grad_norm: Option<f32>,
    /// Learning rate used.
    pub learning_rate: f32,
    /// Gate ratio ρ = E[q]²/E[q²], smoothed; NaN when the tier does not predict, and so does not measure it.
    pub rho: f32,
    /// Confidence in the sampled gradient: the last cosine; `None` before the first.
    pub confidence: Option<f32>,
    /// Examples (images, or tokens for text) in the batch.
    pub num_examples: u32,
    /// How many got a backward pass. In a Correct step every example gets one, and the sample a second.
    pub num_backward: u32,
    /// What a Correct step found.
    pub correction: Option<Correction>,
    /// Divergence signals.
    pub signals: GuardSignals,
    /// What the user should read about.
    pub events: Vec<HybridEvent>,
    /// The ladder's last rung was reached: end the run.
    pub must_stop: bool,
}
