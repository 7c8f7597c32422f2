//! What a matrix reads, rounded to 8 bits as the runtime rounds it in front of integer weights.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, D, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::buffers::{rows_per_task, slice};
use super::function::composed_function;
use super::kernels::has_kernels;
use super::profile::{self, Kind};
use super::real::{Real, max_map, sum_map};
use super::simd::kernel;

/// How a matrix reads its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Activations {
    /// As they are.
    #[default]
    Floats,
    /// Rounded to 8 bits, a scale per row (token or image): what foretrain-edge does in front of integer weights. The
    /// gradient passes straight through.
    Int8,
}

impl Activations {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Floats, Self::Int8];

    /// The name to show and to type.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Floats => "f32",
            Self::Int8 => "int8",
        }
    }

    /// The one called `label`.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|activations| activations.label() == label)
    }

    /// x (..., inputs) as a matrix reads it, in its shape. f32 or f64; differentiable.
    pub fn read(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Floats => Ok(x.clone()),
            Self::Int8 => round_rows(x),
        }
    }

    /// The same of rows of `len` numbers, in place.
    pub(super) fn read_rows<T: Real>(self, rows: &mut [T], len: usize) {
        match self {
            Self::Floats => {}
            Self::Int8 => {
                let _timing = profile::time(Kind::Activation);
                rows.chunks_exact_mut(len.max(1)).for_each(round_row);
            }
        }
    }
}

/// Each row of x (..., inputs) as q · s, with s = max |x| / 127 and q = x / s rounded to the nearest of -127 to 127, half to
/// even; rows with NaN or infinity become NaN. The gradient passes straight through to x.
/// Source: Ma et al. 2024, arXiv 2402.17764, section 2; Bengio et al. 2013, arXiv 1308.3432.
fn round_rows(x: &Tensor) -> Result<Tensor> {
    if has_kernels(x.device()) {
        return x.contiguous()?.apply_op1(RoundRows);
    }
    let forward = |inputs: &[Tensor]| {
        let [x] = inputs else { bail!("round_rows: expected one input") };
        // Here halves round away from zero; a product of floats is seldom one.
        let largest = x.abs()?.max_keepdim(D::Minus1)?;
        let step = (&largest / 127.0)?;
        // A row of zeros stays one: of 0 · x any number will do.
        let inverse = (largest.maximum(f64::from(f32::MIN_POSITIVE))?.recip()? * 127.0)?;
        x.broadcast_mul(&inverse)?.round()?.broadcast_mul(&step)
    };
    composed_function(&[x], forward, |_, _, grad| Ok(vec![grad.clone()]))
}

struct RoundRows;

impl CustomOp1 for RoundRows {
    fn name(&self) -> &'static str {
        "round_rows"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        fn run<T: Real>(x: &[T], len: usize) -> CpuStorage {
            let mut y = x.to_vec();
            y.par_chunks_mut(len * rows_per_task(len)).for_each(|rows| Activations::Int8.read_rows(rows, len));
            T::to_cpu_storage_owned(y)
        }
        let len = layout.dims().last().copied().unwrap_or(1).max(1);
        let y = match storage.dtype() {
            DType::F32 => run::<f32>(slice(self.name(), storage, layout)?, len),
            DType::F64 => run::<f64>(slice(self.name(), storage, layout)?, len),
            other => bail!("round_rows: expected f32 or f64, found {}", other.as_str()),
        };
        Ok((y, layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.clone()))
    }
}

kernel! {
    fn round_row<T>(row: &mut [T]) {
        let (zero, steps) = (T::zero(), T::from_f64(127.0));
        let largest = max_map(row, |x| if x < zero { zero - x } else { x });
        let inverse = steps / largest;
        // 0 · x is NaN for infinity and NaN alone.
        let not_a_number = sum_map(row, |x| zero * x);
        if not_a_number != zero {
            row.fill(not_a_number);
        } else if !inverse.to_f64().is_finite() {
            // Zero, or so small that it may as well be.
            row.fill(zero);
        } else {
            let step = largest / steps;
            for x in row {
                *x = (*x * inverse).round_small() * step;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::check::{max_difference, wave};
    use crate::kernels::without_kernels;

    #[test]
    fn rows_are_rounded_each_by_its_largest() {
        let x = Tensor::new(&[[127.0_f32, -0.6, 2.5], [0.0, 0.0, 0.0], [1.0, f32::NAN, 2.0]], &Device::Cpu).unwrap();
        let y = Activations::Int8.read(&x).unwrap().to_vec2::<f32>().unwrap();
        // Halves go to the even one.
        assert_eq!(y[..2], [[127.0, -1.0, 2.0], [0.0, 0.0, 0.0]]);
        assert!(y[2].iter().all(|value| value.is_nan()));
        let tiny = Tensor::new(&[[1e-40_f32, 0.0, 0.0]], &Device::Cpu).unwrap();
        assert_eq!(Activations::Int8.read(&tiny).unwrap().to_vec2::<f32>().unwrap(), [[0.0; 3]]);
    }

    fn passes_straight_through() {
        let x = Var::new(&[[1.0_f32, -0.3], [0.2, 0.9]], &Device::Cpu).unwrap();
        let weight = Tensor::new(&[[2.0_f32, -1.0], [0.5, 3.0]], &Device::Cpu).unwrap();
        let y = Activations::Int8.read(x.as_tensor()).unwrap();
        assert!(y.to_vec2::<f32>().unwrap() != x.as_tensor().to_vec2::<f32>().unwrap());
        let gradients = (y * &weight).unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(gradients.get(&x).unwrap().to_vec2::<f32>().unwrap(), weight.to_vec2::<f32>().unwrap());
    }

    #[test]
    fn the_gradient_passes_straight_through() {
        passes_straight_through();
        without_kernels(passes_straight_through);
    }

    #[test]
    fn composed_rows_are_the_same() {
        let x = wave(&[3, 5, 7], 2.0).unwrap();
        let x = Tensor::cat(&[&x, &x.zeros_like().unwrap()], 0).unwrap();
        let ours = Activations::Int8.read(&x).unwrap();
        let composed = without_kernels(|| Activations::Int8.read(&x)).unwrap();
        assert!(max_difference(&ours, &composed).unwrap() < 1e-14);
        assert!(max_difference(&ours, &x).unwrap() > 1e-3);
    }
}
