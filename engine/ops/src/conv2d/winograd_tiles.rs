//! The transforms of Winograd's domain, tile by tile, on vectors of channels. One file, because each
//! transform stands beside its adjoint and all share the same few steps.
#![allow(unsafe_code, reason = "raw loads and stores in the inner loops; bounds are asserted before them")]
#![allow(clippy::needless_range_loop, reason = "indexes keep the arrays in registers; iterators copy them to memory")]

use super::pass::Merge;
use crate::lanes::{Kernel, Lanes, Vectors};
use crate::simd::kernel;

/// Channels are padded to a multiple of this, the widest vector.
pub(super) const LANE: usize = 16;

/// The tiles of an image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tiles {
    pub rows: usize,
    pub columns: usize,
}

impl Tiles {
    pub fn count(self) -> usize {
        self.rows * self.columns
    }

    /// Numbers in a row of output pixels of `pitch` channels.
    pub fn row(self, pitch: usize) -> usize {
        2 * self.columns * pitch
    }

    /// Numbers in an image of output pixels.
    pub fn len(self, pitch: usize) -> usize {
        2 * self.rows * self.row(pitch)
    }

    /// Numbers in a row of input pixels with a border of one on each side.
    pub fn padded_row(self, pitch: usize) -> usize {
        (2 * self.columns + 2) * pitch
    }

    /// Numbers in an image of input pixels with their border.
    pub fn padded_len(self, pitch: usize) -> usize {
        (2 * self.rows + 2) * self.padded_row(pitch)
    }

    /// The first pixel inside the border.
    pub fn padded_start(self, pitch: usize) -> usize {
        self.padded_row(pitch) + pitch
    }
}

kernel! {
    /// Dense planes (channels, height, width) to pixels with channels innermost, at (row, pixel) distances.
    pub(super) fn pixels_from_planes<T>(
        planes: &[T],
        size: (usize, usize, usize),
        pixels: &mut [T],
        distance: (usize, usize),
    ) {
        let ((channels, height, width), (row, pitch)) = (size, distance);
        for first in (0..channels).step_by(LANE) {
            let last = (first + LANE).min(channels);
            for y in 0..height {
                for channel in first..last {
                    let from = &planes[(channel * height + y) * width..][..width];
                    let to = &mut pixels[y * row + channel..];
                    for (x, &from) in from.iter().enumerate() {
                        to[x * pitch] = from;
                    }
                }
            }
        }
    }
}

kernel! {
    /// The reverse of [`pixels_from_planes`], over what is there or onto it.
    pub(super) fn planes_from_pixels<T>(
        pixels: &[T],
        distance: (usize, usize),
        planes: &mut [T],
        size: (usize, usize, usize),
        merge: Merge,
    ) {
        let ((channels, height, width), (row, pitch)) = (size, distance);
        for first in (0..channels).step_by(LANE) {
            let last = (first + LANE).min(channels);
            for y in 0..height {
                for channel in first..last {
                    let to = &mut planes[(channel * height + y) * width..][..width];
                    let from = &pixels[y * row + channel..];
                    match merge {
                        Merge::Replace => to.iter_mut().enumerate().for_each(|(x, to)| *to = from[x * pitch]),
                        Merge::Add => to.iter_mut().enumerate().for_each(|(x, to)| *to += from[x * pitch]),
                    }
                }
            }
        }
    }
}

/// A 4x4 tile of vectors.
type Tile<L> = [[<L as Lanes>::Vector; 4]; 4];

/// a + b. Safety: the processor has `L`.
#[inline(always)]
unsafe fn add<L: Lanes>(a: L::Vector, b: L::Vector) -> L::Vector {
    // SAFETY: the caller's promise.
    unsafe { L::multiply_add(a, L::splat(constant::<L>(1.0)), b) }
}

/// a − b. Safety: the processor has `L`.
#[inline(always)]
unsafe fn subtract<L: Lanes>(a: L::Vector, b: L::Vector) -> L::Vector {
    // SAFETY: the caller's promise.
    unsafe { L::multiply_add(b, L::splat(constant::<L>(-1.0)), a) }
}

#[inline(always)]
fn constant<L: Lanes>(value: f64) -> L::Real {
    <L::Real as candle_core::WithDType>::from_f64(value)
}

/// Bᵀ x. Safety: the processor has `L`.
#[inline(always)]
unsafe fn bt<L: Lanes>(x: [L::Vector; 4]) -> [L::Vector; 4] {
    // SAFETY: the caller's promise.
    unsafe { [subtract::<L>(x[0], x[2]), add::<L>(x[1], x[2]), subtract::<L>(x[2], x[1]), subtract::<L>(x[1], x[3])] }
}

/// B x, the adjoint of [`bt`]. Safety: the processor has `L`.
#[inline(always)]
unsafe fn b<L: Lanes>(x: [L::Vector; 4]) -> [L::Vector; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let difference = subtract::<L>(x[1], x[2]);
        let sum = add::<L>(x[1], x[2]);
        [x[0], add::<L>(difference, x[3]), subtract::<L>(sum, x[0]), subtract::<L>(L::zero(), x[3])]
    }
}

