//! The product cut into blocks that caches hold: the factor with fewer lines is packed whole, unless the right one is so
//! already for several products; the other one is packed block by block, each by the thread that multiplies it.
//!
//! Invariant: each sum has one order, a function of the sizes alone.
#![allow(unsafe_code, reason = "threads write disjoint parts of one slice; bounds are asserted on entry")]

use rayon::prelude::*;

use super::kernel::{Kernel, SIDE, Sums};
use super::pack::{Layout, Lines, Order, PANEL, Tile, pack};
use super::packed::{CHUNK, Packed, chunk_tiles, columns, depths, max_depth};
use crate::buffers::Scratch;
use crate::gemm::{Matrix, Old, assert_in_bounds};
use crate::span::Span;

/// Bytes of a packed block, at most: with the sums and the other factor's panels within the second-level cache.
const BLOCK_BYTES: usize = 512 << 10;
/// Multiplications that are not worth handing to other threads.
pub(crate) const MIN_SHARED_WORK: usize = 4 << 20;

/// dst (m, n; rows `dst_stride` apart) = [old +] scale · a (m, k) · b (k, n), factors in the kernel's parts, sums in f32.
///
/// Panics when a matrix does not lie in its slice, or k is 0.
pub(crate) fn multiply(
    kernel: &Kernel,
    (m, n, k): (usize, usize, usize),
    (dst, dst_stride): (&mut [f32], usize),
    old: Old,
    scale: f32,
    (a, b): (Matrix<'_, f32>, Matrix<'_, f32>),
    threads: usize,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert_in_bounds((m, n, k), (dst.len(), dst_stride), (a, b));
    let threads = if m.saturating_mul(n).saturating_mul(k) < MIN_SHARED_WORK { 1 } else { threads.max(1) };
    // Threads that multiply together pack anew, together.
    let (cell, parts) = (b.packed.filter(|_| threads == 1), kernel.parts);
    let shared = cell.map(|cells| cells.tiles.get_or_init(|| Packed::new(parts, b, k, n)));
    let shared = shared.filter(|packed| packed.is_of(parts, b, k, n));
    let a = Lines { data: a.data, line_stride: a.row_stride, depth_stride: a.column_stride };
    let b = columns(b);
    if let Some(packed) = shared {
        packed.help(b);
    }
    let is_left_split = shared.is_some() || m >= n;
    let (whole, split) = if is_left_split {
        ((b, n, Order::Pairs), (a, m, Order::Lines))
    } else {
        ((a, m, Order::Lines), (b, n, Order::Pairs))
    };
    let max_depth = max_depth(k);
    let block =
        (BLOCK_BYTES / (2 * parts) / max_depth).min(CHUNK).min(split.1.div_ceil(threads)).next_multiple_of(PANEL);
    let target = Target { start: dst.as_mut_ptr(), stride: dst_stride, scale };
    let mut tiles_of_whole = match shared {
        Some(packed) => Whole::Shared(packed),
        None => {
            let room = Scratch::new(Layout::new(whole.1, max_depth, parts).num_tiles());
            Whole::Own { lines: whole.0, count: whole.1, order: whole.2, parts, room }
        }
    };
    let num_chunks = whole.1.div_ceil(CHUNK);
    for (depth_index, depth) in depths(k).enumerate() {
        tiles_of_whole.pack(depth, threads);
        let multiply_part = |part: usize| {
            let lines = Span::part(part, block, split.1);
            // One size for all, so that the next one finds it again.
            let mut room = Scratch::<Tile>::new(Layout::new(block, max_depth, parts).num_tiles());
            let tiles = &mut room[..Layout::new(lines.len, depth.len, parts).num_tiles()];
            pack(split.0, lines, depth, (split.2, parts), tiles);
            let tiles = &*tiles;
            let keep = old == Old::Kept || depth.start > 0;
            for chunk in 0..num_chunks {
                let others = Span::part(chunk, CHUNK, whole.1);
                let packed = match &tiles_of_whole {
                    Whole::Shared(packed) => packed.chunk(depth_index * num_chunks + chunk, whole.0),
                    Whole::Own { room, .. } => {
                        let num_tiles = Layout::new(others.len, depth.len, parts).num_tiles();
                        &room[chunk * chunk_tiles(depth, parts)..][..num_tiles]
                    }
                };
                let part = if is_left_split {
                    Part { rows: lines, columns: others, a: tiles, b: packed, depth: depth.len, keep }
                } else {
                    Part { rows: others, columns: lines, a: packed, b: tiles, depth: depth.len, keep }
                };
                // SAFETY: rows and columns lie in the destination by the assertions, and no two parts share any.
                unsafe { part.multiply(kernel, &target) };
            }
        };
        let parts = split.1.div_ceil(block);
        if threads > 1 {
            (0..parts).into_par_iter().for_each(multiply_part);
        } else {
            (0..parts).for_each(multiply_part);
        }
    }
}

