//! What Predict does in place of a full backward pass: one strategy a file, behind one trait.
//!
//! | strategy | in Predict | in Correct |
//! | --- | --- | --- |
//! | importance, auto | a sample of the batch forward and backward, unbiased | compares sampled and full gradient |
//! | extrapolate | weights move along their recent trajectory, forward passes only | goes back when that made it worse |
//! | frozen | nothing moves: what predicting nothing gives | a full step |
//!
//! `auto` samples like `importance`; it differs in what the gate counts: measured step times instead of ideal ones.
//!
//! Invariant: Warmup, Full and the update of a Correct step are the same for all of them, so that runs differ by what
//! was predicted alone.

mod extrapolate;
mod frozen;
mod importance;
mod trajectory;

use serde::{Deserialize, Serialize};

use super::HybridError;
use super::lens::Lens;
use super::passes::{Errors, Passes, Seen};
use crate::data::Batch;
use crate::models::{ParamStore, Params};
use crate::optim::Gradients;

/// How a Predict step goes on without a full backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Strategy {
    /// Never predicts: vanilla training, every step a full backward pass.
    None,
    /// Samples the examples that are predicted to matter, where an ideal machine would gain by it.
    Importance,
    /// Samples like [`Self::Importance`], but only where the step times measured in this run say that it pays.
    Auto,
    /// Moves the weights along their recent trajectory, without any backward pass: to compare, never the default.
    Extrapolate(Trajectory),
    /// Leaves the weights as they are: the control that a prediction must beat.
    Frozen,
}

/// Which trajectory [`Strategy::Extrapolate`] goes on along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Trajectory {
    /// The running average of the last full steps' moves.
    Momentum,
    /// The slope of a line fitted to the last full steps' weights, each by itself.
    Fitted,
}

impl Strategy {
    /// All of them, vanilla first.
    pub const ALL: [Self; 6] = [
        Self::None,
        Self::Auto,
        Self::Importance,
        Self::Extrapolate(Trajectory::Momentum),
        Self::Extrapolate(Trajectory::Fitted),
        Self::Frozen,
    ];

    /// Name to type and to show.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Importance => "importance",
            Self::Auto => "auto",
            Self::Extrapolate(Trajectory::Momentum) => "extrapolate-momentum",
            Self::Extrapolate(Trajectory::Fitted) => "extrapolate-fitted",
            Self::Frozen => "frozen",
        }
    }

    /// The strategy called `label`; `None` when there is no such one.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|strategy| strategy.label() == label)
    }

    /// One sentence for people.
    #[must_use]
    pub fn summary(self) -> &'static str {
        match self {
            Self::None => "Every step is a full backward pass.",
            Self::Importance => {
                "Backward passes for the examples predicted to matter, where an ideal machine gains by it."
            }
            Self::Auto => "Backward passes for the examples predicted to matter, where this machine gains by it.",
            Self::Extrapolate(Trajectory::Momentum) => {
                "Weights move on by the average of their last moves, without backward passes. To compare: it loses."
            }
            Self::Extrapolate(Trajectory::Fitted) => {
                "Weights move on along a line fitted to their last values, without backward passes. To compare: it loses."
            }
            Self::Frozen => "Weights stand still in Predict: the control that any prediction must beat.",
        }
    }

    /// True unless this is vanilla.
    #[must_use]
    pub fn predicts(self) -> bool {
        self != Self::None
    }

    /// True when Predict computes the gradient of a sample, whose agreement with the full one Correct measures.
    #[must_use]
    pub fn samples(self) -> bool {
        match self {
            Self::Importance | Self::Auto => true,
            Self::None | Self::Extrapolate(_) | Self::Frozen => false,
        }
    }

    /// Copies of the weights that it keeps between steps.
    #[must_use]
    pub fn weight_copies(self) -> u64 {
        match self {
            Self::None | Self::Importance | Self::Auto | Self::Frozen => 0,
            // The last weights, the anchor to go back to, and a running average …
            Self::Extrapolate(Trajectory::Momentum) => 3,
            // … or the two sums of a fit.
            Self::Extrapolate(Trajectory::Fitted) => 4,
        }
    }

    /// What carries it out; vanilla, which never gets to Predict, is served by the control.
    pub(super) fn start(self) -> Box<dyn PredictStep> {
        match self {
            Self::Importance | Self::Auto => Box::new(importance::Importance),
            Self::Extrapolate(trajectory) => Box::new(extrapolate::Extrapolate::new(trajectory)),
            Self::None | Self::Frozen => Box::new(frozen::Frozen),
        }
    }
}

