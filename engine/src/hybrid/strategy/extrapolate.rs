//! Weight prediction taken literally: in Predict the weights move on along their recent trajectory, and no gradient is
//! computed.
//!
//! The first Predict step after a full gradient tries some lengths by forward passes over its batch and keeps the best
//! for the steps that follow; where standing still is best, Predict ends. A Correct step first asks a forward pass
//! whether the move made its batch worse, and goes back if so.
//!
//! A frozen direction for P steps is one step at P times the learning rate, so there is little to gain: this strategy is
//! here to be compared.

use super::trajectory::{Follower, combine, under};
use super::{PredictStep, Scene, Trajectory, Update, Work};
use crate::data::Batch;
use crate::hybrid::HybridError;
use crate::hybrid::passes::{Errors, Passes};
use crate::models::{ParamStore, Params, host_copy};

/// Lengths tried, in steps of the trajectory.
const LENGTHS: [f64; 4] = [0.5, 1.0, 2.0, 4.0];

/// Names of the saved state.
const ANCHOR: &str = "extrapolate.anchor.";
const DIRECTION: &str = "extrapolate.direction.";

/// One Predict phase's plan.
#[derive(Debug)]
struct Heading {
    /// Weights before the first predicted move.
    anchor: Params,
    /// The move of every Predict step, its length included.
    direction: Params,
}

/// Follows the weights; heads on when asked to predict.
#[derive(Debug)]
pub(super) struct Extrapolate {
    follower: Follower,
    heading: Option<Heading>,
    /// Forward passes over a batch before the step that will report them.
    unreported_passes: usize,
}

impl Extrapolate {
    pub(super) fn new(trajectory: Trajectory) -> Self {
        Self { follower: Follower::new(trajectory), heading: None, unreported_passes: 0 }
    }

    /// Tries lengths on `batch`, whose loss at the present weights is `loss`. `None` when standing still is best.
    fn search(&self, scene: &Scene<'_>, batch: &Batch, loss: f64) -> Result<Option<Heading>, HybridError> {
        let Some(direction) = self.follower.direction()? else { return Ok(None) };
        let anchor = vars(scene.store)?;
        let mut best = (loss, None);
        for length in LENGTHS {
            let moved = combine(&anchor, 1.0, &direction, length)?;
            let loss = loss_at(scene, moved, batch)?;
            if loss < best.0 {
                best = (loss, Some(length));
            }
        }
        let Some(length) = best.1 else { return Ok(None) };
        let direction = combine(&direction, length, &direction, 0.0)?;
        Ok(Some(Heading { anchor, direction }))
    }
}

impl PredictStep for Extrapolate {
    fn predict(&mut self, scene: &Scene<'_>, batch: &Batch) -> Result<Work, HybridError> {
        let seen = scene.passes.look(batch)?;
        let mut num_passes = 1;
        if self.heading.is_none() && self.follower.is_ready() {
            self.heading = self.search(scene, batch, seen.mean_loss())?;
            num_passes += LENGTHS.len();
        }
        let (update, exhausted) = match &self.heading {
            Some(heading) => (Update::Weights(combine(&vars(scene.store)?, 1.0, &heading.direction, 1.0)?), None),
            None => {
                let why = "no length of the predicted move lowers the loss of this batch: standing still is best";
                (Update::Nothing, Some(why.to_owned()))
            }
        };
        let units_forward = num_passes * seen.losses.len();
        Ok(Work { seen, update, cosine: None, units_forward, units_backward: 0, exhausted })
    }

    fn correct(&mut self, scene: &Scene<'_>, batch: &Batch) -> Result<Work, HybridError> {
        let mut work = Work::full(scene, batch, Errors::Measure)?;
        work.units_forward += std::mem::take(&mut self.unreported_passes) * work.seen.losses.len();
        Ok(work)
    }

    fn roll_back(&mut self, scene: &Scene<'_>, batch: &Batch) -> Result<Option<(Params, String)>, HybridError> {
        let Some(heading) = self.heading.take() else { return Ok(None) };
        let now = scene.passes.look(batch)?.mean_loss();
        let before = loss_at(scene, heading.anchor.clone(), batch)?;
        self.unreported_passes = 2;
        if now <= before {
            return Ok(None);
        }
        let what =
            format!("predicted moves rolled back: on this batch the loss is {now:.4} with them, {before:.4} without");
        Ok(Some((heading.anchor, what)))
    }

    fn retreat(&mut self) -> Option<Params> {
        self.heading.take().map(|heading| heading.anchor)
    }

    fn moved(&mut self, store: &ParamStore) -> Result<(), HybridError> {
        self.heading = None;
        self.follower.follow(vars(store)?)
    }

    fn state(&self) -> Result<Params, HybridError> {
        let mut state = self.follower.state()?;
        if let Some(heading) = &self.heading {
            for (prefix, params) in [(ANCHOR, &heading.anchor), (DIRECTION, &heading.direction)] {
                for (name, tensor) in params.iter() {
                    state.insert(format!("{prefix}{name}"), host_copy(tensor)?);
                }
            }
        }
        Ok(state)
    }

    fn load_state(&mut self, saved: &Params) -> Result<(), HybridError> {
        self.follower.load_state(saved)?;
        let parts = under(saved, ANCHOR).zip(under(saved, DIRECTION));
        self.heading = parts.map(|(anchor, direction)| Heading { anchor, direction });
        Ok(())
    }
}

/// The trainable weights, without buffers: a deep copy.
fn vars(store: &ParamStore) -> Result<Params, HybridError> {
    let copies = store.vars().map(|(name, var)| Ok((name.to_owned(), var.as_detached_tensor().copy()?)));
    copies.collect::<Result<Params, HybridError>>()
}

/// Mean loss of `batch` with `weights` in place of the present ones, nats; nothing is kept of the pass.
fn loss_at(scene: &Scene<'_>, weights: Params, batch: &Batch) -> Result<f64, HybridError> {
    let Passes { network, store, num_micro_batches, precision, loss_scale, .. } = scene.passes;
    let other = ParamStore::new(weights, store.buffers().clone(), batch.inputs.device())?;
    let read = scene.lens.read(&other)?;
    let passes = Passes { network, store: &read, num_micro_batches, precision, loss_scale, teacher: None };
    Ok(passes.look(batch)?.mean_loss())
}
