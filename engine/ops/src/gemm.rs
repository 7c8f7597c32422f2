//! Matrix multiplication on slices: a checked door to the `gemm` crate, and to our own kernels, of bf16 parts and of f32.
#![allow(unsafe_code, reason = "the gemm crate takes pointers; every index is checked against the slices here")]

use std::ops::Deref;
use std::sync::OnceLock;

use gemm::Parallelism;

use super::bf16::{self, Kernel};
use super::panels;
use super::precision::Precision;
use super::profile::{self, Kind};
use super::real::Real;

/// A matrix inside a slice: element (i, j) is `data[i * row_stride + j * column_stride]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix<'a, T> {
    pub(super) data: &'a [T],
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
    /// Where it is packed for several products.
    pub(super) packed: Option<&'a Cells>,
}

impl<'a, T: Real> Matrix<'a, T> {
    /// Rows of `data`, each starting `row_stride` after the one before.
    pub(super) fn rows(data: &'a [T], row_stride: usize) -> Self {
        Self { data, row_stride, column_stride: 1, packed: None }
    }

    /// As [`Self::rows`], of a factor that other products read, too.
    pub(super) fn shared(factor: &'a Shared<'_, T>, row_stride: usize) -> Self {
        Self { packed: factor.packed.as_ref(), ..Self::rows(factor.data, row_stride) }
    }

    /// Rows and columns exchanged; nothing moves.
    pub(super) fn t(self) -> Self {
        Self { row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }

    fn as_f32(self) -> Option<Matrix<'a, f32>> {
        let Self { row_stride, column_stride, packed, .. } = self;
        T::as_f32(self.data).map(|data| Matrix { data, row_stride, column_stride, packed })
    }

    /// The same, which is packed in these cells where it is a right factor.
    pub(super) fn packed_in(self, cells: Option<&'a Cells>) -> Self {
        Self { packed: cells, ..self }
    }

    /// Any strides.
    #[cfg(test)]
    pub(super) fn strided(data: &'a [T], (row_stride, column_stride): (usize, usize)) -> Self {
        Self { data, row_stride, column_stride, packed: None }
    }
}

/// Where a right factor is packed for several products, as the first of them needs it.
#[derive(Debug, Default)]
pub(super) struct Cells {
    pub(super) tiles: OnceLock<bf16::Packed>,
    pub(super) panels: OnceLock<panels::Packed>,
}

/// Numbers that several products read as their right factor, each time with the same sizes and strides: they are packed
/// once.
#[derive(Debug)]
pub(super) struct Shared<'a, T> {
    data: &'a [T],
    /// `None` for a single product of each thread.
    packed: Option<Cells>,
}

impl Cells {
    /// For so many products of each thread; `None` for a single one, which does better to pack for itself, in its own cache.
    pub(super) fn new(products_per_thread: usize) -> Option<Self> {
        (products_per_thread > 1).then(Self::default)
    }
}

impl<'a, T> Shared<'a, T> {
    /// For so many products of each thread.
    pub(super) fn new(data: &'a [T], products_per_thread: usize) -> Self {
        Self { data, packed: Cells::new(products_per_thread) }
    }
}

impl<T> Deref for Shared<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.data
    }
}

/// What happens to the destination's old content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Old {
    /// Overwritten, never read.
    Replaced,
    /// Added to.
    Kept,
}

/// dst (m, n; rows `dst_stride` apart) = [old +] scale · a (m, k) · b (k, n).
///
/// Panics when a matrix does not lie in its slice: shapes are checked where tensors enter.
pub(super) fn multiply<T: Real>(
    (m, n, k): (usize, usize, usize),
    (dst, dst_stride): (&mut [T], usize),
    old: Old,
    scale: T,
    (a, b): (Matrix<'_, T>, Matrix<'_, T>),
    products: Products,
) {
    if let (Some(of_a), Some(of_b)) = (a.as_f32(), b.as_f32()) {
        let kernel = products.kernel.filter(|kernel| kernel.gains((m, n, k)));
        let in_panels = kernel.is_none() && panels::is_available() && panels::gains((m, n, k), of_b);
        if (kernel.is_some() || in_panels)
            && let (Some(dst), Some(&[scale])) = (T::as_f32_mut(dst), T::as_f32(&[scale]))
        {
            let threads = match products.parallelism {
                Parallelism::None => 1,
                Parallelism::Rayon(threads) => threads,
            };
            if let Some(kernel) = kernel {
                let _timing = products.time((m, n, k), bf16::MIN_SHARED_WORK);
                return bf16::multiply(kernel, (m, n, k), (dst, dst_stride), old, scale, (of_a, of_b), threads);
            }
            let _timing = products.time((m, n, k), panels::MIN_SHARED_WORK);
            return panels::multiply((m, n, k), (dst, dst_stride), old, scale, (of_a, of_b), threads);
        }
    }
    if m == 0 || n == 0 {
        return;
    }
    assert_in_bounds((m, n, k), (dst.len(), dst_stride), (a, b));
    let _timing = products.time((m, n, k), gemm::get_threading_threshold());
    // SAFETY: the assertion above shows that every element of the three matrices lies in its slice; the
    // destination is borrowed mutably, so it overlaps neither factor, and its rows do not overlap one
    // another (n <= dst_stride). Strides come from slices, so they fit isize.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            1,
            dst_stride as isize,
            old == Old::Kept,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            T::one(),
            scale,
            false,
            false,
            false,
            products.parallelism,
        );
    }
}

