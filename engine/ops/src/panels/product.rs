//! The product cut into blocks: rows that the first-level cache holds, by panels of the right factor that stream through it.
#![allow(unsafe_code, reason = "threads write disjoint parts of one slice; bounds are asserted on entry")]

use std::sync::OnceLock;

use rayon::prelude::*;

use super::kernel::{COLUMNS, ROWS, Sums, sums};
use super::pack::{gather, gathered_len, pack};
use super::packed::Packed;
use crate::buffers::Scratch;
use crate::gemm::{Matrix, Old, assert_in_bounds};
use crate::span::Span;

/// Inner positions multiplied in one go, at most: 14 rows of them fill most of the first-level cache.
const MAX_DEPTH: usize = 384;
/// Columns that are packed together where nobody shares them.
const CHUNK: usize = 1024;
/// Rows of a task, where several threads multiply.
const TASK_ROWS: usize = 8 * ROWS;
/// Most rows for which packing a factor that already has its columns side by side does not pay.
const MAX_UNPACKED_ROWS: usize = 4 * ROWS;
/// Fewest rows that pay for turning a factor.
const MIN_TURNED_ROWS: usize = 12;
/// Multiplications that are not worth handing to other threads.
pub(crate) const MIN_SHARED_WORK: usize = 4 << 20;

/// True when this processor has the instructions.
pub(crate) fn is_available() -> bool {
    static IS_AVAILABLE: OnceLock<bool> = OnceLock::new();
    *IS_AVAILABLE.get_or_init(|| is_x86_feature_detected!("avx512f"))
}

/// Bytes that a number takes while it is packed; 0 where nothing is.
pub(crate) fn packed_bytes() -> u64 {
    if is_available() { 4 } else { 0 }
}

/// Whether an (m, k) by (k, n) product gains by it: narrow ones leave lanes idle, and of few rows a factor that must be turned
/// costs more than it gives. Sizes and strides decide alone: whether it is packed already depends on the number of threads.
pub(crate) fn gains((m, n, k): (usize, usize, usize), b: Matrix<'_, f32>) -> bool {
    m * n * k > 0 && n >= COLUMNS / 2 && (b.column_stride == 1 || m >= MIN_TURNED_ROWS)
}

/// dst (m, n; rows `dst_stride` apart) = [old +] scale · a (m, k) · b (k, n).
///
/// Panics when a matrix does not lie in its slice, or k is 0, or the processor lacks AVX-512.
pub(crate) fn multiply(
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
    assert!(is_available(), "multiplying without AVX-512");
    assert_in_bounds((m, n, k), (dst.len(), dst_stride), (a, b));
    let threads = if m.saturating_mul(n).saturating_mul(k) < MIN_SHARED_WORK { 1 } else { threads.max(1) };
    let work = Work { a, scale, old, start: dst.as_mut_ptr(), stride: dst_stride, m, threads };
    // Threads that multiply together pack anew, together.
    let shared = b.packed.filter(|_| threads == 1).map(|cells| cells.panels.get_or_init(|| Packed::new(b, k, n)));
    if let Some(packed) = shared.filter(|packed| packed.is_of(b, k, n)) {
        packed.help(b);
        let panel = |column: usize, depth: Span| (packed.panel(column, depth, b).as_ptr(), COLUMNS);
        for depth in depths(k) {
            work.multiply(Span { start: 0, len: n }, depth, &panel);
        }
    } else if b.column_stride == 1 && m <= MAX_UNPACKED_ROWS {
        let panel = |column: usize, depth: Span| {
            // Within the slice, as its last element is.
            (b.data[depth.start * b.row_stride + column..].as_ptr(), b.row_stride)
        };
        for depth in depths(k) {
            work.multiply(Span { start: 0, len: n }, depth, &panel);
        }
    } else {
        let mut room =
            Scratch::<f32>::new(CHUNK.min(n.next_multiple_of(COLUMNS)) * depths(k).map(|d| d.len).max().unwrap_or(0));
        for chunk in (0..n.div_ceil(CHUNK)).map(|index| Span::part(index, CHUNK, n)) {
            for depth in depths(k) {
                let panels = &mut room[..chunk.len.next_multiple_of(COLUMNS) * depth.len];
                let pack_panel = |(index, to): (usize, &mut [f32])| {
                    let Span { start, len } = Span::part(index, COLUMNS, chunk.len);
                    pack(b, Span { start: chunk.start + start, len }, depth, to);
                };
                if threads == 1 {
                    panels.chunks_exact_mut(COLUMNS * depth.len).enumerate().for_each(pack_panel);
                } else {
                    panels.par_chunks_exact_mut(COLUMNS * depth.len).enumerate().for_each(pack_panel);
                }
                let panels = &*panels;
                let panel = |column: usize, depth: Span| {
                    let first = (column - chunk.start) / COLUMNS * COLUMNS * depth.len;
                    (panels[first..][..COLUMNS * depth.len].as_ptr(), COLUMNS)
                };
                work.multiply(chunk, depth, &panel);
            }
        }
    }
}

