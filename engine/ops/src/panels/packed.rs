//! A right factor that several products share, packed once.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::kernel::COLUMNS;
use super::pack::pack;
use super::product::depths;
use crate::buffers::Scratch;
use crate::gemm::Matrix;
use crate::span::Span;

/// Pieces of a factor, at most, and numbers in a piece, at least: threads pack large factors together, and pieces are few enough to
/// wait on a shelf.
const MAX_PIECES: usize = 8;
const MIN_PIECE: usize = 256 << 10;

/// All of a factor (k, n) in panels. Whoever comes for it helps to pack it: the next piece goes to the next who asks, and
/// none is packed twice.
#[derive(Debug)]
pub(crate) struct Packed {
    /// Panels that follow one another, depth by depth.
    pieces: Vec<OnceLock<Scratch<f32>>>,
    panels_per_piece: usize,
    /// The first piece that nobody has begun.
    next: AtomicUsize,
    /// Row and column stride, k, n.
    of: [usize; 4],
}

impl Packed {
    /// Of `factor`; nothing is packed yet. Panics when it does not lie in its slice.
    pub(super) fn new(factor: Matrix<'_, f32>, k: usize, n: usize) -> Self {
        // Here, before anybody waits for a piece that another one packs.
        let last = (k - 1) * factor.row_stride + (n - 1) * factor.column_stride;
        assert!(last < factor.data.len(), "factor out of bounds");
        let num_panels = n.div_ceil(COLUMNS);
        let num_pieces = (k * n / MIN_PIECE).clamp(1, MAX_PIECES);
        let panels_per_piece = num_panels.div_ceil(num_pieces);
        let pieces = (0..num_panels.div_ceil(panels_per_piece)).map(|_| OnceLock::new()).collect();
        Self { pieces, panels_per_piece, next: AtomicUsize::new(0), of: key(factor, k, n) }
    }

    /// True when it is of a factor of this shape and these strides.
    pub(super) fn is_of(&self, factor: Matrix<'_, f32>, k: usize, n: usize) -> bool {
        self.of == key(factor, k, n)
    }

    /// Packs pieces of `factor`, which it must be of, until none is left to begin.
    pub(super) fn help(&self, factor: Matrix<'_, f32>) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(piece) = self.pieces.get(number) else { return };
            piece.get_or_init(|| self.pack_piece(number, factor));
        }
    }

    /// Numbers of the panel that begins with this column, from a depth on, once they are packed.
    pub(super) fn panel(&self, column: usize, depth: Span, factor: Matrix<'_, f32>) -> &[f32] {
        let panel = column / COLUMNS;
        let (number, in_piece) = (panel / self.panels_per_piece, panel % self.panels_per_piece);
        // Packs it where another thread has taken it over and not begun, or panicked.
        let piece = self.pieces[number].get_or_init(|| self.pack_piece(number, factor));
        &piece[COLUMNS * (depth.start * self.num_panels(number) + depth.len * in_piece)..][..COLUMNS * depth.len]
    }

    fn num_panels(&self, number: usize) -> usize {
        let [.., n] = self.of;
        (n.div_ceil(COLUMNS) - number * self.panels_per_piece).min(self.panels_per_piece)
    }

    fn pack_piece(&self, number: usize, factor: Matrix<'_, f32>) -> Scratch<f32> {
        let [_, _, k, n] = self.of;
        let num_panels = self.num_panels(number);
        let mut panels = Scratch::<f32>::new(COLUMNS * num_panels * k);
        let mut rest = &mut panels[..];
        for depth in depths(k) {
            for panel in 0..num_panels {
                let (to, tail) = std::mem::take(&mut rest).split_at_mut(COLUMNS * depth.len);
                pack(factor, Span::part(number * self.panels_per_piece + panel, COLUMNS, n), depth, to);
                rest = tail;
            }
        }
        panels
    }
}

fn key(factor: Matrix<'_, f32>, k: usize, n: usize) -> [usize; 4] {
    [factor.row_stride, factor.column_stride, k, n]
}
