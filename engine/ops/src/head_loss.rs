//! The last layer of a language model and its loss in one, rows by rows: the logits of a whole batch are never there.
//!
//! What a token's loss counts for is known before, so that the way forward makes the gradients, too, while a chunk's logits
//! are there; nothing of the size of the logits is kept for the way back, and nothing computed twice.
//! Source: Hsu et al. 2024, "Liger Kernel", arXiv 2410.10989, section 3.2 (fused linear cross entropy).

use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Result, Shape, Storage, Tensor, bail};
use rayon::prelude::*;

use super::buffers::{Reading, Scratch, rows_per_task, unwritten};
use super::cross_entropy::{Exponents, check_targets, read_targets};
use super::function::{record_storage, storage_of};
use super::gemm::{Matrix, Old, Products, multiply};
use super::kernels::has_kernels;
use super::linear::{rounded, rounded_product};
use super::precision::Precision;
use super::real::{Real, max_of, sum_map};
use super::simd::kernel;

/// Runs the work that is handed to it, once; a clock around it sees what measuring error norms takes.
pub type Around<'a> = &'a dyn Fn(&mut dyn FnMut());

/// What the last layer is to be measured by.
#[derive(Clone, Copy)]
pub struct HeadTargets<'a> {
    /// Class of each row (n), u32.
    pub targets: &'a Tensor,
    /// What each row's loss counts for, n numbers.
    pub weights: &'a [f32],
    /// Given when error norms are wanted.
    pub error_norms: Option<Around<'a>>,
    /// Most logits that are there at once; those of one row are in any case.
    pub max_logits: usize,
}

impl std::fmt::Debug for HeadTargets<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let measures_norms = self.error_norms.is_some();
        f.debug_struct("HeadTargets").field("targets", self.targets).field("error_norms", &measures_norms).finish()
    }
}

/// What it was measured to be.
#[derive(Debug)]
pub struct HeadLoss {
    /// Σ weight · loss over the rows: one number, differentiable once in the layer's input and weight.
    pub total: Tensor,
    /// −ln softmax(logits)[target] of each row, nats.
    pub losses: Vec<f32>,
    /// ‖softmax(logits) − onehot(target)‖₂ of each row; empty unless wanted.
    pub error_norms: Vec<f32>,
}

/// Cross entropy of `x` · `weight`ᵀ: x (..., c) of n rows in all, weight (v, c), f32 or f64.
/// `precision` counts for f32. Errors: shapes or types that do not fit; a target that is not below v; a
/// precision that the processor has not.
pub fn head_loss(x: &Tensor, weight: &Tensor, goal: &HeadTargets<'_>, precision: Precision) -> Result<HeadLoss> {
    let (v, c) = weight.dims2()?;
    let x = x.reshape(((), c))?;
    let n = x.dim(0)?;
    check_targets("head_loss", (n, v), goal.targets)?;
    if goal.weights.len() != n {
        bail!("head_loss: expected {n} weights of rows, found {}", goal.weights.len());
    }
    if !has_kernels(x.device()) || n * c == 0 {
        return composed(&x, weight, goal, precision);
    }
    match x.dtype() {
        DType::F32 => fused::<f32>(&x.contiguous()?, &weight.contiguous()?, goal, precision),
        DType::F64 => fused::<f64>(&x.contiguous()?, &weight.contiguous()?, goal, precision),
        other => bail!("head_loss: expected f32 or f64, found {}", other.as_str()),
    }
}

