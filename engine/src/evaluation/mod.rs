//! What a model is worth: its loss and accuracy on data that it did not learn from.
//!
//! Invariant: every figure comes from a forward pass over named examples; nothing is extrapolated.

use candle_core::{D, DType, Tensor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::data::{Batch, DataError};
use crate::device::{Cancelled, Watch};
use crate::models::{Block, Forward, Mode, ModelError, Network, Params, ops};

/// A measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Mean cross entropy, nats per image or token. NaN for what diverged, which JSON writes as null.
    #[serde(deserialize_with = "null_as_nan")]
    pub loss: f64,
    /// Share of right answers; `None` for text.
    pub accuracy: Option<f64>,
    /// Images or tokens measured.
    pub num_examples: u64,
    /// Standard error of `loss`: how far it may be off because only these images or sequences were measured. Over the
    /// means of sequences for text, whose tokens go together. NaN for a single one.
    #[serde(default = "not_a_number", deserialize_with = "null_as_nan")]
    pub loss_error: f64,
}

fn not_a_number() -> f64 {
    f64::NAN
}

fn null_as_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

impl Evaluation {
    /// The metric to show first: ("accuracy", share of 1) for images, ("loss", nats per token) for text.
    #[must_use]
    pub fn metric(&self) -> (&'static str, f64) {
        self.accuracy.map_or(("loss", self.loss), |accuracy| ("accuracy", accuracy))
    }
}

/// Errors of this room.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// No example to measure.
    #[error("measuring: this part of the dataset is empty. Choose another part, or a dataset that has it")]
    Empty,
    /// The user ended it.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// A batch could not be made.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The forward pass failed.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl From<candle_core::Error> for EvaluationError {
    fn from(error: candle_core::Error) -> Self {
        Self::Model(ModelError::Tensor(error))
    }
}

/// Loss and accuracy of `network` with `params` over `batches`.
///
/// Errors: [`EvaluationError::Empty`] without any example; those of batches and the forward pass.
pub fn evaluate(
    network: &Network,
    params: &Params,
    batches: impl Iterator<Item = Result<Batch, DataError>>,
    watch: Watch<'_>,
) -> Result<Evaluation, EvaluationError> {
    let forward = |inputs: &Tensor| Ok(network.forward(&Forward::new(params, Mode::Eval), inputs)?);
    evaluate_with(forward, batches.map(|batch| Ok(batch?)), watch)
}

/// Batches as a network's last block reads them: other weights of that block are measured without the blocks before it.
#[derive(Debug)]
pub struct BeforeLast {
    states: Vec<Tensor>,
    targets: Vec<Tensor>,
}

impl BeforeLast {
    /// Runs `batches` through all blocks but the last, with the weights of one block at a time: what lies between two
    /// blocks is held for all batches.
    ///
    /// Errors: those of batches, of the forward pass and of `params_of`.
    pub fn new<E: From<EvaluationError> + From<ModelError>>(
        network: &Network,
        mut params_of: impl FnMut(&dyn Block) -> Result<Params, E>,
        batches: impl Iterator<Item = Result<Batch, DataError>>,
        watch: Watch<'_>,
    ) -> Result<Self, E> {
        let batches = batches.collect::<Result<Vec<_>, _>>().map_err(EvaluationError::from)?;
        let (inputs, targets) = batches.into_iter().map(|batch| (batch.inputs, batch.targets)).unzip();
        let (mut done, total) = (0, network.blocks().len() as u64);
        let watched = |block: &dyn Block| {
            watch.step("measuring block by block", done, Some(total)).map_err(EvaluationError::from)?;
            done += 1;
            params_of(block)
        };
        Ok(Self { states: network.forward_before_last(watched, inputs)?, targets })
    }

