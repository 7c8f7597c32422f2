//! Passes over one batch: what a forward measures, what a backward gives.
//!
//! A *unit* is what gets a backward pass or not: an image, or a sequence of tokens. A batch larger than
//! memory allows is cut into micro-batches, whose gradients add up.

use candle_core::Tensor;

use super::gate::rho_of;
use super::sampler::Sample;
use super::step_part::marked;
use super::{HybridError, Mark, StepPart};
use crate::data::Batch;
use crate::models::ops::{Precision, cross_entropy, distillation_loss, error_norms};
use crate::models::{BatchStats, Forward, Mode, Network, ParamStore, Params};
use crate::optim::Gradients;
use crate::quant::Distillation;

/// Are predicted gradient norms wanted of a pass?
#[derive(Clone, Copy)]
pub(super) enum Errors<'a> {
    Measure,
    /// As `Measure`, which is the one thing here that vanilla would not do: it is told when that begins and ends.
    MeasureMarked(&'a dyn Fn(Mark)),
    Skip,
}

/// What a forward pass over a whole batch measured.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Mean loss of each unit, nats.
    pub losses: Vec<f32>,
    /// Predicted gradient norm of each unit: root mean square over its tokens of ‖softmax − onehot‖₂.
    pub errors: Vec<f32>,
    /// Batch-norm statistics of each micro-batch, in order.
    pub stats: Vec<BatchStats>,
    /// Distillation loss of each unit, nats; empty without a teacher, and of a pass that learns nothing.
    pub distillation: Vec<f32>,
}

impl Seen {
    /// Mean loss of the batch, nats per image or token.
    pub(super) fn mean_loss(&self) -> f64 {
        self.losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / self.losses.len() as f64
    }

    /// Mean distillation loss of the batch, nats per image or token; `None` where there was no teacher.
    pub(super) fn mean_distillation(&self) -> Option<f64> {
        let sum: f64 = self.distillation.iter().map(|&loss| f64::from(loss)).sum();
        (!self.distillation.is_empty()).then(|| sum / self.distillation.len() as f64)
    }

    /// E[q]²/E[q²]; `None` without errors.
    pub(super) fn rho(&self) -> Option<f64> {
        rho_of(&self.errors)
    }
}

/// Weights of the same network that teach it, without a graph of their own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Teacher<'a> {
    pub params: &'a Params,
    pub distillation: Distillation,
}

/// A network, its weights, and the size of the parts it computes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passes<'a> {
    pub network: &'a Network,
    pub store: &'a ParamStore,
    pub num_micro_batches: usize,
    pub precision: Precision,
    /// Who is learned from beside the data.
    pub teacher: Option<Teacher<'a>>,
}

