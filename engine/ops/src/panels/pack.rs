//! Panels of a right factor: 32 columns side by side, one inner position after the other, with zeros for columns that are not
//! there. And rows of a left factor side by side, where it lies the other way round.
#![allow(unsafe_code, reason = "vector instructions on slices whose bounds are asserted before")]

use std::arch::x86_64::*;

use super::kernel::{COLUMNS, ROWS};
use crate::gemm::Matrix;
use crate::span::Span;
use crate::transpose::{mask, transposed};

/// Inner positions and columns that are turned at once.
const SIDE: usize = 16;

/// Writes a panel of up to 32 columns of `from`, `depth.len` rows of [`COLUMNS`] numbers.
///
/// Panics when the spans leave `from`, or `to` is shorter, or the processor lacks AVX-512.
pub(super) fn pack(from: Matrix<'_, f32>, columns: Span, depth: Span, to: &mut [f32]) {
    let to = &mut to[..depth.len * COLUMNS];
    if to.is_empty() {
        return;
    }
    let last = (depth.start + depth.len - 1) * from.row_stride + (columns.start + columns.len - 1) * from.column_stride;
    assert!(last < from.data.len() && super::is_available(), "factor out of bounds");
    let start = depth.start * from.row_stride + columns.start * from.column_stride;
    if from.column_stride == 1 {
        // SAFETY: AVX-512 is there, and the last element lies in the slice.
        unsafe { copy(&from.data[start..], from.row_stride, columns.len, to) };
    } else if from.row_stride == 1 {
        // SAFETY: AVX-512 is there, and the last element lies in the slice.
        unsafe { turn(&from.data[start..], from.column_stride, (columns.len, depth.len), to) };
    } else {
        for (row, to) in to.chunks_exact_mut(COLUMNS).enumerate() {
            for (column, to) in to.iter_mut().enumerate() {
                let at = start + row * from.row_stride + column * from.column_stride;
                *to = if column < columns.len { from.data[at] } else { 0.0 };
            }
        }
    }
}

/// Columns that lie side by side, rows `stride` apart. Safety: all of them lie in `from`.
#[target_feature(enable = "avx512f")]
unsafe fn copy(from: &[f32], stride: usize, num_columns: usize, to: &mut [f32]) {
    for (row, to) in to.chunks_exact_mut(COLUMNS).enumerate() {
        for half in [0, SIDE] {
            let lanes = mask(num_columns.saturating_sub(half));
            // SAFETY: lanes beyond the columns are masked out, and such memory is not touched; 16 of a row's 32 numbers.
            unsafe {
                let numbers = _mm512_maskz_loadu_ps(lanes, from.as_ptr().wrapping_add(row * stride + half));
                _mm512_storeu_ps(to.as_mut_ptr().add(half), numbers);
            }
        }
    }
}

/// Numbers that [`gather`] takes room for.
pub(super) fn gathered_len(depth: usize) -> usize {
    depth * ROWS + SIDE
}

/// Writes `rows` numbers, at most [`ROWS`], of each of `depth` inner positions side by side, [`ROWS`] from one position to the
/// next.
///
/// Panics when they are not all in `from`, or `to` is shorter than [`gathered_len`], or the processor lacks AVX-512.
pub(super) fn gather(
    from: &[f32],
    (row_stride, depth_stride): (usize, usize),
    (rows, depth): (usize, usize),
    to: &mut [f32],
) {
    let last = (rows - 1) * row_stride + (depth - 1) * depth_stride;
    assert!(last < from.len() && rows <= ROWS && gathered_len(depth) <= to.len() && super::is_available());
    if row_stride == 1 {
        // SAFETY: AVX-512 is there; the last number lies in the slice, and there is room for a vector at each position.
        return unsafe { gather_neighbors(from, depth_stride, (rows, depth), to) };
    }
    for (position, to) in to.chunks_exact_mut(ROWS).take(depth).enumerate() {
        let from = &from[position * depth_stride..];
        to.iter_mut().take(rows).zip(from.iter().step_by(row_stride)).for_each(|(to, from)| *to = *from);
    }
}

/// Safety: `depth` times `rows` numbers lie in `from`; `to` holds [`gathered_len`] numbers.
#[target_feature(enable = "avx512f")]
unsafe fn gather_neighbors(from: &[f32], stride: usize, (rows, depth): (usize, usize), to: &mut [f32]) {
    let lanes = mask(rows);
    for position in 0..depth {
        // SAFETY: the caller's promise. What is written past the rows is written again by the next position, or is spare.
        unsafe {
            let numbers = _mm512_maskz_loadu_ps(lanes, from.as_ptr().add(position * stride));
            _mm512_storeu_ps(to.as_mut_ptr().add(position * ROWS), numbers);
        }
    }
}

/// Columns that lie along memory, `stride` apart, become rows. Safety: all of them lie in `from`.
#[target_feature(enable = "avx512f")]
unsafe fn turn(from: &[f32], stride: usize, (num_columns, depth): (usize, usize), to: &mut [f32]) {
    for (block, to) in to.chunks_mut(SIDE * COLUMNS).enumerate() {
        let first = block * SIDE;
        let lanes = mask(depth - first);
        for half in 0..2 {
            let column = |index: usize| {
                let column = half * SIDE + index;
                let lanes = if column < num_columns { lanes } else { 0 };
                // SAFETY: lanes beyond the columns are masked out, and such memory is not touched.
                let numbers =
                    unsafe { _mm512_maskz_loadu_ps(lanes, from.as_ptr().wrapping_add(column * stride + first)) };
                _mm512_castps_si512(numbers)
            };
            let rows = transposed(std::array::from_fn(column));
            for (row, to) in rows.into_iter().zip(to.chunks_exact_mut(COLUMNS)) {
                // SAFETY: 16 of a row's 32 numbers.
                unsafe { _mm512_storeu_ps(to.as_mut_ptr().add(half * SIDE), _mm512_castsi512_ps(row)) };
            }
        }
    }
}