    /// [`evaluate`], with the weights of the last block that `params_of` makes.
    ///
    /// Errors: as [`evaluate`], and those of `params_of`.
    pub fn evaluate<E: From<EvaluationError> + From<ModelError>>(
        &self,
        network: &Network,
        mut params_of: impl FnMut(&dyn Block) -> Result<Params, E>,
        watch: Watch<'_>,
    ) -> Result<Evaluation, E> {
        let mut tally = Tally::default();
        let total = network.blocks().len() as u64;
        let watched = |block: &dyn Block| {
            watch.step("measuring block by block", total - 1, Some(total)).map_err(EvaluationError::from)?;
            params_of(block)
        };
        network.forward_last(watched, &self.states, |number, logits| match self.targets.get(number) {
            Some(targets) => Ok(tally.add(logits, targets)?),
            None => Ok(()),
        })?;
        Ok(tally.evaluation()?)
    }
}

/// [`evaluate`] of whatever gives `logits` for the inputs of a batch.
///
/// Errors: [`EvaluationError::Empty`] without any example; those of `batches` and `logits`.
pub fn evaluate_with<E: From<EvaluationError>>(
    logits: impl Fn(&Tensor) -> Result<Tensor, E>,
    batches: impl Iterator<Item = Result<Batch, E>>,
    watch: Watch<'_>,
) -> Result<Evaluation, E> {
    let mut tally = Tally::default();
    // Of a range of batches this is their number.
    let num_batches = batches.size_hint().1.map(|count| count as u64);
    for (done, batch) in (0..).zip(batches) {
        let batch = batch?;
        watch.step("measuring on held-out data", done, num_batches).map_err(EvaluationError::from)?;
        let logits = logits(&batch.inputs)?;
        tally.add(&logits, &batch.targets)?;
    }
    Ok(tally.evaluation()?)
}

/// Sums over batches.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    total: f64,
    /// Losses of images, or mean losses of sequences: how many, their sum, the sum of their squares.
    num_rows: u64,
    row_sum: f64,
    row_squares: f64,
    num_right: u64,
    num_examples: u64,
    is_text: bool,
}

impl Tally {
    /// Takes in losses of tokens, nats, `per_text` of them in a text.
    pub(crate) fn add_texts(&mut self, losses: &[f32], per_text: usize) {
        self.is_text = true;
        self.add_losses(losses, per_text);
    }

    fn add_losses(&mut self, losses: &[f32], row_len: usize) {
        for row in losses.chunks(row_len) {
            let sum = row.iter().map(|&loss| f64::from(loss)).sum::<f64>();
            let mean = sum / row.len() as f64;
            self.total += sum;
            self.num_rows += 1;
            self.row_sum += mean;
            self.row_squares += mean * mean;
        }
        self.num_examples += losses.len() as u64;
    }

    fn add(&mut self, logits: &Tensor, targets: &Tensor) -> Result<(), EvaluationError> {
        self.is_text = targets.rank() == 2;
        let num_classes = logits.dim(D::Minus1)?;
        let row_len = if self.is_text { targets.dim(D::Minus1)?.max(1) } else { 1 };
        let targets = targets.flatten_all()?;
        let logits = logits.reshape(((), num_classes))?;
        let losses = ops::cross_entropy(&logits, &targets)?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        self.add_losses(&losses, row_len);
        if !self.is_text {
            let predicted = logits.argmax(D::Minus1)?.to_vec1::<u32>()?;
            let wanted = targets.to_vec1::<u32>()?;
            self.num_right += predicted.iter().zip(&wanted).filter(|(a, b)| a == b).count() as u64;
        }
        Ok(())
    }

    /// What was taken in. Errors: [`EvaluationError::Empty`].
    pub(crate) fn evaluation(&self) -> Result<Evaluation, EvaluationError> {
        if self.num_examples == 0 {
            return Err(EvaluationError::Empty);
        }
        let (rows, num_examples) = (self.num_rows as f64, self.num_examples as f64);
        let variance = ((self.row_squares - self.row_sum * self.row_sum / rows) / (rows - 1.0)).max(0.0);
        Ok(Evaluation {
            loss_error: if self.num_rows > 1 { (variance / rows).sqrt() } else { f64::NAN },
            loss: self.total / num_examples,
            accuracy: (!self.is_text).then(|| self.num_right as f64 / num_examples),
            num_examples: self.num_examples,
        })
    }
}
