//! The residual store: by how much the standing forecasts missed what Correct steps measured.
//!
//! Intervals and confidence look at both sides alike. The mean of the residuals tells what they cannot: whether
//! forecasts lean to one side, and by how much.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::super::exact;
use super::super::report::ForecastBias;
use super::forecaster::push_within;

/// Residuals kept; older ones tell of a stage of training that is over.
const CAPACITY: usize = 64;

/// Fewest that give a mean.
const MIN_COUNT: usize = 8;

/// The newest residuals, ln(actual loss) − ln(predicted loss), oldest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct ResidualStore {
    #[serde(with = "exact")]
    residuals: VecDeque<f64>,
}

impl ResidualStore {
    /// Keeps the residual of one Correct step.
    pub(super) fn keep(&mut self, residual: f64) {
        push_within(&mut self.residuals, residual, CAPACITY);
    }

    /// Their mean; `None` while there are few.
    pub(super) fn bias(&self) -> Option<ForecastBias> {
        let count = self.residuals.len() as f64;
        let mean = self.residuals.iter().sum::<f64>() / count;
        let squares: f64 = self.residuals.iter().map(|residual| (residual - mean).powi(2)).sum();
        (self.residuals.len() >= MIN_COUNT).then(|| ForecastBias {
            count: self.residuals.len() as u32,
            mean: mean as f32,
            std_error: (squares / (count - 1.0) / count).sqrt() as f32,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_bias_is_the_mean_of_the_newest() {
        let mut store = ResidualStore::default();
        for _ in 0..CAPACITY {
            assert_eq!(store.bias().is_some(), store.residuals.len() >= MIN_COUNT);
            store.keep(1e3);
        }
        // 0.1 and 0.3 in turns push the old ones out.
        (0..CAPACITY).for_each(|index| store.keep(if index % 2 == 0 { 0.1 } else { 0.3 }));
        let bias = store.bias().unwrap();
        assert_eq!(bias.count as usize, CAPACITY);
        assert!((bias.mean - 0.2).abs() < 1e-6, "{bias:?}");
        // Standard deviation 0.1 sqrt(64/63), over the root of 64.
        assert!((bias.std_error - 0.0126).abs() < 1e-4, "{bias:?}");
        assert_eq!(serde_json::from_str::<ResidualStore>(&serde_json::to_string(&store).unwrap()).unwrap(), store);
    }
}
