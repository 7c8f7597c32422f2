//! Where the time of a run went: by phase, and by operation in the steps that were sampled for it.

use super::operation_times::{Operation, OperationTimes};
use super::{HistoryView, StepMetrics, ValidationPoint};
use crate::experiment::phase_index;
use crate::hybrid::Phase;

/// A part of a run's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunPart {
    /// Steps in this phase.
    Steps(Phase),
    /// Measuring on the validation part.
    Validation,
    /// Between steps: checkpoints, samples, records. Waiting while paused counts nowhere.
    Between,
}

impl RunPart {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 6] = [
        Self::Steps(Phase::Warmup),
        Self::Steps(Phase::Full),
        Self::Steps(Phase::Predict),
        Self::Steps(Phase::Correct),
        Self::Validation,
        Self::Between,
    ];
}

/// Times of the steps of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct PhaseTimes {
    /// Of all of them.
    steps_ms: f64,
    num_sampled: u64,
    /// Of the sampled ones, times threads.
    operations_ms: [f64; Operation::ALL.len()],
}

impl PhaseTimes {
    fn see(&mut self, step_ms: f32, operations: Option<OperationTimes>) {
        self.steps_ms += f64::from(step_ms);
        if let Some(times) = operations.filter(|times| times.total_ms() > 0.0) {
            self.num_sampled += 1;
            for (sum, (_, ms)) in self.operations_ms.iter_mut().zip(times.iter()) {
                *sum += f64::from(ms);
            }
        }
    }

    /// Shares of operations, 0 to 1; `None` before a step was sampled.
    fn shares(&self) -> Option<[f64; Operation::ALL.len()]> {
        let total: f64 = self.operations_ms.iter().sum();
        (total > 0.0).then(|| self.operations_ms.map(|ms| ms / total))
    }
}

/// Where the time of a run went, as far as it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RunTimes {
    phases: [PhaseTimes; 4],
    validation_ms: f64,
    between_ms: f64,
}

impl RunTimes {
    /// Of all steps and validations.
    #[must_use]
    pub fn of(history: &HistoryView, validations: &[ValidationPoint]) -> Self {
        let mut times = Self::default();
        history.iter().for_each(|row| times.see_step(row));
        validations.iter().for_each(|point| times.see_validation(point));
        times
    }

    /// Adds a step.
    pub fn see_step(&mut self, row: &StepMetrics) {
        self.phases[phase_index(row.phase)].see(row.step_ms, row.operations);
        self.between_ms += f64::from(row.between_ms.unwrap_or(0.0));
    }

    /// Adds a validation.
    pub fn see_validation(&mut self, point: &ValidationPoint) {
        self.validation_ms += point.seconds * 1e3;
    }

    /// Wall time of a part, milliseconds.
    #[must_use]
    pub fn part_ms(&self, part: RunPart) -> f64 {
        match part {
            RunPart::Steps(phase) => self.phases[phase_index(phase)].steps_ms,
            RunPart::Validation => self.validation_ms,
            RunPart::Between => self.between_ms,
        }
    }

    /// Wall time of all parts, milliseconds.
    #[must_use]
    pub fn total_ms(&self) -> f64 {
        RunPart::ALL.into_iter().map(|part| self.part_ms(part)).sum()
    }

    /// Share of the time in steps that steps of this phase took; `None` before the first step.
    #[must_use]
    pub fn share_of_steps(&self, phase: Phase) -> Option<f64> {
        let total: f64 = self.phases.iter().map(|phase| phase.steps_ms).sum();
        (total > 0.0).then(|| self.phases[phase_index(phase)].steps_ms / total)
    }

    /// Shares of operations that took time in the steps of a part; none where no step of it was sampled.
    #[must_use]
    pub fn operations_of(&self, part: RunPart) -> Vec<(Operation, f64)> {
        match part {
            RunPart::Steps(phase) => listed(self.phases[phase_index(phase)].shares()),
            RunPart::Validation | RunPart::Between => Vec::new(),
        }
    }

    /// Shares of operations that took time in all steps: each phase counts by the time of all its steps. None before a step
    /// was sampled.
    #[must_use]
    pub fn operations(&self) -> Vec<(Operation, f64)> {
        let mut sums = [0.0; Operation::ALL.len()];
        for phase in &self.phases {
            for (sum, share) in sums.iter_mut().zip(phase.shares().unwrap_or_default()) {
                *sum += share * phase.steps_ms;
            }
        }
        let total: f64 = sums.iter().sum();
        listed((total > 0.0).then(|| sums.map(|sum| sum / total)))
    }

    /// Steps whose operations were timed.
    #[must_use]
    pub fn num_sampled(&self) -> u64 {
        self.phases.iter().map(|phase| phase.num_sampled).sum()
    }
}

fn listed(shares: Option<[f64; Operation::ALL.len()]>) -> Vec<(Operation, f64)> {
    let shares = Operation::ALL.into_iter().zip(shares.unwrap_or_default());
    shares.filter(|(_, share)| *share > 0.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(products: f32, other: f32) -> Option<OperationTimes> {
        Some([(Operation::MatrixProducts, products), (Operation::Other, other)].into_iter().collect())
    }

    #[test]
    fn a_phase_counts_by_all_its_steps_not_by_its_sampled_ones() {
        let mut run = RunTimes::default();
        assert!(run.operations().is_empty() && run.share_of_steps(Phase::Full).is_none());
        let full = &mut run.phases[phase_index(Phase::Full)];
        (0..30).for_each(|_| full.see(10.0, None));
        assert!(run.operations().is_empty(), "nothing was sampled yet");
        // Two sampled steps in Full, one in Predict, whose steps took a quarter of the time.
        let full = &mut run.phases[phase_index(Phase::Full)];
        full.see(0.0, times(16.0, 4.0));
        full.see(0.0, times(16.0, 4.0));
        run.phases[phase_index(Phase::Predict)].see(100.0, times(5.0, 5.0));
        run.validation_ms = 600.0;
        let found = run.operations();
        assert_eq!(found.len(), 2);
        assert!((found[0].1 - (0.75 * 0.8 + 0.25 * 0.5)).abs() < 1e-9, "{found:?}");
        assert!((found.iter().map(|(_, share)| share).sum::<f64>() - 1.0).abs() < 1e-9);
        assert_eq!(
            run.operations_of(RunPart::Steps(Phase::Predict)),
            [(Operation::MatrixProducts, 0.5), (Operation::Other, 0.5)]
        );
        assert!(run.operations_of(RunPart::Steps(Phase::Correct)).is_empty());
        assert_eq!((run.num_sampled(), run.total_ms()), (3, 1000.0));
        assert_eq!(run.share_of_steps(Phase::Predict), Some(0.25));
    }
}
