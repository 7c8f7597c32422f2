//! One network of the recurrent ensemble, and how it learns.

use serde::{Deserialize, Serialize};

use super::super::exact;
use super::gru::{self, NUM_WEIGHTS, State};
use super::rollout::{Window, learn};
use crate::device::seed::{Stream, stream};

/// Adam (Kingma and Ba 2015) on the gradient clipped to norm 1.
/// Learning faster makes its forecasts of recorded runs worse: what one run's past teaches does not last.
const LEARNING_RATE: f64 = 0.0005;
const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.99;

/// A network, the state it is in, and Adam's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Member {
    #[serde(with = "exact")]
    pub weights: Vec<f64>,
    #[serde(with = "exact")]
    pub state: State,
    #[serde(with = "exact")]
    first: Vec<f64>,
    #[serde(with = "exact")]
    second: Vec<f64>,
    pub num_updates: i32,
}

impl Member {
    /// Before the run `seed`, as number `index` of the ensemble.
    pub(super) fn new(seed: u64, index: u64) -> Self {
        Self {
            weights: gru::initial_weights(&mut stream(seed, Stream::Forecaster, index)),
            state: State::default(),
            first: vec![0.0; NUM_WEIGHTS],
            second: vec![0.0; NUM_WEIGHTS],
            num_updates: 0,
        }
    }

    /// A step of Adam on the window's likelihood.
    pub(super) fn learn(&mut self, window: &Window<'_>) {
        let mut gradient = vec![0.0; NUM_WEIGHTS];
        learn(&self.weights, window, &mut gradient, &mut Vec::with_capacity(window.steps.len()));
        let norm = gradient.iter().map(|value| value * value).sum::<f64>().sqrt();
        if !norm.is_finite() {
            return;
        }
        let clip = 1.0 / norm.max(1.0);
        self.num_updates = self.num_updates.saturating_add(1);
        let correction_1 = 1.0 - BETA_1.powi(self.num_updates);
        let correction_2 = 1.0 - BETA_2.powi(self.num_updates);
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((weight, (first, second)), gradient) in self.weights.iter_mut().zip(moments).zip(gradient) {
            let gradient = clip * gradient;
            *first += (1.0 - BETA_1) * (gradient - *first);
            *second += (1.0 - BETA_2) * (gradient * gradient - *second);
            *weight -= LEARNING_RATE * (*first / correction_1) / ((*second / correction_2).sqrt() + 1e-8);
        }
    }
}
