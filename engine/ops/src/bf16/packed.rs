//! A right factor that several products share, packed once.

use super::pack::{Layout, Lines, Order, PANEL, Span, TILE_DEPTH, Tile, pack};
use crate::buffers::Scratch;
use crate::gemm::Matrix;

/// Inner positions multiplied in one go, at most.
const MAX_DEPTH: usize = 768;
/// Lines that are packed together.
pub(super) const CHUNK: usize = 256;

/// All of a factor (k, n), part by part of the inner dimension, each in chunks of columns.
#[derive(Debug)]
pub(crate) struct Packed {
    tiles: Scratch<Tile>,
    /// Parts of a number, row and column stride, k, n.
    of: [usize; 5],
}

impl Packed {
    /// Packs `factor`. Panics when it does not lie in its slice.
    pub(super) fn new(parts: usize, factor: Matrix<'_, f32>, k: usize, n: usize) -> Self {
        let lines = columns(factor);
        let mut tiles = Scratch::<Tile>::new(Layout::new(n, k, parts).num_tiles());
        let mut rest = &mut tiles[..];
        for depth in depths(k) {
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(Layout::new(n, depth.len, parts).num_tiles());
            for (index, to) in part.chunks_mut(chunk_tiles(depth, parts)).enumerate() {
                pack(lines, Span::part(index, CHUNK, n), depth, (Order::Pairs, parts), to);
            }
            rest = tail;
        }
        Self { tiles, of: key(parts, factor, k, n) }
    }

    /// True when it was made, in so many parts, from a factor of this shape and these strides.
    pub(super) fn is_of(&self, parts: usize, factor: Matrix<'_, f32>, k: usize, n: usize) -> bool {
        self.of == key(parts, factor, k, n)
    }

    /// The tiles of one of [`depths`].
    pub(super) fn part(&self, depth: Span) -> &[Tile] {
        let [parts, _, _, _, n] = self.of;
        let start = 2 * parts * n.div_ceil(PANEL) * (depth.start / TILE_DEPTH);
        &self.tiles[start..start + Layout::new(n, depth.len, parts).num_tiles()]
    }
}

fn key(parts: usize, factor: Matrix<'_, f32>, k: usize, n: usize) -> [usize; 5] {
    [parts, factor.row_stride, factor.column_stride, k, n]
}

/// A right factor as lines along the inner dimension.
pub(super) fn columns(factor: Matrix<'_, f32>) -> Lines<'_> {
    Lines { data: factor.data, line_stride: factor.column_stride, depth_stride: factor.row_stride }
}

/// Tiles of a chunk of [`CHUNK`] lines.
pub(super) fn chunk_tiles(depth: Span, parts: usize) -> usize {
    Layout::new(CHUNK, depth.len, parts).num_tiles()
}

/// Inner positions packed at a time for an inner dimension of `k`, at most: whole tiles.
pub(super) fn max_depth(k: usize) -> usize {
    let num_steps = k.div_ceil(TILE_DEPTH);
    num_steps.div_ceil(num_steps.div_ceil(MAX_DEPTH / TILE_DEPTH)) * TILE_DEPTH
}

/// The parts of an inner dimension of `k`, in the order in which sums add them.
pub(super) fn depths(k: usize) -> impl Iterator<Item = Span> {
    let max_depth = max_depth(k);
    (0..k).step_by(max_depth).map(move |start| Span { start, len: (k - start).min(max_depth) })
}
