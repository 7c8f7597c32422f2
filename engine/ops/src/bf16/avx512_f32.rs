//! Sums of products of tiles of f32 as such, by the multiply-adds of processors with AVX-512: for those without a matrix unit.
#![allow(unsafe_code, reason = "vector instructions on the addresses that a caller vouches for")]

use std::arch::x86_64::*;

use super::kernel::{Kernel, SIDE, Sums, WHOLE_PARTS};
use super::pack::{TILE_LINES, Tile, has_avx512};

/// Rows whose sums are in registers at once, with two vectors of columns for each.
const ROWS: usize = 8;
/// Inner positions of a tile.
const DEPTH: usize = 16;

/// The kernel, where it runs.
pub(super) fn available() -> Option<&'static Kernel> {
    static KERNEL: Kernel = Kernel { name: "avx512-f32", parts: WHOLE_PARTS, begin: nothing, sums, end: nothing };
    has_avx512().then_some(&KERNEL)
}

/// Safety: none needed.
unsafe fn nothing() {}

/// Safety: as [`Sums`], of tiles in [`super::pack::Order::Pairs`] on both sides; the processor has AVX-512 F.
#[target_feature(enable = "avx512f")]
unsafe fn sums(at: &Sums) {
    for first in (0..SIDE).step_by(ROWS) {
        // SAFETY: rows `first` to `first + ROWS` are among the 32 that the caller vouches for, as are their tiles.
        unsafe { some_rows(at, first) };
    }
}

/// Safety: as [`sums`]; `first` is a multiple of [`ROWS`] below 32.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn some_rows(at: &Sums, first: usize) {
    let row = |r: usize| at.c.wrapping_add((first + r) * at.c_stride);
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    if at.keep {
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: a row of the destination has two vectors.
            *sums = unsafe { [_mm512_loadu_ps(row(r)), _mm512_loadu_ps(row(r).add(16))] };
        }
    }
    // Two tiles for each 16 inner positions: of a, one has these rows; of b, each has half of the columns.
    let num_pairs = WHOLE_PARTS * at.steps;
    let mut a = at.a.wrapping_add(first / TILE_LINES).cast::<f32>().wrapping_add(first % TILE_LINES);
    let mut b = at.b.cast::<f32>();
    for _ in 0..num_pairs {
        for depth in 0..DEPTH {
            // SAFETY: both tiles have 16 vectors of 16 numbers.
            let columns =
                unsafe { [_mm512_load_ps(b.add(16 * depth)), _mm512_load_ps(b.add(16 * DEPTH + 16 * depth))] };
            for (r, sums) in sums.iter_mut().enumerate() {
                // SAFETY: as above.
                let a = _mm512_set1_ps(unsafe { *a.add(16 * depth + r) });
                *sums = [_mm512_fmadd_ps(a, columns[0], sums[0]), _mm512_fmadd_ps(a, columns[1], sums[1])];
            }
        }
        let pair = 2 * size_of::<Tile>() / size_of::<f32>();
        (a, b) = (a.wrapping_add(pair), b.wrapping_add(pair));
    }
    for (r, sums) in sums.into_iter().enumerate() {
        // SAFETY: as for loading.
        unsafe {
            _mm512_storeu_ps(row(r), sums[0]);
            _mm512_storeu_ps(row(r).add(16), sums[1]);
        }
    }
}
