//! Up to 14 rows by 32 columns of sums, in registers.
#![allow(unsafe_code, reason = "loads and stores of vectors at the pointers that the caller vouches for")]

use std::arch::x86_64::*;

use crate::transpose::mask;

/// Most rows: with two vectors of sums each, 28 of 32 registers.
pub(super) const ROWS: usize = 14;
/// Columns: two vectors.
pub(super) const COLUMNS: usize = 32;

/// c = [c +] scale · a · b.
///
/// Safety: a is readable at `depth` positions of each of `rows` rows; b at `columns` numbers of `depth` rows; c is readable
/// and writable at `columns` numbers of `rows` rows, which overlap nothing. There are 1 to [`ROWS`] rows and 1 to
/// [`COLUMNS`] columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sums {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) depth: usize,
    pub(super) a: *const f32,
    pub(super) a_row_stride: usize,
    pub(super) a_depth_stride: usize,
    pub(super) b: *const f32,
    pub(super) b_depth_stride: usize,
    pub(super) c: *mut f32,
    pub(super) c_stride: usize,
    pub(super) scale: f32,
    pub(super) keep: bool,
}

/// Computes. Safety: see [`Sums`]; the processor has AVX-512.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn sums(at: &Sums) {
    // SAFETY: the caller's promise.
    unsafe {
        match at.rows {
            1 => rows::<1>(at),
            2 => rows::<2>(at),
            3 => rows::<3>(at),
            4 => rows::<4>(at),
            5 => rows::<5>(at),
            6 => rows::<6>(at),
            7 => rows::<7>(at),
            8 => rows::<8>(at),
            9 => rows::<9>(at),
            10 => rows::<10>(at),
            11 => rows::<11>(at),
            12 => rows::<12>(at),
            13 => rows::<13>(at),
            _ => rows::<ROWS>(at),
        }
    }
}

/// Safety: as [`sums`], with R rows.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn rows<const R: usize>(at: &Sums) {
    let (low, high) = (mask(at.columns), mask(at.columns.saturating_sub(16)));
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    let (mut a, mut b) = (at.a, at.b);
    // SAFETY: the caller's promise; lanes beyond the columns are masked out.
    unsafe {
        if at.columns == COLUMNS {
            for _ in 0..at.depth {
                let (b0, b1) = (_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16)));
                for (row, [left, right]) in sums.iter_mut().enumerate() {
                    let x = _mm512_set1_ps(*a.add(row * at.a_row_stride));
                    *left = _mm512_fmadd_ps(x, b0, *left);
                    *right = _mm512_fmadd_ps(x, b1, *right);
                }
                (a, b) = (a.wrapping_add(at.a_depth_stride), b.wrapping_add(at.b_depth_stride));
            }
        } else {
            for _ in 0..at.depth {
                let b0 = _mm512_maskz_loadu_ps(low, b);
                let b1 = _mm512_maskz_loadu_ps(high, b.wrapping_add(16));
                for (row, [left, right]) in sums.iter_mut().enumerate() {
                    let x = _mm512_set1_ps(*a.add(row * at.a_row_stride));
                    *left = _mm512_fmadd_ps(x, b0, *left);
                    *right = _mm512_fmadd_ps(x, b1, *right);
                }
                (a, b) = (a.wrapping_add(at.a_depth_stride), b.wrapping_add(at.b_depth_stride));
            }
        }
        let scale = _mm512_set1_ps(at.scale);
        for (row, halves) in sums.iter().enumerate() {
            for (half, (&sum, lanes)) in halves.iter().zip([low, high]).enumerate() {
                let to = at.c.wrapping_add(row * at.c_stride + 16 * half);
                let old = if at.keep { _mm512_maskz_loadu_ps(lanes, to) } else { _mm512_setzero_ps() };
                _mm512_mask_storeu_ps(to, lanes, _mm512_fmadd_ps(sum, scale, old));
            }
        }
    }
}
