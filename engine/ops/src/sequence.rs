//! Runs a layer over a batch, one sequence per task, so that everything between the two ends of a layer
//! stays in the processor's second-level cache; sums weight gradients in an order that depends on the
//! shapes alone.

use candle_core::{DType, Device, Result, Tensor, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::buffers::{Reading, Scratch, unwritten};
use super::gemm::{Old, Products, Shared};
use super::layer_norm::add_to;
use super::many::{Backward, any_tracked, attach};
use super::precision::Precision;
use super::profile::{self, Kind};
use super::real::Real;

/// Weight gradients summed in parallel take at most this many numbers in all (128 MB in f32).
const MAX_PART_ELEMENTS: usize = 32 << 20;
/// In at most this many parts.
const MAX_PARTS: usize = 16;

/// What of a layer's forward pass stays in memory for its backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Kept {
    /// What the backward pass reads.
    #[default]
    Activations,
    /// The layer's input: the backward pass computes the rest again, sequence by sequence, to the same bits. For about a
    /// third more operations a layer takes as much memory as its output.
    /// Source: activation checkpointing, Chen et al. 2016, arXiv 1604.06174.
    Input,
}

/// A layer from (n, t, c) to (n, t, c) that treats every sequence alone.
pub(super) trait SequenceLayer: Clone + Send + Sync + 'static {
    /// Shown in errors.
    const NAME: &'static str;
    /// What depends on the length alone, such as rotary angles.
    type Tables<T: Real>: Send + Sync;
    /// Of multiplications.
    fn precision(&self) -> Precision;
    /// For the backward pass.
    fn kept(&self) -> Kept;
    /// Computed once per pass.
    fn tables<T: Real>(&self, t: usize) -> Self::Tables<T>;
    /// Numbers that the forward pass of one sequence leaves for its backward pass.
    fn saved_len(&self, t: usize) -> usize;
    /// Scratch numbers of a forward pass.
    fn forward_scratch_len(&self, t: usize) -> usize;
    /// Scratch numbers of a backward pass.
    fn backward_scratch_len(&self, t: usize) -> usize;
    /// x (t, c) to out (t, c); fills `saved`.
    fn forward<T: Real>(
        &self,
        at: &Place<'_, T, Self::Tables<T>>,
        x: &[T],
        saved: &mut [T],
        out: &mut [T],
        scratch: &mut [T],
    );
    /// Writes the gradient of x to `dx` and adds those of the weights to `d_weights`, or writes them there where
    /// [`Seen::old`] says that it holds nothing yet.
    fn backward<T: Real>(
        &self,
        at: &Place<'_, T, Self::Tables<T>>,
        seen: Seen<'_, T>,
        dx: &mut [T],
        d_weights: &mut [&mut [T]],
        scratch: &mut [T],
    );
}

/// What all sequences of a batch share.
pub(super) struct Place<'a, T, A> {
    /// Positions.
    pub(super) t: usize,
    /// Weights, in the layer's order.
    pub(super) weights: &'a [Shared<'a, T>],
    /// From `tables`.
    pub(super) tables: &'a A,
    /// For multiplications.
    pub(super) products: Products,
}

/// One sequence on the way back.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a, T> {
    /// The layer's input, (t, c).
    pub(super) x: &'a [T],
    /// What the forward pass saved.
    pub(super) saved: &'a [T],
    /// Gradient of the output, (t, c).
    pub(super) grad: &'a [T],
    /// What becomes of the weights' gradients so far: there are none at the first sequence.
    pub(super) old: Old,
}

/// `layer` applied to x (n, t, c), f32 or f64, on the CPU. Differentiable in x and in the weights.
pub(super) fn apply<L: SequenceLayer>(layer: &L, x: &Tensor, weights: &[&Tensor]) -> Result<Tensor> {
    match x.dtype() {
        DType::F32 => apply_typed::<L, f32>(layer, x, weights),
        DType::F64 => apply_typed::<L, f64>(layer, x, weights),
        other => bail!("{}: expected f32 or f64, found {}", L::NAME, other.as_str()),
    }
}

