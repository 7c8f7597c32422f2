//! Loops over tensors on the CPU: reductions in one order whatever the threads do, updates in place.
//!
//! Invariant: a result depends on the numbers alone, never on how the work was split, because
//! reductions add fixed-size chunks in order and updates are elementwise.

use std::cell::RefCell;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, DType, Device, InplaceOp1, InplaceOp2, Layout, Result, Storage, Tensor, bail};
use rayon::prelude::*;

use super::coded::{Coded, Group};
use super::{OptimizerConfig, OptimizerKind};
use crate::models::TensorKind;
use crate::models::ops::adamw::{AdamWStep, adamw};
use crate::models::ops::codes::{GROUP, SIGNED, UNSIGNED};
use crate::models::ops::{self, has_kernels};

/// Numbers per task: large enough to hide a task's cost, small enough to balance two threads on 100K numbers.
const CHUNK: usize = 16 * 1024;
/// Partial sums side by side, so that the loop vectorizes.
const LANES: usize = 8;

/// a·a, a·b and b·b over pairs of tensors of equal shape, f32 or f64, accumulated in f64.
/// On a GPU each tensor is summed in its own precision, and one read brings all sums back.
pub(super) fn products(pairs: &[(&Tensor, &Tensor)]) -> Result<[f64; 3]> {
    if pairs.iter().any(|(a, _)| !has_kernels(a.device())) {
        return products_composed(pairs);
    }
    let pairs = pairs.iter().map(|(a, b)| Ok((a.contiguous()?, b.contiguous()?))).collect::<Result<Vec<_>>>()?;
    let guards: Vec<_> = pairs.iter().map(|(a, b)| (a.storage_and_layout(), b.storage_and_layout())).collect();
    let mut chunks = Vec::new();
    for ((a, a_layout), (b, b_layout)) in &guards {
        let (Storage::Cpu(a), Storage::Cpu(b)) = (&**a, &**b) else { bail!("expected tensors on the CPU") };
        match (a, b) {
            (CpuStorage::F32(a), CpuStorage::F32(b)) => {
                let pieces = slice(a, a_layout)?.chunks(CHUNK).zip(slice(b, b_layout)?.chunks(CHUNK));
                chunks.extend(pieces.map(|(a, b)| Pair::F32(a, b)));
            }
            (CpuStorage::F64(a), CpuStorage::F64(b)) => {
                let pieces = slice(a, a_layout)?.chunks(CHUNK).zip(slice(b, b_layout)?.chunks(CHUNK));
                chunks.extend(pieces.map(|(a, b)| Pair::F64(a, b)));
            }
            (a, b) => bail!("expected two f32 or two f64 tensors, found {:?} and {:?}", kind(a), kind(b)),
        }
    }
    let partial: Vec<[f64; 3]> = chunks.par_iter().map(Pair::products).collect();
    Ok(partial.iter().fold([0.0; 3], |sum, part| std::array::from_fn(|i| sum[i] + part[i])))
}

/// Sum of squares over tensors, f32 or f64, accumulated in f64; on a GPU as in [`products`].
pub(super) fn sum_of_squares(tensors: &[&Tensor]) -> Result<f64> {
    if tensors.iter().any(|tensor| !has_kernels(tensor.device())) {
        return sum_of_squares_composed(tensors);
    }
    let tensors = tensors.iter().map(|tensor| tensor.contiguous()).collect::<Result<Vec<_>>>()?;
    let guards: Vec<_> = tensors.iter().map(Tensor::storage_and_layout).collect();
    let mut chunks = Vec::new();
    for (storage, layout) in &guards {
        match &**storage {
            Storage::Cpu(CpuStorage::F32(data)) => {
                chunks.extend(slice(data, layout)?.chunks(CHUNK).map(|a| Pair::F32(a, a)));
            }
            Storage::Cpu(CpuStorage::F64(data)) => {
                chunks.extend(slice(data, layout)?.chunks(CHUNK).map(|a| Pair::F64(a, a)));
            }
            other => bail!("expected f32 or f64 numbers on the CPU, found {:?} on {:?}", other.dtype(), other.device()),
        }
    }
    let partial: Vec<f64> = chunks.par_iter().map(Pair::squares).collect();
    Ok(partial.iter().sum())
}

fn sum_of_squares_composed(tensors: &[&Tensor]) -> Result<f64> {
    let square = |tensor: &&Tensor| tensor.sqr()?.sum_all()?.to_dtype(DType::F64);
    let sums = tensors.iter().map(square).collect::<Result<Vec<_>>>()?;
    if sums.is_empty() { Ok(0.0) } else { Tensor::stack(&sums, 0)?.sum_all()?.to_scalar() }
}

