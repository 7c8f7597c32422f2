//! The gate of SwiGLU.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, DType, Device, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::buffers::{Reading, rows_per_task, slice, unwritten};
use super::function::composed_function;
use super::kernels::has_kernels;
use super::real::Real;
use super::simd::kernel;

/// silu(gate) · up, with silu(x) = x · sigmoid(x): two tensors of one shape, f32 or f64, to that shape;
/// differentiable in both.
/// Source: Shazeer 2020, arXiv 2002.05202.
pub fn silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if gate.dims() != up.dims() {
        bail!("silu_mul: expected two tensors of one shape, found {:?} and {:?}", gate.dims(), up.dims());
    }
    if has_kernels(gate.device()) {
        return gate.contiguous()?.apply_op2(&up.contiguous()?, SiluMul);
    }
    let forward = |inputs: &[Tensor]| {
        let [gate, up] = inputs else { bail!("silu_mul: expected two inputs") };
        gate.silu()? * up
    };
    composed_function(&[gate, up], forward, |inputs, _, grad| {
        let [gate, up] = inputs else { bail!("silu_mul: expected two inputs") };
        let sigmoid = candle_nn::ops::sigmoid(gate)?;
        let silu = (gate * &sigmoid)?;
        // silu' = sigmoid + silu · (1 − sigmoid)
        let slope = (&sigmoid + (&silu * sigmoid.affine(-1.0, 1.0)?)?)?;
        Ok(vec![(slope * up)?.mul(grad)?, (silu * grad)?])
    })
}

struct SiluMul;

impl CustomOp2 for SiluMul {
    fn name(&self) -> &'static str {
        "silu_mul"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        fn run<T: Real>(gate: &[T], up: &[T]) -> CpuStorage {
            let task = rows_per_task(1);
            let mut y = unwritten::<T>(gate.len());
            y.par_chunks_mut(task)
                .zip(gate.par_chunks(task).zip(up.par_chunks(task)))
                .for_each(|(y, (gate, up))| silu_mul_all(gate, up, y));
            T::to_cpu_storage_owned(y)
        }
        let y = match s1.dtype() {
            DType::F32 => run::<f32>(slice(self.name(), s1, l1)?, slice(self.name(), s2, l2)?),
            DType::F64 => run::<f64>(slice(self.name(), s1, l1)?, slice(self.name(), s2, l2)?),
            other => bail!("silu_mul: expected f32 or f64, found {}", other.as_str()),
        };
        Ok((y, l1.shape().clone()))
    }

    fn bwd(&self, gate: &Tensor, up: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        fn run<T: Real>(gate: &Tensor, up: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
            let shape = gate.shape();
            let (gate, up, grad) = (Reading::of(gate), Reading::of(up), Reading::of(grad));
            let (gate, up) = (gate.slice::<T>("silu_mul")?, up.slice::<T>("silu_mul")?);
            let dy = grad.slice::<T>("silu_mul")?;
            let task = rows_per_task(1);
            let mut d_gate = unwritten::<T>(gate.len());
            let mut d_up = unwritten::<T>(gate.len());
            d_gate
                .par_chunks_mut(task)
                .zip(d_up.par_chunks_mut(task))
                .zip(gate.par_chunks(task).zip(up.par_chunks(task)).zip(dy.par_chunks(task)))
                .for_each(|((d_gate, d_up), ((gate, up), dy))| {
                    d_gate.copy_from_slice(gate);
                    d_up.copy_from_slice(up);
                    silu_mul_gradient(d_gate, d_up, dy);
                });
            let tensor = |values| Tensor::from_vec(values, shape, &Device::Cpu).map(Some);
            Ok((tensor(d_gate)?, tensor(d_up)?))
        }
        match gate.dtype() {
            DType::F64 => run::<f64>(gate, up, &grad.contiguous()?),
            _ => run::<f32>(gate, up, &grad.contiguous()?),
        }
    }
}

kernel! { for Activation:
    /// y = silu(gate) · up
    pub(super) fn silu_mul_all<T>(gate: &[T], up: &[T], y: &mut [T]) {
        for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
            *y = gate * gate.sigmoid() * up;
        }
    }
}

kernel! { for Activation:
    /// gate and up become their gradients, from the gradient dy of silu(gate) · up.
    pub(super) fn silu_mul_gradient<T>(gate: &mut [T], up: &mut [T], dy: &[T]) {
        for ((gate, up), &dy) in gate.iter_mut().zip(up.iter_mut()).zip(dy) {
            let s = gate.sigmoid();
            let silu = *gate * s;
            *gate = dy * *up * (s + silu * (T::one() - s));
            *up = dy * silu;
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
        let (gate, up) = (wave(&[3, 301], 9.0).unwrap(), wave(&[3, 301], 2.0).unwrap());
        let theirs = (gate.silu().unwrap() * &up).unwrap();
        assert!(max_difference(&silu_mul(&gate, &up).unwrap(), &theirs).unwrap() < 1e-12);
        let (gate, up) = (gate.to_dtype(DType::F32).unwrap(), up.to_dtype(DType::F32).unwrap());
        assert!(max_difference(&silu_mul(&gate, &up).unwrap(), &theirs).unwrap() < 4e-6);
    }

    #[test]
    fn gradient_agrees_with_central_differences() {
        let weights = wave(&[3, 301], 1.0).unwrap();
        let inputs = [wave(&[3, 301], 4.0).unwrap(), wave(&[3, 301], 2.0).unwrap()];
        let error = gradient_error(&inputs, |x| (silu_mul(&x[0], &x[1])? * &weights)?.sum_all()).unwrap();
        assert!(error < 1e-8, "{error}");
    }
}
