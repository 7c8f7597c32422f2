//! Passes over one batch: what a forward measures, what a backward gives.
//!
//! A *unit* is what gets a backward pass or not: an image, or a sequence of tokens. A batch larger than
//! memory allows is cut into micro-batches, whose gradients add up.

use candle_core::Tensor;

use super::gate::rho_of;
use super::loss_scale::LossScale;
use super::sampler::Sample;
use super::step_part::marked;
use super::{HybridError, Mark, StepPart};
use crate::data::Batch;
use crate::models::ops::{
    Around, HeadLoss, HeadTargets, Precision, backward, cross_entropy, distillation_loss, error_norms,
};
use crate::models::{BatchStats, Forward, MAX_LOGITS, Mode, Network, ParamStore, Params};
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

impl Errors<'_> {
    /// Does the work of measuring them.
    fn around(self, work: &mut dyn FnMut()) {
        match self {
            Self::MeasureMarked(mark) => marked(mark, StepPart::ErrorNorms, work),
            Self::Measure | Self::Skip => work(),
        }
    }
}

/// What a forward pass over a part of a batch gave.
struct Scored {
    /// What is minimized: losses of its units by their weights, the teacher's part in it where there is one. One number,
    /// until its backward pass takes it.
    total: Option<Tensor>,
    /// Of each unit, as in [`Seen`].
    losses: Vec<f32>,
    errors: Vec<f32>,
    distillation: Vec<f32>,
    stats: BatchStats,
}

/// What a forward pass over a whole batch measured.
#[derive(Debug, Default)]
pub(crate) struct Seen {
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
    /// From losses (nats) and error norms of rows, images or tokens, `per_unit` of them in each unit.
    pub(crate) fn of_rows(losses: &[f32], error_norms: &[f32], per_unit: usize) -> Self {
        Self {
            losses: losses.chunks(per_unit).map(|unit| unit.iter().sum::<f32>() / unit.len() as f32).collect(),
            errors: error_norms.chunks(per_unit).map(root_mean_square).collect(),
            ..Self::default()
        }
    }

    /// Of a batch of so many units that a network computed no numbers for.
    pub(crate) fn not_finite(num_units: usize) -> Self {
        Self { losses: vec![f32::NAN; num_units], ..Self::default() }
    }

    /// Adds a part.
    fn extend(&mut self, scored: Scored) {
        let Scored { losses, errors, distillation, stats, .. } = scored;
        self.losses.extend(losses);
        self.errors.extend(errors);
        self.distillation.extend(distillation);
        self.stats.push(stats);
    }

