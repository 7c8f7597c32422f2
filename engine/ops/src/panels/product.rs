//! The product cut into parts of threads, and these into blocks: groups of rows by panels of the right factor.
#![allow(unsafe_code, reason = "threads write disjoint parts of one slice; bounds are asserted on entry")]

use std::sync::OnceLock;

use rayon::prelude::*;

use super::kernel::{COLUMNS, ROWS, Sums, sums};
use super::pack::{gather, gathered_len, pack};
use super::packed::Packed;
use crate::buffers::Scratch;
use crate::gemm::{Matrix, Old, assert_in_bounds};
use crate::span::Span;

/// Inner positions multiplied in one go, at most: 14 rows of them are 21 KiB, a panel 48.
const MAX_DEPTH: usize = 384;
/// Columns that are packed together where nobody shares them: with the depth, what the second-level cache holds.
const CHUNK: usize = 1024;
/// Blocks of rows that meet a panel each time that it comes from the last cache, where those that many products share are; the
/// second-level cache keeps it for so long.
const GROUP: usize = 4;
/// Parts that a product is cut into for each of several threads, so that none waits long for the last one.
const PARTS_PER_THREAD: usize = 4;
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
    let work = Work { a, b, scale, old, start: dst.as_mut_ptr(), stride: dst_stride, k };
    if threads < 2 || m.saturating_mul(n).saturating_mul(k) < MIN_SHARED_WORK {
        // Threads that multiply together pack anew, each what it needs.
        let shared = b.packed.map(|cells| cells.panels.get_or_init(|| Packed::new(b, k, n)));
        return work.part(whole(m), whole(n), shared.filter(|packed| packed.is_of(b, k, n)));
    }
    let (row_parts, column_parts) = grid((m, n), PARTS_PER_THREAD * threads);
    (0..row_parts * column_parts).into_par_iter().for_each(|part| {
        let (row, column) = (part / column_parts, part % column_parts);
        work.part(equal_part(row, row_parts, m), Span::part(column, part_columns(n, column_parts), n), None);
    });
}

fn whole(len: usize) -> Span {
    Span { start: 0, len }
}

/// Part `index` of `len` in `count` parts of about equal size.
pub(super) fn equal_part(index: usize, count: usize, len: usize) -> Span {
    let start = index * len / count;
    Span { start, len: (index + 1) * len / count - start }
}

/// Columns of each of about so many parts: whole panels.
pub(super) fn part_columns(n: usize, num_parts: usize) -> usize {
    n.div_ceil(num_parts).next_multiple_of(COLUMNS)
}

/// Into how many parts of rows and of columns a product is cut for about so many in all, none of them empty, where each part
/// of rows packs the columns anew, and each part of columns reads the rows again.
pub(super) fn grid((m, n): (usize, usize), num_parts: usize) -> (usize, usize) {
    let of_rows = |row_parts: usize| (row_parts, n.div_ceil(part_columns(n, num_parts.div_ceil(row_parts))));
    (1..=num_parts.min(m.div_ceil(GROUP * ROWS)))
        .map(of_rows)
        .min_by_key(|&(row_parts, column_parts)| {
            let is_missing = num_parts.saturating_sub(row_parts * column_parts);
            (is_missing, m * column_parts + n * row_parts)
        })
        .unwrap_or((1, 1))
}

/// The parts of an inner dimension of `k`, in the order in which sums add them.
pub(super) fn depths(k: usize) -> impl Iterator<Item = Span> {
    let size = k.div_ceil(k.div_ceil(MAX_DEPTH));
    (0..k.div_ceil(size)).map(move |index| Span::part(index, size, k))
}

/// Where a panel of the right factor begins, and its distance from one inner position to the next.
type Panel<'a> = dyn Fn(usize, Span) -> (*const f32, usize) + 'a;

/// What all blocks of a product have in common.
struct Work<'a> {
    a: Matrix<'a, f32>,
    b: Matrix<'a, f32>,
    scale: f32,
    old: Old,
    start: *mut f32,
    stride: usize,
    k: usize,
}

// SAFETY: threads write disjoint rows and columns behind the pointer.
unsafe impl Sync for Work<'_> {}