/// Aᵀ x. Safety: the processor has `L`.
#[inline(always)]
unsafe fn at<L: Lanes>(x: [L::Vector; 4]) -> [L::Vector; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let (sum, difference) = (add::<L>(x[1], x[2]), subtract::<L>(x[1], x[2]));
        [add::<L>(x[0], sum), subtract::<L>(difference, x[3])]
    }
}

/// A x, the adjoint of [`at`]. Safety: the processor has `L`.
#[inline(always)]
unsafe fn a<L: Lanes>(x: [L::Vector; 2]) -> [L::Vector; 4] {
    // SAFETY: the caller's promise.
    unsafe { [x[0], add::<L>(x[0], x[1]), subtract::<L>(x[0], x[1]), subtract::<L>(L::zero(), x[1])] }
}

/// G x. Safety: the processor has `L`.
#[inline(always)]
unsafe fn g<L: Lanes>(x: [L::Vector; 3]) -> [L::Vector; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let (half, outer) = (L::splat(constant::<L>(0.5)), add::<L>(x[0], x[2]));
        let sum = L::multiply_add(add::<L>(outer, x[1]), half, L::zero());
        let difference = L::multiply_add(subtract::<L>(outer, x[1]), half, L::zero());
        [x[0], sum, difference, x[2]]
    }
}