impl Passes<'_> {
    /// Forward passes of a teacher over `num_units` that learn.
    pub(super) fn teacher_passes(&self, num_units: usize) -> usize {
        if self.teacher.is_some() { num_units } else { 0 }
    }

    /// Forward and backward of everything: the gradient of the batch's mean loss, the teacher's part in it where there is
    /// one.
    pub(super) fn full(&self, batch: &Batch, errors: Errors<'_>) -> Result<(Seen, Gradients), HybridError> {
        let params = self.store.tracked();
        let num_units = num_units(batch)?;
        let mut seen = Seen::default();
        let mut sum = None;
        for part in micro_batches(batch, self.num_micro_batches)? {
            let (logits, losses) = self.forward(&params, &part, errors, &mut seen)?;
            let (losses, distillation) = self.taught(&logits, losses, &part)?;
            if let Some(distillation) = distillation {
                seen.distillation.extend(distillation.to_vec1::<f32>()?);
            }
            add(&mut sum, self.backward(&(losses.sum_all()? / num_units as f64)?)?)?;
        }
        Ok((seen, sum.ok_or_else(empty_batch)?))
    }

    /// Forward of everything, storing nothing for a backward.
    pub(super) fn look(&self, batch: &Batch) -> Result<Seen, HybridError> {
        let params = self.store.detached();
        let mut seen = Seen::default();
        for part in micro_batches(batch, self.num_micro_batches)? {
            self.forward(&params, &part, Errors::Measure, &mut seen)?;
        }
        Ok(seen)
    }

    /// Forward and backward of the sample: an unbiased estimate of the full gradient. `None` for an empty sample.
    ///
    /// Batch norm uses the statistics of the whole micro-batch that a unit came from; without batch norm,
    /// the sample is packed into as few parts as possible.
    pub(super) fn sampled(
        &self,
        batch: &Batch,
        stats: &[BatchStats],
        sample: &Sample,
    ) -> Result<Option<Gradients>, HybridError> {
        let params = self.store.tracked();
        let part_size = num_units(batch)?.div_ceil(self.num_micro_batches);
        let has_stats = stats.iter().any(|stats| !stats.is_empty());
        let mut sum = None;
        let mut rest = sample.indices.iter().zip(&sample.weights).peekable();
        while let Some(&(&first, _)) = rest.peek() {
            let micro_batch = first as usize / part_size;
            let (mut indices, mut weights) = (Vec::new(), Vec::new());
            while let Some((&index, &weight)) = rest.next_if(|&(&index, _)| {
                if has_stats { index as usize / part_size == micro_batch } else { indices.len() < part_size }
            }) {
                indices.push(index);
                weights.push(weight);
            }
            let mode = match stats.get(micro_batch) {
                Some(stats) => Mode::Sampled(stats),
                None => Mode::Train,
            };
            let device = batch.inputs.device();
            let indices = Tensor::new(indices, device)?;
            let weights = Tensor::new(weights, device)?;
            let part = Batch {
                inputs: batch.inputs.index_select(&indices, 0)?,
                targets: batch.targets.index_select(&indices, 0)?,
            };
            let logits = self.network.forward(&self.pass(&params, mode), &part.inputs)?;
            let (losses, _) = self.taught(&logits, unit_losses(&logits, &part)?, &part)?;
            let loss = (losses * weights)?.sum_all()?;
            add(&mut sum, self.backward(&loss)?)?;
        }
        Ok(sum)
    }

    /// What is minimized of `losses`, one for each unit of `part` with these logits, and the teacher's part in it.
    fn taught(&self, logits: &Tensor, losses: Tensor, part: &Batch) -> Result<(Tensor, Option<Tensor>), HybridError> {
        let Some(Teacher { params, distillation: Distillation { weight, temperature } }) = self.teacher else {
            return Ok((losses, None));
        };
        let (student, targets) = as_rows(logits, part)?;
        let answers = self.network.forward(&self.pass(params, Mode::Eval), &part.inputs)?;
        let teacher = answers.reshape((targets.elem_count(), ()))?;
        let distilled = per_unit(distillation_loss(&student, &teacher, temperature)?, part)?;
        let taught = ((losses * (1.0 - weight))? + (&distilled * weight)?)?;
        Ok((taught, Some(distilled.detach())))
    }

    /// Forward of one part in training mode; adds what it measured to `seen`, returns its logits and the losses of its
    /// units.
    fn forward(
        &self,
        params: &Params,
        part: &Batch,
        errors: Errors<'_>,
        seen: &mut Seen,
    ) -> Result<(Tensor, Tensor), HybridError> {
        let pass = self.pass(params, Mode::Train);
        let logits = self.network.forward(&pass, &part.inputs)?;
        let losses = unit_losses(&logits, part)?;
        seen.losses.extend(losses.to_vec1::<f32>()?);
        match errors {
            Errors::Measure => seen.errors.extend(unit_errors(&logits, part)?),
            Errors::MeasureMarked(mark) => {
                // The losses were read above, so no device still owes a part of the forward pass to this time.
                seen.errors.extend(marked(mark, StepPart::ErrorNorms, || unit_errors(&logits, part))?);
            }
            Errors::Skip => {}
        }
        seen.stats.push(pass.into_stats());
        Ok((logits, losses))
    }

    fn pass<'a>(&self, params: &'a Params, mode: Mode<'a>) -> Forward<'a> {
        Forward::new(params, mode).in_precision(self.precision)
    }

    fn backward(&self, loss: &Tensor) -> Result<Gradients, HybridError> {
        Ok(Gradients::from_backward(&loss.backward()?, self.store)?)
    }
}

/// Units in a batch. Errors: [`HybridError::Batch`] when there is none or the two parts differ.
pub(super) fn num_units(batch: &Batch) -> Result<usize, HybridError> {
    let (inputs, targets) = (batch.inputs.dim(0)?, batch.targets.dim(0)?);
    if inputs != targets {
        let found = format!("{inputs} inputs and {targets} targets");
        return Err(HybridError::Batch { expected: "as many targets as inputs", found });
    }
    if batch.targets.elem_count() == 0 { Err(empty_batch()) } else { Ok(inputs) }
}

/// Images or tokens in each unit.
pub(super) fn examples_per_unit(batch: &Batch) -> Result<usize, HybridError> {
    Ok(batch.targets.elem_count() / num_units(batch)?)
}

