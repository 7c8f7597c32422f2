//! Measures what the parts of a Predict step cost on this machine; the clock is the caller's.

use super::{HybridError, HybridTrainer, StepCosts};
use crate::data::Batch;
use crate::device::CancelFlag;

/// Timings of each kind, the first of which only warms up.
const ROUNDS: usize = 5;

/// What so long a round takes is told by one: no noise of the machine's is as large.
const LONG_ROUND_SECONDS: f64 = 5.0;

/// Times full steps, forward passes and Predict steps of `trainer` on `batch`, which take turns so that a busy machine
/// disturbs them alike; puts everything back as it was and hands the medians to the trainer.
///
/// `clock` gives seconds since any fixed moment. Where one round takes longer than [`LONG_ROUND_SECONDS`], the second one
/// is the last. `None` when cancelled, when no sample was drawn, and for times that make no sense.
pub fn measure_step_costs(
    trainer: &mut HybridTrainer,
    batch: &Batch,
    clock: &dyn Fn() -> f64,
    cancel: &CancelFlag,
) -> Result<Option<StepCosts>, HybridError> {
    let before = trainer.state()?;
    let mut times: [Vec<f64>; 3] = Default::default();
    let mut fractions = Vec::new();
    for round in 0..ROUNDS {
        if cancel.is_set() {
            break;
        }
        let start = clock();
        trainer.vanilla_step(batch)?;
        let after_full = clock();
        trainer.rehearse(batch, false)?;
        let after_forward = clock();
        let fraction = trainer.rehearse(batch, true)?;
        let after_predict = clock();
        if round > 0 && fraction > 0.0 {
            times[0].push(after_full - start);
            times[1].push(after_forward - after_full);
            times[2].push(after_predict - after_forward);
            fractions.push(fraction);
            if after_predict - start > LONG_ROUND_SECONDS {
                break;
            }
        }
    }
    trainer.restore(&before)?;
    let [full, forward, predict] = times.map(median);
    let costs = StepCosts::from_times(full, forward, predict, median(fractions));
    if let Some(costs) = costs {
        trainer.set_step_costs(costs);
    }
    Ok(costs)
}

/// NaN without values.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
