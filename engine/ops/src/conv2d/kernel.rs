//! The inner loops: sums of shifted rows (forward and input gradient), dot products of rows (weight gradient), copies.
#![allow(unsafe_code, reason = "raw loads and stores in the inner loops; bounds are asserted before them")]
#![allow(clippy::needless_range_loop, reason = "indexes keep the arrays in registers; iterators copy them to memory")]

use super::plan::MAX_WIDTH;
use crate::lanes::{Kernel, Lanes, Vectors};

/// Output channels that are computed together when the processor has 32 vector registers; half of it otherwise.
pub(super) const BLOCK: usize = 8;

/// `out[m][p] = Σ_k weights[k][m] · rows[offsets[k] + p]` for m < [`BLOCK`], p < len.
pub(super) struct ShiftedSums<'a, T> {
    /// The planes.
    pub rows: &'a [T],
    /// Start of each tap in `rows`.
    pub offsets: &'a [usize],
    /// (taps, BLOCK)
    pub weights: &'a [T],
    /// (BLOCK, len)
    pub out: &'a mut [T],
    /// Positions, a multiple of the widest vector.
    pub len: usize,
}

impl<T: Vectors> Kernel<T> for ShiftedSums<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = T>>(self) {
        assert!(self.len.is_multiple_of(MAX_WIDTH) && self.out.len() >= BLOCK * self.len);
        assert!(self.weights.len() >= BLOCK * self.offsets.len());
        let farthest = self.offsets.iter().copied().max().unwrap_or(0);
        assert!(farthest + self.len <= self.rows.len());
        let (vectors, rows, weights) = (self.len / L::WIDTH, self.rows.as_ptr(), self.weights.as_ptr());
        let has_many = L::NUM_REGISTERS >= 32;
        let mut at = 0;
        while at < vectors {
            // Where there are 16 registers, a third vector of four rows' sums would go through memory at every tap.
            let most = if has_many { 3 } else { 2 };
            let width = if vectors - at == 4 { 2 } else { (vectors - at).min(most) };
            let start = at * L::WIDTH;
            // SAFETY: every read is below `farthest + len`, every write below `BLOCK · len`, by the assertions.
            unsafe {
                let (rows, out) = (rows.add(start), self.out.as_mut_ptr().add(start));
                let halves = if has_many { 1 } else { 2 };
                for half in 0..halves {
                    let first = half * BLOCK / 2;
                    let (weights, out) = (weights.add(first), out.add(first * self.len));
                    match (halves, width) {
                        (1, 3) => shifted_tile::<L, BLOCK, 3>(rows, self.offsets, weights, out, self.len),
                        (1, 2) => shifted_tile::<L, BLOCK, 2>(rows, self.offsets, weights, out, self.len),
                        (1, _) => shifted_tile::<L, BLOCK, 1>(rows, self.offsets, weights, out, self.len),
                        (_, 2) => shifted_tile::<L, 4, 2>(rows, self.offsets, weights, out, self.len),
                        (_, _) => shifted_tile::<L, 4, 1>(rows, self.offsets, weights, out, self.len),
                    }
                }
            }
            at += width;
        }
    }
}

/// `M` output rows by `N` vectors. Safety: `rows` is readable at each offset for N vectors, `weights` for
/// `BLOCK · taps`, `out` is writable for N vectors at each of M rows `out_row` apart; the processor has `L`.
#[inline(always)]
unsafe fn shifted_tile<L: Lanes, const M: usize, const N: usize>(
    rows: *const L::Real,
    offsets: &[usize],
    weights: *const L::Real,
    out: *mut L::Real,
    out_row: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[L::zero(); N]; M];
        let mut weight = weights;
        for &offset in offsets {
            let row = rows.add(offset);
            let mut x = [L::zero(); N];
            for n in 0..N {
                x[n] = L::load(row.add(n * L::WIDTH));
            }
            for m in 0..M {
                let w = L::splat(*weight.add(m));
                for n in 0..N {
                    sums[m][n] = L::multiply_add(x[n], w, sums[m][n]);
                }
            }
            weight = weight.add(BLOCK);
        }
        for m in 0..M {
            for n in 0..N {
                L::store(out.add(m * out_row + n * L::WIDTH), sums[m][n]);
            }
        }
    }
}

