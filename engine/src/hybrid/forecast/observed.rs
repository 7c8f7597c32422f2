//! What a step shows the forecaster, and what is known of the steps to come.

use super::super::report::Phase;
use crate::optim::Schedule;

/// A measured step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::hybrid) struct Observed {
    /// From 1.
    pub step: u64,
    /// Phase in which it ran.
    pub phase: Phase,
    /// Mean loss of the batch, nats, finite.
    pub loss: f64,
    /// Norm of the gradient, when there was one.
    pub grad_norm: Option<f64>,
    /// Smoothed gate ratio, when the tier measures it.
    pub rho: Option<f64>,
    /// Learning rate over its peak.
    pub learning_rate_factor: f64,
}

/// What is decided about a run before it begins.
#[derive(Debug, Clone)]
pub(in crate::hybrid) struct Plan {
    /// Seed of everything random.
    pub seed: u64,
    /// Steps of the whole run.
    pub num_steps: u64,
    /// Learning rate over the run.
    pub rates: Rates,
}

/// Which steps are asked for, and what is known of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ahead<'a> {
    pub plan: &'a Plan,
    /// Phase that they will run in.
    pub phase: Phase,
    /// How many.
    pub steps: usize,
}

/// Where the learning rates to come are read.
#[derive(Debug, Clone)]
pub(in crate::hybrid) enum Rates {
    /// From the schedule.
    Planned(Schedule),
    /// From the record of a run: factors of steps 1, 2, …
    Recorded(Vec<f64>),
}

impl Plan {
    /// Learning rate over its peak that `step`, from 1, is meant to have.
    pub(super) fn learning_rate_factor(&self, step: u64) -> f64 {
        match &self.rates {
            Rates::Planned(schedule) => schedule.factor(step, self.num_steps),
            Rates::Recorded(factors) => {
                let index = usize::try_from(step.saturating_sub(1)).unwrap_or(usize::MAX);
                factors.get(index).or(factors.last()).copied().unwrap_or(1.0)
            }
        }
    }

    /// Share of the run that is done after `step`.
    pub(super) fn progress(&self, step: u64) -> f64 {
        (step as f64 / self.num_steps.max(1) as f64).min(1.0)
    }
}
