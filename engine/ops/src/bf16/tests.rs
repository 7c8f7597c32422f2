//! All kernels against sums in f64, of rounded factors where they round, over random sizes, strides and ways to add.

use super::{Kernel, amx, avx512, multiply as multiply_bf16};
use crate::gemm::{Matrix, Old, Products, Shared, multiply};

/// Random numbers: xorshift*, Vigna 2016.
fn rng(seed: u64) -> impl FnMut() -> u64 {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }
}

/// To the nearest bf16, ties to even.
fn rounded(x: f32) -> f64 {
    if x.is_nan() {
        return f64::NAN;
    }
    if x.is_infinite() {
        return f64::from(x);
    }
    let bits = x.to_bits();
    f64::from(f32::from_bits((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF_0000))
}

/// As `kernel` reads it.
fn read_by(kernel: &Kernel, x: f32) -> f64 {
    if kernel.parts == 1 { rounded(x) } else { f64::from(x) }
}

fn kernels() -> Vec<&'static Kernel> {
    [amx::available(), amx::exact(), avx512::supported()].into_iter().flatten().collect()
}

#[derive(Debug)]
struct Case {
    m: usize,
    n: usize,
    k: usize,
    a: (usize, usize),
    b: (usize, usize),
    stride: usize,
    old: Old,
    scale: f32,
}

fn case(next: &mut impl FnMut() -> u64, limit: u64) -> Case {
    let mut size = |limit: u64| {
        let edges = [1, 15, 16, 17, 31, 32, 33, 63, 64, 65];
        if next().is_multiple_of(3) { edges[(next() % 10) as usize] } else { 1 + (next() % limit) as usize }
    };
    let (m, n, k) = (size(limit), size(limit), size(2 * limit));
    let mut strides = |rows: usize, columns: usize| match next() % 4 {
        0 => (columns, 1),
        1 => (1, rows),
        2 => (columns + (next() % 5) as usize, 1),
        _ => (2 * columns + 1, 2),
    };
    let (a, b) = (strides(m, k), strides(k, n));
    Case {
        m,
        n,
        k,
        a,
        b,
        stride: n + (next() % 3) as usize,
        old: if next().is_multiple_of(2) { Old::Replaced } else { Old::Kept },
        scale: if next().is_multiple_of(2) { 1.0 } else { 0.37 },
    }
}

fn matrix(next: &mut impl FnMut() -> u64, (rows, columns): (usize, usize), (r, c): (usize, usize)) -> Vec<f32> {
    (0..(rows - 1) * r + (columns - 1) * c + 1).map(|_| (next() % 20001) as f32 / 10000.0 - 1.0).collect()
}

fn check(seed: u64, limit: u64) {
    let mut next = rng(seed);
    let case = case(&mut next, limit);
    let Case { m, n, k, .. } = case;
    let (a, b) = (matrix(&mut next, (m, k), case.a), matrix(&mut next, (k, n), case.b));
    let before = matrix(&mut next, (m, n), (case.stride, 1));
    let (ma, mb) = (Matrix::strided(&a, case.a), Matrix::strided(&b, case.b));
    for kernel in kernels() {
        let run = |threads| {
            let mut dst = before.clone();
            multiply_bf16(kernel, (m, n, k), (&mut dst, case.stride), case.old, case.scale, (ma, mb), threads);
            dst
        };
        let dst = run(1);
        for i in 0..m {
            for j in 0..case.stride.min(dst.len() - i * case.stride) {
                let (found, was) = (dst[i * case.stride + j], before[i * case.stride + j]);
                if j >= n {
                    assert_eq!(found, was);
                    continue;
                }
                let read = |x| read_by(kernel, x);
                let terms = (0..k).map(|p| read(a[i * case.a.0 + p * case.a.1]) * read(b[p * case.b.0 + j * case.b.1]));
                let (sum, size) = terms.fold((0.0, 0.0), |(s, z): (f64, f64), t| (s + t, z + t.abs()));
                let was = if case.old == Old::Kept { f64::from(was) } else { 0.0 };
                let want = was + f64::from(case.scale) * sum;
                let error = (f64::from(found) - want).abs();
                let bound = (k as f64 + 3.0) * f64::from(f32::EPSILON) * (size + was.abs());
                assert!(error <= bound, "{} {case:?} ({i}, {j}): {found}, not {want}; {error} > {bound}", kernel.name);
            }
        }
        for threads in [2, 3, 16] {
            assert_eq!(dst, run(threads), "{} {case:?} threads {threads}", kernel.name);
        }
    }
}

