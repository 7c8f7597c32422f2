//! A stretch of rows, columns or inner positions.

/// A start and a length.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// The first.
    pub(super) start: usize,
    /// How many.
    pub(super) len: usize,
}

impl Span {
    /// Part `index` of `len`, in parts of `size`.
    pub(super) fn part(index: usize, size: usize, len: usize) -> Self {
        let start = index * size;
        Self { start, len: (len - start).min(size) }
    }
}
