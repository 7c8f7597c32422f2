//! GELU in the tanh form of GPT-2.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::buffers::{Reading, rows_per_task, slice, unwritten};
use super::function::composed_function;
use super::kernels::has_kernels;
use super::real::Real;
use super::simd::kernel;

/// x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³))), any shape, f32 or f64; differentiable.
/// Source: Hendrycks and Gimpel 2016, arXiv 1606.08415; `gelu_new` in transformers.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    if has_kernels(x.device()) {
        return x.contiguous()?.apply_op1(Gelu);
    }
    let forward = |inputs: &[Tensor]| {
        let [x] = inputs else { bail!("gelu: expected one input") };
        x.gelu()
    };
    // candle's own gradient holds a dozen tensors of the input's size at once.
    composed_function(&[x], forward, |inputs, _, grad| {
        let [x] = inputs else { bail!("gelu: expected one input") };
        let square = x.sqr()?;
        let inner = square.affine(SCALE * CUBIC, SCALE)?.mul(x)?;
        let tanh = inner.tanh()?;
        drop(inner);
        // Of the inner function, times x/2.
        let slope = square.affine(1.5 * SCALE * CUBIC, 0.5 * SCALE)?.mul(x)?;
        drop(square);
        let slope = slope.mul(&tanh.sqr()?.affine(-1.0, 1.0)?)?;
        let slope = (slope + tanh.affine(0.5, 0.5)?)?;
        drop(tanh);
        Ok(vec![slope.mul(grad)?])
    })
}

/// √(2/π)
const SCALE: f64 = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
const CUBIC: f64 = 0.044_715;

struct Gelu;

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        fn run<T: Real>(x: &[T]) -> CpuStorage {
            let task = rows_per_task(1);
            let mut y = unwritten::<T>(x.len());
            y.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(y, x)| gelu_all(x, y));
            T::to_cpu_storage_owned(y)
        }
        let y = match storage.dtype() {
            DType::F32 => run::<f32>(slice(self.name(), storage, layout)?),
            DType::F64 => run::<f64>(slice(self.name(), storage, layout)?),
            other => bail!("gelu: expected f32 or f64, found {}", other.as_str()),
        };
        Ok((y, layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        fn run<T: Real>(x: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
            let shape = x.shape();
            let (x, grad) = (Reading::of(x), Reading::of(grad));
            let (x, dy) = (x.slice::<T>("gelu")?, grad.slice::<T>("gelu")?);
            let task = rows_per_task(1);
            let mut dx = unwritten::<T>(x.len());
            dx.par_chunks_mut(task)
                .zip(x.par_chunks(task).zip(dy.par_chunks(task)))
                .for_each(|(dx, (x, dy))| gelu_gradient(x, dy, dx));
            Tensor::from_vec(dx, shape, &Device::Cpu).map(Some)
        }
        match x.dtype() {
            DType::F64 => run::<f64>(x, &grad.contiguous()?),
            _ => run::<f32>(x, &grad.contiguous()?),
        }
    }
}

/// x · sigmoid(2u), with u the argument of the tanh (the same function), and its slope.
#[inline(always)]
fn value_and_slope<T: Real>(x: T) -> (T, T) {
    let a = T::from_f64(2.0 * (2.0 / std::f64::consts::PI).sqrt());
    let b = T::from_f64(0.044_715);
    let x2 = x * x;
    let s = (a * x * (T::one() + b * x2)).sigmoid();
    let du = a * (T::one() + T::from_f64(3.0) * b * x2);
    // Beyond |x| = 1e18 the square overflows while 1 - s is 0; the slope there is s.
    let bend = x * s * (T::one() - s) * du;
    (x * s, s + bend)
}

kernel! { for Activation:
    fn gelu_all<T>(x: &[T], y: &mut [T]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = value_and_slope(x).0;
        }
    }
}

kernel! { for Activation:
    /// x += bias, row by row, and y = gelu of that.
    pub(super) fn add_bias_and_gelu<T>(x: &mut [T], bias: &[T], y: &mut [T]) {
        let c = bias.len().max(1);
        for (x, y) in x.chunks_exact_mut(c).zip(y.chunks_exact_mut(c)) {
            for ((x, y), &b) in x.iter_mut().zip(y).zip(bias) {
                let sum = *x + b;
                *x = sum;
                *y = value_and_slope(sum).0;
            }
        }
    }
}

kernel! { for Activation:
    fn gelu_gradient<T>(x: &[T], dy: &[T], dx: &mut [T]) {
        for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
            *dx = dy * value_and_slope(x).1;
        }
    }
}

kernel! { for Activation:
    /// y = gelu(x) again, and grad (of y) becomes the gradient of x.
    pub(super) fn gelu_again_and_gradient<T>(x: &[T], y: &mut [T], grad: &mut [T]) {
        for ((y, &x), grad) in y.iter_mut().zip(x).zip(grad) {
            let (value, slope) = value_and_slope(x);
            *y = value;
            *grad *= slope;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::check::{gradient_error, max_difference, wave};

    #[test]
    fn equals_candle() {
        let x = wave(&[3, 301], 6.0).unwrap();
        let theirs = x.gelu().unwrap();
        assert!(max_difference(&gelu(&x).unwrap(), &theirs).unwrap() < 1e-12);
        assert!(max_difference(&gelu(&x.to_dtype(DType::F32).unwrap()).unwrap(), &theirs).unwrap() < 2e-6);
    }

    #[test]
    fn gradient_agrees_with_central_differences() {
        let weights = wave(&[3, 301], 1.0).unwrap();
        let error = gradient_error(&[wave(&[3, 301], 4.0).unwrap()], |x| (gelu(&x[0])? * &weights)?.sum_all()).unwrap();
        assert!(error < 1e-8, "{error}");
    }

    #[test]
    fn far_out() {
        let x = Tensor::new(&[-1e4_f32, -50.0, 0.0, 50.0, 1e4], &Device::Cpu).unwrap();
        let y: Vec<f32> = gelu(&x).unwrap().to_vec1().unwrap();
        assert!(y[0].abs() < 1e-30 && y[1].abs() < 1e-30 && y[2] == 0.0, "{y:?}");
        assert_eq!(y[3..], [50.0, 1e4]);
    }
}