fn apply_typed<L: SequenceLayer, T: Real>(layer: &L, x: &Tensor, weights: &[&Tensor]) -> Result<Tensor> {
    let (n, t, c) = x.dims3()?;
    if n * t * c == 0 {
        return Ok(x.clone());
    }
    let mut inputs = vec![x.contiguous()?];
    for weight in weights {
        inputs.push(weight.contiguous()?);
    }
    let inputs: Vec<&Tensor> = inputs.iter().collect();
    let readings: Vec<Reading<'_>> = inputs.iter().map(|input| Reading::of(input)).collect();
    let slices = readings.iter().map(|reading| reading.slice::<T>(L::NAME)).collect::<Result<Vec<_>>>()?;
    let (x, weights) = (slices[0], shared(&slices[1..], n));
    let tables = layer.tables::<T>(t);
    let at = Place { t, weights: &weights, tables: &tables, products: Products::new(layer.precision(), n)? };
    let (saved_len, scratch_len) = (layer.saved_len(t), layer.forward_scratch_len(t));
    let mut out = unwritten::<T>(n * t * c);
    let tasks = out.par_chunks_mut(t * c).zip(x.par_chunks(t * c));
    let is_tracked = any_tracked(&inputs);
    if !is_tracked || layer.kept() == Kept::Input {
        let room = || (Scratch::<T>::new(saved_len), Scratch::<T>::new(scratch_len));
        tasks.for_each_init(room, |(saved, scratch), (out, x)| layer.forward(&at, x, saved, out, scratch));
        if !is_tracked {
            return Tensor::from_vec(out, (n, t, c), &Device::Cpu);
        }
        let op = LayerBackward::<L, T> { layer: layer.clone(), saved: None };
        return attach((T::to_cpu_storage_owned(out), (n, t, c).into()), &inputs, op);
    }
    let mut saved = Scratch::<T>::new(n * saved_len);
    let room = || Scratch::<T>::new(scratch_len);
    tasks
        .zip(saved.par_chunks_mut(saved_len))
        .for_each_init(room, |scratch, ((out, x), saved)| layer.forward(&at, x, saved, out, scratch));
    let op = LayerBackward { layer: layer.clone(), saved: Some(saved) };
    attach((T::to_cpu_storage_owned(out), (n, t, c).into()), &inputs, op)
}

struct LayerBackward<L, T: Real> {
    layer: L,
    /// Of all sequences; `None` where it is computed again.
    saved: Option<Scratch<T>>,
}

/// Room of one thread to compute a sequence's forward pass again.
struct Again<T: Real> {
    saved: Scratch<T>,
    out: Scratch<T>,
    scratch: Scratch<T>,
}

impl<T: Real> Again<T> {
    fn new<L: SequenceLayer>(layer: &L, t: usize, c: usize) -> Self {
        Self {
            saved: Scratch::new(layer.saved_len(t)),
            out: Scratch::new(t * c),
            scratch: Scratch::new(layer.forward_scratch_len(t)),
        }
    }

    /// What the forward pass of x leaves.
    fn saved<L: SequenceLayer>(&mut self, layer: &L, at: &Place<'_, T, L::Tables<T>>, x: &[T]) -> &[T] {
        layer.forward(at, x, &mut self.saved, &mut self.out, &mut self.scratch);
        &self.saved
    }
}