/// The factor whose every chunk meets every block of the other one.
enum Whole<'a> {
    /// Packed for several products.
    Shared(&'a Packed),
    /// Packed for this one, part by part.
    Own { lines: Lines<'a>, count: usize, order: Order, parts: usize, room: Scratch<Tile> },
}

impl Whole<'_> {
    /// Packs its own at these inner positions, chunk by chunk.
    fn pack(&mut self, depth: Span, threads: usize) {
        let Self::Own { lines, count, order, parts, room } = self else { return };
        let packed = &mut room[..Layout::new(*count, depth.len, *parts).num_tiles()];
        let pack_chunk = |(index, to): (usize, &mut [Tile])| {
            pack(*lines, Span::part(index, CHUNK, *count), depth, (*order, *parts), to);
        };
        if threads > 1 {
            packed.par_chunks_mut(chunk_tiles(depth, *parts)).enumerate().for_each(pack_chunk);
        } else {
            packed.chunks_mut(chunk_tiles(depth, *parts)).enumerate().for_each(pack_chunk);
        }
    }
}

/// The destination, shared by threads that write disjoint parts of it.
struct Target {
    start: *mut f32,
    stride: usize,
    scale: f32,
}

// SAFETY: it is a place and two numbers; writing there is unsafe and its callers answer for it.
unsafe impl Sync for Target {}

/// Rows by columns of the destination, and the factors' tiles that belong to them.
struct Part<'a> {
    rows: Span,
    columns: Span,
    a: &'a [Tile],
    b: &'a [Tile],
    depth: usize,
    keep: bool,
}

/// Room for sums that do not fit the destination.
#[repr(C, align(64))]
struct Room([f32; SIDE * SIDE]);

impl Part<'_> {
    /// Safety: the rows and columns lie in the target, and nobody else has them.
    unsafe fn multiply(&self, kernel: &Kernel, target: &Target) {
        let mut room = Room([0.0; SIDE * SIDE]);
        let layout = |lines: Span| Layout::new(lines.len, self.depth, kernel.parts);
        let (a_layout, b_layout) = (layout(self.rows), layout(self.columns));
        assert!(self.a.len() == a_layout.num_tiles() && self.b.len() == b_layout.num_tiles());
        // SAFETY: the kernel came from `available`.
        unsafe { (kernel.begin)() };
        for (index, (a_section, b_section)) in a_layout.sections().zip(b_layout.sections()).enumerate() {
            let (steps, keep) = (a_section.steps, self.keep || index > 0);
            let num_tiles = 2 * kernel.parts * steps;
            for row in (0..self.rows.len).step_by(SIDE) {
                let a = self.a[a_section.start + num_tiles * (row / PANEL)..][..num_tiles].as_ptr();
                for column in (0..self.columns.len).step_by(SIDE) {
                    let b = self.b[b_section.start + num_tiles * (column / PANEL)..][..num_tiles].as_ptr();
                    let place = Place {
                        rows: SIDE.min(self.rows.len - row),
                        columns: SIDE.min(self.columns.len - column),
                        // SAFETY: within the target by the caller's promise.
                        start: unsafe {
                            target.start.add((self.rows.start + row) * target.stride + self.columns.start + column)
                        },
                        stride: target.stride,
                    };
                    // SAFETY: each pointer is followed by the tiles of `steps` steps of its panel; the sums go to 32 x 32
                    // numbers of the target that are this part's, or to the room.
                    unsafe {
                        if place.rows == SIDE && place.columns == SIDE && target.scale == 1.0 {
                            (kernel.sums)(&Sums { a, b, steps, c: place.start, c_stride: place.stride, keep });
                        } else if target.scale == 1.0 {
                            if keep {
                                place.read(&mut room);
                            }
                            (kernel.sums)(&Sums { a, b, steps, c: room.0.as_mut_ptr(), c_stride: SIDE, keep });
                            place.write(&room);
                        } else {
                            let c = room.0.as_mut_ptr();
                            (kernel.sums)(&Sums { a, b, steps, c, c_stride: SIDE, keep: false });
                            place.merge(&room, target.scale, keep);
                        }
                    }
                }
            }
        }
        // SAFETY: after `begin`, on this thread.
        unsafe { (kernel.end)() };
    }
}

/// A corner of the destination.
struct Place {
    rows: usize,
    columns: usize,
    start: *mut f32,
    stride: usize,
}

impl Place {
    /// Safety: for all of these, the place is this thread's alone.
    #[allow(clippy::mut_from_ref, reason = "the place holds a pointer; the caller vouches for what is behind it")]
    unsafe fn row(&self, row: usize) -> &mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.stride), self.columns) }
    }

    unsafe fn read(&self, room: &mut Room) {
        for row in 0..self.rows {
            // SAFETY: the caller's promise.
            room.0[row * SIDE..][..self.columns].copy_from_slice(unsafe { self.row(row) });
        }
    }

    unsafe fn write(&self, room: &Room) {
        for row in 0..self.rows {
            // SAFETY: the caller's promise.
            unsafe { self.row(row) }.copy_from_slice(&room.0[row * SIDE..][..self.columns]);
        }
    }

    unsafe fn merge(&self, room: &Room, scale: f32, keep: bool) {
        for row in 0..self.rows {
            // SAFETY: the caller's promise.
            let to = unsafe { self.row(row) };
            for (to, &sum) in to.iter_mut().zip(&room.0[row * SIDE..]) {
                *to = if keep { *to + scale * sum } else { scale * sum };
            }
        }
    }
}