/// Copies a row that is too short for a call of memcpy to pay. Panics when they differ in length.
#[inline(always)]
pub(super) fn copy_row<L: Lanes>(from: &[L::Real], to: &mut [L::Real]) {
    assert_eq!(from.len(), to.len(), "rows");
    let Some(last) = from.len().checked_sub(L::WIDTH) else { return to.copy_from_slice(from) };
    // SAFETY: each vector begins at `last` at the latest, and ends in both rows; the processor has `L`, or `dispatch` would not
    // have chosen it.
    unsafe {
        for at in (0..last).step_by(L::WIDTH).chain([last]) {
            L::store(to.as_mut_ptr().add(at), L::load(from.as_ptr().add(at)));
        }
    }
}

/// `out[m][k] += Σ_p gradients[m · len + p] · rows[offsets[k] + p]` for all m and k.
pub(super) struct RowDots<'a, T> {
    /// The planes.
    pub rows: &'a [T],
    /// Start of each tap in `rows`.
    pub offsets: &'a [usize],
    /// (m, len)
    pub gradients: &'a [T],
    /// (m, taps)
    pub out: &'a mut [T],
    /// Positions, a multiple of the widest vector.
    pub len: usize,
}

impl<T: Vectors> Kernel<T> for RowDots<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = T>>(mut self) {
        let taps = self.offsets.len();
        assert!(taps > 0 && self.len > 0 && self.len.is_multiple_of(MAX_WIDTH));
        let channels = self.out.len() / taps;
        assert!(self.gradients.len() >= channels * self.len);
        let farthest = self.offsets.iter().copied().max().unwrap_or(0);
        assert!(farthest + self.len <= self.rows.len());
        for first in (0..channels).step_by(4) {
            for tap in (0..taps).step_by(6) {
                let mut tile = Tile { dots: &mut self, first, tap, channels };
                // SAFETY: every read is below `channels · len` or `farthest + len`, by the assertions; the
                // processor has `L`, or `dispatch` would not have chosen it.
                unsafe {
                    if L::NUM_REGISTERS >= 32 {
                        tile.run::<L, 4, 6>();
                    } else {
                        tile.run::<L, 4, 2>();
                        tile.tap = tap + 2;
                        tile.run::<L, 4, 2>();
                        tile.tap = tap + 4;
                        tile.run::<L, 4, 2>();
                    }
                }
            }
        }
    }
}

/// A corner of the result.
struct Tile<'a, 'b, T> {
    dots: &'a mut RowDots<'b, T>,
    first: usize,
    tap: usize,
    channels: usize,
}

impl<T: Vectors> Tile<'_, '_, T> {
    /// `M` channels by `N` taps; beyond the end the last ones are repeated and their results dropped.
    /// Safety: [`RowDots::run`] has made its assertions; the processor has `L`.
    #[inline(always)]
    unsafe fn run<L: Lanes<Real = T>, const M: usize, const N: usize>(&mut self) {
        let (first, tap, channels, len) = (self.first, self.tap, self.channels, self.dots.len);
        let offsets = self.dots.offsets;
        let taps = offsets.len();
        // SAFETY: the caller's promise; indexes are clamped to the last channel and tap.
        unsafe {
            let gradient = |m: usize| self.dots.gradients.as_ptr().add((first + m).min(channels - 1) * len);
            let gradients: [*const T; M] = std::array::from_fn(gradient);
            let row = |n: usize| self.dots.rows.as_ptr().add(offsets[(tap + n).min(taps - 1)]);
            let rows: [*const T; N] = std::array::from_fn(row);
            let mut sums = [[L::zero(); N]; M];
            for at in (0..len).step_by(L::WIDTH) {
                let mut x = [L::zero(); N];
                for n in 0..N {
                    x[n] = L::load(rows[n].add(at));
                }
                for m in 0..M {
                    let g = L::load(gradients[m].add(at));
                    for n in 0..N {
                        sums[m][n] = L::multiply_add(g, x[n], sums[m][n]);
                    }
                }
            }
            for (m, sums) in sums.into_iter().enumerate().take(channels - first) {
                for (n, sum) in sums.into_iter().enumerate().take(taps.saturating_sub(tap)) {
                    self.dots.out[(first + m) * taps + tap + n] += L::sum(sum);
                }
            }
        }
    }
}
