//! Layer norm with scale and shift.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, D, DType, Device, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::buffers::{Reading, rows_per_task, slice, unwritten};
use super::function::composed_function;
use super::kernels::has_kernels;
use super::linear::as_rows;
use super::real::{Real, sum_map, sum_map2, sum_map3};
use super::simd::kernel;

/// (x − mean) / √(variance + eps) · weight + bias over the last dimension: x (..., c), weight (c), bias (c), to
/// (..., c). f32 or f64; differentiable in all three.
/// Source: Ba et al. 2016, arXiv 1607.06450.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let c = x.dim(D::Minus1)?;
    if weight.dims() != [c] || bias.dims() != [c] {
        bail!("layer_norm: expected weight and bias ({c}), found {:?} and {:?}", weight.dims(), bias.dims());
    }
    if has_kernels(x.device()) {
        return x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, LayerNorm { eps });
    }
    composed(x, weight, bias, eps)
}

/// The same out of candle's operations, for other devices.
fn composed(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    // Of mean 0 and variance 1, and what the centered row was divided by.
    let normed = move |x: &Tensor| -> Result<(Tensor, Tensor)> {
        let centered = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let deviation = (centered.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
        Ok((centered.broadcast_div(&deviation)?, deviation))
    };
    let forward = |inputs: &[Tensor]| {
        let [x, weight, bias] = inputs else { bail!("layer_norm: expected three inputs") };
        normed(x)?.0.broadcast_mul(weight)?.broadcast_add(bias)
    };
    composed_function(&[x, weight, bias], forward, move |inputs, _, grad| {
        let [x, weight, _] = inputs else { bail!("layer_norm: expected three inputs") };
        let (normed, deviation) = normed(x)?;
        let d_weight = as_rows(&(grad * &normed)?)?.sum(0)?;
        let d_bias = as_rows(grad)?.sum(0)?;
        let d_normed = grad.broadcast_mul(weight)?;
        let along = (&d_normed * &normed)?.mean_keepdim(D::Minus1)?;
        let dx = d_normed.broadcast_sub(&d_normed.mean_keepdim(D::Minus1)?)?;
        let dx = (dx - normed.broadcast_mul(&along)?)?.broadcast_div(&deviation)?;
        Ok(vec![dx, d_weight, d_bias])
    })
}

struct LayerNorm {
    eps: f64,
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        fn run<T: Real>(x: &[T], w: &[T], b: &[T], eps: f64) -> CpuStorage {
            let task = rows_per_task(w.len()) * w.len();
            let mut y = unwritten::<T>(x.len());
            y.par_chunks_mut(task)
                .zip(x.par_chunks(task))
                .for_each(|(y, x)| layer_norm_rows(x, w, b, T::from_f64(eps), y));
            T::to_cpu_storage_owned(y)
        }
        let name = self.name();
        let y = match s1.dtype() {
            DType::F32 => run::<f32>(slice(name, s1, l1)?, slice(name, s2, l2)?, slice(name, s3, l3)?, self.eps),
            DType::F64 => run::<f64>(slice(name, s1, l1)?, slice(name, s2, l2)?, slice(name, s3, l3)?, self.eps),
            other => bail!("layer_norm: expected f32 or f64, found {}", other.as_str()),
        };
        Ok((y, l1.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        match x.dtype() {
            DType::F64 => self.backward::<f64>(x, weight, &grad.contiguous()?),
            _ => self.backward::<f32>(x, weight, &grad.contiguous()?),
        }
    }
}

impl LayerNorm {
    fn backward<T: Real>(
        &self,
        x: &Tensor,
        weight: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let shape = x.shape();
        let (x, weight, grad) = (Reading::of(x), Reading::of(weight), Reading::of(grad));
        let (x, w, dy) =
            (x.slice::<T>("layer_norm")?, weight.slice::<T>("layer_norm")?, grad.slice::<T>("layer_norm")?);
        let c = w.len();
        let task = rows_per_task(c) * c;
        let mut dx = unwritten::<T>(x.len());
        // One pair of partial sums per task, added in task order: the same for any number of threads.
        let parts: Vec<(Vec<T>, Vec<T>)> = dx
            .par_chunks_mut(task)
            .zip(x.par_chunks(task).zip(dy.par_chunks(task)))
            .map(|(dx, (x, dy))| {
                let (mut dw, mut db) = (vec![T::zero(); c], vec![T::zero(); c]);
                dx.fill(T::zero());
                layer_norm_backward_rows(x, w, dy, T::from_f64(self.eps), dx, &mut dw, &mut db);
                (dw, db)
            })
            .collect();
        let (mut dw, mut db) = (vec![T::zero(); c], vec![T::zero(); c]);
        for (part_w, part_b) in &parts {
            add_to(&mut dw, part_w);
            add_to(&mut db, part_b);
        }
        let device = Device::Cpu;
        let tensor = |values: Vec<T>, shape: &Shape| Tensor::from_vec(values, shape, &device).map(Some);
        Ok((tensor(dx, shape)?, tensor(dw, &c.into())?, tensor(db, &c.into())?))
    }
}

/// Mean and 1/√(variance + eps) of a row.
#[inline(always)]
fn moments<T: Real>(row: &[T], eps: T) -> (T, T) {
    let count = T::from_f64(row.len() as f64);
    let mean = sum_map(row, |x| x) / count;
    let variance = sum_map(row, |x| (x - mean) * (x - mean)) / count;
    (mean, T::one() / (variance + eps).sqrt())
}

kernel! { for Norm:
    /// y = layer norm of each row of x.
    pub(super) fn layer_norm_rows<T>(x: &[T], w: &[T], b: &[T], eps: T, y: &mut [T]) {
        let c = w.len();
        for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
            let (mean, rstd) = moments(x, eps);
            for ((y, &x), (&w, &b)) in y.iter_mut().zip(x).zip(w.iter().zip(b)) {
                *y = (x - mean) * rstd * w + b;
            }
        }
    }
}

kernel! { for Norm:
    /// Adds the gradients of layer norm to dx, dw and db.
    pub(super) fn layer_norm_backward_rows<T>(
        x: &[T], w: &[T], dy: &[T], eps: T, dx: &mut [T], dw: &mut [T], db: &mut [T],
    ) {
        let c = w.len();
        for ((x, dy), dx) in x.chunks_exact(c).zip(dy.chunks_exact(c)).zip(dx.chunks_exact_mut(c)) {
            let (mean, rstd) = moments(x, eps);
            let count = T::from_f64(c as f64);
            let mean_g = sum_map2(dy, w, |dy, w| dy * w) / count;
            let mean_gx = sum_map3(dy, w, x, |dy, w, x| dy * w * (x - mean)) * rstd / count;
            let gradients = dw.iter_mut().zip(db.iter_mut()).zip(dx);
            for (((dw, db), dx), ((&x, &dy), &w)) in gradients.zip(x.iter().zip(dy).zip(w)) {
                let normed = (x - mean) * rstd;
                *dx += rstd * (dy * w - mean_g - normed * mean_gx);
                *dw += dy * normed;
                *db += dy;
            }
        }
    }
}

kernel! {
    /// sum += x
    pub(super) fn add_to<T>(sum: &mut [T], x: &[T]) {
        for (sum, &x) in sum.iter_mut().zip(x) {
            *sum += x;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::check::{gradient_error, max_difference, wave};

    fn case() -> [Tensor; 3] {
        [wave(&[3, 5, 37], 2.0).unwrap(), wave(&[37], 1.0).unwrap(), wave(&[37], 0.5).unwrap()]
    }

    #[test]
    fn equals_candle() {
        let [x, w, b] = case().map(|t| t.to_dtype(DType::F32).unwrap());
        let theirs = candle_nn::ops::layer_norm_slow(&x, &w, &b, 1e-5).unwrap();
        assert!(max_difference(&layer_norm(&x, &w, &b, 1e-5).unwrap(), &theirs).unwrap() < 1e-5);
    }

    #[test]
    fn gradient_agrees_with_central_differences() {
        let target = wave(&[3, 5, 37], 1.0).unwrap();
        let loss = |x: &[Tensor]| (layer_norm(&x[0], &x[1], &x[2], 1e-5)? * &target)?.sum_all();
        let error = gradient_error(&case(), loss).unwrap();
        assert!(error < 1e-7, "{error}");
    }

    #[test]
    fn wrong_shapes_are_errors() {
        let [x, w, _] = case();
        assert!(layer_norm(&x, &w, &wave(&[36], 1.0).unwrap(), 1e-5).is_err());
    }
}