impl<L: SequenceLayer, T: Real> Backward for LayerBackward<L, T> {
    fn name(&self) -> &'static str {
        L::NAME
    }

    fn backward(&self, inputs: &[Tensor], grad: &Tensor) -> Result<Vec<Tensor>> {
        let readings: Vec<Reading<'_>> = inputs.iter().map(Reading::of).collect();
        let slices = readings.iter().map(|reading| reading.slice::<T>(L::NAME)).collect::<Result<Vec<_>>>()?;
        let grad_reading = Reading::of(grad);
        let (n, t, c) = inputs[0].dims3()?;
        let (x, weights, grad) = (slices[0], shared(&slices[1..], n), grad_reading.slice::<T>(L::NAME)?);
        let num_weights: usize = weights.iter().map(|weight| weight.len()).sum();
        let num_parts = (MAX_PART_ELEMENTS / num_weights.max(1)).clamp(1, MAX_PARTS).min(n);
        let per_part = n.div_ceil(num_parts);
        let num_parts = n.div_ceil(per_part);
        let tables = self.layer.tables::<T>(t);
        let products = Products::new(self.layer.precision(), num_parts)?;
        let at = Place { t, weights: &weights, tables: &tables, products };
        let (row, saved_len) = (t * c, self.layer.saved_len(t));
        let mut dx = unwritten::<T>(n * row);
        #[allow(clippy::type_complexity, reason = "the item of zipped and numbered chunk iterators")]
        let part_of = |(part, ((dx, x), grad)): (usize, ((&mut [T], &[T]), &[T]))| {
            let mut again = self.saved.is_none().then(|| Again::new(&self.layer, t, c));
            let mut d_weights = Scratch::<T>::new(num_weights);
            let mut scratch = Scratch::<T>::new(self.layer.backward_scratch_len(t));
            let mut by_weight = split_like(&mut d_weights, &weights);
            let sequences = x.chunks_exact(row).zip(grad.chunks_exact(row)).zip(dx.chunks_exact_mut(row));
            for (index, ((x, grad), dx)) in sequences.enumerate() {
                let saved = match (&self.saved, &mut again) {
                    (Some(saved), _) => &saved[(part * per_part + index) * saved_len..][..saved_len],
                    (None, Some(again)) => again.saved(&self.layer, &at, x),
                    (None, None) => &[],
                };
                let old = if index == 0 { Old::Replaced } else { Old::Kept };
                self.layer.backward(&at, Seen { x, saved, grad, old }, dx, &mut by_weight, &mut scratch);
            }
            d_weights
        };
        let parts: Vec<Scratch<T>> = dx
            .par_chunks_mut(per_part * row)
            .zip(x.par_chunks(per_part * row))
            .zip(grad.par_chunks(per_part * row))
            .enumerate()
            .map(part_of)
            .collect();
        let d_weights = Tensor::from_vec(sum_of_parts(&parts, num_weights), num_weights, &Device::Cpu)?;
        let mut gradients = vec![Tensor::from_vec(dx, (n, t, c), &Device::Cpu)?];
        let mut start = 0;
        for weight in &inputs[1..] {
            let count = weight.elem_count();
            gradients.push(d_weights.narrow(0, start, count)?.reshape(weight.shape())?);
            start += count;
        }
        Ok(gradients)
    }
}

/// Weights that `n` sequences go through.
fn shared<'a, T>(weights: &[&'a [T]], n: usize) -> Vec<Shared<'a, T>> {
    weights.iter().map(|weight| Shared::new(weight, n)).collect()
}

/// `flat` in pieces of the lengths of `like`.
fn split_like<'a, T>(mut flat: &'a mut [T], like: &[Shared<'_, T>]) -> Vec<&'a mut [T]> {
    let mut pieces = Vec::with_capacity(like.len());
    for piece in like {
        let (head, tail) = std::mem::take(&mut flat).split_at_mut(piece.len());
        pieces.push(head);
        flat = tail;
    }
    pieces
}

/// Elementwise sum, in the order of the parts.
fn sum_of_parts<T: Real>(parts: &[Scratch<T>], len: usize) -> Vec<T> {
    const TASK: usize = 1 << 16;
    let mut sum = unwritten::<T>(len);
    sum.par_chunks_mut(TASK).enumerate().for_each(|(index, sum)| {
        let _timing = profile::time(Kind::Product);
        sum.fill(T::zero());
        for part in parts {
            add_to(sum, &part[index * TASK..][..sum.len()]);
        }
    });
    sum
}
