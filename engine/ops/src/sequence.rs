//! Runs a layer over a batch, one sequence per task, so that what lies between the two ends of a layer stays near the
//! processor. On the way back each sequence leaves the factors of the matrices' gradients; these are products over all tokens
//! of a group of sequences, each by all threads: no thread sums a gradient of its own. The order of sums depends on the shapes
//! alone.

use candle_core::{DType, Device, Result, Tensor, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::buffers::{Reading, Scratch, unwritten};
use super::gemm::{Matrix, Old, Products, Shared, multiply};
use super::layer_norm::add_to;
use super::many::{Backward, any_tracked, attach};
use super::precision::Precision;
use super::real::Real;

/// Factors of weight gradients that wait for one another take at most this many numbers (128 MB in f32), or what those of one
/// sequence take. Tests have groups of a few small sequences.
const MAX_FACTOR_NUMBERS: usize = if cfg!(test) { 1200 } else { 32 << 20 };

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
    /// Widths of the factors that a backward pass leaves, (t, width) each.
    fn factor_widths(&self) -> Vec<usize>;
    /// The gradient of each matrix, in the weights' order.
    fn matrix_gradients(&self) -> Vec<MatrixGradient>;
    /// Writes the gradient of x to `dx` and fills `factors`; adds the gradients of those weights that are vectors, in the
    /// weights' order, to `d_vectors`.
    fn backward<T: Real>(
        &self,
        at: &Place<'_, T, Self::Tables<T>>,
        seen: Seen<'_, T>,
        dx: &mut [T],
        d_vectors: &mut [&mut [T]],
        factors: &mut [&mut [T]],
        scratch: &mut [T],
    );
}

/// leftᵀ · right, over all tokens: the gradient of a matrix (left width, right width).
#[derive(Debug, Clone, Copy)]
pub(super) struct MatrixGradient {
    pub(super) left: Factor,
    pub(super) right: Factor,
}

/// Columns of what a backward pass has left or seen.
#[derive(Debug, Clone, Copy)]
pub(super) enum Factor {
    /// `width` columns of factor number `of`, from `start` on.
    Columns { of: usize, start: usize, width: usize },
    /// The gradient of the layer's output, (t, c).
    OutputGradient,
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
        let (layer, row, saved_len) = (&self.layer, t * c, self.layer.saved_len(t));
        let widths = layer.factor_widths();
        let most = (MAX_FACTOR_NUMBERS / (t * widths.iter().sum::<usize>())).max(1);
        let group = n.div_ceil(n.div_ceil(most));
        let tables = layer.tables::<T>(t);
        let at = Place { t, weights: &weights, tables: &tables, products: Products::new(layer.precision(), group)? };

        let mut dx = unwritten::<T>(n * row);
        let num_weights = weights.iter().map(|weight| weight.len()).sum();
        let mut d_weights = unwritten::<T>(num_weights);
        let pieces = split_by(&mut d_weights, weights.iter().map(|weight| weight.len())).into_iter().zip(&inputs[1..]);
        let (d_vectors, d_matrices): (Vec<_>, Vec<_>) = pieces.partition(|(_, weight)| weight.rank() == 1);
        let [mut d_vectors, mut d_matrices] =
            [d_vectors, d_matrices].map(|pieces| pieces.into_iter().map(|(piece, _)| piece).collect::<Vec<_>>());
        d_vectors.iter_mut().for_each(|vector| vector.fill(T::zero()));
        let vector_lens: Vec<usize> = d_vectors.iter().map(|vector| vector.len()).collect();
        let vectors_len = vector_lens.iter().sum();