/// Gᵀ x, the adjoint of [`g`]. Safety: the processor has `L`.
#[inline(always)]
unsafe fn gt<L: Lanes>(x: [L::Vector; 4]) -> [L::Vector; 3] {
    // SAFETY: the caller's promise.
    unsafe {
        let half = L::splat(constant::<L>(0.5));
        let sum = L::multiply_add(add::<L>(x[1], x[2]), half, L::zero());
        let difference = L::multiply_add(subtract::<L>(x[1], x[2]), half, L::zero());
        [add::<L>(x[0], sum), difference, add::<L>(sum, x[3])]
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

impl<T: Vectors> Kernel<T> for InputTransform<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = T>>(self) {
        let Self { padded, v, plane, tiles, pitch } = self;
        assert!(pitch.is_multiple_of(L::WIDTH) && padded.len() >= tiles.padded_len(pitch));
        assert!(v.len() >= 15 * plane + tiles.count() * pitch);
        let row = tiles.padded_row(pitch);
        for tile in 0..tiles.count() {
            let (y, x) = (2 * (tile / tiles.columns), 2 * (tile % tiles.columns));
            for channel in (0..pitch).step_by(L::WIDTH) {
                // SAFETY: the tile's last pixel is (2·rows + 1, 2·columns + 1), inside the image with its border; the
                // last write ends at 15·plane + count·pitch; both by the assertions. The processor has `L`.
                unsafe {
                    let from = padded.as_ptr().add(y * row + x * pitch + channel);
                    let mut d: Tile<L> = [[L::zero(); 4]; 4];
                    for i in 0..4 {
                        for j in 0..4 {
                            d[i][j] = L::load(from.add(i * row + j * pitch));
                        }
                    }
                    let mut half: Tile<L> = d;
                    for j in 0..4 {
                        let transformed = bt::<L>([d[0][j], d[1][j], d[2][j], d[3][j]]);
                        for i in 0..4 {
                            half[i][j] = transformed[i];
                        }
                    }
                    let to = v.as_mut_ptr().add(tile * pitch + channel);
                    for i in 0..4 {
                        let transformed = bt::<L>(half[i]);
                        for j in 0..4 {
                            L::store(to.add((4 * i + j) * plane), transformed[j]);
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

impl<T: Vectors> Kernel<T> for InputAdjoint<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = T>>(self) {
        let Self { v, plane, padded, tiles, pitch } = self;
        assert!(pitch.is_multiple_of(L::WIDTH) && padded.len() >= tiles.padded_len(pitch));
        assert!(v.len() >= 15 * plane + tiles.count() * pitch);
        let row = tiles.padded_row(pitch);
        for tile in 0..tiles.count() {
            let (y, x) = (2 * (tile / tiles.columns), 2 * (tile % tiles.columns));
            for channel in (0..pitch).step_by(L::WIDTH) {
                // SAFETY: as in `InputTransform`, with reads and writes exchanged.
                unsafe {
                    let from = v.as_ptr().add(tile * pitch + channel);
                    let mut half: Tile<L> = [[L::zero(); 4]; 4];
                    for j in 0..4 {
                        let mut tile = [L::zero(); 4];
                        for i in 0..4 {
                            tile[i] = L::load(from.add((4 * i + j) * plane));
                        }
                        let transformed = b::<L>(tile);
                        for i in 0..4 {
                            half[i][j] = transformed[i];
                        }
                    }
                    let to = padded.as_mut_ptr().add(y * row + x * pitch + channel);
                    for i in 0..4 {
                        let transformed = b::<L>(half[i]);
                        for j in 0..4 {
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

impl<T: Vectors> Kernel<T> for OutputTransform<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = T>>(self) {
        let Self { m, plane, pixels, tiles, pitch } = self;
        assert!(pitch.is_multiple_of(L::WIDTH) && pixels.len() >= tiles.len(pitch));
        assert!(m.len() >= 15 * plane + tiles.count() * pitch);
        let row = tiles.row(pitch);
        for tile in 0..tiles.count() {
            let (y, x) = (2 * (tile / tiles.columns), 2 * (tile % tiles.columns));
            for channel in (0..pitch).step_by(L::WIDTH) {
                // SAFETY: the last read ends at 15·plane + count·pitch, the tile's last pixel is
                // (2·rows − 1, 2·columns − 1); both by the assertions. The processor has `L`.
                unsafe {
                    let from = m.as_ptr().add(tile * pitch + channel);
                    let mut half = [[L::zero(); 4]; 2];
                    for j in 0..4 {
                        let mut tile = [L::zero(); 4];
                        for i in 0..4 {
                            tile[i] = L::load(from.add((4 * i + j) * plane));
                        }
                        let transformed = at::<L>(tile);
                        for i in 0..2 {
                            half[i][j] = transformed[i];
                        }
                    }
                    let to = pixels.as_mut_ptr().add(y * row + x * pitch + channel);
                    for i in 0..2 {
                        let transformed = at::<L>(half[i]);
                        for j in 0..2 {
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

impl<T: Vectors> Kernel<T> for GradientTransform<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = T>>(self) {
        let Self { pixels, m, plane, tiles, pitch } = self;
        assert!(pitch.is_multiple_of(L::WIDTH) && pixels.len() >= tiles.len(pitch));
        assert!(m.len() >= 15 * plane + tiles.count() * pitch);
        let row = tiles.row(pitch);
        for tile in 0..tiles.count() {
            let (y, x) = (2 * (tile / tiles.columns), 2 * (tile % tiles.columns));
            for channel in (0..pitch).step_by(L::WIDTH) {
                // SAFETY: as in `OutputTransform`, with reads and writes exchanged.
                unsafe {
                    let from = pixels.as_ptr().add(y * row + x * pitch + channel);
                    let mut half = [[L::zero(); 2]; 4];
                    for j in 0..2 {
                        let transformed = a::<L>([L::load(from.add(j * pitch)), L::load(from.add(row + j * pitch))]);
                        for i in 0..4 {
                            half[i][j] = transformed[i];
                        }
                    }
                    let to = m.as_mut_ptr().add(tile * pitch + channel);
                    for i in 0..4 {
                        let transformed = a::<L>(half[i]);
                        for j in 0..4 {
                            L::store(to.add((4 * i + j) * plane), transformed[j]);
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
    pub filters: [&'a mut [T]; 16],
    pub inputs: usize,
    /// A multiple of [`LANE`].
    pub pitch: usize,
}

impl<T: Vectors> Kernel<T> for FilterTransform<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = T>>(self) {
        let Self { weight, filters, inputs, pitch } = self;
        let outputs = weight.len() / (9 * inputs);
        // Each store is within its slice.
        assert!(
            pitch >= inputs.next_multiple_of(LANE) && filters.iter().all(|filters| filters.len() >= outputs * pitch)
        );
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
                        let mut columns = [[L::zero(); 4]; 3];
                        for j in 0..3 {
                            let mut x = [L::zero(); 3];
                            for i in 0..3 {
                                x[i] = L::load(taps[3 * i + j].as_ptr().add(lane));
                            }
                            columns[j] = g::<L>(x);
                        }
                        for i in 0..4 {
                            let row = g::<L>([columns[0][i], columns[1][i], columns[2][i]]);
                            for j in 0..4 {
                                let start = output * pitch + first + lane;
                                L::store(filters[4 * i + j].as_mut_ptr().add(start), row[j]);
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
    /// (16, out, pitch)
    pub filters: &'a [T],
    /// (out, in, 3, 3)
    pub dw: &'a mut [T],
    pub inputs: usize,
    pub outputs: usize,
    /// A multiple of [`LANE`].
    pub pitch: usize,
}

impl<T: Vectors> Kernel<T> for FilterGradient<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = T>>(self) {
        let Self { filters, dw, inputs, outputs, pitch } = self;
        for output in 0..outputs {
            for first in (0..inputs).step_by(LANE) {
                // Lanes innermost.
                let mut taps = [[T::zero(); LANE]; 9];
                for lane in (0..LANE).step_by(L::WIDTH) {
                    for j in 0..16 {
                        let start = (j * outputs + output) * pitch + first + lane;
                        assert!(start + L::WIDTH <= filters.len());
                    }
                    // SAFETY: loads were checked above; `taps` has LANE numbers a row, a multiple of the width; the
                    // processor has `L`.
                    unsafe {
                        let mut columns = [[L::zero(); 3]; 4];
                        for j in 0..4 {
                            let mut x = [L::zero(); 4];
                            for i in 0..4 {
                                let start = ((4 * i + j) * outputs + output) * pitch + first + lane;
                                x[i] = L::load(filters.as_ptr().add(start));
                            }
                            columns[j] = gt::<L>(x);
                        }
                        for i in 0..3 {
                            let row = gt::<L>([columns[0][i], columns[1][i], columns[2][i], columns[3][i]]);
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