#[test]
fn small_products_of_any_layout() {
    for seed in 1..=600 {
        check(seed, 70);
    }
}
#[test]
fn products_of_several_blocks() {
    for seed in 1..=12 {
        check(1_000_000 + seed, 700);
    }
}
#[test]
fn threads_that_pack_a_factor_together_give_the_bits_of_one_that_packs_anew() {
    // 27 chunks, several of which make a piece.
    let (m, n, k) = (33, 2100, 1600);
    let mut next = rng(5);
    let weights = matrix(&mut next, (k, n), (n, 1));
    let a = matrix(&mut next, (m, k), (k, 1));
    for kernel in kernels() {
        let product = |b: Matrix<'_, f32>| {
            let mut dst = vec![0.0; m * n];
            let factors = (Matrix::rows(&a, k), b);
            multiply_bf16(kernel, (m, n, k), (&mut dst, n), Old::Replaced, 1.0, factors, 1);
            dst
        };
        let anew = product(Matrix::rows(&weights, n));
        let shared = Shared::new(&weights, 8);
        std::thread::scope(|scope| {
            let threads = [(); 8].map(|()| scope.spawn(|| product(Matrix::shared(&shared, n))));
            for thread in threads {
                assert!(thread.join().is_ok_and(|together| together == anew), "{}", kernel.name);
            }
        });
    }
}
#[test]
fn a_shared_factor_gives_the_bits_of_one_that_is_packed_anew() {
    for seed in 1..=120 {
        let mut next = rng(seed);
        let Case { m, n, a, old, scale, .. } = case(&mut next, 300);
        let k = if seed % 4 == 0 { 700 + (next() % 900) as usize } else { 1 + (next() % 200) as usize };
        let is_transposed = next().is_multiple_of(2);
        let a = (k + a.0 % 3, 1);
        let weights = matrix(&mut next, (k, n), (n, 1));
        let batch: Vec<Vec<f32>> = (0..3).map(|_| matrix(&mut next, (m, k), a)).collect();
        let row = if is_transposed { k } else { n };
        for kernel in kernels() {
            let shared = Shared::new(&weights, batch.len());
            let product = |a_data: &[f32], b: Matrix<'_, f32>, threads: usize| {
                let mut dst = vec![0.5; m * n];
                multiply_bf16(kernel, (m, n, k), (&mut dst, n), old, scale, (Matrix::strided(a_data, a), b), threads);
                dst
            };
            for a in &batch {
                let (mut anew, mut once) = (Matrix::rows(&weights, row), Matrix::shared(&shared, row));
                if is_transposed {
                    (anew, once) = (anew.t(), once.t());
                }
                assert_eq!(product(a, once, 1), product(a, anew, 1), "{} seed {seed}: {m} {n} {k}", kernel.name);
                assert_eq!(product(a, once, 3), product(a, anew, 3), "{} seed {seed}: {m} {n} {k}", kernel.name);
            }
        }
    }
}

#[test]
fn a_shared_factor_read_otherwise_is_packed_anew() {
    let mut next = rng(3);
    let (a, b) = (matrix(&mut next, (40, 50), (50, 1)), matrix(&mut next, (50, 50), (50, 1)));
    for kernel in kernels() {
        let shared = Shared::new(&b, 2);
        let product = |b: Matrix<'_, f32>| {
            let mut dst = vec![0.0; 40 * 50];
            multiply_bf16(kernel, (40, 50, 50), (&mut dst, 50), Old::Replaced, 1.0, (Matrix::rows(&a, 50), b), 1);
            dst
        };
        assert_eq!(product(Matrix::shared(&shared, 50)), product(Matrix::rows(&b, 50)));
        assert_eq!(product(Matrix::shared(&shared, 50).t()), product(Matrix::rows(&b, 50).t()));
        assert!(product(Matrix::rows(&b, 50)) != product(Matrix::rows(&b, 50).t()));
    }
}

#[test]
fn deep_products() {
    let mut next = rng(7);
    for (m, n, k) in [(33, 70, 2049), (17, 600, 4100), (600, 17, 2100), (1100, 40, 70)] {
        let (a, b) = (matrix(&mut next, (m, k), (k, 1)), matrix(&mut next, (k, n), (n, 1)));
        for kernel in kernels() {
            let run = |threads| {
                let mut dst = vec![f32::NAN; m * n];
                multiply_bf16(
                    kernel,
                    (m, n, k),
                    (&mut dst, n),
                    Old::Replaced,
                    1.0,
                    (Matrix::rows(&a, k), Matrix::rows(&b, n)),
                    threads,
                );
                dst
            };
            let dst = run(1);
            assert_eq!(dst, run(5));
            for i in 0..m {
                for j in 0..n {
                    let want: f64 = (0..k).map(|p| read_by(kernel, a[i * k + p]) * read_by(kernel, b[p * n + j])).sum();
                    assert!((f64::from(dst[i * n + j]) - want).abs() < 2e-3, "{} {m} {n} {k} {i} {j}", kernel.name);
                }
            }
        }
    }
}