/// What a strategy works with in one step.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    /// Passes over the weights as the lens shows them.
    pub passes: Passes<'a>,
    /// The weights themselves, which a strategy moves.
    pub store: &'a ParamStore,
    /// How passes read weights.
    pub lens: Lens<'a>,
    /// Share of a batch to sample.
    pub slice_fraction: f64,
    /// Seed of the run.
    pub seed: u64,
    /// Number of the step.
    pub step: u64,
}

/// What is to happen to the weights.
#[derive(Debug)]
pub(super) enum Update {
    /// The optimizer steps with this gradient.
    Gradient(Gradients),
    /// These weights take the place of the present ones.
    Weights(Params),
    /// Only what the forward pass saw is learned (batch-norm statistics).
    Statistics,
    /// Nothing at all.
    Nothing,
}

/// What the passes of one step gave.
#[derive(Debug)]
pub(super) struct Work {
    pub seen: Seen,
    pub update: Update,
    /// Cosine between sampled and full gradient, when both are known.
    pub cosine: Option<f64>,
    /// Units that went through a forward pass; one that went twice counts twice.
    pub units_forward: usize,
    /// Units that went through a backward pass; one that went twice counts twice.
    pub units_backward: usize,
    /// Why Predict has nothing more to give; ends it after this step.
    pub exhausted: Option<String>,
}

impl Work {
    /// Everything forward and backward: a vanilla step's passes.
    pub(super) fn full(scene: &Scene<'_>, batch: &Batch, errors: Errors<'_>) -> Result<Self, HybridError> {
        let (seen, gradient) = scene.passes.full(batch, errors)?;
        let num_units = seen.losses.len();
        let update = Update::Gradient(gradient);
        let units_forward = num_units + scene.passes.teacher_passes(num_units);
        Ok(Self { seen, update, cosine: None, units_forward, units_backward: num_units, exhausted: None })
    }
}

/// How a strategy predicts and corrects.
///
/// The trainer applies what comes out, so a step that the guard judges a divergence moves nothing.
pub(super) trait PredictStep: std::fmt::Debug + Send {
    /// A Predict step.
    fn predict(&mut self, scene: &Scene<'_>, batch: &Batch) -> Result<Work, HybridError>;

    /// A Correct step: a full gradient, and what it says about the prediction.
    fn correct(&mut self, scene: &Scene<'_>, batch: &Batch) -> Result<Work, HybridError>;

    /// The weights to go back to before a Correct step on `batch`, when the prediction made it worse; with what happened.
    fn roll_back(&mut self, _: &Scene<'_>, _: &Batch) -> Result<Option<(Params, String)>, HybridError> {
        Ok(None)
    }

    /// The weights to go back to after a divergence in Predict.
    fn retreat(&mut self) -> Option<Params> {
        None
    }

    /// A full gradient moved the weights to where they are now.
    fn moved(&mut self, _: &ParamStore) -> Result<(), HybridError> {
        Ok(())
    }

    /// Everything that decides later steps, by name; a deep copy.
    fn state(&self) -> Result<Params, HybridError> {
        Ok(Params::default())
    }

    /// Restores what [`Self::state`] gave; other names are ignored. Errors: misshapen tensors.
    fn load_state(&mut self, _: &Params) -> Result<(), HybridError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_strategy_has_a_name_of_its_own() {
        for strategy in Strategy::ALL {
            assert_eq!(Strategy::from_label(strategy.label()), Some(strategy));
            assert!(strategy.summary().ends_with('.'));
        }
        assert_eq!(Strategy::from_label("hope"), None);
    }
}
