//! Loss curves for tests: a power law with batch noise, as real runs show.

use rand::RngExt;

use crate::device::seed::{Stream, stream};

/// A loss curve that can be asked for any step.
pub(super) struct LossCurve {
    seed: u64,
    noise: f64,
    exponent: f64,
}

impl LossCurve {
    /// Falls like step^-0.5 from about 2, scattered by a factor exp(`noise`·normal).
    pub(super) fn falling(seed: u64, noise: f64) -> Self {
        Self { seed, noise, exponent: 0.5 }
    }

    /// Without noise.
    pub(super) fn truth(&self, step: u64) -> f64 {
        0.02 + 4.0 * (step as f64 + 4.0).powf(-self.exponent)
    }

    /// With the noise of that step's batch.
    pub(super) fn measured(&self, step: u64) -> f64 {
        self.truth(step) * (self.noise * self.normal(step)).exp()
    }

    fn normal(&self, step: u64) -> f64 {
        let mut rng = stream(self.seed, Stream::Sample, step);
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
    }
}