    /// Mean loss of the batch, nats per image or token.
    pub(crate) fn mean_loss(&self) -> f64 {
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
    /// Of losses; `None` where products have the range of f32.
    pub loss_scale: Option<&'a LossScale>,
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
            let weights = even_weights(num_units, part.inputs.dim(0)?);
            let (scored, gradients) = self.graded(&params, Mode::Train, (&part, &weights), errors)?;
            seen.extend(scored);
            add(&mut sum, gradients)?;
        }
        Ok((seen, sum.ok_or_else(empty_batch)?))
    }

    /// Forward of everything, storing nothing for a backward.
    pub(super) fn look(&self, batch: &Batch) -> Result<Seen, HybridError> {
        let params = self.store.detached();
        let mut seen = Seen::default();
        for part in micro_batches(batch, self.num_micro_batches)? {
            let weights = vec![0.0; part.inputs.dim(0)?];
            let scored =
                Passes { teacher: None, ..*self }.score(&params, Mode::Train, (&part, &weights), Errors::Measure)?;
            seen.extend(scored);
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
            let part = Batch {
                inputs: batch.inputs.index_select(&indices, 0)?,
                targets: batch.targets.index_select(&indices, 0)?,
            };
            let (_, gradients) = self.graded(&params, mode, (&part, &weights), Errors::Skip)?;
            add(&mut sum, gradients)?;
        }
        Ok(sum)
    }

    /// Forward and backward of one part, whose units count by `weights` in what is minimized.
    fn graded(
        &self,
        params: &Params,
        mode: Mode<'_>,
        (part, weights): (&Batch, &[f32]),
        errors: Errors<'_>,
    ) -> Result<(Scored, Gradients), HybridError> {
        let pass = |weights: &[f32]| {
            let mut scored = self.score(params, mode, (part, weights), errors)?;
            let gradients = match scored.total.take() {
                Some(total) => Gradients::from_backward(&backward(&total)?, self.store)?,
                None => return Err(empty_batch()),
            };
            Ok((scored, gradients))
        };
        let Some(loss_scale) = self.loss_scale else {
            return pass(weights);
        };
        loss_scale.compute(|scale| {
            let scaled: Vec<f32> = weights.iter().map(|weight| weight * scale).collect();
            let (scored, gradients) = pass(&scaled)?;
            let is_finite = scored.losses.iter().all(|loss| loss.is_finite());
            Ok((scored, is_finite, gradients))
        })
    }

    /// Forward of one part, whose units count by `weights` in what is minimized.
    fn score(
        &self,
        params: &Params,
        mode: Mode<'_>,
        (part, weights): (&Batch, &[f32]),
        errors: Errors<'_>,
    ) -> Result<Scored, HybridError> {
        let per_unit = examples_per_unit(part)?;
        let of_rows = weights_of_rows(weights, per_unit);
        let around = |work: &mut dyn FnMut()| errors.around(work);
        let targets = part.targets.flatten_all()?;
        let error_norms: Option<Around<'_>> = if matches!(errors, Errors::Skip) { None } else { Some(&around) };
        let goal = HeadTargets { targets: &targets, weights: &of_rows, error_norms, max_logits: MAX_LOGITS };
        let pass = match self.teacher {
            // It is compared with by logits.
            Some(_) => self.pass(params, mode),
            None => self.pass(params, mode).measured_by(goal),
        };
        let output = self.network.forward(&pass, &part.inputs)?;
        let Some(HeadLoss { total, losses, error_norms }) = pass.take_head_loss() else {
            let stats = pass.into_stats();
            return Ok(Scored { stats, ..self.score_logits(&output, (part, weights), errors)? });
        };
        let Seen { losses, errors, .. } = Seen::of_rows(&losses, &error_norms, per_unit);
        Ok(Scored { total: Some(total), losses, errors, distillation: Vec::new(), stats: pass.into_stats() })
    }

    /// The same from logits; without statistics.
    fn score_logits(
        &self,
        logits: &Tensor,
        (part, weights): (&Batch, &[f32]),
        errors: Errors<'_>,
    ) -> Result<Scored, HybridError> {
        let losses = unit_losses(logits, part)?;
        // They are read first, so that no device still owes a part of the forward pass to the time of the error norms.
        let seen = losses.to_vec1::<f32>()?;
        let mut norms = Ok(Vec::new());
        if !matches!(errors, Errors::Skip) {
            errors.around(&mut || norms = unit_errors(logits, part));
        }
        let (taught, distillation) = match self.teacher {
            Some(teacher) => {
                let distilled = self.distill(logits, teacher, part)?;
                let share = teacher.distillation.weight;
                (((losses * (1.0 - share))? + (&distilled * share)?)?, distilled.to_vec1::<f32>()?)
            }
            None => (losses, Vec::new()),
        };
        let total = (taught * Tensor::new(weights, logits.device())?)?.sum_all()?;
        Ok(Scored { total: Some(total), losses: seen, errors: norms?, distillation, stats: BatchStats::default() })
    }

    /// Distillation loss of each unit.
    fn distill(&self, logits: &Tensor, teacher: Teacher<'_>, part: &Batch) -> Result<Tensor, HybridError> {
        let (student, targets) = as_rows(logits, part)?;
        let answers = self.network.forward(&self.pass(teacher.params, Mode::Eval), &part.inputs)?;
        let teacher_rows = answers.reshape((targets.elem_count(), ()))?;
        per_unit(distillation_loss(&student, &teacher_rows, teacher.distillation.temperature)?, part)
    }

    fn pass<'a>(&self, params: &'a Params, mode: Mode<'a>) -> Forward<'a> {
        Forward::new(params, mode).in_precision(self.precision)
    }
}

/// What each of `count` units of a batch of `num_units` counts for in its mean loss.
pub(crate) fn even_weights(num_units: usize, count: usize) -> Vec<f32> {
    vec![(1.0 / num_units as f64) as f32; count]
}

/// What rows, images or tokens, count for, `per_unit` of them in each unit.
pub(crate) fn weights_of_rows(of_units: &[f32], per_unit: usize) -> Vec<f32> {
    of_units.iter().flat_map(|weight| std::iter::repeat_n(weight / per_unit as f32, per_unit)).collect()
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
    Ok(errors.chunks(examples_per_unit(part)?).map(root_mean_square).collect())
}

fn root_mean_square(numbers: &[f32]) -> f32 {
    if let [number] = numbers {
        return *number;
    }
    (numbers.iter().map(|q| q * q).sum::<f32>() / numbers.len() as f32).sqrt()
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