impl Work<'_> {
    /// Some rows and columns, which begin with a panel, on this thread.
    fn part(&self, rows: Span, columns: Span, shared: Option<&Packed>) {
        let (b, k) = (self.b, self.k);
        let deepest = depths(k).map(|depth| depth.len).max().unwrap_or(0);
        let gathered = if self.a.column_stride == 1 { 0 } else { GROUP * gathered_len(deepest) };
        // Where inner positions of the left factor lie far apart, each is a cache line and a page of its own, and lines evict
        // one another.
        let mut gathered = Scratch::<f32>::new(gathered);
        if let Some(packed) = shared {
            packed.help(b);
            let panel = |column: usize, depth: Span| (packed.panel(column, depth, b).as_ptr(), COLUMNS);
            return depths(k).for_each(|depth| self.blocks(rows, (columns, depth), &panel, &mut gathered));
        }
        if b.column_stride == 1 && rows.len <= MAX_UNPACKED_ROWS {
            let panel = |column: usize, depth: Span| {
                // Within the slice, as its last element is.
                (b.data[depth.start * b.row_stride + column..].as_ptr(), b.row_stride)
            };
            return depths(k).for_each(|depth| self.blocks(rows, (columns, depth), &panel, &mut gathered));
        }
        let mut room = Scratch::<f32>::new(CHUNK.min(columns.len.next_multiple_of(COLUMNS)) * deepest);
        for chunk in (0..columns.len.div_ceil(CHUNK)).map(|index| Span::part(index, CHUNK, columns.len)) {
            let chunk = Span { start: columns.start + chunk.start, len: chunk.len };
            for depth in depths(k) {
                for (index, to) in
                    room.chunks_exact_mut(COLUMNS * depth.len).take(chunk.len.div_ceil(COLUMNS)).enumerate()
                {
                    let Span { start, len } = Span::part(index, COLUMNS, chunk.len);
                    pack(b, Span { start: chunk.start + start, len }, depth, to);
                }
                let panels = &*room;
                let panel = |column: usize, depth: Span| {
                    let first = (column - chunk.start) / COLUMNS * COLUMNS * depth.len;
                    (panels[first..][..COLUMNS * depth.len].as_ptr(), COLUMNS)
                };
                self.blocks(rows, (chunk, depth), &panel, &mut gathered);
            }
        }
    }

    /// The same for one part of the inner dimension, where panels lie ready; `gathered` is room for a group of rows that do not.
    fn blocks(&self, rows: Span, (columns, depth): (Span, Span), panel: &Panel<'_>, gathered: &mut [f32]) {
        let Matrix { data, row_stride, column_stride, .. } = self.a;
        // Blocks of about equal size, rather than a last one of few rows.
        let num_blocks = rows.len.div_ceil(ROWS);
        let block_rows = |block: usize| {
            let Span { start, len } = equal_part(block, num_blocks, rows.len);
            Span { start: rows.start + start, len }
        };
        let left = |rows: Span| &data[rows.start * row_stride + depth.start * column_stride..];
        let room = gathered_len(depth.len);
        for first_block in (0..num_blocks).step_by(GROUP) {
            let group = first_block..num_blocks.min(first_block + GROUP);
            if column_stride != 1 {
                for (rows, room) in group.clone().map(block_rows).zip(gathered.chunks_exact_mut(room)) {
                    gather(left(rows), (row_stride, column_stride), (rows.len, depth.len), room);
                }
            }
            let gathered = &*gathered;
            let (a_row_stride, a_depth_stride) = if column_stride == 1 { (row_stride, 1) } else { (1, ROWS) };
            for column in (columns.start..columns.start + columns.len).step_by(COLUMNS) {
                let (b, b_depth_stride) = panel(column, depth);
                for block in group.clone() {
                    let rows = block_rows(block);
                    let a = if column_stride == 1 { left(rows) } else { &gathered[(block - first_block) * room..] };
                    let at = Sums {
                        rows: rows.len,
                        columns: COLUMNS.min(columns.start + columns.len - column),
                        depth: depth.len,
                        a: a.as_ptr(),
                        a_row_stride,
                        a_depth_stride,
                        b,
                        b_depth_stride,
                        // Within the destination by the assertion on entry.
                        c: self.start.wrapping_add(rows.start * self.stride + column),
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
}
