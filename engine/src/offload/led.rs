//! A streamed training that is led as one in memory is: by phases, gate, forecaster and guard.

use super::{OffloadError, OffloadTrainer, StreamedStep};
use crate::data::Batch;
use crate::device::Watch;
use crate::hybrid::{Backward, Outcome, Pilot, Seen};

/// Trains from disk, predicting which sequences are worth a backward pass where that pays.
///
/// Losses are known before a block moves: a step whose loss is judged a divergence moves nothing, and reads hardly
/// any optimizer state. One that its gradient alone gives away has moved, because blocks move before the last gradient is known. There is
/// no snapshot to go back to: where a training in memory would, this one halves the learning rate.
#[derive(Debug)]
pub struct LedTrainer {
    trainer: OffloadTrainer,
    pilot: Pilot,
}

impl LedTrainer {
    /// Leads `trainer`, from where the pilot that led it before ended, if there was one.
    /// Errors: [`OffloadError::Hybrid`] for a saved state that is none.
    pub fn new(trainer: OffloadTrainer, mut pilot: Pilot) -> Result<Self, OffloadError> {
        if let Some(state) = trainer.store().pilot() {
            pilot.restore(state, trainer.peak_learning_rate())?;
        }
        if pilot.num_steps_done() != trainer.num_steps() {
            pilot.skip_to(trainer.num_steps());
        }
        Ok(Self { trainer, pilot })
    }

    /// What is led.
    #[must_use]
    pub fn trainer(&self) -> &OffloadTrainer {
        &self.trainer
    }

    /// True once the guard ended the training. Opened again, it goes on in Full, at the learning rate that is left.
    #[must_use]
    pub fn must_stop(&self) -> bool {
        self.pilot.must_stop()
    }

    /// One step on a batch: tokens (n, t) with targets (n, t).
    ///
    /// Errors: [`OffloadError::Hybrid`] once the guard ended the training; those of [`OffloadTrainer::step`].
    pub fn step(&mut self, batch: &Batch, watch: Watch<'_>) -> Result<StreamedStep, OffloadError> {
        // A step that fails is not taken into account.
        let mut pilot = self.pilot.clone();
        let (order, events) = pilot.begin_step()?;
        let (leader, num_ahead) = (pilot.clone(), self.trainer.store().num_ahead());
        let choose = |seen: &Seen| match leader.choose(seen) {
            // What a broken step has begun is finished.
            Backward::Nothing if num_ahead > 0 => Backward::All,
            choice => choice,
        };
        let (examples_per_unit, peak_learning_rate) = (batch.targets.dim(1)?, self.trainer.peak_learning_rate());
        let step = self.trainer.streamed(batch, order, &choose, watch, |done, seen| {
            let outcome = Outcome {
                grad_norm: done.grad_norm(),
                cosine: done.cosine(),
                // What goes back is computed again.
                units_forward: seen.losses.len() + done.units_backward,
                units_backward: done.units_backward,
                examples_per_unit,
                peak_learning_rate,
            };
            let report = pilot.end_step(seen, outcome, events);
            Ok((Some(report), Some(pilot.state(peak_learning_rate)?)))
        })?;
        self.pilot = pilot;
        Ok(step)
    }
}
