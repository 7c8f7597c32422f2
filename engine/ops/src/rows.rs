//! Small kernels on the rows of a matrix.

use super::real::Real;
use super::simd::kernel;

kernel! { for Product:
    /// Each row of y = row.
    pub(super) fn fill_rows<T>(row: &[T], y: &mut [T]) {
        for y in y.chunks_exact_mut(row.len().max(1)) {
            y.copy_from_slice(row);
        }
    }
}

kernel! { for Product:
    /// y = x + row, row by row.
    pub(super) fn add_row<T>(x: &[T], row: &[T], y: &mut [T]) {
        let c = row.len().max(1);
        for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
            for ((y, &x), &b) in y.iter_mut().zip(x).zip(row) {
                *y = x + b;
            }
        }
    }
}

kernel! { for Product:
    /// sums += Σ rows of x
    pub(super) fn add_column_sums<T>(x: &[T], sums: &mut [T]) {
        let c = sums.len().max(1);
        for x in x.chunks_exact(c) {
            for (sum, &x) in sums.iter_mut().zip(x) {
                *sum += x;
            }
        }
    }
}

/// Splits `buffer` into parts of these lengths. Panics when they do not fit.
pub(super) fn split<const N: usize, T: Real>(mut buffer: &mut [T], lengths: [usize; N]) -> [&mut [T]; N] {
    lengths.map(|length| {
        let (part, rest) = std::mem::take(&mut buffer).split_at_mut(length);
        buffer = rest;
        part
    })
}