/// Panics when k is 0, or one of an (m, k) by (k, n) product's three matrices does not lie in its slice; m and n are not 0.
pub(super) fn assert_in_bounds<T: Real>(
    (m, n, k): (usize, usize, usize),
    (dst_len, dst_stride): (usize, usize),
    (a, b): (Matrix<'_, T>, Matrix<'_, T>),
) {
    assert!(n <= dst_stride && (m - 1) * dst_stride + n <= dst_len, "destination out of bounds");
    assert!(k > 0, "multiplying matrices of inner size 0");
    let last =
        |x: Matrix<'_, T>, rows: usize, columns: usize| (rows - 1) * x.row_stride + (columns - 1) * x.column_stride;
    assert!(last(a, m, k) < a.data.len() && last(b, k, n) < b.data.len(), "factor out of bounds");
}

/// dst (m, n; rows `dst_stride` apart) += scale · a (m, k) · b (k, n), in f64 on all threads. Factors are slices with
/// their row and column strides. Nothing happens when a size is 0.
///
/// Panics when a matrix does not lie in its slice.
pub fn add_product(
    (m, n, k): (usize, usize, usize),
    (dst, dst_stride): (&mut [f64], usize),
    scale: f64,
    (a, a_strides): (&[f64], (usize, usize)),
    (b, b_strides): (&[f64], (usize, usize)),
) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    let matrix = |data, (row_stride, column_stride)| Matrix { data, row_stride, column_stride, packed: None };
    let factors = (matrix(a, a_strides), matrix(b, b_strides));
    multiply((m, n, k), (dst, dst_stride), Old::Kept, scale, factors, Products::full(1));
}

/// How multiplications are computed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Products {
    parallelism: Parallelism,
    /// Multiplies f32 by bf16 parts, where that gains: one of each number in mixed precision, all three in full precision.
    /// f64 is left to `gemm`.
    kernel: Option<&'static Kernel>,
    /// Whose time theirs is.
    kind: Kind,
    /// Threads that fall to each multiplication that is spread over several.
    num_threads_each: usize,
}

impl Products {
    /// On one thread when `num_tasks` multiplications already keep every thread busy.
    /// Errors: a precision that this processor has no instructions for.
    pub(super) fn new(precision: Precision, num_tasks: usize) -> candle_core::Result<Self> {
        let kernel = match precision {
            Precision::F32 => bf16::exact(),
            Precision::Bf16 => match bf16::available() {
                Some(kernel) => Some(kernel),
                None => candle_core::bail!("multiplying: {}", super::precision::MISSING),
            },
            Precision::F16 => candle_core::bail!("multiplying: {}", super::precision::NO_F16),
        };
        Ok(Self { kernel, ..Self::full(num_tasks) })
    }

    /// In full precision.
    pub(super) fn full(num_tasks: usize) -> Self {
        let threads = rayon::current_num_threads();
        let is_alone = threads <= 1 || num_tasks >= threads;
        Self {
            parallelism: if is_alone { Parallelism::None } else { Parallelism::Rayon(threads) },
            kernel: bf16::exact(),
            kind: Kind::Product,
            num_threads_each: if is_alone { 1 } else { threads / num_tasks.max(1) },
        }
    }

    /// The same, multiplying f32 as such.
    #[cfg(test)]
    pub(super) fn without_parts(self) -> Self {
        Self { kernel: None, ..self }
    }

    /// The same as a part of an operation of this kind.
    pub(super) fn counted_as(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// Takes the time of a multiplication, which is spread over threads from `min_shared_work` multiply-adds on.
    fn time(self, (m, n, k): (usize, usize, usize), min_shared_work: usize) -> profile::Timing {
        let is_shared = m.saturating_mul(n).saturating_mul(k) >= min_shared_work;
        profile::time_of_threads(self.kind, if is_shared { self.num_threads_each } else { 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_scale_and_accumulation() {
        let a: Vec<f64> = (0..12).map(f64::from).collect(); // rows of 4: (3, 4), uses columns 1..3
        let b: Vec<f64> = (0..6).map(|i| f64::from(i) - 2.0).collect(); // (3, 2), transposed: (2, 3)
        let mut dst = vec![1.0; 15]; // rows of 5
        let factors = (Matrix::rows(&a[1..], 4), Matrix::rows(&b, 2).t());
        multiply((3, 3, 2), (&mut dst, 5), Old::Kept, 2.0, factors, Products::full(1));
        for i in 0..3 {
            for j in 0..3 {
                let product: f64 = (0..2).map(|k| a[1 + i * 4 + k] * b[j * 2 + k]).sum();
                assert_eq!(dst[i * 5 + j], 1.0 + 2.0 * product);
            }
            assert_eq!(dst[i * 5 + 3], 1.0);
        }
    }
}