fn products_composed(pairs: &[(&Tensor, &Tensor)]) -> Result<[f64; 3]> {
    let mut sums = Vec::with_capacity(3 * pairs.len());
    for (a, b) in pairs {
        for product in [a.sqr()?, (*a * *b)?, b.sqr()?] {
            sums.push(product.sum_all()?.to_dtype(DType::F64)?);
        }
    }
    if sums.is_empty() {
        return Ok([0.0; 3]);
    }
    let sums: Vec<f64> = Tensor::stack(&sums, 0)?.to_vec1()?;
    Ok(sums.chunks(3).fold([0.0; 3], |sum, part| std::array::from_fn(|i| sum[i] + part[i])))
}

fn kind(storage: &CpuStorage) -> DType {
    storage.dtype()
}

/// Two chunks of equal length.
enum Pair<'a> {
    F32(&'a [f32], &'a [f32]),
    F64(&'a [f64], &'a [f64]),
}

impl Pair<'_> {
    fn products(&self) -> [f64; 3] {
        match self {
            Self::F32(a, b) => chunk_products(a, b),
            Self::F64(a, b) => chunk_products(a, b),
        }
    }

    fn squares(&self) -> f64 {
        match self {
            Self::F32(a, _) => chunk_squares(a),
            Self::F64(a, _) => chunk_squares(a),
        }
    }
}

fn chunk_squares<T: Copy + Into<f64>>(a: &[T]) -> f64 {
    let mut lanes = [0.0_f64; LANES];
    let (blocks, rest) = a.as_chunks::<LANES>();
    for block in blocks {
        for (lane, &a) in lanes.iter_mut().zip(block) {
            let a: f64 = a.into();
            *lane += a * a;
        }
    }
    let square = |&a: &T| {
        let a: f64 = a.into();
        a * a
    };
    lanes.iter().sum::<f64>() + rest.iter().map(square).sum::<f64>()
}

fn chunk_products<T: Copy + Into<f64>>(a: &[T], b: &[T]) -> [f64; 3] {
    let mut lanes = [[0.0_f64; LANES]; 3];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            let (a, b): (f64, f64) = (a[i].into(), b[i].into());
            lanes[0][i] += a * a;
            lanes[1][i] += a * b;
            lanes[2][i] += b * b;
        }
    }
    let mut sums = lanes.map(|lane| lane.iter().sum::<f64>());
    for (&a, &b) in a_rest.iter().zip(b_rest) {
        let (a, b): (f64, f64) = (a.into(), b.into());
        for (sum, product) in sums.iter_mut().zip([a * a, a * b, b * b]) {
            *sum += product;
        }
    }
    sums
}

/// The numbers of a contiguous layout.
fn slice<'a, T>(data: &'a [T], layout: &Layout) -> Result<&'a [T]> {
    if !has_kernels(&Device::Cpu) {
        bail!("a kernel of the processor was asked for where there is none");
    }
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&data[start..end]),
        None => bail!("expected a contiguous tensor, found strides {:?}", layout.stride()),
    }
}

fn slice_mut<'a, T>(data: &'a mut [T], layout: &Layout) -> Result<&'a mut [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&mut data[start..end]),
        None => bail!("expected a contiguous tensor, found strides {:?}", layout.stride()),
    }
}

/// `y = alpha y + beta x`, in place on the CPU (f32 or f64); elsewhere the result is a new tensor.
/// `y` is what was given, so that callers store the result either way.
pub(crate) fn axpby(y: &Tensor, x: &Tensor, alpha: f64, beta: f64) -> Result<Tensor> {
    if has_kernels(y.device()) {
        y.inplace_op2(&x.contiguous()?, &Axpby { alpha, beta })?;
        Ok(y.clone())
    } else {
        ((y * alpha)? + (x * beta)?)?.detach().contiguous()
    }
}

struct Axpby {
    alpha: f64,
    beta: f64,
}

