//! A right factor that several products share, packed once.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::pack::{Layout, Lines, Order, TILE_DEPTH, Tile, pack};
use crate::buffers::Scratch;
use crate::gemm::Matrix;
use crate::span::Span;

/// Inner positions multiplied in one go, at most.
const MAX_DEPTH: usize = 768;
/// Lines that are packed together.
pub(super) const CHUNK: usize = 256;
/// Pieces of a factor, at most: one for each thread that packs, and few enough to wait on a shelf.
const MAX_PIECES: usize = 8;

/// All of a factor (k, n), part by part of the inner dimension, each in chunks of columns. Whoever comes for it helps to pack
/// it: the next piece goes to the next who asks, and none is packed twice.
#[derive(Debug)]
pub(crate) struct Packed {
    /// Each of some consecutive chunks.
    pieces: Vec<OnceLock<Scratch<Tile>>>,
    chunks_per_piece: usize,
    /// The first piece that nobody has begun.
    next: AtomicUsize,
    /// Parts of a number, row and column stride, k, n.
    of: [usize; 5],
}

impl Packed {
    /// Of `factor`; nothing is packed yet. Panics when it does not lie in its slice.
    pub(super) fn new(parts: usize, factor: Matrix<'_, f32>, k: usize, n: usize) -> Self {
        // Here, before anybody waits for a piece that another one packs.
        let last = (k - 1) * factor.row_stride + (n - 1) * factor.column_stride;
        assert!(last < factor.data.len(), "factor out of bounds");
        let num_chunks = depths(k).count() * n.div_ceil(CHUNK);
        let chunks_per_piece = num_chunks.div_ceil(MAX_PIECES);
        let pieces = (0..num_chunks.div_ceil(chunks_per_piece)).map(|_| OnceLock::new()).collect();
        Self { pieces, chunks_per_piece, next: AtomicUsize::new(0), of: key(parts, factor, k, n) }
    }

    /// True when it is, in so many parts, of a factor of this shape and these strides.
    pub(super) fn is_of(&self, parts: usize, factor: Matrix<'_, f32>, k: usize, n: usize) -> bool {
        self.of == key(parts, factor, k, n)
    }

    /// Packs pieces of `factor`, which it must be of, until none is left to begin.
    pub(super) fn help(&self, factor: Lines<'_>) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(piece) = self.pieces.get(number) else { return };
            piece.get_or_init(|| self.pack_piece(number, factor));
        }
    }

    fn pack_piece(&self, number: usize, factor: Lines<'_>) -> Scratch<Tile> {
        let parts = self.of[0];
        let first = number * self.chunks_per_piece;
        let mut tiles = Scratch::<Tile>::new(self.num_tiles(first, self.chunks_per_piece));
        let mut rest = &mut tiles[..];
        for (depth, lines) in self.chunks(first, self.chunks_per_piece) {
            let num_tiles = Layout::new(lines.len, depth.len, parts).num_tiles();
            let (to, tail) = std::mem::take(&mut rest).split_at_mut(num_tiles);
            pack(factor, lines, depth, (Order::Pairs, parts), to);
            rest = tail;
        }
        tiles
    }

    /// The tiles of a chunk of `factor`, once they are packed: chunks are numbered along the columns of the first of
    /// [`depths`], then of the next.
    pub(super) fn chunk(&self, index: usize, factor: Lines<'_>) -> &[Tile] {
        let (number, in_piece) = (index / self.chunks_per_piece, index % self.chunks_per_piece);
        // Packs it where another thread has taken it over and not begun, or panicked.
        let piece = self.pieces[number].get_or_init(|| self.pack_piece(number, factor));
        &piece[self.num_tiles(index - in_piece, in_piece)..][..self.num_tiles(index, 1)]
    }

    /// Inner positions and columns of `count` chunks from the first on, or as many as there are.
    fn chunks(&self, first: usize, count: usize) -> impl Iterator<Item = (Span, Span)> {
        let [_, _, _, k, n] = self.of;
        let lines = move |chunk| Span::part(chunk, CHUNK, n);
        depths(k)
            .flat_map(move |depth| (0..n.div_ceil(CHUNK)).map(move |chunk| (depth, lines(chunk))))
            .skip(first)
            .take(count)
    }

    fn num_tiles(&self, first: usize, count: usize) -> usize {
        let parts = self.of[0];
        self.chunks(first, count).map(|(depth, lines)| Layout::new(lines.len, depth.len, parts).num_tiles()).sum()
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