/// The parts of an inner dimension of `k`, in the order in which sums add them.
pub(super) fn depths(k: usize) -> impl Iterator<Item = Span> {
    let size = k.div_ceil(k.div_ceil(MAX_DEPTH));
    (0..k.div_ceil(size)).map(move |index| Span::part(index, size, k))
}

/// Where a panel of the right factor begins, and its distance from one inner position to the next.
type Panel<'a> = dyn Fn(usize, Span) -> (*const f32, usize) + Sync + 'a;

/// What all blocks of a product have in common.
struct Work<'a> {
    a: Matrix<'a, f32>,
    scale: f32,
    old: Old,
    start: *mut f32,
    stride: usize,
    m: usize,
    threads: usize,
}

// SAFETY: threads write disjoint rows and columns behind the pointer.
unsafe impl Sync for Work<'_> {}

impl Work<'_> {
    /// All rows of some columns, which begin with a panel, for one part of the inner dimension.
    fn multiply(&self, columns: Span, depth: Span, panel: &Panel<'_>) {
        if self.threads == 1 {
            return self.block(Span { start: 0, len: self.m }, columns, depth, panel);
        }
        let row_tasks = self.m.div_ceil(TASK_ROWS);
        // Several for each thread, so that none waits long for the last one.
        let column_tasks = (4 * self.threads).div_ceil(row_tasks).min(columns.len.div_ceil(COLUMNS));
        let width = columns.len.div_ceil(column_tasks).next_multiple_of(COLUMNS);
        let column_tasks = columns.len.div_ceil(width);
        (0..row_tasks * column_tasks).into_par_iter().for_each(|task| {
            let Span { start, len } = Span::part(task % column_tasks, width, columns.len);
            let columns = Span { start: columns.start + start, len };
            self.block(Span::part(task / column_tasks, TASK_ROWS, self.m), columns, depth, panel);
        });
    }

    fn block(&self, rows: Span, columns: Span, depth: Span, panel: &Panel<'_>) {
        let Matrix { data, row_stride, column_stride, .. } = self.a;
        // Where inner positions lie far apart, each is a cache line and a page of its own, and lines evict one another.
        let mut room = (column_stride != 1).then(|| Scratch::<f32>::new(gathered_len(depth.len)));
        // Blocks of about equal size, rather than a last one of few rows.
        let num_blocks = rows.len.div_ceil(ROWS);
        for block in 0..num_blocks {
            let first = rows.start + block * rows.len / num_blocks;
            let num_rows = rows.start + (block + 1) * rows.len / num_blocks - first;
            let start = first * row_stride + depth.start * column_stride;
            let (a, a_row_stride, a_depth_stride) = match &mut room {
                Some(room) => {
                    gather(&data[start..], (row_stride, column_stride), (num_rows, depth.len), room);
                    (room.as_ptr(), 1, ROWS)
                }
                None => (data[start..].as_ptr(), row_stride, 1),
            };
            for column in (columns.start..columns.start + columns.len).step_by(COLUMNS) {
                let (b, b_depth_stride) = panel(column, depth);
                let at = Sums {
                    rows: num_rows,
                    columns: COLUMNS.min(columns.start + columns.len - column),
                    depth: depth.len,
                    a,
                    a_row_stride,
                    a_depth_stride,
                    b,
                    b_depth_stride,
                    // Within the destination by the assertion on entry.
                    c: self.start.wrapping_add(first * self.stride + column),
                    c_stride: self.stride,
                    scale: self.scale,
                    keep: self.old == Old::Kept || depth.start > 0,
                };
                // SAFETY: AVX-512 was detected on entry; the assertions there hold all of these rows and columns within
                // their slices, and nobody else writes this block. A panel has 32 columns, or as many as there are.
                unsafe { sums(&at) };
            }
        }
    }
}
