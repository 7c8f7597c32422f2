//! The transforms of Winograd's domain, tile by tile, on vectors of channels. One file, because each
//! transform stands beside its adjoint.
#![allow(unsafe_code, reason = "raw loads and stores in the inner loops; bounds are asserted before them")]
#![allow(clippy::needless_range_loop, reason = "two indexes walk a tile; only some of each array is used")]

use super::winograd_steps::{F2, F4, Filtering, MAX_OUTPUTS, MAX_SIDE, Steps, add};
use crate::lanes::{Kernel, Lanes, Vectors};

/// Channels are padded to a multiple of this, the widest vector.
pub(super) const LANE: usize = 16;

/// The tiles of an image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tiles {
    pub rows: usize,
    pub columns: usize,
    pub filtering: Filtering,
}

impl Tiles {
    pub fn count(self) -> usize {
        self.rows.saturating_mul(self.columns)
    }

    /// Numbers in the transformed image, for each channel.
    pub fn positions(self) -> usize {
        self.count().saturating_mul(self.filtering.positions())
    }

    /// Numbers in a row of output pixels of `pitch` channels.
    pub fn row(self, pitch: usize) -> usize {
        self.filtering.outputs() * self.columns * pitch
    }

    /// Numbers in an image of output pixels.
    pub fn len(self, pitch: usize) -> usize {
        self.filtering.outputs() * self.rows * self.row(pitch)
    }

    /// Numbers in a row of input pixels with a border of one on each side.
    pub fn padded_row(self, pitch: usize) -> usize {
        (self.filtering.outputs() * self.columns + 2) * pitch
    }

    /// Numbers in an image of input pixels with their border.
    pub fn padded_len(self, pitch: usize) -> usize {
        (self.filtering.outputs() * self.rows + 2) * self.padded_row(pitch)
    }

    /// Row and column of the first pixel of a tile.
    fn pixel(self, tile: usize) -> (usize, usize) {
        let outputs = self.filtering.outputs();
        (outputs * (tile / self.columns), outputs * (tile % self.columns))
    }

    /// The first pixel inside the border.
    pub fn padded_start(self, pitch: usize) -> usize {
        self.padded_row(pitch) + pitch
    }
}

/// A transform of either filtering.
pub(super) trait Transform<T> {
    /// Which one.
    fn filtering(&self) -> Filtering;
    /// Transforms. Must be `#[inline(always)]`.
    fn of<L: Lanes<Real = T>, S: Steps>(self);
}

/// A transform as a kernel.
pub(super) struct TransformKernel<X>(pub X);

impl<T: Vectors, X: Transform<T>> Kernel<T> for TransformKernel<X> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = T>>(self) {
        match self.0.filtering() {
            Filtering::F2 => self.0.of::<L, F2>(),
            Filtering::F4 => self.0.of::<L, F4>(),
        }
    }
}

/// Pixels with their border to transformed tiles: v[position][tile] = Bᵀ d B.
pub(super) struct InputTransform<'a, T> {
    /// An image with its border, `pitch` channels innermost.
    pub padded: &'a [T],
    /// The image's tiles at the first position.
    pub v: &'a mut [T],
    /// From a position to the next in `v`.
    pub plane: usize,
    pub tiles: Tiles,
    /// A multiple of [`LANE`].
    pub pitch: usize,
}

