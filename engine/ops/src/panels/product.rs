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

/// Inner positions multiplied in one go, at most: 14 rows of them fill half of the first-level cache.
const MAX_DEPTH: usize = 384;
/// Columns that are packed together where nobody shares them: with the depth, what the second-level cache holds.
const CHUNK: usize = 1024;
/// Blocks of rows that a panel meets each time that it is read: one that many products share comes from the last cache, and
/// would come for every block.
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
    let work = Work { a, b, scale, old, start: dst.as_mut_ptr(), stride: dst_stride, size: (m, n, k) };
    if threads < 2 || m.saturating_mul(n).saturating_mul(k) < MIN_SHARED_WORK {
        // Threads that multiply together pack anew, each what it needs.
        let shared = b.packed.map(|cells| cells.panels.get_or_init(|| Packed::new(b, k, n)));
        return work.part(whole(m), whole(n), shared.filter(|packed| packed.is_of(b, k, n)));
    }
    let (row_parts, column_parts) = grid((m, n), PARTS_PER_THREAD * threads);
    let num_columns = n.div_ceil(column_parts).next_multiple_of(COLUMNS);
    (0..row_parts * column_parts).into_par_iter().for_each(|part| {
        let (row, column) = (part / column_parts, part % column_parts);
        let rows = Span { start: row * m / row_parts, len: (row + 1) * m / row_parts - row * m / row_parts };
        if column * num_columns < n {
            work.part(rows, Span::part(column, num_columns, n), None);
        }
    });
}

fn whole(len: usize) -> Span {
    Span { start: 0, len }
}

/// Into how many parts of rows and of columns a product is cut for about so many in all, where each part of rows packs the
/// columns anew, and each part of columns reads the rows again.
fn grid((m, n): (usize, usize), num_parts: usize) -> (usize, usize) {
    let most = (m.div_ceil(GROUP * ROWS), n.div_ceil(COLUMNS));
    let of_rows = |row_parts: usize| (row_parts, num_parts.div_ceil(row_parts).min(most.1));
    (1..=num_parts.min(most.0))
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
type Panel<'a> = dyn Fn(usize, Span) -> (*const f32, usize) + Sync + 'a;

/// What all blocks of a product have in common.
struct Work<'a> {
    a: Matrix<'a, f32>,
    b: Matrix<'a, f32>,
    scale: f32,
    old: Old,
    start: *mut f32,
    stride: usize,
    size: (usize, usize, usize),
}

// SAFETY: threads write disjoint rows and columns behind the pointer.
unsafe impl Sync for Work<'_> {}

impl Work<'_> {
    /// Some rows and columns, which begin with a panel, on this thread.
    fn part(&self, rows: Span, columns: Span, shared: Option<&Packed>) {
        let (b, (m, _, k)) = (self.b, self.size);
        if let Some(packed) = shared {
            packed.help(b);
            let panel = |column: usize, depth: Span| (packed.panel(column, depth, b).as_ptr(), COLUMNS);
            return depths(k).for_each(|depth| self.blocks(rows, columns, depth, &panel));
        }
        if b.column_stride == 1 && m <= MAX_UNPACKED_ROWS {
            let panel = |column: usize, depth: Span| {
                // Within the slice, as its last element is.
                (b.data[depth.start * b.row_stride + column..].as_ptr(), b.row_stride)
            };
            return depths(k).for_each(|depth| self.blocks(rows, columns, depth, &panel));
        }
        let deepest = depths(k).map(|depth| depth.len).max().unwrap_or(0);
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
                self.blocks(rows, chunk, depth, &panel);
            }
        }
    }

    /// The same for one part of the inner dimension, where panels lie ready.
    fn blocks(&self, rows: Span, columns: Span, depth: Span, panel: &Panel<'_>) {
        let Matrix { data, row_stride, column_stride, .. } = self.a;
        // Where inner positions lie far apart, each is a cache line and a page of its own, and lines evict one another.
        let gathered = (column_stride != 1).then(|| gathered_len(depth.len));
        let mut room = gathered.map(|len| Scratch::<f32>::new(GROUP * len));
        // Blocks of about equal size, rather than a last one of few rows.
        let num_blocks = rows.len.div_ceil(ROWS);
        let block_rows = |block: usize| {
            let first = rows.start + block * rows.len / num_blocks;
            Span { start: first, len: rows.start + (block + 1) * rows.len / num_blocks - first }
        };
        for first_block in (0..num_blocks).step_by(GROUP) {
            let mut group = [(whole(0), std::ptr::null()); GROUP];
            let group = &mut group[..GROUP.min(num_blocks - first_block)];
            for (index, (rows, a)) in group.iter_mut().enumerate() {
                *rows = block_rows(first_block + index);
                let data = &data[rows.start * row_stride + depth.start * column_stride..];
                *a = data.as_ptr();
                if let (Some(room), Some(len)) = (&mut room, gathered) {
                    let room = &mut room[index * len..][..len];
                    gather(data, (row_stride, column_stride), (rows.len, depth.len), room);
                    *a = room.as_ptr();
                }
            }
            let (a_row_stride, a_depth_stride) = if gathered.is_some() { (1, ROWS) } else { (row_stride, 1) };
            for column in (columns.start..columns.start + columns.len).step_by(COLUMNS) {
                let (b, b_depth_stride) = panel(column, depth);
                for &(rows, a) in &*group {
                    let at = Sums {
                        rows: rows.len,
                        columns: COLUMNS.min(columns.start + columns.len - column),
                        depth: depth.len,
                        a,
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
