//! Mean over all pixels.

use candle_core::{DType, Device, Result, Tensor, bail};

use super::buffers::{Reading, unwritten};
use super::function::record;
use super::kernels::has_kernels;
use super::profile::{self, Kind};
use super::real::{Real, sum_map};
use super::simd::kernel;

const NAME: &str = "global_avg_pool";

/// The mean of each channel of `x`, shape (n, c, h, w), f32 or f64. Returns (n, c).
/// Errors: another rank or type, an empty tensor.
pub fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    if x.elem_count() == 0 {
        bail!("{NAME}: expected a tensor that is not empty, found {:?}", x.dims());
    }
    if !has_kernels(x.device()) {
        return x.mean((2, 3));
    }
    let x = x.contiguous()?;
    match x.dtype() {
        DType::F32 => typed::<f32>(&x, (n, c, h * w)),
        DType::F64 => typed::<f64>(&x, (n, c, h * w)),
        other => bail!("{NAME}: expected f32 or f64, found {}", other.as_str()),
    }
}

fn typed<T: Real>(x: &Tensor, (n, c, plane): (usize, usize, usize)) -> Result<Tensor> {
    let mut y = unwritten::<T>(n * c);
    means(Reading::of(x).slice::<T>(NAME)?, plane, &mut y);
    let dims = x.shape().clone();
    record(&[x], y, (n, c), move |_, gradient| {
        let _timing = profile::time(Kind::Pooling);
        let gradient = Reading::of(gradient);
        let mut dx = unwritten::<T>(n * c * plane);
        let share = T::one() / T::from_f64(plane as f64);
        for (dx, &gradient) in dx.chunks_exact_mut(plane).zip(gradient.slice::<T>(NAME)?) {
            dx.fill(gradient * share);
        }
        Ok(vec![Some(Tensor::from_vec(dx, &dims, &Device::Cpu)?)])
    })
}

kernel! { for Pooling:
    /// The mean of each plane.
    fn means<T>(x: &[T], plane: usize, y: &mut [T]) {
        for (y, x) in y.iter_mut().zip(x.chunks_exact(plane)) {
            *y = sum_map(x, |x| x) / T::from_f64(plane as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::check::{gradient_error, max_difference, wave};

    #[test]
    fn equals_candle() {
        let x = wave(&[3, 5, 4, 7], 1.0).unwrap();
        let difference = max_difference(&global_avg_pool(&x).unwrap(), &x.mean((2, 3)).unwrap()).unwrap();
        assert!(difference < 1e-14);
        let error = gradient_error(&[x], |t| global_avg_pool(&t[0])?.sqr()?.sum_all()).unwrap();
        assert!(error < 1e-6, "{error}");
    }

    #[test]
    fn an_empty_batch_is_an_error() {
        assert!(global_avg_pool(&Tensor::zeros((0, 1, 4, 4), DType::F32, &Device::Cpu).unwrap()).is_err());
    }
}