impl<T: Vectors> Transform<T> for InputTransform<'_, T> {
    fn filtering(&self) -> Filtering {
        self.tiles.filtering
    }

    #[inline(always)]
    fn of<L: Lanes<Real = T>, S: Steps>(self) {
        let Self { padded, v, plane, tiles, pitch } = self;
        assert!(pitch.is_multiple_of(L::WIDTH) && padded.len() >= tiles.padded_len(pitch));
        assert!(v.len() >= (S::SIDE * S::SIDE - 1) * plane + tiles.count() * pitch);
        let row = tiles.padded_row(pitch);
        for tile in 0..tiles.count() {
            let (y, x) = tiles.pixel(tile);
            for channel in (0..pitch).step_by(L::WIDTH) {
                // SAFETY: the last tile's last pixel is the last of the image with its border; the last write ends at the
                // last plane's count·pitch; both by the assertions. The processor has `L`.
                unsafe {
                    let from = padded.as_ptr().add(y * row + x * pitch + channel);
                    let mut half = [[L::zero(); MAX_SIDE]; MAX_SIDE];
                    for j in 0..S::SIDE {
                        let mut column = [L::zero(); MAX_SIDE];
                        for i in 0..S::SIDE {
                            column[i] = L::load(from.add(i * row + j * pitch));
                        }
                        let transformed = S::bt::<L>(column);
                        for i in 0..S::SIDE {
                            half[i][j] = transformed[i];
                        }
                    }
                    let to = v.as_mut_ptr().add(tile * pitch + channel);
                    for i in 0..S::SIDE {
                        let transformed = S::bt::<L>(half[i]);
                        for j in 0..S::SIDE {
                            L::store(to.add((S::SIDE * i + j) * plane), transformed[j]);
                        }
                    }
                }
            }
        }
    }
}

/// Gradients of transformed tiles onto the pixels that they read: d += B v Bᵀ.
pub(super) struct InputAdjoint<'a, T> {
    /// The image's tiles at the first position.
    pub v: &'a [T],
    /// From a position to the next in `v`.
    pub plane: usize,
    /// An image with its border, added to.
    pub padded: &'a mut [T],
    pub tiles: Tiles,
    /// A multiple of [`LANE`].
    pub pitch: usize,
}

impl<T: Vectors> Transform<T> for InputAdjoint<'_, T> {
    fn filtering(&self) -> Filtering {
        self.tiles.filtering
    }

    #[inline(always)]
    fn of<L: Lanes<Real = T>, S: Steps>(self) {
        let Self { v, plane, padded, tiles, pitch } = self;
        assert!(pitch.is_multiple_of(L::WIDTH) && padded.len() >= tiles.padded_len(pitch));
        assert!(v.len() >= (S::SIDE * S::SIDE - 1) * plane + tiles.count() * pitch);
        let row = tiles.padded_row(pitch);
        for tile in 0..tiles.count() {
            let (y, x) = tiles.pixel(tile);
            for channel in (0..pitch).step_by(L::WIDTH) {
                // SAFETY: as in `InputTransform`, with reads and writes exchanged.
                unsafe {
                    let from = v.as_ptr().add(tile * pitch + channel);
                    let mut half = [[L::zero(); MAX_SIDE]; MAX_SIDE];
                    for j in 0..S::SIDE {
                        let mut column = [L::zero(); MAX_SIDE];
                        for i in 0..S::SIDE {
                            column[i] = L::load(from.add((S::SIDE * i + j) * plane));
                        }
                        let transformed = S::b::<L>(column);
                        for i in 0..S::SIDE {
                            half[i][j] = transformed[i];
                        }
                    }
                    let to = padded.as_mut_ptr().add(y * row + x * pitch + channel);
                    for i in 0..S::SIDE {
                        let transformed = S::b::<L>(half[i]);
                        for j in 0..S::SIDE {
                            let to = to.add(i * row + j * pitch);
                            L::store(to, add::<L>(L::load(to), transformed[j]));
                        }
                    }
                }
            }
        }
    }
}

/// Products of transformed tiles to pixels: y = Aᵀ m A.
pub(super) struct OutputTransform<'a, T> {
    /// The image's tiles at the first position.
    pub m: &'a [T],
    /// From a position to the next in `m`.
    pub plane: usize,
    /// An image, `pitch` channels innermost.
    pub pixels: &'a mut [T],
    pub tiles: Tiles,
    /// A multiple of [`LANE`].
    pub pitch: usize,
}

