//! A streamed training that is led as one in memory is: by phases, gate, forecaster and guard.

use std::time::Instant;

use super::trainer::Ended;
use super::{OffloadError, OffloadTrainer, StreamedStep};
use crate::data::Batch;
use crate::device::Watch;
use crate::hybrid::{Backward, Good, HybridEvent, Outcome, Pilot, Seen, StepReport};

/// Steps between two snapshots, where nobody says.
const SNAPSHOT_INTERVAL: u64 = 100;

/// Trains from disk, predicting which sequences are worth a backward pass where that pays.
///
/// Losses are known before a block moves: a step whose loss is judged a divergence moves nothing, and reads hardly
/// any optimizer state. One that its gradient alone gives away has moved, because blocks move before the last gradient is
/// known. Where the disk has room, earlier blocks are kept to go back to, as a training in memory does, also when a block
/// is not finite. Where it has none, the learning rate is halved instead, and a block that is not finite ends the training.
#[derive(Debug)]
pub struct LedTrainer {
    pub(super) trainer: OffloadTrainer,
    pilot: Pilot,
    snapshot_interval: u64,
    /// False until a snapshot that is lacking was taken.
    has_begun: bool,
}

impl LedTrainer {
    /// Leads `trainer`, from where the pilot that led it before ended, if there was one.
    /// Errors: [`OffloadError::Hybrid`] for a saved state that is none; whatever a disk can do.
    pub fn new(trainer: OffloadTrainer, mut pilot: Pilot) -> Result<Self, OffloadError> {
        pilot.set_num_classes(trainer.network.config().data_shape().num_classes());
        // Before it is said what it goes on with.
        pilot.keep_snapshots(trainer.store.snapshot().is_some());
        if let Some(state) = trainer.store.pilot() {
            pilot.restore(state, trainer.peak_learning_rate())?;
        }
        if pilot.num_steps_done() != trainer.num_steps() {
            pilot.skip_to(trainer.num_steps());
        }
        Ok(Self { trainer, pilot, snapshot_interval: SNAPSHOT_INTERVAL, has_begun: false })
    }

    /// The same, with a snapshot to go back to after so many steps, at least 1, where the disk has room for it.
    #[must_use]
    pub fn with_snapshots_every(self, num_steps: u64) -> Self {
        Self { snapshot_interval: num_steps.max(1), ..self }
    }

    /// The same, whose passes `device` computes: [`OffloadTrainer::computing_on`].
    #[cfg(test)]
    pub(super) fn computing_on(self, device: candle_core::Device) -> Self {
        Self { trainer: self.trainer.computing_on(device), ..self }
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
    /// Errors: [`OffloadError::Hybrid`] once the guard ended the training; those of [`OffloadTrainer::step`], but for a
    /// block that is not finite where there is a snapshot to go back to.
    pub fn step(&mut self, batch: &Batch, watch: Watch<'_>) -> Result<StreamedStep, OffloadError> {
        if !std::mem::replace(&mut self.has_begun, true) {
            // At the start, or where a process ended between a step and its snapshot.
            let step = self.trainer.num_steps();
            let is_lacking = self.trainer.store.snapshot().is_none_or(|kept| kept.step < step && self.is_due(step));
            if is_lacking && self.trainer.store.num_ahead() == 0 {
                self.take_snapshot();
            }
        }
        let started = Instant::now();
        // A step that fails is not taken into account.
        let mut pilot = self.pilot.clone();
        let (order, events) = pilot.begin_step()?;
        let (leader, num_ahead) = (pilot.clone(), self.trainer.store.num_ahead());
        let choose = |seen: &Seen| match leader.choose(seen) {
            // What a broken step has begun is finished.
            Backward::Nothing if num_ahead > 0 => Backward::All,
            choice => choice,
        };
        let (num_sequences, examples_per_unit) = batch.targets.dims2()?;
        let peak_learning_rate = self.trainer.peak_learning_rate();
        let snapshot = self.trainer.store.snapshot().cloned();
        let good = snapshot.as_ref().map(|snapshot| Good { step: snapshot.step, state: &snapshot.pilot });
        let whereabouts = self.trainer.store.snapshot_place();
        let mut end = |seen: &Seen, outcome: Outcome, mut events: Vec<HybridEvent>| {
            let before = pilot.clone();
            let mut report = pilot.end_step(seen, outcome, events.clone(), good)?;
            if goes_back(&report) && !whereabouts.is_intact() {
                pilot = before;
                pilot.keep_snapshots(false);
                events.push(HybridEvent::Note("the snapshot to go back to is damaged, and is not used".to_owned()));
                report = pilot.end_step(seen, outcome, events, None)?;
            }
            let goes_back = goes_back(&report);
            Ok::<_, OffloadError>(Ended {
                pilot: Some(pilot.state(peak_learning_rate)?),
                goes_back,
                report: Some(report),
            })
        };
        let outcome = Outcome { examples_per_unit, peak_learning_rate, ..Outcome::default() };
        let streamed = self.trainer.streamed(batch, order, &choose, watch, |done, seen| {
            let outcome = Outcome {
                grad_norm: done.grad_norm(),
                cosine: done.cosine(),
                // What goes back is computed again.
                units_forward: seen.losses.len() + done.units_backward,
                units_backward: done.units_backward,
                ..outcome
            };
            end(seen, outcome, events.clone())
        });
        let step = match streamed {
            // Blocks that have moved in it, and others that have not, can only be put back.
            Err(OffloadError::NotFinite { .. })
                if good.is_some() && (self.trainer.store.num_ahead() == 0 || whereabouts.is_intact()) =>
            {
                let has_ruined_weights = self.trainer.store.num_ahead() > 0;
                let outcome = Outcome { has_ruined_weights, ..outcome };
                let ended = end(&Seen::not_finite(num_sequences), outcome, events)?;
                self.trainer.end_without_numbers(ended, started.elapsed())?
            }
            streamed => streamed?,
        };
        self.pilot = pilot;
        if self.is_due(step.step) {
            self.take_snapshot();
        }
        Ok(step)
    }

    /// Forgets what could be gone back to, and gives its room back: the training is over.
    pub fn discard_snapshot(&mut self) -> Result<(), OffloadError> {
        self.trainer.store.discard_snapshot()
    }

    /// True after a step that a snapshot is taken at.
    fn is_due(&self, step: u64) -> bool {
        self.pilot.is_at_end_of_warmup() || step.is_multiple_of(self.snapshot_interval)
    }

    /// Makes the present blocks those to go back to, where the disk has room and nothing looks wrong. One that cannot be taken
    /// is told with the next step: the training is whole without it.
    fn take_snapshot(&mut self) {
        if !self.trainer.store.keeps_snapshots() || !self.pilot.is_trusted() || self.must_stop() {
            return;
        }
        let state = self.pilot.state(self.trainer.peak_learning_rate()).map_err(OffloadError::from);
        match state.and_then(|state| self.trainer.store.take_snapshot(state)) {
            Ok(true) => {}
            Ok(false) => self.pilot.note("no snapshot to go back to: this file system has no hard links".to_owned()),
            Err(error) => self.pilot.note(format!("no snapshot to go back to was taken at this step: {error}")),
        }
        self.pilot.keep_snapshots(self.trainer.store.snapshot().is_some());
    }
}

/// True when the guard answered a divergence with earlier weights.
fn goes_back(report: &StepReport) -> bool {
    report.events.iter().any(|event| matches!(event, HybridEvent::Diverged { restored_step: Some(_), .. }))
}