        let room = || {
            let again = self.saved.is_none().then(|| Again::new(layer, t, c));
            (again, Scratch::<T>::new(layer.backward_scratch_len(t)))
        };
        let mut factors: Vec<Scratch<T>> = widths.iter().map(|width| Scratch::new(group * t * width)).collect();
        let mut vectors = Scratch::<T>::new(group * vectors_len);
        for (number, dx) in dx.chunks_mut(group * row).enumerate() {
            let (first, count) = (number * group, dx.len() / row);
            let (x, grad) = (&x[first * row..][..dx.len()], &grad[first * row..][..dx.len()]);
            let mut factors_of: Vec<Vec<&mut [T]>> = (0..count).map(|_| Vec::with_capacity(widths.len())).collect();
            for (factor, width) in factors.iter_mut().zip(&widths) {
                factors_of.iter_mut().zip(factor.chunks_exact_mut(t * width)).for_each(|(all, own)| all.push(own));
            }
            vectors.fill(T::zero());
            dx.par_chunks_exact_mut(row)
                .zip(vectors.par_chunks_exact_mut(vectors_len))
                .zip(factors_of)
                .enumerate()
                .for_each_init(room, |(again, scratch), (index, ((dx, vectors), mut factors))| {
                    let (x, grad) = (&x[index * row..][..row], &grad[index * row..][..row]);
                    let saved = match (&self.saved, again) {
                        (Some(saved), _) => &saved[(first + index) * saved_len..][..saved_len],
                        (None, Some(again)) => again.saved(layer, &at, x),
                        (None, None) => &[],
                    };
                    let mut vectors = split_by(vectors, vector_lens.iter().copied());
                    layer.backward(&at, Seen { x, saved, grad }, dx, &mut vectors, &mut factors, scratch);
                });
            for of_sequence in vectors.chunks_exact_mut(vectors_len).take(count) {
                let of_sequence = split_by(of_sequence, vector_lens.iter().copied());
                d_vectors.iter_mut().zip(of_sequence).for_each(|(sum, vector)| add_to(sum, vector));
            }
            let old = if number == 0 { Old::Replaced } else { Old::Kept };
            multiply_factors(layer, &factors, (grad, c), old, &mut d_matrices)?;
        }
        drop((d_vectors, d_matrices));
        let d_weights = Tensor::from_vec(d_weights, num_weights, &Device::Cpu)?;
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

/// The gradients of all matrices, given the factors of a group and the gradient of its outputs, rows of `c`: onto what `old`
/// says of them.
fn multiply_factors<L: SequenceLayer, T: Real>(
    layer: &L,
    factors: &[Scratch<T>],
    (grad, c): (&[T], usize),
    old: Old,
    d_matrices: &mut [&mut [T]],
) -> Result<()> {
    let (widths, gradients) = (layer.factor_widths(), layer.matrix_gradients());
    assert_eq!(d_matrices.len(), gradients.len(), "gradients of matrices");
    let by_all_threads = Products::new(layer.precision(), 1)?;
    let columns = |factor: Factor| match factor {
        Factor::Columns { of, start, width } => (Matrix::rows(&factors[of][start..], widths[of]), width),
        Factor::OutputGradient => (Matrix::rows(grad, c), c),
    };
    for (d_matrix, MatrixGradient { left, right }) in d_matrices.iter_mut().zip(gradients) {
        let ((left, outer), (right, inner)) = (columns(left), columns(right));
        multiply((outer, inner, grad.len() / c), (d_matrix, inner), old, T::one(), (left.t(), right), by_all_threads);
    }
    Ok(())
}

/// Weights that `n` sequences go through. A thread that reads them once does better to pack them for itself, in its own cache.
fn shared<'a, T>(weights: &[&'a [T]], n: usize) -> Vec<Shared<'a, T>> {
    weights.iter().map(|weight| Shared::new(weight, n / rayon::current_num_threads())).collect()
}

/// `flat` in pieces of these lengths.
fn split_by<T>(mut flat: &mut [T], lengths: impl Iterator<Item = usize>) -> Vec<&mut [T]> {
    let cut = |length: usize| {
        let (head, tail) = std::mem::take(&mut flat).split_at_mut(length);
        flat = tail;
        head
    };
    lengths.map(cut).collect()
}