impl<T: Vectors> Transform<T> for OutputTransform<'_, T> {
    fn filtering(&self) -> Filtering {
        self.tiles.filtering
    }

    #[inline(always)]
    fn of<L: Lanes<Real = T>, S: Steps>(self) {
        let Self { m, plane, pixels, tiles, pitch } = self;
        assert!(pitch.is_multiple_of(L::WIDTH) && pixels.len() >= tiles.len(pitch));
        assert!(m.len() >= (S::SIDE * S::SIDE - 1) * plane + tiles.count() * pitch);
        let row = tiles.row(pitch);
        for tile in 0..tiles.count() {
            let (y, x) = tiles.pixel(tile);
            for channel in (0..pitch).step_by(L::WIDTH) {
                // SAFETY: the last read ends at the last plane's count·pitch, the last tile's last pixel is the last of
                // the image; both by the assertions. The processor has `L`.
                unsafe {
                    let from = m.as_ptr().add(tile * pitch + channel);
                    let mut half = [[L::zero(); MAX_SIDE]; MAX_OUTPUTS];
                    for j in 0..S::SIDE {
                        let mut column = [L::zero(); MAX_SIDE];
                        for i in 0..S::SIDE {
                            column[i] = L::load(from.add((S::SIDE * i + j) * plane));
                        }
                        let transformed = S::at::<L>(column);
                        for i in 0..S::OUTPUTS {
                            half[i][j] = transformed[i];
                        }
                    }
                    let to = pixels.as_mut_ptr().add(y * row + x * pitch + channel);
                    for i in 0..S::OUTPUTS {
                        let transformed = S::at::<L>(half[i]);
                        for j in 0..S::OUTPUTS {
                            L::store(to.add(i * row + j * pitch), transformed[j]);
                        }
                    }
                }
            }
        }
    }
}

/// Gradients of pixels to those of the products: m = A y Aᵀ.
pub(super) struct GradientTransform<'a, T> {
    /// An image, `pitch` channels innermost.
    pub pixels: &'a [T],
    /// The image's tiles at the first position.
    pub m: &'a mut [T],
    /// From a position to the next in `m`.
    pub plane: usize,
    pub tiles: Tiles,
    /// A multiple of [`LANE`].
    pub pitch: usize,
}

impl<T: Vectors> Transform<T> for GradientTransform<'_, T> {
    fn filtering(&self) -> Filtering {
        self.tiles.filtering
    }

    #[inline(always)]
    fn of<L: Lanes<Real = T>, S: Steps>(self) {
        let Self { pixels, m, plane, tiles, pitch } = self;
        assert!(pitch.is_multiple_of(L::WIDTH) && pixels.len() >= tiles.len(pitch));
        assert!(m.len() >= (S::SIDE * S::SIDE - 1) * plane + tiles.count() * pitch);
        let row = tiles.row(pitch);
        for tile in 0..tiles.count() {
            let (y, x) = tiles.pixel(tile);
            for channel in (0..pitch).step_by(L::WIDTH) {
                // SAFETY: as in `OutputTransform`, with reads and writes exchanged.
                unsafe {
                    let from = pixels.as_ptr().add(y * row + x * pitch + channel);
                    let mut half = [[L::zero(); MAX_OUTPUTS]; MAX_SIDE];
                    for j in 0..S::OUTPUTS {
                        let mut column = [L::zero(); MAX_OUTPUTS];
                        for i in 0..S::OUTPUTS {
                            column[i] = L::load(from.add(i * row + j * pitch));
                        }
                        let transformed = S::a::<L>(column);
                        for i in 0..S::SIDE {
                            half[i][j] = transformed[i];
                        }
                    }
                    let to = m.as_mut_ptr().add(tile * pitch + channel);
                    for i in 0..S::SIDE {
                        let transformed = S::a::<L>(half[i]);
                        for j in 0..S::SIDE {
                            L::store(to.add((S::SIDE * i + j) * plane), transformed[j]);
                        }
                    }
                }
            }
        }
    }
}

/// Kernels to Winograd's domain: filters[position][out][in] = G g Gᵀ.
pub(super) struct FilterTransform<'a, T> {
    /// (out, in, 3, 3)
    pub weight: &'a [T],
    /// (out, pitch) at each position.
    pub filters: Vec<&'a mut [T]>,
    pub filtering: Filtering,
    pub inputs: usize,
    /// A multiple of [`LANE`].
    pub pitch: usize,
}

