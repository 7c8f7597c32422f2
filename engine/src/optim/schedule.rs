//! Learning rate over the run.

use super::Schedule;

impl Schedule {
    /// Factor of the peak learning rate at `step` (from 1) of `num_steps`.
    ///
    /// Warmup rises linearly and reaches 1 at its last step; after it a cosine reaches its final
    /// fraction at the last step of the run, or the rate stays.
    #[must_use]
    pub fn factor(&self, step: u64, num_steps: u64) -> f64 {
        let (Self::Cosine { warmup_fraction, .. } | Self::ConstantEma { warmup_fraction, .. }) = self;
        let warmup_steps = (warmup_fraction * num_steps as f64).ceil();
        let step = step.min(num_steps) as f64;
        if step < warmup_steps {
            return step / warmup_steps;
        }
        match self {
            Self::ConstantEma { .. } => 1.0,
            Self::Cosine { final_fraction, .. } => {
                let decay_steps = num_steps as f64 - warmup_steps;
                let progress = if decay_steps > 0.0 { (step - warmup_steps) / decay_steps } else { 0.0 };
                let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
                final_fraction + (1.0 - final_fraction) * cosine
            }
        }
    }

    /// Decay per step of the weight average that evaluation uses; `None` when it uses the weights themselves.
    #[must_use]
    pub fn ema_decay(&self) -> Option<f64> {
        match self {
            Self::ConstantEma { ema_decay, .. } => Some(*ema_decay),
            Self::Cosine { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(schedule: Schedule, step: u64, expected: f64) {
        let found = schedule.factor(step, 100);
        assert!((found - expected).abs() < 1e-12, "step {step}: expected {expected}, found {found}");
    }

    #[test]
    fn cosine_rises_falls_and_ends() {
        let schedule = Schedule::Cosine { warmup_fraction: 0.2, final_fraction: 0.1 };
        check(schedule, 1, 0.05);
        check(schedule, 20, 1.0);
        check(schedule, 60, 0.55);
        check(schedule, 100, 0.1);
        check(schedule, 1000, 0.1);
    }

    #[test]
    fn constant_stays_at_its_peak() {
        let schedule = Schedule::ConstantEma { warmup_fraction: 0.05, ema_decay: 0.99 };
        check(schedule, 1, 0.2);
        check(schedule, 5, 1.0);
        check(schedule, 100, 1.0);
        assert_eq!(schedule.ema_decay(), Some(0.99));
    }

    #[test]
    fn extremes_are_finite() {
        check(Schedule::Cosine { warmup_fraction: 0.0, final_fraction: 0.0 }, 100, 0.0);
        check(Schedule::Cosine { warmup_fraction: 1.0, final_fraction: 0.0 }, 100, 1.0);
        let one_step = Schedule::Cosine { warmup_fraction: 0.05, final_fraction: 0.0 }.factor(1, 1);
        assert_eq!(one_step, 1.0, "the only step of a run must move");
    }
}
