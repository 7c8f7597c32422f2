//! Root-mean-square norm with scale.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, D, DType, Device, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::buffers::{Reading, rows_per_task, slice, unwritten};
use super::function::composed_function;
use super::kernels::has_kernels;
use super::layer_norm::add_to;
use super::linear::as_rows;
use super::real::{Real, sum_map, sum_map3};
use super::simd::kernel;

/// x / √(mean square + eps) · weight over the last dimension: x (..., c), weight (c), to (..., c). f32 or f64;
/// differentiable in both.
/// Source: Zhang and Sennrich 2019, arXiv 1910.07467.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let c = x.dim(D::Minus1)?;
    if weight.dims() != [c] {
        bail!("rms_norm: expected weight ({c}), found {:?}", weight.dims());
    }
    if has_kernels(x.device()) {
        return x.contiguous()?.apply_op2(&weight.contiguous()?, RmsNorm { eps });
    }
    composed(x, weight, eps)
}

/// The same out of candle's operations, for other devices.
fn composed(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    // Of mean square 1, and what the row was divided by.
    let normed = move |x: &Tensor| -> Result<(Tensor, Tensor)> {
        let size = (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
        Ok((x.broadcast_div(&size)?, size))
    };
    let forward = |inputs: &[Tensor]| {
        let [x, weight] = inputs else { bail!("rms_norm: expected two inputs") };
        normed(x)?.0.broadcast_mul(weight)
    };
    composed_function(&[x, weight], forward, move |inputs, _, grad| {
        let [x, weight] = inputs else { bail!("rms_norm: expected two inputs") };
        let (normed, size) = normed(x)?;
        let d_weight = as_rows(&(grad * &normed)?)?.sum(0)?;
        let d_normed = grad.broadcast_mul(weight)?;
        let along = (&d_normed * &normed)?.mean_keepdim(D::Minus1)?;
        let dx = (d_normed - normed.broadcast_mul(&along)?)?.broadcast_div(&size)?;
        Ok(vec![dx, d_weight])
    })
}

struct RmsNorm {
    eps: f64,
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        fn run<T: Real>(x: &[T], w: &[T], eps: f64) -> CpuStorage {
            let task = rows_per_task(w.len()) * w.len();
            let mut y = unwritten::<T>(x.len());
            y.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(y, x)| rms_norm_rows(x, w, T::from_f64(eps), y));
            T::to_cpu_storage_owned(y)
        }
        let y = match s1.dtype() {
            DType::F32 => run::<f32>(slice(self.name(), s1, l1)?, slice(self.name(), s2, l2)?, self.eps),
            DType::F64 => run::<f64>(slice(self.name(), s1, l1)?, slice(self.name(), s2, l2)?, self.eps),
            other => bail!("rms_norm: expected f32 or f64, found {}", other.as_str()),
        };
        Ok((y, l1.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        match x.dtype() {
            DType::F64 => self.backward::<f64>(x, w, &grad.contiguous()?),
            _ => self.backward::<f32>(x, w, &grad.contiguous()?),
        }
    }
}

impl RmsNorm {
    fn backward<T: Real>(&self, x: &Tensor, w: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let shape = x.shape();
        let (x, w, grad) = (Reading::of(x), Reading::of(w), Reading::of(grad));
        let (x, w, dy) = (x.slice::<T>("rms_norm")?, w.slice::<T>("rms_norm")?, grad.slice::<T>("rms_norm")?);
        let c = w.len();
        let task = rows_per_task(c) * c;
        let mut dx = unwritten::<T>(x.len());
        let parts: Vec<Vec<T>> = dx
            .par_chunks_mut(task)
            .zip(x.par_chunks(task).zip(dy.par_chunks(task)))
            .map(|(dx, (x, dy))| {
                let mut dw = vec![T::zero(); c];
                dx.fill(T::zero());
                rms_norm_backward_rows(x, w, dy, T::from_f64(self.eps), dx, &mut dw);
                dw
            })
            .collect();
        let mut dw = vec![T::zero(); c];
        for part in &parts {
            add_to(&mut dw, part);
        }
        let dx = Tensor::from_vec(dx, shape, &Device::Cpu)?;
        Ok((Some(dx), Some(Tensor::from_vec(dw, c, &Device::Cpu)?)))
    }
}

/// 1/√(mean square + eps) of a row.
#[inline(always)]
fn reciprocal_rms<T: Real>(row: &[T], eps: T) -> T {
    let mean_square = sum_map(row, |x| x * x) / T::from_f64(row.len() as f64);
    T::one() / (mean_square + eps).sqrt()
}

kernel! { for Norm:
    /// y = RMS norm of each row of x.
    pub(super) fn rms_norm_rows<T>(x: &[T], w: &[T], eps: T, y: &mut [T]) {
        let c = w.len();
        for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
            let scale = reciprocal_rms(x, eps);
            for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
                *y = x * scale * w;
            }
        }
    }
}

kernel! { for Norm:
    /// Each row of x becomes its RMS norm.
    pub(super) fn rms_norm_in_place<T>(x: &mut [T], w: &[T], eps: T) {
        for x in x.chunks_exact_mut(w.len()) {
            let scale = reciprocal_rms(x, eps);
            for (x, &w) in x.iter_mut().zip(w) {
                *x = *x * scale * w;
            }
        }
    }
}

kernel! { for Norm:
    /// Adds the gradients of RMS norm to dx and dw.
    pub(super) fn rms_norm_backward_rows<T>(x: &[T], w: &[T], dy: &[T], eps: T, dx: &mut [T], dw: &mut [T]) {
        let c = w.len();
        for ((x, dy), dx) in x.chunks_exact(c).zip(dy.chunks_exact(c)).zip(dx.chunks_exact_mut(c)) {
            let scale = reciprocal_rms(x, eps);
            let mean_gx = sum_map3(dy, w, x, |dy, w, x| dy * w * x) * scale / T::from_f64(c as f64);
            for ((dw, dx), ((&x, &dy), &w)) in dw.iter_mut().zip(dx).zip(x.iter().zip(dy).zip(w)) {
                let normed = x * scale;
                *dx += scale * (dy * w - normed * mean_gx);
                *dw += dy * normed;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::check::{gradient_error, max_difference, wave};

    fn case() -> [Tensor; 2] {
        [wave(&[3, 5, 37], 2.0).unwrap(), wave(&[37], 1.0).unwrap()]
    }

    #[test]
    fn equals_candle() {
        let [x, w] = case().map(|t| t.to_dtype(DType::F32).unwrap());
        let theirs = candle_nn::ops::rms_norm_slow(&x, &w, 1e-5).unwrap();
        assert!(max_difference(&rms_norm(&x, &w, 1e-5).unwrap(), &theirs).unwrap() < 1e-5);
    }

    #[test]
    fn gradient_agrees_with_central_differences() {
        let target = wave(&[3, 5, 37], 1.0).unwrap();
        let error = gradient_error(&case(), |x| (rms_norm(&x[0], &x[1], 1e-5)? * &target)?.sum_all()).unwrap();
        assert!(error < 1e-7, "{error}");
    }
}