impl InplaceOp2 for Axpby {
    fn name(&self) -> &'static str {
        "axpby"
    }

    fn cpu_fwd(&self, y: &mut CpuStorage, y_layout: &Layout, x: &CpuStorage, x_layout: &Layout) -> Result<()> {
        match (y, x) {
            (CpuStorage::F32(y), CpuStorage::F32(x)) => {
                let (alpha, beta) = (self.alpha as f32, self.beta as f32);
                for_each_chunk(slice_mut(y, y_layout)?, slice(x, x_layout)?, |y, x| *y = alpha * *y + beta * x);
                Ok(())
            }
            (CpuStorage::F64(y), CpuStorage::F64(x)) => {
                let (alpha, beta) = (self.alpha, self.beta);
                for_each_chunk(slice_mut(y, y_layout)?, slice(x, x_layout)?, |y, x| *y = alpha * *y + beta * x);
                Ok(())
            }
            (y, x) => bail!("axpby: expected two f32 or two f64 tensors, found {:?} and {:?}", kind(y), kind(x)),
        }
    }
}

/// `y *= factor`, in place on the CPU; elsewhere the result is a new tensor.
pub(super) fn scale(y: &Tensor, factor: f64) -> Result<Tensor> {
    if has_kernels(y.device()) {
        y.inplace_op1(&Scale(factor))?;
        Ok(y.clone())
    } else {
        Ok((y * factor)?.detach())
    }
}

struct Scale(f64);

impl InplaceOp1 for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn cpu_fwd(&self, y: &mut CpuStorage, layout: &Layout) -> Result<()> {
        match y {
            CpuStorage::F32(y) => {
                let factor = self.0 as f32;
                slice_mut(y, layout)?.par_chunks_mut(CHUNK).for_each(|y| y.iter_mut().for_each(|y| *y *= factor));
                Ok(())
            }
            CpuStorage::F64(y) => {
                slice_mut(y, layout)?.par_chunks_mut(CHUNK).for_each(|y| y.iter_mut().for_each(|y| *y *= self.0));
                Ok(())
            }
            other => bail!("scale: expected f32 or f64, found {:?}", kind(other)),
        }
    }
}

/// Iterates on a contiguous matrix of f32 in place, on the CPU: see [`ops::newton_schulz`].
pub(super) fn newton_schulz(x: &Tensor, coefficients: [f64; 3], num_iterations: u32) -> Result<()> {
    x.inplace_op1(&NewtonSchulz { coefficients: coefficients.map(|number| number as f32), num_iterations })
}

struct NewtonSchulz {
    coefficients: [f32; 3],
    num_iterations: u32,
}

impl InplaceOp1 for NewtonSchulz {
    fn name(&self) -> &'static str {
        "newton_schulz"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let shape = layout.shape().dims2()?;
        match x {
            CpuStorage::F32(x) => {
                ops::newton_schulz(slice_mut(x, layout)?, shape, self.coefficients, self.num_iterations);
                Ok(())
            }
            other => bail!("newton_schulz: expected f32, found {:?}", kind(other)),
        }
    }
}

/// `f(y, x)` for each pair of numbers, on all threads.
pub(super) fn for_each_chunk<T: Copy + Send + Sync>(y: &mut [T], x: &[T], f: impl Fn(&mut T, T) + Sync) {
    let run = |y: &mut [T], x: &[T]| y.iter_mut().zip(x).for_each(|(y, &x)| f(y, x));
    if y.len() <= CHUNK {
        return run(y, x);
    }
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| run(y, x));
}

/// Calls `f` with the numbers of a CPU tensor, f32.
pub(super) fn with_f32<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(data)) => Ok(f(slice(data, layout)?)),
        _ => bail!("expected f32 numbers on the CPU, found {:?} on {:?}", tensor.dtype(), tensor.device()),
    }
}

/// Numbers of one step of AdamW, the same for every weight of a tensor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdamWNumbers {
    pub(super) beta1: f64,
    pub(super) beta2: f64,
    pub(super) epsilon: f64,
    pub(super) learning_rate: f64,
    pub(super) weight_decay: f64,
    /// 1 − β1^t.
    pub(super) correction1: f64,
    /// 1 − β2^t.
    pub(super) correction2: f64,
}

impl AdamWNumbers {
    /// Those of `step`, from 1, at `lr_factor` times the peak learning rate, for a tensor of this kind.
    pub(crate) fn of(config: &OptimizerConfig, step: u64, lr_factor: f64, kind: TensorKind) -> Self {
        let peak = match config.kind {
            OptimizerKind::AdamW => config.learning_rate,
            OptimizerKind::Muon => config.adam_learning_rate,
        };
        Self {
            beta1: config.beta1,
            beta2: config.beta2,
            epsilon: config.epsilon,
            learning_rate: peak * lr_factor,
            weight_decay: config.weight_decay_of(kind),
            correction1: 1.0 - config.beta1.powf(step as f64),
            correction2: 1.0 - config.beta2.powf(step as f64),
        }
    }
}

