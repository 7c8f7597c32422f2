//! The iteration by which Muon makes a matrix orthogonal, in place.
//!
//! Two of its three products are symmetric. Of those the lower half is computed, in bands of rows, and mirrored: of a square
//! matrix that leaves two thirds of the work, of a wide one three quarters.

use super::buffers::Scratch;
use super::gemm::{Matrix, Old, Products, multiply};

/// Rows of a symmetric product that are computed at once: with fewer, less is computed twice; with more, a product is
/// large enough to run at full speed. Sides of the squares that are mirrored or turned, too.
const BAND: usize = 64;

/// `num_iterations` times X ← aX + X(bG + cG²) with G = XᵀX; for `x` with fewer rows than columns the same of its transpose,
/// which is X ← aX + (bG + cG²)X with G = XXᵀ. `x`: (rows, columns), row after row. On all threads.
///
/// Singular values s move as s ← as + bs³ + cs⁵; where they go is for the coefficients to say.
/// Panics when `x` has another length. Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
pub fn newton_schulz(x: &mut [f32], (rows, columns): (usize, usize), coefficients: [f32; 3], num_iterations: u32) {
    assert_eq!(x.len(), rows * columns, "a matrix of {rows} x {columns}");
    if x.is_empty() {
        return;
    }
    if rows >= columns {
        return iterate(x, columns, coefficients, num_iterations);
    }
    // Products of columns with columns read both factors along their rows, which is faster than turning them each time.
    let mut turned = Scratch::new(x.len());
    transpose(x, columns, &mut turned);
    iterate(&mut turned, rows, coefficients, num_iterations);
    transpose(&turned, rows, x);
}

/// Of a matrix with at most as many columns as rows.
fn iterate(x: &mut [f32], columns: usize, [a, b, c]: [f32; 3], num_iterations: u32) {
    let rows = x.len() / columns;
    let products = Products::full(1);
    let mut gram = Scratch::new(columns * columns);
    let mut polynomial = Scratch::new(columns * columns);
    let mut next = Scratch::new(x.len());
    for _ in 0..num_iterations {
        symmetric(&mut gram, columns, |first, (num_rows, num_columns), band| {
            let factors = (Matrix::rows(&x[first..], columns).t(), Matrix::rows(x, columns));
            multiply((num_rows, num_columns, rows), (band, columns), Old::Replaced, 1.0, factors, products);
        });
        scaled(&gram, b, &mut polynomial);
        symmetric(&mut polynomial, columns, |first, (num_rows, num_columns), band| {
            let factors = (Matrix::rows(&gram[first..], columns).t(), Matrix::rows(&gram, columns));
            multiply((num_rows, num_columns, columns), (band, columns), Old::Kept, c, factors, products);
        });
        scaled(x, a, &mut next);
        let factors = (Matrix::rows(x, columns), Matrix::rows(&polynomial, columns));
        multiply((rows, columns, columns), (&mut next, columns), Old::Kept, 1.0, factors, products);
        x.copy_from_slice(&next);
    }
}

/// Has `fill` write the lower half of a symmetric matrix: it gets the first row of a band, its rows and the columns up to
/// the diagonal's end, and where they start. Then mirrors it.
fn symmetric(matrix: &mut [f32], side: usize, fill: impl Fn(usize, (usize, usize), &mut [f32])) {
    for first in (0..side).step_by(BAND) {
        let end = (first + BAND).min(side);
        fill(first, (end - first, end), &mut matrix[first * side..]);
    }
    for first in (0..side).step_by(BAND) {
        for left in (0..=first).step_by(BAND) {
            // One square of the lower half at a time, which stays in the cache.
            for row in first..(first + BAND).min(side) {
                for column in left..(left + BAND).min(row) {
                    matrix[column * side + row] = matrix[row * side + column];
                }
            }
        }
    }
}

/// Rows of `x`, `columns` numbers each, as columns of `out`.
fn transpose(x: &[f32], columns: usize, out: &mut [f32]) {
    let rows = x.len() / columns;
    for first in (0..rows).step_by(BAND) {
        for left in (0..columns).step_by(BAND) {
            for column in left..(left + BAND).min(columns) {
                for row in first..(first + BAND).min(rows) {
                    out[column * rows + row] = x[row * columns + column];
                }
            }
        }
    }
}

fn scaled(x: &[f32], factor: f32, out: &mut [f32]) {
    out.iter_mut().zip(x).for_each(|(out, x)| *out = factor * x);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same in f64, product by product.
    fn composed(x: &[f64], (rows, columns): (usize, usize), [a, b, c]: [f64; 3]) -> Vec<f64> {
        let product = |left: &[f64], right: &[f64], (m, n, k): (usize, usize, usize)| -> Vec<f64> {
            let sum = |i: usize, j: usize| (0..k).map(|l| left[i * k + l] * right[l * n + j]).sum();
            (0..m * n).map(|at| sum(at / n, at % n)).collect()
        };
        let transposed: Vec<f64> = (0..x.len()).map(|at| x[at % rows * columns + at / rows]).collect();
        let gram = product(x, &transposed, (rows, rows, columns));
        let square = product(&gram, &gram, (rows, rows, rows));
        let polynomial: Vec<f64> = gram.iter().zip(&square).map(|(g, s)| b * g + c * s).collect();
        let moved = product(&polynomial, x, (rows, columns, rows));
        x.iter().zip(moved).map(|(x, moved)| a * x + moved).collect()
    }

    #[test]
    fn iterations_equal_those_of_whole_products() {
        let coefficients = [3.4445, -4.775, 2.0315];
        for shape @ (rows, columns) in
            [(1, 1), (1, 9), (7, 3), (64, 64), (65, 65), (130, 70), (70, 130), (128, 300), (200, 200)]
        {
            let start: Vec<f64> =
                (0..rows * columns).map(|at| (at as f64 * 0.7311).sin() + (at % 5) as f64 * 0.2 + 0.1).collect();
            let norm = start.iter().map(|x| x * x).sum::<f64>().sqrt();
            let start: Vec<f64> = start.iter().map(|x| f64::from((x / norm) as f32)).collect();
            let expected = (0..3).fold(start.clone(), |x, _| composed(&x, shape, coefficients));
            let mut found: Vec<f32> = start.iter().map(|&x| x as f32).collect();
            newton_schulz(&mut found, shape, coefficients.map(|x| x as f32), 3);
            let largest = expected.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
            for (found, expected) in found.iter().zip(&expected) {
                assert!((f64::from(*found) - expected).abs() < 2e-5 * largest, "{shape:?}: {found} for {expected}");
            }
        }
    }

    #[test]
    fn empty_matrices_stay() {
        newton_schulz(&mut [], (0, 5), [1.0; 3], 2);
    }
}