/// The same out of candle's operations, for devices without kernels of ours.
fn composed(x: &Tensor, weight: &Tensor, goal: &HeadTargets<'_>, precision: Precision) -> Result<HeadLoss> {
    let ((n, _), (v, _)) = (x.dims2()?, weight.dims2()?);
    // They are rounded once for all chunks.
    let (xs, ws) = (rounded(&x.detach(), precision)?, rounded(&weight.detach(), precision)?);
    let weights = Tensor::new(goal.weights, x.device())?.to_dtype(x.dtype())?;
    let (mut losses, mut norms, mut dx, mut dw) = (Vec::new(), Vec::new(), Vec::new(), None);
    let rows = rows_per_chunk(n.max(1), v, goal.max_logits);
    for first in (0..n).step_by(rows) {
        let count = rows.min(n - first);
        let (xs, targets) = (xs.narrow(0, first, count)?, goal.targets.narrow(0, first, count)?.contiguous()?);
        let logits = rounded_product(&xs, &ws.t()?)?;
        let exponents = Exponents::of(&logits, &targets)?;
        drop(logits);
        losses.push(exponents.losses.clone());
        if let Some(around) = goal.error_norms {
            // A device that still owes a part of the passes would owe it to the clock around.
            x.device().synchronize()?;
            let mut measured = Ok(Vec::new());
            around(&mut || measured = exponents.error_norms(&targets));
            norms.extend(measured?);
        }
        if !x.track_op() && !weight.track_op() {
            continue;
        }
        let gradient = exponents.into_gradient(&targets, &weights.narrow(0, first, count)?)?;
        let gradient = rounded(&gradient, precision)?;
        if x.track_op() {
            dx.push(rounded_product(&gradient, &ws)?);
        }
        if weight.track_op() {
            let more = rounded_product(&gradient.t()?, &xs)?;
            dw = Some(match dw {
                Some(sum) => (sum + more)?,
                None => more,
            });
        }
    }
    let losses = if losses.is_empty() { weights.clone() } else { Tensor::cat(&losses, 0)? };
    let total = (&losses * weights)?.sum_all()?;
    let dx = if dx.is_empty() { None } else { Some(Tensor::cat(&dx, 0)?) };
    let total = total_of((x, weight), storage_of(total)?, (dx, dw))?;
    Ok(HeadLoss { total, losses: losses.to_dtype(DType::F32)?.to_vec1()?, error_norms: norms })
}

fn fused<T: Real>(x: &Tensor, weight: &Tensor, goal: &HeadTargets<'_>, precision: Precision) -> Result<HeadLoss> {
    let ((n, c), (v, _)) = (x.dims2()?, weight.dims2()?);
    let (x_reading, w_reading) = (Reading::of(x), Reading::of(weight));
    let (xs, ws) = (x_reading.slice::<T>("head_loss")?, Matrix::rows(w_reading.slice::<T>("head_loss")?, c));
    let targets = goal.targets.contiguous()?;
    let (storage, layout) = targets.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { bail!("head_loss: expected targets on the CPU") };
    let targets = read_targets("head_loss", storage, layout, v)?;
    let weights: Vec<T> = goal.weights.iter().map(|&weight| T::from_f64(f64::from(weight))).collect();
    let products = Products::new(precision, 1)?;

    let mut losses = unwritten::<T>(n);
    let mut norms = unwritten::<T>(if goal.error_norms.is_some() { n } else { 0 });
    let mut dx = x.track_op().then(|| unwritten::<T>(n * c));
    let mut dw = weight.track_op().then(|| unwritten::<T>(v * c));
    let rows = rows_per_chunk(n, v, goal.max_logits);
    let mut logits = Scratch::<T>::new(rows * v);
    for first in (0..n).step_by(rows) {
        let range = first..n.min(first + rows);
        let m = range.len();
        let chunk = &mut logits[..m * v];
        let xs = Matrix::rows(&xs[first * c..][..m * c], c);
        multiply((m, v, c), (chunk, v), Old::Replaced, T::one(), (xs, ws.t()), products);
        let sums = exponents(chunk, &targets[range.clone()], &mut losses[range.clone()]);
        if let Some(around) = goal.error_norms {
            let norms = &mut norms[range.clone()];
            around(&mut || measure_norms(chunk, &sums, norms));
        }
        if dx.is_some() || dw.is_some() {
            scale_to_gradients(chunk, &sums, &weights[range.clone()]);
        }
        let gradient = Matrix::rows(chunk, v);
        if let Some(dx) = &mut dx {
            multiply((m, c, v), (&mut dx[first * c..][..m * c], c), Old::Replaced, T::one(), (gradient, ws), products);
        }
        if let Some(dw) = &mut dw {
            let old = if first == 0 { Old::Replaced } else { Old::Kept };
            multiply((v, c, m), (dw, c), old, T::one(), (gradient.t(), xs), products);
        }
    }
    drop(logits);
    let total = losses.iter().zip(&weights).fold(T::zero(), |sum, (&loss, &weight)| sum + loss * weight);
    let tensor = |values: Vec<T>, like: &Tensor| Tensor::from_vec(values, like.shape(), &Device::Cpu);
    let gradients = (dx.map(|dx| tensor(dx, x)).transpose()?, dw.map(|dw| tensor(dw, weight)).transpose()?);
    let plain = |values: Vec<T>| values.into_iter().map(|value| value.to_f64() as f32).collect();
    let total = (Storage::Cpu(T::to_cpu_storage_owned(vec![total])), Shape::from(()));
    Ok(HeadLoss { total: total_of((x, weight), total, gradients)?, losses: plain(losses), error_norms: plain(norms) })
}

