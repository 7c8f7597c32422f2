//! One side's turn: steps for a while, each timed.

use std::time::Instant;

use super::BenchError;
use crate::device::{Watch, process_cpu_seconds};

/// Steps of one turn.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Turn {
    /// Milliseconds of each.
    pub step_ms: Vec<f64>,
    /// Processor milliseconds of each on average, of all threads; `None` where the system does not tell.
    pub processor_ms: Option<f64>,
}

impl Turn {
    /// Repeats `work` until `seconds` have passed, at least twice. Errors: those of `work`; cancelled.
    pub fn take(
        seconds: f64,
        watch: Watch<'_>,
        mut work: impl FnMut() -> Result<(), BenchError>,
    ) -> Result<Self, BenchError> {
        let (began, processor) = (Instant::now(), process_cpu_seconds());
        let mut step_ms = Vec::new();
        while step_ms.len() < 2 || began.elapsed().as_secs_f64() < seconds {
            watch.check()?;
            let step = Instant::now();
            work()?;
            step_ms.push(step.elapsed().as_secs_f64() * 1e3);
        }
        let spent = processor.zip(process_cpu_seconds()).map(|(before, after)| (after - before) * 1e3);
        Ok(Self { processor_ms: spent.map(|ms| ms / step_ms.len() as f64), step_ms })
    }

    /// Median of its steps, milliseconds.
    pub fn median_ms(&self) -> f64 {
        median(self.step_ms.clone())
    }
}

/// The middle value, the upper of two; not a number for none.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
