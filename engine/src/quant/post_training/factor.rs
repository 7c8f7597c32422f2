//! Factors of symmetric positive matrices, in f64, blocked so that nearly all work is matrix multiplication.

use rayon::prelude::*;

use crate::models::ops::add_product;

/// Columns that are factored together.
const BLOCK: usize = 64;

/// The upper triangular U, (n, n) row-major, with H⁻¹ = UᵀU, for a symmetric positive H, (n, n): what second-order
/// error compensation reads, row by row. `None` when H is not positive.
///
/// With rows and columns reversed, H = LLᵀ; then L⁻¹ reversed back is U.
/// Source: Frantar et al. 2022, arXiv 2210.17323, section 3.3, step 3.
pub(super) fn inverse_factor(mut h: Vec<f64>, n: usize) -> Option<Vec<f64>> {
    debug_assert_eq!(h.len(), n * n);
    // Reversing both axes of a row-major matrix reverses its numbers.
    h.reverse();
    cholesky(&mut h, n)?;
    let mut inverse = lower_inverse(&h, n);
    inverse.reverse();
    Some(inverse)
}

/// The lower L with A = LLᵀ in place of A; what is above the diagonal is left as it was.
fn cholesky(a: &mut [f64], n: usize) -> Option<()> {
    for start in (0..n).step_by(BLOCK) {
        let width = BLOCK.min(n - start);
        let end = start + width;
        let (upper, lower) = a.split_at_mut(end * n);
        for row in 0..width {
            let at = (start + row) * n + start;
            for column in 0..=row {
                let other = (start + column) * n + start;
                let sum: f64 = (0..column).map(|k| upper[at + k] * upper[other + k]).sum();
                let rest = upper[at + column] - sum;
                upper[at + column] = if row > column {
                    rest / upper[other + column]
                } else if rest > 0.0 && rest.is_finite() {
                    rest.sqrt()
                } else {
                    return None;
                };
            }
        }
        let diagonal = &*upper;
        lower.par_chunks_exact_mut(n).for_each(|row| {
            for column in 0..width {
                let other = &diagonal[(start + column) * n + start..][..=column];
                let sum: f64 = other.iter().zip(&row[start..start + column]).map(|(a, b)| a * b).sum();
                row[start + column] = (row[start + column] - sum) / other[column];
            }
        });
        let rest = n - end;
        let panel: Vec<f64> = lower.chunks_exact(n).flat_map(|row| &row[start..end]).copied().collect();
        if let Some(trailing) = lower.get_mut(end..) {
            let factors = ((&panel[..], (width, 1)), (&panel[..], (1, width)));
            add_product((rest, rest, width), (trailing, n), -1.0, factors.0, factors.1);
        }
    }
    Some(())
}

/// L⁻¹ for a lower triangular L with a positive diagonal; zeros above the diagonal.
fn lower_inverse(l: &[f64], n: usize) -> Vec<f64> {
    let mut inverse = vec![0.0; n * n];
    for start in (0..n).step_by(BLOCK) {
        let width = BLOCK.min(n - start);
        // The block on the diagonal, column by column.
        let mut block = vec![0.0; width * width];
        for column in 0..width {
            for row in column..width {
                let at = (start + row) * n + start;
                let sum: f64 = (column..row).map(|k| l[at + k] * block[k * width + column]).sum();
                let unit = if row == column { 1.0 } else { 0.0 };
                block[row * width + column] = (unit - sum) / l[at + row];
            }
        }
        let (above, rows) = inverse.split_at_mut(start * n);
        // X[i, ..] = -X[i, i] · L[i, ..] · X[.., ..]
        let mut product = vec![0.0; width * start];
        let (of_l, of_above) = ((&l[start * n..], (n, 1)), (&*above, (n, 1)));
        add_product((width, start, start), (&mut product, start), 1.0, of_l, of_above);
        let (of_block, of_product) = ((&block[..], (width, 1)), (&product[..], (start, 1)));
        add_product((width, start, width), (rows, n), -1.0, of_block, of_product);
        for (row, values) in block.chunks_exact(width).enumerate() {
            rows[row * n + start..][..width].copy_from_slice(values);
        }
    }
    inverse
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// XᵀX of a wave, plus something on the diagonal: (n, n).
    pub(super) fn positive(n: usize) -> Vec<f64> {
        let x = |row: usize, column: usize| ((row * 7 + column * 13) as f64 * 0.37).sin();
        let entry = |i: usize, j: usize| (0..n + 3).map(|k| x(k, i) * x(k, j)).sum::<f64>();
        (0..n * n).map(|at| entry(at / n, at % n) + if at / n == at % n { 0.5 } else { 0.0 }).collect()
    }

    #[test]
    fn the_factor_squared_is_the_inverse() {
        for n in [1, 2, 63, 64, 65, 150] {
            let h = positive(n);
            let u = inverse_factor(h.clone(), n).unwrap();
            for i in 0..n {
                assert!((0..i).all(|j| u[i * n + j] == 0.0) && u[i * n + i] > 0.0, "upper, {n}");
            }
            // H · UᵀU = 1.
            let inverse = |i: usize, j: usize| (0..n).map(|k| u[k * n + i] * u[k * n + j]).sum::<f64>();
            let inverse: Vec<f64> = (0..n * n).map(|at| inverse(at / n, at % n)).collect();
            for i in (0..n).step_by(7) {
                for j in 0..n {
                    let product: f64 = (0..n).map(|k| h[i * n + k] * inverse[k * n + j]).sum();
                    assert!((product - if i == j { 1.0 } else { 0.0 }).abs() < 1e-8, "{n}: {i} {j} {product}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_positive_is_refused() {
        assert_eq!(inverse_factor(vec![1.0, 2.0, 2.0, 1.0], 2), None);
        assert_eq!(inverse_factor(vec![0.0], 1), None);
        assert_eq!(inverse_factor(vec![f64::NAN], 1), None);
        assert_eq!(inverse_factor(Vec::new(), 0), Some(Vec::new()));
    }
}
