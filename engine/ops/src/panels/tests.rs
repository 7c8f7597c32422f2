use super::*;
use crate::gemm::{Matrix, Old, Shared};
use crate::span::Span;

/// Numbers that sums tell apart.
fn wave(count: usize, shift: f32) -> Vec<f32> {
    (0..count).map(|i| ((i as f32 * 0.37 + shift).sin() * 8.0).round() / 8.0).collect()
}

/// A factor of this many rows and columns, and how it lies: by rows, by columns, or with gaps.
fn factor(data: &[f32], (rows, columns): (usize, usize), lies: usize) -> Matrix<'_, f32> {
    match lies {
        0 => Matrix::rows(data, columns + 3),
        1 => Matrix::rows(data, rows + 5).t(),
        _ => Matrix::strided(data, (2 * columns + 1, 2)),
    }
}

fn element(x: Matrix<'_, f32>, row: usize, column: usize) -> f64 {
    f64::from(x.data[row * x.row_stride + column * x.column_stride])
}

#[track_caller]
fn check((m, n, k): (usize, usize, usize), (a, b): (Matrix<'_, f32>, Matrix<'_, f32>), threads: usize) {
    for (old, scale) in [(Old::Replaced, 1.0), (Old::Kept, -0.5)] {
        let stride = n + 2;
        let mut dst = vec![0.25_f32; m * stride];
        multiply((m, n, k), (&mut dst, stride), old, scale, (a, b), threads);
        for row in 0..m {
            for column in 0..n {
                let sum: f64 = (0..k).map(|inner| element(a, row, inner) * element(b, inner, column)).sum();
                let expected = f64::from(scale) * sum + if old == Old::Kept { 0.25 } else { 0.0 };
                let found = f64::from(dst[row * stride + column]);
                assert!((found - expected).abs() < 1e-3, "({m}, {n}, {k}) at {row}, {column}: {found}, not {expected}");
            }
            assert_eq!(&dst[row * stride + n..][..2], &[0.25; 2], "written beside row {row}");
        }
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn products_are_those_of_numbers_one_by_one() {
    if !is_available() {
        eprintln!("SKIPPED: no AVX-512");
        return;
    }
    for (m, n, k) in
        [(1, 32, 1), (14, 31, 7), (15, 64, 33), (29, 17, 520), (57, 33, 40), (70, 1030, 20), (13, 40, 1100)]
    {
        let (left, right) = (wave(2 * (m + 8) * (k + 8), 0.1), wave(2 * (k + 8) * (n + 8), 0.7));
        for lies in 0..9 {
            let (a, b) = (factor(&left, (m, k), lies % 3), factor(&right, (k, n), lies / 3));
            check((m, n, k), (a, b), 1);
        }
        let (a, b) = (factor(&left, (m, k), 0), factor(&right, (k, n), 1));
        check((m, n, k), (a, b), 3);
    }
    // Large enough for several threads; unpacked; at the ends of the parts of the inner size; a part with several chunks of
    // columns.
    for (m, n, k) in [
        (150, 200, 150),
        (60, 1100, 70),
        (50, 1100, 100),
        (20, 600, 384),
        (20, 600, 385),
        (14, 400, 768),
        (60, 9000, 10),
    ] {
        let (left, right) = (wave((m + 8) * (k + 8), 0.1), wave((k + 8) * (n + 8), 0.7));
        check((m, n, k), (factor(&left, (m, k), 1), factor(&right, (k, n), 0)), 2);
    }
}

#[test]
fn parts_cover_a_product_and_none_is_empty() {
    for (m, n) in [(1, 1), (56, 32), (57, 768), (256, 64), (1024, 768), (384, 1536), (50_257, 768), (14, 50_257)] {
        for num_parts in [1, 8, 16, 128] {
            let (row_parts, column_parts) = product::grid((m, n), num_parts);
            let rows = (0..row_parts).map(|index| product::equal_part(index, row_parts, m));
            let width = product::part_columns(n, column_parts);
            let columns = (0..column_parts).map(|index| Span::part(index, width, n));
            for (spans, len) in [(rows.collect::<Vec<_>>(), m), (columns.collect(), n)] {
                let end =
                    spans.iter().try_fold(0, |end, span| (span.start == end && span.len > 0).then(|| end + span.len));
                assert_eq!(end, Some(len), "({m}, {n}) in {num_parts}: {spans:?}");
            }
        }
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn shared_threads_and_rows_change_no_bit() {
    if !is_available() {
        eprintln!("SKIPPED: no AVX-512");
        return;
    }
    let (m, n, k) = (171, 300, 600);
    let (left, right) = (wave(m * k, 0.1), wave(k * n, 0.7));
    let product = |a: &[f32], rows: usize, b: Matrix<'_, f32>, threads: usize| {
        let mut dst = vec![0.0; rows * n];
        multiply((rows, n, k), (&mut dst, n), Old::Replaced, 1.0, (Matrix::rows(a, k), b), threads);
        dst
    };
    let plain = product(&left, m, Matrix::rows(&right, n), 1);
    assert_eq!(product(&left, m, Matrix::rows(&right, n), 4), plain);
    let shared = Shared::new(&right, 8);
    let on_two: Vec<Vec<f32>> = std::thread::scope(|scope| {
        let run = || scope.spawn(|| product(&left, m, Matrix::shared(&shared, n), 1));
        [run(), run()].map(|thread| thread.join().unwrap_or_default()).into()
    });
    assert!(on_two.iter().all(|found| *found == plain));
    // A few rows alone, which are not packed.
    let few = product(&left[20 * k..], 9, Matrix::rows(&right, n), 1);
    assert_eq!(few, plain[20 * n..29 * n]);
}