/// The total as a function of the two, with the gradients that it has where what comes after it has a gradient of 1.
fn total_of(
    (x, weight): (&Tensor, &Tensor),
    total: (Storage, Shape),
    gradients: (Option<Tensor>, Option<Tensor>),
) -> Result<Tensor> {
    let gradients = Mutex::new(Some(gradients));
    record_storage(&[x, weight], total, move |_, gradient| {
        let Some((dx, dw)) = gradients.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            bail!("head_loss: expected one backward pass, found a second");
        };
        let factor = gradient.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        let scaled = |gradient: Option<Tensor>| match gradient {
            Some(gradient) if factor.to_bits() != 1.0_f64.to_bits() => gradient.affine(factor, 0.0).map(Some),
            as_it_is => Ok(as_it_is),
        };
        Ok(vec![scaled(dx)?, scaled(dw)?])
    })
}

/// Rows in a chunk: as few chunks as the bound allows, of about equal size.
fn rows_per_chunk(n: usize, v: usize, max_logits: usize) -> usize {
    let most = (max_logits / v).max(1);
    n.div_ceil(n.div_ceil(most))
}

/// Turns logits into e^(logit − the row's largest), the target's less the row's sum; writes losses, returns the sums.
fn exponents<T: Real>(logits: &mut [T], targets: &[u32], losses: &mut [T]) -> Vec<T> {
    let v = logits.len() / targets.len().max(1);
    let rows = rows_per_task(v);
    let mut sums = unwritten::<T>(targets.len());
    let out = losses.par_chunks_mut(rows).zip(sums.par_chunks_mut(rows));
    logits
        .par_chunks_mut(rows * v)
        .zip(targets.par_chunks(rows))
        .zip(out)
        .for_each(|((logits, targets), (losses, sums))| exponents_of_rows(logits, targets, losses, sums));
    sums
}

/// Lengths of the rows that [`exponents`] made, over their sums.
fn measure_norms<T: Real>(exponents: &[T], sums: &[T], norms: &mut [T]) {
    let v = exponents.len() / sums.len().max(1);
    let rows = rows_per_task(v);
    norms
        .par_chunks_mut(rows)
        .zip(sums.par_chunks(rows).zip(exponents.par_chunks(rows * v)))
        .for_each(|(norms, (sums, exponents))| norms_of_rows(exponents, sums, norms));
}

/// (softmax − onehot) · weight, of what [`exponents`] made.
fn scale_to_gradients<T: Real>(exponents: &mut [T], sums: &[T], weights: &[T]) {
    let v = exponents.len() / sums.len().max(1);
    let rows = rows_per_task(v);
    exponents
        .par_chunks_mut(rows * v)
        .zip(sums.par_chunks(rows).zip(weights.par_chunks(rows)))
        .for_each(|(exponents, (sums, weights))| scale_rows(exponents, sums, weights));
}

kernel! { for Loss:
    fn exponents_of_rows<T>(logits: &mut [T], targets: &[u32], losses: &mut [T], sums: &mut [T]) {
        let v = logits.len() / targets.len();
        for (((row, &target), loss), sum) in logits.chunks_exact_mut(v).zip(targets).zip(losses).zip(sums) {
            let max = max_of(row);
            let at_target = row[target as usize] - max;
            for x in row.iter_mut() {
                *x = (*x - max).exp();
            }
            *sum = sum_map(row, |x| x);
            *loss = sum.ln() - at_target;
            row[target as usize] -= *sum;
        }
    }
}

kernel! { for Loss:
    fn norms_of_rows<T>(exponents: &[T], sums: &[T], norms: &mut [T]) {
        let v = exponents.len() / sums.len();
        for ((row, &sum), norm) in exponents.chunks_exact(v).zip(sums).zip(norms) {
            *norm = sum_map(row, |x| x * x).sqrt() / sum;
        }
    }
}

