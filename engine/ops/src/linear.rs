//! Linear maps: the head of a language model, whose weight is stored output-major; and what layers are composed of where
//! there are no kernels.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, D, DType, Device, Layout, Result, Shape, Tensor, bail};

use super::buffers::{Reading, slice, unwritten};
use super::function::composed_function;
use super::gemm::{Matrix, Old, Products, multiply};
use super::kernels::has_kernels;
use super::precision::Precision;
use super::real::Real;

/// x · weightᵀ: x (..., inputs), weight (outputs, inputs), to (..., outputs). f32 or f64; differentiable in both.
/// One multiplication whatever the leading dimensions; nothing is transposed in memory.
/// `precision` counts for f32. Errors: sizes that do not fit; a precision that the processor has not.
pub fn linear(x: &Tensor, weight: &Tensor, precision: Precision) -> Result<Tensor> {
    let (_, inputs) = weight.dims2()?;
    if x.dim(D::Minus1)? != inputs {
        bail!("linear: expected rows of {inputs}, found {:?}", x.dims());
    }
    if has_kernels(x.device()) && inputs > 0 {
        return x.contiguous()?.apply_op2(&weight.contiguous()?, Linear { products: Products::new(precision, 1)? });
    }
    Map { weight, stored: Stored::OutputMajor, bias: None, onto: None }.composed(x, precision)
}

/// In what order a weight lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// (inputs, outputs), as GPT-2 has it.
    InputMajor,
    /// (outputs, inputs).
    OutputMajor,
}

impl Stored {
    /// `weight` or a view of it, (inputs, outputs).
    fn input_major(self, weight: &Tensor) -> Result<Tensor> {
        match self {
            Self::InputMajor => Ok(weight.clone()),
            Self::OutputMajor => weight.t(),
        }
    }
}

/// onto + x · weight + bias.
#[derive(Debug, Clone, Copy)]
pub(super) struct Map<'a> {
    pub(super) weight: &'a Tensor,
    pub(super) stored: Stored,
    /// (outputs)
    pub(super) bias: Option<&'a Tensor>,
    /// (..., outputs)
    pub(super) onto: Option<&'a Tensor>,
}

impl Map<'_> {
    /// x (..., inputs) to (..., outputs), by candle's operations on any device; differentiable in everything. One
    /// multiplication whatever the leading dimensions: with a weight repeated for each of them, its gradient would be made
    /// as often before it is summed.
    pub(super) fn composed(self, x: &Tensor, precision: Precision) -> Result<Tensor> {
        let Self { weight, stored, bias, onto } = self;
        let mut inputs = vec![x, weight];
        inputs.extend(bias);
        inputs.extend(onto);
        let (has_bias, has_onto) = (bias.is_some(), onto.is_some());
        let forward = |inputs: &[Tensor]| {
            let [x, weight, added @ ..] = inputs else { bail!("a linear map: expected a weight") };
            let weight = stored.input_major(&rounded(weight, precision)?)?;
            let mut shape = x.dims().to_vec();
            if let Some(last) = shape.last_mut() {
                *last = weight.dim(1)?;
            }
            let y = rounded_product(&rounded(&as_rows(x)?, precision)?, &weight)?.reshape(shape)?;
            added.iter().try_fold(y, |y, added| y.broadcast_add(added))
        };
        composed_function(&inputs, forward, move |inputs, _, grad| {
            let [x, weight, ..] = inputs else { bail!("a linear map: expected a weight") };
            let d_bias = if has_bias { Some(as_rows(grad)?.sum(0)?) } else { None };
            let (rows, d_rows) = (rounded(&as_rows(x)?, precision)?, rounded(&as_rows(grad)?, precision)?);
            let weight = stored.input_major(&rounded(weight, precision)?)?;
            let dx = rounded_product(&d_rows, &weight.t()?)?.reshape(x.shape())?;
            drop(weight);
            let d_weight = match stored {
                Stored::InputMajor => rounded_product(&rows.t()?, &d_rows)?,
                Stored::OutputMajor => rounded_product(&d_rows.t()?, &rows)?,
            };
            let mut gradients = vec![dx, d_weight];
            gradients.extend(d_bias);
            if has_onto {
                gradients.push(grad.clone());
            }
            Ok(gradients)
        })
    }
}

/// x (..., c) as (rows, c).
pub(super) fn as_rows(x: &Tensor) -> Result<Tensor> {
    let c = x.dim(D::Minus1)?;
    x.reshape((x.elem_count().checked_div(c).unwrap_or(0), c))
}

/// f32 rounded to `precision`; f64 as they are. Of a tensor that lies as it is read: views are made of what it returns.
pub(super) fn rounded(x: &Tensor, precision: Precision) -> Result<Tensor> {
    match precision.rounded() {
        Some(rounded) if x.dtype() == DType::F32 => x.to_dtype(rounded),
        _ => Ok(x.clone()),
    }
}

/// a · b of what [`rounded`] gave, or views of it, by candle, without a graph: f32 or f64. A sum of rounded numbers is rounded,
/// too, as it leaves the multiplication.
pub(super) fn rounded_product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let product = a.matmul(b)?;
    if product.dtype() == DType::F64 { Ok(product) } else { product.to_dtype(DType::F32) }
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
    use crate::check::{bf16_error, composed_error, gradient_error, max_difference, wave};

    #[test]
    fn bf16_is_as_far_from_f32_as_rounding_allows() {
        let inputs = [wave(&[2, 35, 47], 1.0).unwrap(), wave(&[33, 47], 1.0).unwrap()];
        let error = bf16_error(&inputs, |x, precision| linear(&x[0], &x[1], precision)).unwrap();
        // Factors lose up to 1/256 of themselves; no error at all would be f32 after all.
        assert!(error.is_none_or(|error| 1e-4 < error && error < 0.02), "{error:?}");
    }

    #[test]
    fn composed_products_are_as_far_from_f32_as_rounding_allows() {
        // bf16 has 8 bits, fp16 11.
        for (precision, least, most) in [(Precision::Bf16, 1e-3, 0.02), (Precision::F16, 1e-4, 0.002)] {
            let inputs = [wave(&[2, 35, 47], 1.0).unwrap(), wave(&[33, 47], 1.0).unwrap()];
            let error = composed_error(&inputs, precision, |x, precision| linear(&x[0], &x[1], precision)).unwrap();
            assert!(least < error && error < most, "{precision:?}: {error}");
            let inputs =
                [[2, 35, 47].as_slice(), &[47, 33], &[33], &[2, 35, 33]].map(|shape| wave(shape, 1.0).unwrap());
            let error = composed_error(&inputs, precision, |x, precision| {
                let map = Map { weight: &x[1], stored: Stored::InputMajor, bias: Some(&x[2]), onto: Some(&x[3]) };
                map.composed(&x[0], precision)
            });
            let error = error.unwrap();
            assert!(least < error && error < most, "{precision:?}: {error}");
        }
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
        let inputs = [[2, 5, 7].as_slice(), &[7, 3], &[3], &[2, 5, 3]].map(|shape| wave(shape, 1.0).unwrap());
        let error = gradient_error(&inputs, |x| {
            let map = Map { weight: &x[1], stored: Stored::InputMajor, bias: Some(&x[2]), onto: Some(&x[3]) };
            (map.composed(&x[0], Precision::F32)? * &target)?.sum_all()
        });
        assert!(error.as_ref().is_ok_and(|error| *error < 1e-8), "{error:?}");
    }
}