/// Mean loss of each unit: logits (n, classes) or (n, t, vocab) to (n), nats.
fn unit_losses(logits: &Tensor, part: &Batch) -> Result<Tensor, HybridError> {
    let (rows, targets) = as_rows(logits, part)?;
    per_unit(cross_entropy(&rows, &targets)?, part)
}

/// A number for each row, as the mean of each unit's.
fn per_unit(rows: Tensor, part: &Batch) -> Result<Tensor, HybridError> {
    let units = num_units(part)?;
    Ok(if rows.elem_count() == units { rows } else { rows.reshape((units, ()))?.mean(1)? })
}

/// Predicted gradient norm of each unit.
fn unit_errors(logits: &Tensor, part: &Batch) -> Result<Vec<f32>, HybridError> {
    let (rows, targets) = as_rows(logits, part)?;
    let errors = error_norms(&rows.detach(), &targets)?;
    let per_unit = examples_per_unit(part)?;
    if per_unit == 1 {
        return Ok(errors);
    }
    let mean_square = |unit: &[f32]| unit.iter().map(|q| q * q).sum::<f32>() / unit.len() as f32;
    Ok(errors.chunks(per_unit).map(|unit| mean_square(unit).sqrt()).collect())
}

/// Logits as (rows, classes) and targets as (rows), a row for each image or token.
fn as_rows(logits: &Tensor, part: &Batch) -> Result<(Tensor, Tensor), HybridError> {
    let targets = part.targets.flatten_all()?;
    Ok((logits.reshape((targets.elem_count(), ()))?, targets))
}

/// The batch in `count` parts (fewer when it has fewer units), the last ones possibly smaller.
fn micro_batches(batch: &Batch, count: usize) -> Result<Vec<Batch>, HybridError> {
    let units = num_units(batch)?;
    if count <= 1 {
        return Ok(vec![batch.clone()]);
    }
    let part_size = units.div_ceil(count);
    let part = |start: usize| {
        let length = part_size.min(units - start);
        Ok(Batch {
            inputs: batch.inputs.narrow(0, start, length)?.contiguous()?,
            targets: batch.targets.narrow(0, start, length)?.contiguous()?,
        })
    };
    (0..units).step_by(part_size).map(part).collect()
}

fn add(sum: &mut Option<Gradients>, gradients: Gradients) -> Result<(), HybridError> {
    match sum {
        Some(sum) => sum.add_scaled(&gradients, 1.0)?,
        None => *sum = Some(gradients),
    }
    Ok(())
}

fn empty_batch() -> HybridError {
    HybridError::Batch { expected: "at least one example", found: "none".to_owned() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use candle_core::Device;

    use super::*;

    /// Two sequences of three tokens over a vocabulary of two; the first is known, the second is not.
    fn text() -> (Tensor, Batch) {
        let sure = [[4.0_f32, -4.0], [-4.0, 4.0], [4.0, -4.0]];
        let logits = Tensor::new(&[sure, [[0.0, 0.0]; 3]], &Device::Cpu).unwrap();
        let targets = Tensor::new(&[[0_u32, 1, 0], [0, 0, 1]], &Device::Cpu).unwrap();
        (logits, Batch { inputs: targets.clone(), targets })
    }

    #[test]
    fn a_sequence_is_one_unit() {
        let (logits, batch) = text();
        assert_eq!((num_units(&batch).unwrap(), examples_per_unit(&batch).unwrap()), (2, 3));
        let losses = unit_losses(&logits, &batch).unwrap().to_vec1::<f32>().unwrap();
        assert!(losses[0] < 0.001 && (losses[1] - 2.0_f32.ln()).abs() < 1e-6, "{losses:?}");
        // Of probabilities (1/2, 1/2) each token's error is (1/2, -1/2), of norm sqrt(1/2).
        let errors = unit_errors(&logits, &batch).unwrap();
        assert!(errors[0] < 0.001 && (errors[1] - 0.5_f32.sqrt()).abs() < 1e-6, "{errors:?}");
    }

    #[test]
    fn micro_batches_cover_the_batch_once() {
        let (_, batch) = text();
        let sizes = |count| -> Vec<usize> {
            micro_batches(&batch, count).unwrap().iter().map(|part| part.inputs.dim(0).unwrap()).collect()
        };
        assert_eq!((sizes(1), sizes(2), sizes(5)), (vec![2], vec![1, 1], vec![1, 1]));
    }
}
