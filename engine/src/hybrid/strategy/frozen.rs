//! The control: nothing moves in Predict, and the next full step goes on from where the last one ended.
//!
//! What a run with this strategy loses is what predicting nothing costs; a prediction is worth what it gains over that.

use super::{PredictStep, Scene, Update, Work};
use crate::data::Batch;
use crate::hybrid::HybridError;
use crate::hybrid::passes::Errors;

/// Has nothing to remember.
#[derive(Debug)]
pub(super) struct Frozen;

impl PredictStep for Frozen {
    fn predict(&mut self, scene: &Scene<'_>, batch: &Batch) -> Result<Work, HybridError> {
        let seen = scene.passes.look(batch)?;
        let units_forward = seen.losses.len();
        let update = Update::Nothing;
        Ok(Work { seen, update, cosine: None, units_forward, units_backward: 0, exhausted: None })
    }

    fn correct(&mut self, scene: &Scene<'_>, batch: &Batch) -> Result<Work, HybridError> {
        Work::full(scene, batch, Errors::Measure)
    }
}
