//! 2x2 max pooling.

use candle_core::{DType, Device, Result, Tensor, bail};
use rayon::prelude::*;

use super::buffers::{Reading, rows_per_task, unwritten};
use super::function::record;
use super::kernels::has_kernels;
use super::profile::{self, Kind};
use super::real::Real;

const NAME: &str = "max_pool2d";

/// The largest of each 2x2 window of `x`, shape (n, c, h, w), f32 or f64. Returns (n, c, h/2, w/2); an odd last row
/// or column is left out. On the CPU the gradient goes to the first largest of each window.
/// Errors: another rank or type, an empty batch, a side below 2.
pub fn max_pool2d(x: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    if n == 0 || c == 0 || h < 2 || w < 2 {
        bail!("{NAME}: expected (n, c, h, w) with sides of at least 2, found {:?}", x.dims());
    }
    if !has_kernels(x.device()) {
        return composed(x, (n, c, h / 2, w / 2));
    }
    let x = x.contiguous()?;
    match x.dtype() {
        DType::F32 => typed::<f32>(&x, (n, c, h, w)),
        DType::F64 => typed::<f64>(&x, (n, c, h, w)),
        other => bail!("{NAME}: expected f32 or f64, found {}", other.as_str()),
    }
}

/// The same by candle's elementwise operations, for devices other than the CPU; equal ones share the gradient. Not by its
/// pooling, whose backward pass hands down a quarter of the gradient: it multiplies it by the share of a window that is
/// largest.
fn composed(x: &Tensor, (n, c, h, w): (usize, usize, usize, usize)) -> Result<Tensor> {
    let windows = x.narrow(2, 0, 2 * h)?.narrow(3, 0, 2 * w)?.reshape((n, c, h, 2, w, 2))?;
    let rows = windows.narrow(5, 0, 1)?.maximum(&windows.narrow(5, 1, 1)?)?;
    rows.narrow(3, 0, 1)?.maximum(&rows.narrow(3, 1, 1)?)?.reshape((n, c, h, w))
}

fn typed<T: Real>(x: &Tensor, (n, c, h, w): (usize, usize, usize, usize)) -> Result<Tensor> {
    let window = (h / 2) * (w / 2);
    let mut y = unwritten::<T>(n * c * window);
    let mut winners = vec![0_u8; n * c * window];
    {
        let x = Reading::of(x);
        let planes = y.par_chunks_mut(window).zip(winners.par_chunks_mut(window));
        let planes = planes.zip(x.slice::<T>(NAME)?.par_chunks(h * w)).with_min_len(rows_per_task(h * w));
        planes.for_each_init(|| profile::time(Kind::Pooling), |_, ((y, winners), x)| pool(x, w, y, winners));
    }
    let dims = x.shape().clone();
    record(&[x], y, (n, c, h / 2, w / 2), move |_, gradient| {
        let gradient = Reading::of(gradient);
        let mut dx = vec![T::zero(); dims.elem_count()];
        let windows = gradient.slice::<T>(NAME)?.par_chunks(window).zip(winners.par_chunks(window));
        let planes = dx.par_chunks_mut(h * w).zip(windows).with_min_len(rows_per_task(h * w));
        planes.for_each_init(
            || profile::time(Kind::Pooling),
            |_, (dx, (gradient, winners))| {
                for (index, (&gradient, &winner)) in gradient.iter().zip(winners).enumerate() {
                    let (row, column) = (index / (w / 2), index % (w / 2));
                    let (down, right) = (usize::from(winner / 2), usize::from(winner % 2));
                    dx[(2 * row + down) * w + 2 * column + right] = gradient;
                }
            },
        );
        Ok(vec![Some(Tensor::from_vec(dx, &dims, &Device::Cpu)?)])
    })
}

/// One plane: the largest of each window and which of the four it is.
fn pool<T: Real>(x: &[T], w: usize, y: &mut [T], winners: &mut [u8]) {
    let rows = y.chunks_exact_mut(w / 2).zip(winners.chunks_exact_mut(w / 2));
    for (pair, (y, winners)) in x.chunks_exact(2 * w).zip(rows) {
        let (upper, lower) = pair.split_at(w);
        let columns = upper.chunks_exact(2).zip(lower.chunks_exact(2));
        for ((y, winner), (upper, lower)) in y.iter_mut().zip(winners).zip(columns) {
            (*y, *winner) = (upper[0], 0);
            // NaN wins over all before it, as the comparison with it fails.
            for (value, at) in [(upper[1], 1), (lower[0], 2), (lower[1], 3)] {
                #[allow(clippy::neg_cmp_op_on_partial_ord, reason = "NaN must make the comparison fail and win")]
                if !(*y >= value) {
                    (*y, *winner) = (value, at);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::check::{gradient_error, max_difference, wave};
    use crate::kernels::without_kernels;

    #[test]
    fn equals_candle_on_even_and_odd_sides() {
        for shape in [[2, 3, 4, 6], [1, 2, 5, 7], [3, 1, 2, 2]] {
            let x = wave(&shape, 1.0).unwrap();
            assert_eq!(max_difference(&max_pool2d(&x).unwrap(), &x.max_pool2d(2).unwrap()).unwrap(), 0.0);
            let error = gradient_error(&[x], |t| max_pool2d(&t[0])?.sqr()?.sum_all()).unwrap();
            assert!(error < 1e-6, "{shape:?}: {error}");
            let composed = |t: &[Tensor]| without_kernels(|| max_pool2d(&t[0]))?.sqr()?.sum_all();
            let error = gradient_error(&[wave(&shape, 1.0).unwrap()], composed).unwrap();
            assert!(error < 1e-6, "composed, {shape:?}: {error}");
        }
    }

    #[test]
    fn ties_go_to_the_first() {
        let x = candle_core::Var::zeros((1, 1, 2, 2), DType::F32, &Device::Cpu).unwrap();
        let grads = max_pool2d(&x).unwrap().sum_all().unwrap().backward().unwrap();
        let gradient = grads.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(gradient, [1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn nothing_to_pool_is_an_error() {
        let zeros = |shape: (usize, usize, usize, usize)| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        assert!(max_pool2d(&zeros((0, 1, 4, 4))).is_err());
        assert!(max_pool2d(&zeros((1, 1, 1, 4))).is_err());
    }
}