#[test]
fn numbers_are_rounded_to_the_nearest_even_or_kept() {
    let mut next = rng(11);
    for kernel in kernels() {
        for _ in 0..2000 {
            let bits = next() as u32;
            let (low, high) = (bits & 0xFFFF, bits >> 16);
            let low = match next() % 4 {
                0 => 0x8000,
                1 => 0x7FFF,
                2 => 0x8001,
                _ => low,
            };
            let x = f32::from_bits(high << 16 | low);
            // The lower parts of very small numbers are denormal, and those above the largest bf16 infinite.
            if !x.is_normal() || kernel.parts > 1 && !(1e-30..3.3e38).contains(&x.abs()) {
                continue;
            }
            for layout in [(1, 1), (7, 2)] {
                let mut dst = [0.0];
                multiply_bf16(
                    kernel,
                    (1, 1, 1),
                    (&mut dst, 1),
                    Old::Replaced,
                    1.0,
                    (Matrix::strided(&[x], layout), Matrix::rows(&[1.0], 1)),
                    1,
                );
                assert_eq!(f64::from(dst[0]), read_by(kernel, x), "{} {x:e}", kernel.name);
            }
        }
    }
}

#[test]
fn what_is_not_finite_spreads_along_its_row_and_column_alone() {
    let mut next = rng(5);
    for kernel in kernels() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            for (m, n, k) in [(5, 6, 7), (33, 40, 65), (64, 64, 64)] {
                let (mut a, mut b) = (vec![1.0; m * k], vec![0.5; k * n]);
                let (i, p, q, j) = (next() as usize % m, next() as usize % k, next() as usize % k, next() as usize % n);
                a[i * k + p] = bad;
                b[q * n + j] = bad;
                let mut dst = vec![0.0; m * n];
                multiply_bf16(
                    kernel,
                    (m, n, k),
                    (&mut dst, n),
                    Old::Replaced,
                    1.0,
                    (Matrix::rows(&a, k), Matrix::rows(&b, n)),
                    1,
                );
                for r in 0..m {
                    for c in 0..n {
                        let found = dst[r * n + c];
                        let is_touched = r == i || c == j;
                        assert_eq!(
                            found.is_finite(),
                            !is_touched,
                            "{} {bad} {m} {n} {k} ({r}, {c}) {found}",
                            kernel.name
                        );
                        if is_touched && !(r == i && c == j) {
                            let is_split = kernel.parts > 1;
                            assert_eq!(found.is_nan(), bad.is_nan() || is_split);
                            assert!(found.is_nan() || found.signum() == bad.signum());
                        }
                    }
                }
            }
        }
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn exact_parts_are_no_less_accurate_than_products_in_f32() {
    let Some(kernel) = amx::exact() else {
        return eprintln!("SKIPPED: this processor has no AMX-BF16");
    };
    let mut next = rng(13);
    for (m, n, k) in [(64, 96, 64), (96, 64, 384), (64, 64, 1536)] {
        // Magnitudes over several powers of two, as weights and gradients have.
        let mut numbers = |count: usize| -> Vec<f32> {
            let mut one = || ((next() % 20001) as f32 / 10000.0 - 1.0) * 2.0_f32.powi((next() % 12) as i32 - 8);
            (0..count).map(|_| one()).collect()
        };
        let (a, b) = (numbers(m * k), numbers(k * n));
        let factors = (Matrix::rows(&a, k), Matrix::rows(&b, n));
        let (mut split, mut plain) = (vec![0.0; m * n], vec![0.0; m * n]);
        multiply_bf16(kernel, (m, n, k), (&mut split, n), Old::Replaced, 1.0, factors, 1);
        let products = Products::full(1).without_parts();
        multiply((m, n, k), (&mut plain, n), Old::Replaced, 1.0_f32, factors, products);
        let error = |found: &[f32]| {
            let at = |i: usize, j: usize| {
                let want: f64 = (0..k).map(|p| f64::from(a[i * k + p]) * f64::from(b[p * n + j])).sum();
                (f64::from(found[i * n + j]) - want).powi(2)
            };
            (0..m * n).map(|index| at(index / n, index % n)).sum::<f64>().sqrt()
        };
        let (split, plain) = (error(&split), error(&plain));
        assert!(split < 1.2 * plain, "{m} {n} {k}: error {split:e} in parts, {plain:e} in f32");
    }
}