kernel! { for Loss:
    fn scale_rows<T>(exponents: &mut [T], sums: &[T], weights: &[T]) {
        let v = exponents.len() / sums.len();
        for ((row, &sum), &weight) in exponents.chunks_exact_mut(v).zip(sums).zip(weights) {
            let factor = weight / sum;
            for x in row {
                *x *= factor;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::cell::Cell;

    use candle_core::Var;

    use super::*;
    use crate::backward;
    use crate::check::{composed_error, gradient_error, max_difference, wave};

    /// 7 rows, 71 classes.
    fn case() -> ([Tensor; 2], Tensor, Vec<f32>) {
        let targets = Tensor::new(&[3_u32, 0, 70, 12, 5, 12, 33], &Device::Cpu).unwrap();
        let weights = (0..7_u8).map(|row| 0.25 + 0.5 * f32::from(row % 3)).collect();
        ([wave(&[7, 5], 1.0).unwrap(), wave(&[71, 5], 2.0).unwrap()], targets, weights)
    }

    /// In chunks of two rows and a last one.
    fn loss(x: &[Tensor], error_norms: Option<Around<'_>>) -> HeadLoss {
        let (_, targets, weights) = case();
        let goal = HeadTargets { targets: &targets, weights: &weights, error_norms, max_logits: 3 * 71 - 1 };
        head_loss(&x[0], &x[1], &goal, Precision::F32).unwrap()
    }

    #[test]
    fn equals_the_composed_form() {
        let (inputs, targets, weights) = case();
        for dtype in [DType::F64, DType::F32] {
            let vars = inputs.each_ref().map(|x| Var::from_tensor(&x.to_dtype(dtype).unwrap()).unwrap());
            let tensors = vars.each_ref().map(|var| var.as_tensor().clone());
            let count = Cell::new(0);
            let around = |work: &mut dyn FnMut()| {
                count.set(count.get() + 1);
                work();
            };
            let ours = loss(&tensors, Some(&around));
            let goal = HeadTargets { targets: &targets, weights: &weights, error_norms: Some(&around), max_logits: 1 };
            let theirs = composed(&tensors[0], &tensors[1], &goal, Precision::F32).unwrap();
            let tolerance = if dtype == DType::F64 { 1e-12 } else { 3e-6 };
            let (mine, other) = (backward(&ours.total).unwrap(), theirs.total.backward().unwrap());
            for var in &vars {
                let difference = max_difference(mine.get(var).unwrap(), other.get(var).unwrap()).unwrap();
                assert!(difference < tolerance, "{difference}");
            }
            assert!(max_difference(&ours.total, &theirs.total).unwrap() < tolerance * 10.0);
            for (a, b) in [(&ours.losses, &theirs.losses), (&ours.error_norms, &theirs.error_norms)] {
                assert!(a.len() == 7 && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 3e-6), "{a:?} {b:?}");
            }
            assert_eq!(count.get(), 4 + 7, "once for each chunk");
        }
    }

    #[test]
    fn gradients_agree_with_central_differences() {
        // What follows the total has a gradient that is not 1.
        let error = gradient_error(&case().0, |x| loss(x, None).total * 3.0).unwrap();
        assert!(error < 1e-8, "{error}");
    }

    #[test]
    fn composed_chunks_are_as_far_from_f32_as_rounding_allows() {
        let (inputs, targets, weights) = case();
        for (precision, least, most) in [(Precision::Bf16, 1e-3, 0.02), (Precision::F16, 1e-4, 0.002)] {
            let error = composed_error(&inputs, precision, |x, precision| {
                let goal = HeadTargets { targets: &targets, weights: &weights, error_norms: None, max_logits: 3 * 71 };
                Ok(head_loss(&x[0], &x[1], &goal, precision)?.total)
            });
            let error = error.unwrap();
            assert!(least < error && error < most, "{precision:?}: {error}");
        }
    }

    #[test]
    fn chunks_are_even_and_cover_all_rows() {
        let max_logits = 32 << 20;
        assert_eq!(rows_per_chunk(512, 50257, max_logits), 512);
        assert_eq!(rows_per_chunk(2048, 50257, max_logits), 512, "not three of 667 and one of 47");
        assert_eq!(rows_per_chunk(3, 50257, 1), 1);
    }

    #[test]
    fn without_a_graph_there_is_no_gradient_to_make() {
        let measured = loss(&case().0, None);
        assert!(!measured.total.track_op() && measured.error_norms.is_empty() && measured.losses.len() == 7);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let ([x, w], targets, weights) = case();
        let goal = |targets, weights| HeadTargets { targets, weights, error_norms: None, max_logits: 1 };
        let far = Tensor::new(&[3_u32, 0, 71, 12, 5, 12, 33], &Device::Cpu).unwrap();
        let error = head_loss(&x, &w, &goal(&far, &weights), Precision::F32).unwrap_err().to_string();
        assert!(error.contains("expected targets below 71, found 71 in row 2"), "{error}");
        let error = head_loss(&x, &w, &goal(&targets, &weights[1..]), Precision::F32).unwrap_err().to_string();
        assert!(error.contains("expected 7 weights of rows, found 6"), "{error}");
    }
}
