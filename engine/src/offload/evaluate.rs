//! What streamed weights are worth on texts that they did not learn from: forward passes, block by block.

use candle_core::Tensor;

use super::passes::{self, HeadWork};
use super::step::owner;
use super::streams::{Wanted, stream};
use super::{OffloadError, OffloadTrainer};
use crate::data::{Batch, DataError};
use crate::device::Watch;
use crate::evaluation::{Evaluation, EvaluationError, Tally};
use crate::hybrid::even_weights;
use crate::models::ops::Precision;

impl OffloadTrainer {
    /// Mean loss over `batches`, each of them tokens (n, t) with targets (n, t) on the device that computes. Products are in
    /// f32, as in any evaluation.
    ///
    /// Weights are read once for as many batches as the network has blocks: what lies between two blocks of these is no more
    /// than what a step keeps of one.
    /// Errors: [`OffloadError::Evaluation`] without any text, and for batches that cannot be made; whatever a disk or a GPU
    /// can do.
    pub fn evaluate(
        &self,
        batches: impl Iterator<Item = Result<Batch, DataError>>,
        watch: Watch<'_>,
    ) -> Result<Evaluation, OffloadError> {
        let batches = batches.collect::<Result<Vec<_>, _>>().map_err(EvaluationError::from)?;
        let mut tally = Tally::default();
        let groups = batches.chunks(self.network.blocks().len().max(1));
        let total = (groups.len() * self.network.blocks().len()) as u64;
        let mut done = 0;
        for group in groups {
            self.computed("measuring on held-out data", || {
                self.evaluate_group(group, &mut tally, &mut || {
                    done += 1;
                    Ok(watch.step("measuring on held-out data", done - 1, Some(total))?)
                })
            })?;
        }
        Ok(tally.evaluation()?)
    }

    /// Batches that go through the network side by side; `tell` is called at each block.
    fn evaluate_group(
        &self,
        group: &[Batch],
        tally: &mut Tally,
        tell: &mut dyn FnMut() -> Result<(), OffloadError>,
    ) -> Result<(), OffloadError> {
        let Some((head, layers)) = self.network.blocks().split_last() else { return Ok(()) };
        let files = &self.store.files;
        let owner = owner(&self.network, &files.layouts);
        let wanted: Vec<Wanted> = (0..=layers.len()).chain(owner).map(Wanted::Weights).collect();
        let (measured, _) = stream(files, &wanted, self.store.version(), |streams| {
            let mut states: Vec<Tensor> = group.iter().map(|batch| batch.inputs.clone()).collect();
            for (number, block) in layers.iter().enumerate() {
                tell()?;
                let params = passes::detached(files.layout(number)?, &streams.weights()?, &self.device)?;
                for state in &mut states {
                    *state = passes::forward(block.as_ref(), Precision::F32, &params, state)?;
                }
            }
            tell()?;
            let mut params = passes::detached(files.layout(layers.len())?, &streams.weights()?, &self.device)?;
            if let Some(owner) = owner {
                let lent = passes::detached(files.layout(owner)?, &streams.weights()?, &self.device)?;
                let borrowed = head.borrows();
                for (name, tensor) in lent.into_iter().filter(|(name, _)| borrowed.contains(name)) {
                    params.insert(name, tensor);
                }
            }
            for (input, Batch { targets, .. }) in states.iter().zip(group) {
                let (num_texts, per_text) = targets.dims2()?;
                let weights = even_weights(num_texts, num_texts);
                let work = HeadWork {
                    input,
                    targets,
                    weights: &weights,
                    errors_time: None,
                    max_logits: self.max_logits,
                    products: Precision::F32,
                };
                tally.add_texts(&passes::losses(head.as_ref(), &params, &work)?, per_text);
            }
            Ok(())
        });
        measured
    }
}
