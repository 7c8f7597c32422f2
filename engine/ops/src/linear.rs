//! A linear map without bias, with its weight stored output-major: the head of a language model.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, D, DType, Device, Layout, Result, Shape, Tensor, bail};

use super::buffers::{Reading, slice, unwritten};
use super::gemm::{Matrix, Old, Products, multiply};
use super::kernels::has_kernels;
use super::precision::Precision;
use super::real::Real;

/// x · weightᵀ: x (..., inputs), weight (outputs, inputs), to (..., outputs). f32 or f64; differentiable in both.
/// One multiplication whatever the leading dimensions; nothing is transposed in memory.
/// `precision` counts on the CPU, for f32. Errors: sizes that do not fit; a precision that the processor has not.
pub fn linear(x: &Tensor, weight: &Tensor, precision: Precision) -> Result<Tensor> {
    let (_, inputs) = weight.dims2()?;
    if x.dim(D::Minus1)? != inputs {
        bail!("linear: expected rows of {inputs}, found {:?}", x.dims());
    }
    if has_kernels(x.device()) && inputs > 0 {
        return x.contiguous()?.apply_op2(&weight.contiguous()?, Linear { products: Products::new(precision, 1)? });
    }
    product(x, &weight.t()?)
}

/// x · weight: x (..., inputs), weight (inputs, outputs), to (..., outputs), by candle's operations on any device.
/// One multiplication whatever the leading dimensions: with a weight repeated for each of them, its gradient would be
/// made as often before it is summed.
pub(super) fn product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (inputs, outputs) = weight.dims2()?;
    let mut shape = x.dims().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = outputs;
    }
    let rows = x.elem_count().checked_div(inputs).unwrap_or(0);
    x.reshape((rows, inputs))?.matmul(weight)?.reshape(shape)
}

struct Linear {
    products: Products,
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        fn run<T: Real>(x: &[T], w: &[T], (outputs, inputs): (usize, usize), products: Products) -> CpuStorage {
            let rows = x.len() / inputs;
            let mut y = unwritten::<T>(rows * outputs);
            let factors = (Matrix::rows(x, inputs), Matrix::rows(w, inputs).t());
            multiply((rows, outputs, inputs), (&mut y, outputs), Old::Replaced, T::one(), factors, products);
            T::to_cpu_storage_owned(y)
        }
        let sizes @ (outputs, _) = l2.shape().dims2()?;
        let y = match s1.dtype() {
            DType::F32 => run::<f32>(slice(self.name(), s1, l1)?, slice(self.name(), s2, l2)?, sizes, self.products),
            DType::F64 => run::<f64>(slice(self.name(), s1, l1)?, slice(self.name(), s2, l2)?, sizes, self.products),
            other => bail!("linear: expected f32 or f64, found {}", other.as_str()),
        };
        let mut shape = l1.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = outputs;
        }
        Ok((y, shape.into()))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        match x.dtype() {
            DType::F64 => backward::<f64>(x, w, &grad.contiguous()?, self.products),
            _ => backward::<f32>(x, w, &grad.contiguous()?, self.products),
        }
    }
}

fn backward<T: Real>(
    x: &Tensor,
    w: &Tensor,
    grad: &Tensor,
    products: Products,
) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let (outputs, inputs) = w.dims2()?;
    let rows = x.elem_count() / inputs;
    let (x_reading, w_reading, grad) = (Reading::of(x), Reading::of(w), Reading::of(grad));
    let (x_rows, w_rows) = (x_reading.slice::<T>("linear")?, w_reading.slice::<T>("linear")?);
    let dy = Matrix::rows(grad.slice::<T>("linear")?, outputs);
    if rows == 0 || outputs == 0 {
        return Ok((Some(x.zeros_like()?), Some(w.zeros_like()?)));
    }
    let mut dx = unwritten::<T>(rows * inputs);
    let factors = (dy, Matrix::rows(w_rows, inputs));
    multiply((rows, inputs, outputs), (&mut dx, inputs), Old::Replaced, T::one(), factors, products);
    let mut dw = unwritten::<T>(outputs * inputs);
    let factors = (dy.t(), Matrix::rows(x_rows, inputs));
    multiply((outputs, inputs, rows), (&mut dw, inputs), Old::Replaced, T::one(), factors, products);
    let tensor = |values, like: &Tensor| Tensor::from_vec(values, like.shape(), &Device::Cpu).map(Some);
    Ok((tensor(dx, x)?, tensor(dw, w)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::check::{bf16_error, gradient_error, max_difference, wave};

    #[test]
    fn bf16_is_as_far_from_f32_as_rounding_allows() {
        let inputs = [wave(&[2, 35, 47], 1.0).unwrap(), wave(&[33, 47], 1.0).unwrap()];
        let error = bf16_error(&inputs, |x, precision| linear(&x[0], &x[1], precision)).unwrap();
        // Factors lose up to 1/256 of themselves; no error at all would be f32 after all.
        assert!(error.is_none_or(|error| 1e-4 < error && error < 0.02), "{error:?}");
    }

    #[test]
    fn equals_candle() {
        let (x, w) = (wave(&[2, 5, 7], 1.0).unwrap(), wave(&[3, 7], 1.0).unwrap());
        let theirs = x.broadcast_matmul(&w.t().unwrap()).unwrap();
        assert!(max_difference(&linear(&x, &w, Precision::F32).unwrap(), &theirs).unwrap() < 1e-13);
        assert!(linear(&x, &wave(&[3, 6], 1.0).unwrap(), Precision::F32).is_err());
    }

    #[test]
    fn gradient_agrees_with_central_differences() {
        let target = wave(&[2, 5, 3], 1.0).unwrap();
        let inputs = [wave(&[2, 5, 7], 1.0).unwrap(), wave(&[3, 7], 1.0).unwrap()];
        let error = gradient_error(&inputs, |x| (linear(&x[0], &x[1], Precision::F32)? * &target)?.sum_all()).unwrap();
        assert!(error < 1e-8, "{error}");
    }
}
