//! The gate: would a sampled backward pay now?
//!
//! ρ = E[q]²/E[q²] says how evenly the error is spread over a batch: near 1, every example matters
//! as much as any other and a sample of them is a worse batch; near 0, few examples carry the gradient.

use serde::{Deserialize, Serialize};

use super::exact;

/// Weight of the past in the running average of ρ.
const RHO_DECAY: f64 = 0.9;

/// How costs are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// By counting passes.
    Counted,
    /// By timing steps that do not count: a rehearsal.
    Measured,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Counted => "by counting passes",
            Self::Measured => "by steps measured here",
        })
    }
}

/// What the parts of a Predict step cost, in full steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepCosts {
    /// A forward pass over the whole batch, without a graph, and all that is not in proportion to the sample.
    #[serde(with = "exact")]
    pub forward: f64,
    /// Forward and backward of a sample, per share of the batch in it.
    #[serde(with = "exact")]
    pub slice: f64,
}

impl StepCosts {
    /// By counting: a forward pass is 1, a backward pass 2, so a full step is 3.
    pub const IDEAL: Self = Self { forward: 1.0 / 3.0, slice: 1.0 };

    /// From measured times of a full step, of a forward pass without a graph, and of a Predict step that sampled
    /// `slice_fraction` of its batch, all in the same unit. `None` when they make no sense.
    #[must_use]
    pub fn from_times(full: f64, forward: f64, predict: f64, slice_fraction: f64) -> Option<Self> {
        let costs = Self { forward: forward / full, slice: ((predict - forward) / full).max(0.0) / slice_fraction };
        (costs.forward.is_finite() && costs.slice.is_finite() && costs.forward > 0.0).then_some(costs)
    }

    /// Cost of a step that samples `slice_fraction` of its batch.
    #[must_use]
    pub fn of_slice(self, slice_fraction: f64) -> f64 {
        self.forward + self.slice * slice_fraction
    }

    /// Share of a full step's cost at which a sampled step makes the same progress: it needs max(1, ρ/f) times as many
    /// steps for the noise it adds.
    pub(super) fn per_progress(self, slice_fraction: f64, rho: f64) -> f64 {
        self.of_slice(slice_fraction) * (rho / slice_fraction).max(1.0)
    }
}

/// ρ of one batch, from predicted gradient norms; `None` when there is no error left to compare.
pub(super) fn rho_of(errors: &[f32]) -> Option<f64> {
    let count = errors.len() as f64;
    let mean = errors.iter().map(|&q| f64::from(q)).sum::<f64>() / count;
    let mean_square = errors.iter().map(|&q| f64::from(q).powi(2)).sum::<f64>() / count;
    let rho = mean * mean / mean_square;
    rho.is_finite().then_some(rho)
}

/// Remembers ρ, and for how long sampling has been worth it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Gate {
    #[serde(with = "exact")]
    rho: Option<f64>,
    is_open: bool,
    open_steps: u32,
}

impl Gate {
    /// Takes in a batch's ρ; returns the smoothed one.
    pub(super) fn smooth(&mut self, rho: f64) -> f64 {
        let rho = self.rho.map_or(rho, |old| RHO_DECAY * old + (1.0 - RHO_DECAY) * rho);
        self.rho = Some(rho);
        rho
    }

    /// Takes in what a Predict step would cost for a full step's progress, and decides again.
    ///
    /// The gate opens below `gate_cost` and closes only halfway from there to 1, where sampling
    /// stops paying, so that noise in ρ does not make it flap.
    pub(super) fn observe(&mut self, cost: f64, gate_cost: f64) {
        let limit = if self.is_open { gate_cost.midpoint(1.0).max(gate_cost) } else { gate_cost };
        self.is_open = cost < limit;
        self.open_steps = if self.is_open { self.open_steps.saturating_add(1) } else { 0 };
    }

    /// Smoothed ρ; `None` before the first batch.
    pub(super) fn rho(&self) -> Option<f64> {
        self.rho
    }

    /// True while sampling is worth it.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Steps in a row for which it has been open.
    pub(super) fn open_steps(&self) -> u32 {
        self.open_steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_is_least_where_the_slice_equals_rho() {
        assert!((StepCosts::IDEAL.per_progress(0.125, 0.1) - 1.375 / 3.0).abs() < 1e-12);
        let at = |f: f64| StepCosts::IDEAL.per_progress(f, 0.2);
        assert!(at(0.2) < at(0.1) && at(0.2) < at(0.3));
    }

    #[test]
    fn measured_times_take_the_place_of_counting() {
        // A forward pass that takes half a step leaves less to save.
        let costs = StepCosts::from_times(60.0, 30.0, 45.0, 0.25).expect("sensible times");
        assert_eq!(costs, StepCosts { forward: 0.5, slice: 1.0 });
        assert!((costs.of_slice(0.125) - 0.625).abs() < 1e-12);
        assert_eq!(StepCosts::from_times(0.0, 30.0, 45.0, 0.25), None);
    }

    #[test]
    fn rho_of_even_and_of_concentrated_errors() {
        assert!(rho_of(&[0.5; 8]).is_some_and(|rho| (rho - 1.0).abs() < 1e-12));
        assert!(rho_of(&[1.0, 0.0, 0.0, 0.0]).is_some_and(|rho| (rho - 0.25).abs() < 1e-12));
        assert_eq!(rho_of(&[0.0; 4]), None);
        assert_eq!(rho_of(&[]), None);
    }

    fn observe(gate: &mut Gate, rho: f64, slice_fraction: f64) {
        let rho = gate.smooth(rho);
        gate.observe(StepCosts::IDEAL.per_progress(slice_fraction, rho), 0.9);
    }

    /// How often the gate changes its mind on ρ that swings around the opening threshold by `swing`.
    fn changes(swing: f64) -> usize {
        let at_threshold = 0.9 * 3.0 * 0.125 / 1.375;
        let mut gate = Gate::default();
        let states: Vec<bool> = (0..400)
            .map(|step| {
                observe(&mut gate, at_threshold + swing * f64::sin(f64::from(step) * 0.4), 0.125);
                gate.is_open()
            })
            .collect();
        states.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }

    #[test]
    fn noise_at_the_threshold_does_not_flap() {
        assert!(changes(0.03) <= 1, "small swings: at most one change");
        assert!(changes(0.3) > 20, "swings beyond the hysteresis are real changes");
    }

    #[test]
    fn stays_shut_for_language_models() {
        let mut gate = Gate::default();
        (0..100).for_each(|_| observe(&mut gate, 0.9, 0.25));
        assert!(!gate.is_open());
        assert_eq!(gate.open_steps(), 0);
    }
}