impl AdamWNumbers {
    /// As a kernel takes them.
    pub(crate) fn step(self) -> AdamWStep {
        AdamWStep {
            beta1: self.beta1 as f32,
            rest1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            rest2: (1.0 - self.beta2) as f32,
            step_size: (self.learning_rate / self.correction1) as f32,
            inv_root: (1.0 / self.correction2.sqrt()) as f32,
            epsilon: self.epsilon as f32,
            keep: (1.0 - self.learning_rate * self.weight_decay) as f32,
        }
    }
}

/// First and second moment of a weight, to be moved.
pub(super) enum MomentsMut<'a> {
    F32(&'a mut [f32], &'a mut [f32]),
    EightBit(&'a mut Coded, &'a mut Coded),
}

impl MomentsMut<'_> {
    fn lens(&self) -> [usize; 2] {
        match self {
            Self::F32(m, v) => [m.len(), v.len()],
            Self::EightBit(m, v) => [m.codes.len(), v.codes.len()],
        }
    }
}

/// One fused pass of AdamW over a weight and its moments, all on the CPU, all in place.
pub(super) fn adamw_in_place(
    weight: &Tensor,
    gradient: &Tensor,
    moments: MomentsMut<'_>,
    numbers: AdamWNumbers,
) -> Result<()> {
    weight.inplace_op2(&gradient.contiguous()?, &AdamWPass { numbers, moments: RefCell::new(moments) })
}

struct AdamWPass<'a> {
    numbers: AdamWNumbers,
    /// A cell because candle hands operations out by shared reference.
    moments: RefCell<MomentsMut<'a>>,
}

impl InplaceOp2 for AdamWPass<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, w: &mut CpuStorage, w_layout: &Layout, g: &CpuStorage, g_layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(w), CpuStorage::F32(g)) = (w, g) else { bail!("adamw: expected f32") };
        let (w, g) = (slice_mut(w, w_layout)?, slice(g, g_layout)?);
        let mut moments = self.moments.borrow_mut();
        if moments.lens() != [w.len(); 2] || g.len() != w.len() {
            bail!("adamw: {} weights, {} gradients, {:?} moments", w.len(), g.len(), moments.lens());
        }
        let n = self.numbers;
        match &mut *moments {
            MomentsMut::F32(m, v) if w.len() <= CHUNK => adamw(w, g, m, v, n.step()),
            MomentsMut::F32(m, v) => {
                let moments = m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK));
                let all = w.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK)).zip(moments);
                all.for_each(|((w, g), (m, v))| adamw(w, g, m, v, n.step()));
            }
            MomentsMut::EightBit(m, v) => {
                let all = w.par_chunks_mut(GROUP).zip(g.par_chunks(GROUP)).zip(m.groups().zip(v.groups()));
                all.with_min_len(CHUNK / GROUP).for_each(|((w, g), (m, v))| adamw_coded_chunk(w, g, m, v, n));
            }
        }
        Ok(())
    }
}

/// One pass of AdamW over up to [`GROUP`] weights whose moments are of 8 bits; nothing but those is rounded.
pub(crate) fn adamw_coded_chunk(w: &mut [f32], g: &[f32], m: Group<'_>, v: Group<'_>, n: AdamWNumbers) {
    let mut room = [[0.0_f32; GROUP]; 2];
    let [first, second] = room.each_mut().map(|numbers| &mut numbers[..w.len()]);
    SIGNED.read(m.codes, *m.scale, first);
    UNSIGNED.read(v.codes, *v.scale, second);
    adamw(w, g, first, second, n.step());
    *m.scale = SIGNED.write(first, m.codes);
    *v.scale = UNSIGNED.write(second, v.codes);
}

/// The same update composed of tensor operations, for any device: new (weight, first moment, second moment).
pub(super) fn adamw_composed(
    weight: &Tensor,
    gradient: &Tensor,
    (m, v): (&Tensor, &Tensor),
    n: AdamWNumbers,
) -> Result<[Tensor; 3]> {
    let m = ((m * n.beta1)? + (gradient * (1.0 - n.beta1))?)?;
    let v = ((v * n.beta2)? + (gradient.sqr()? * (1.0 - n.beta2))?)?;
    let denominator = ((v.sqrt()? / n.correction2.sqrt())? + n.epsilon)?;
    let update = ((&m / denominator)? * (n.learning_rate / n.correction1))?;
    let kept = (weight * (1.0 - n.learning_rate * n.weight_decay))?;
    Ok([(kept - update)?.detach(), m.detach(), v.detach()])
}