impl<T: Vectors> Transform<T> for FilterTransform<'_, T> {
    fn filtering(&self) -> Filtering {
        self.filtering
    }

    #[inline(always)]
    fn of<L: Lanes<Real = T>, S: Steps>(self) {
        let Self { weight, mut filters, inputs, pitch, .. } = self;
        let outputs = weight.len() / (9 * inputs);
        // Each store is within its slice.
        assert!(filters.len() == S::SIDE * S::SIDE && pitch >= inputs.next_multiple_of(LANE));
        assert!(filters.iter().all(|filters| filters.len() >= outputs * pitch));
        for output in 0..outputs {
            for first in (0..inputs).step_by(LANE) {
                let kernels = &weight[(output * inputs + first) * 9..(output * inputs + inputs.min(first + LANE)) * 9];
                // Lanes innermost.
                let mut taps = [[T::zero(); LANE]; 9];
                for (lane, kernel) in kernels.chunks_exact(9).enumerate() {
                    for tap in 0..9 {
                        taps[tap][lane] = kernel[tap];
                    }
                }
                for lane in (0..LANE).step_by(L::WIDTH) {
                    // SAFETY: `taps` has LANE numbers a row, a multiple of the width; stores were checked above; the
                    // processor has `L`.
                    unsafe {
                        let mut columns = [[L::zero(); MAX_SIDE]; 3];
                        for j in 0..3 {
                            let mut x = [L::zero(); 3];
                            for i in 0..3 {
                                x[i] = L::load(taps[3 * i + j].as_ptr().add(lane));
                            }
                            columns[j] = S::g::<L>(x);
                        }
                        for i in 0..S::SIDE {
                            let row = S::g::<L>([columns[0][i], columns[1][i], columns[2][i]]);
                            for j in 0..S::SIDE {
                                let start = output * pitch + first + lane;
                                L::store(filters[S::SIDE * i + j].as_mut_ptr().add(start), row[j]);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Gradients of transformed kernels become the kernels' own: dw = Gᵀ filters G.
pub(super) struct FilterGradient<'a, T> {
    /// (positions, out, pitch)
    pub filters: &'a [T],
    pub filtering: Filtering,
    /// (out, in, 3, 3)
    pub dw: &'a mut [T],
    pub inputs: usize,
    pub outputs: usize,
    /// A multiple of [`LANE`].
    pub pitch: usize,
}

impl<T: Vectors> Transform<T> for FilterGradient<'_, T> {
    fn filtering(&self) -> Filtering {
        self.filtering
    }

    #[inline(always)]
    fn of<L: Lanes<Real = T>, S: Steps>(self) {
        let Self { filters, dw, inputs, outputs, pitch, .. } = self;
        for output in 0..outputs {
            for first in (0..inputs).step_by(LANE) {
                // Lanes innermost.
                let mut taps = [[T::zero(); LANE]; 9];
                for lane in (0..LANE).step_by(L::WIDTH) {
                    for j in 0..S::SIDE * S::SIDE {
                        let start = (j * outputs + output) * pitch + first + lane;
                        assert!(start + L::WIDTH <= filters.len());
                    }
                    // SAFETY: loads were checked above; `taps` has LANE numbers a row, a multiple of the width; the
                    // processor has `L`.
                    unsafe {
                        let mut half = [[L::zero(); MAX_SIDE]; 3];
                        for j in 0..S::SIDE {
                            let mut x = [L::zero(); MAX_SIDE];
                            for i in 0..S::SIDE {
                                let start = ((S::SIDE * i + j) * outputs + output) * pitch + first + lane;
                                x[i] = L::load(filters.as_ptr().add(start));
                            }
                            let transformed = S::gt::<L>(x);
                            for i in 0..3 {
                                half[i][j] = transformed[i];
                            }
                        }
                        for i in 0..3 {
                            let row = S::gt::<L>(half[i]);
                            for j in 0..3 {
                                L::store(taps[3 * i + j].as_mut_ptr().add(lane), row[j]);
                            }
                        }
                    }
                }
                let kernels = &mut dw[(output * inputs + first) * 9..(output * inputs + inputs.min(first + LANE)) * 9];
                for (lane, kernel) in kernels.chunks_exact_mut(9).enumerate() {
                    for tap in 0..9 {
                        kernel[tap] = taps[tap][lane];
                    }
                }
            }
        }
    }
}
