//! How far losses usually lie from a smoothed level, told so that a divergence does not soon become usual.

use serde::{Deserialize, Serialize};

use super::super::exact;
use super::expected::MIN_NOISE;

/// Share of a squared surprise that moves the usual one.
const RATE: f64 = 0.03;

/// Usual surprises beyond which a surprise counts no more (Huber 1964).
const LIMIT: f64 = 2.5;

/// Surprises that are needed to say what is usual.
const MIN_COUNT: u32 = 10;

/// The usual surprise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Scatter {
    count: u32,
    #[serde(with = "exact")]
    square: f64,
}

impl Scatter {
    /// Learns from a surprise; returns as much of it as is believed.
    pub(super) fn learn(&mut self, surprise: f64) -> f64 {
        let limit = if self.count < MIN_COUNT { f64::INFINITY } else { LIMIT * self.std() };
        let believed = surprise.clamp(-limit, limit);
        self.count = self.count.saturating_add(1);
        let rate = RATE.max(1.0 / f64::from(self.count));
        self.square += rate * (believed * believed - self.square);
        believed
    }

    /// In units of ln(loss).
    pub(super) fn std(&self) -> f64 {
        self.square.sqrt().max(MIN_NOISE)
    }

    /// Its square.
    pub(super) fn variance(&self) -> f64 {
        self.std().powi(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_odd_losses_are_not_usual() {
        let mut scatter = Scatter::default();
        for step in 0..200 {
            scatter.learn(if step % 2 == 0 { 0.1 } else { -0.1 });
        }
        assert!((scatter.std() - 0.1).abs() < 1e-6);
        assert!((scatter.learn(5.0) - LIMIT * 0.1).abs() < 1e-6);
        for _ in 0..3 {
            scatter.learn(5.0);
        }
        assert!(scatter.std() < 0.15, "{}", scatter.std());
    }
}
