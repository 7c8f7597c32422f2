//! 3x3 convolutions of stride 1 in Winograd's domain: F(4x4, 3x3), 36 multiplications for 16 outputs instead of 144, or
//! F(2x2, 3x3), 16 for 4 instead of 36, where images are small.
//!
//! Each tile of outputs reads a tile d of inputs, two larger; with kernel g its outputs are Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A. Summed
//! over channels, the product at each position is a matrix product over all tiles. Gradients are the adjoints of the same
//! transforms, exact up to rounding. Source: Lavin and Gray 2015, arXiv 1509.09308, section 4.1.
//!
//! Images go through the transforms with channels innermost, so that any image size fills vectors.

use rayon::prelude::*;

use super::pass::Merge;
use super::pixels::{Pixels, pixels_from_planes, planes_from_pixels};
use super::plan::{Sizes, even_group};
use super::winograd_steps::Filtering;
use super::winograd_tiles::{
    FilterGradient, FilterTransform, GradientTransform, InputAdjoint, InputTransform, LANE, OutputTransform, Tiles,
    TransformKernel,
};
use crate::buffers::{Scratch, rows_per_task};
use crate::gemm::{Cells, Matrix, Old, Products, multiply};
use crate::lanes::Vectors;
use crate::profile::{self, Kind};

/// Fewest channels on either side for which the products outweigh the transforms: with tiles of 4x4 outputs, and of 2x2.
const MIN_CHANNELS: [usize; 2] = [32, 64];

/// Numbers in a group's transformed tiles, 2 MiB of f32: they stay in the second-level cache.
const GROUP_ELEMENTS: usize = 512 * 1024;

/// Above this many weights they stream through the cache per group, so groups are made larger.
const HEAVY_WEIGHTS: usize = 256 * 1024;

/// Fewest tiles of 4x4 outputs in an image: of fewer, reading the transformed weights, four times as many as the weights
/// themselves, takes longer than multiplying by them.
const MIN_LARGE_TILES: usize = 4;

/// Fewest rows of products for which tiles of 4x4 outputs pay: a block of the kernel.
const MIN_LARGE_ROWS: usize = 14;

/// Images of a batch whose groups are as large as they become.
const LARGE_BATCH: usize = 1 << 16;

/// How images are computed.
struct Plan {
    tiles: Tiles,
    /// Images that are transformed together.
    group: usize,
    /// The number of groups is a multiple of it, where the batch allows.
    shares: usize,
}

/// Of images of this size: in tiles that take fewer multiplications, where products have rows enough. `None` for too few
/// channels.
fn plan_of(channels: [usize; 2], (height, width): (usize, usize), batch: usize) -> Option<Plan> {
    let num_weights = channels[0].saturating_mul(channels[1]).saturating_mul(9);
    let (elements, shares) = if num_weights > HEAVY_WEIGHTS { (4 * GROUP_ELEMENTS, 2) } else { (GROUP_ELEMENTS, 8) };
    let pitches = channels.map(pitch);
    let [small, large] = [Filtering::F2, Filtering::F4].map(|filtering| {
        let along = |side: usize| side.div_ceil(filtering.outputs());
        let tiles = Tiles { rows: along(height), columns: along(width), filtering };
        let per_image = tiles.positions().saturating_mul(pitches[0].saturating_add(pitches[1]));
        (tiles, even_group(batch, elements / per_image.max(1), shares))
    });
    let (tiles, group) = large;
    let is_large = tiles.count() >= MIN_LARGE_TILES
        && group.saturating_mul(tiles.count()) >= MIN_LARGE_ROWS
        && tiles.positions() < small.0.positions();
    let [min_large, min_small] = MIN_CHANNELS;
    let ((tiles, group), min_channels) = if is_large { (large, min_large) } else { (small, min_small) };
    channels.iter().all(|&count| count >= min_channels).then_some(Plan { tiles, group, shares })
}

/// Numbers that a 3x3 convolution of stride 1 works with in Winograd's domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WinogradRoom {
    /// In the transformed inputs and outputs of a group of images, which each thread has.
    pub tiles: usize,
    /// In all transformed kernels.
    pub filters: usize,
    /// Images of a group, at most.
    pub group: usize,
    /// The number of groups of a batch is a multiple of it. Threads that pass over two groups each pack the kernels.
    pub shares: usize,
}

/// Of a convolution from one number of channels to the other, of batches as large as any; `None` where it is computed
/// directly.
pub fn winograd_room(channels: [usize; 2], size: (usize, usize)) -> Option<WinogradRoom> {
    let Plan { tiles, group, shares } = plan_of(channels, size, LARGE_BATCH)?;
    let [inputs, outputs] = channels.map(pitch);
    let (positions, tiles_of_group) = (tiles.filtering.positions(), group.saturating_mul(tiles.positions()));
    Some(WinogradRoom {
        tiles: tiles_of_group.saturating_mul(inputs.saturating_add(outputs)),
        filters: positions.saturating_mul(channels[1]).saturating_mul(inputs),
        group,
        shares,
    })
}

/// Numbers that hold a pixel's channels: whole vectors.
fn pitch(channels: usize) -> usize {
    channels.checked_next_multiple_of(LANE).unwrap_or(channels)
}

/// A convolution's geometry in this domain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Winograd {
    sizes: Sizes,
    tiles: Tiles,
    /// Images that are transformed together; a function of the sizes alone, so that sums have one order whatever the
    /// number of threads.
    pub group: usize,
}

impl Winograd {
    /// `None` where the direct way is possible alone, or faster.
    pub fn of(sizes: Sizes) -> Option<Self> {
        let fits = sizes.kernel == (3, 3) && sizes.stride == 1 && sizes.padding == 1;
        let channels = [sizes.in_channels, sizes.out_channels];
        let size = (sizes.height, sizes.width);
        let Plan { tiles, group, .. } = plan_of(channels, size, sizes.batch).filter(|_| fits)?;
        Some(Self { sizes, tiles, group })
    }

    fn in_pitch(&self) -> usize {
        pitch(self.sizes.in_channels)
    }

    fn out_pitch(&self) -> usize {
        pitch(self.sizes.out_channels)
    }

    /// Positions of a transformed tile.
    pub fn positions(&self) -> usize {
        self.tiles.filtering.positions()
    }

    /// Numbers in a group's transformed inputs, or outputs, of `pitch` channels.
    fn transformed(&self, pitch: usize) -> usize {
        self.positions() * self.group * self.tiles.count() * pitch
    }

    /// Numbers in the transformed weights.
    fn filters(&self) -> usize {
        self.positions() * self.sizes.out_channels * self.in_pitch()
    }

    /// G g Gᵀ of all kernels, (positions, out, in pitch); `weight`: (out, in, 3, 3).
    fn transform_weights<T: Vectors>(&self, weight: &[T]) -> Scratch<T> {
        let mut filters = Scratch::new(self.filters());
        let (inputs, outputs, pitch) = (self.sizes.in_channels, self.sizes.out_channels, self.in_pitch());
        let num_outputs = rows_per_task(9 * inputs);
        let mut positions: Vec<_> =
            filters.chunks_exact_mut(outputs * pitch).map(|filters| filters.chunks_mut(num_outputs * pitch)).collect();
        let parts: Vec<(&[T], Vec<&mut [T]>)> = weight
            .chunks(num_outputs * inputs * 9)
            .map(|weight| (weight, positions.iter_mut().filter_map(Iterator::next).collect()))
            .collect();
        let filtering = self.tiles.filtering;
        parts.into_par_iter().for_each(|(weight, filters)| {
            let _timing = profile::time(Kind::Convolution);
            T::dispatch(TransformKernel(FilterTransform { weight, filters, filtering, inputs, pitch }));
        });
        filters
    }

    /// Bᵀ d B of the tiles of `images`, (n, in, h, w), to `v`, (positions, tiles, in pitch). Returns the number of tiles.
    fn transform_input<T: Vectors>(&self, images: &[T], padded: &mut [T], v: &mut [T]) -> usize {
        let s = &self.sizes;
        let (pitch, tiles) = (self.in_pitch(), self.tiles);
        let num_images = images.len() / s.image();
        let plane = num_images * tiles.count() * pitch;
        for (index, image) in images.chunks_exact(s.image()).enumerate() {
            // The border stays zero: only what lies inside is ever written.
            let inside = &mut padded[tiles.padded_start(pitch)..];
            let at = Pixels { size: (s.in_channels, s.height, s.width), row: tiles.padded_row(pitch), pitch };
            pixels_from_planes(image, at, inside);
            let v = &mut v[index * tiles.count() * pitch..];
            T::dispatch(TransformKernel(InputTransform { padded, v, plane, tiles, pitch }));
        }
        num_images * tiles.count()
    }

    /// A dy Aᵀ of the tiles of `dy`, (n, out, h, w), to `m`, (positions, tiles, out pitch). Returns the number of tiles.
    fn transform_gradient<T: Vectors>(&self, dy: &[T], pixels: &mut [T], m: &mut [T]) -> usize {
        let s = &self.sizes;
        let (pitch, tiles) = (self.out_pitch(), self.tiles);
        let num_images = dy.len() / s.out_image();
        let plane = num_images * tiles.count() * pitch;
        for (index, dy) in dy.chunks_exact(s.out_image()).enumerate() {
            let at = Pixels { size: (s.out_channels, s.height, s.width), row: tiles.row(pitch), pitch };
            pixels_from_planes(dy, at, pixels);
            let m = &mut m[index * tiles.count() * pitch..];
            T::dispatch(TransformKernel(GradientTransform { pixels, m, plane, tiles, pitch }));
        }
        num_images * tiles.count()
    }

    /// Zeroed room for the pixels of an image with its border.
    fn padded<T: Vectors>(&self) -> Vec<T> {
        vec![T::zero(); self.tiles.padded_len(self.in_pitch())]
    }

    /// Zeroed room for the pixels of an image of outputs.
    fn pixels<T: Vectors>(&self) -> Vec<T> {
        vec![T::zero(); self.tiles.len(self.out_pitch())]
    }

    /// Multiplies for one of the groups.
    fn products(&self) -> Products {
        Products::full(self.sizes.batch.div_ceil(self.group)).counted_as(Kind::Convolution)
    }
}

/// Transformed weights, (positions, out, in pitch), and where those of each position are packed for the groups.
struct Filters<T: Vectors> {
    all: Scratch<T>,
    packed: Vec<Option<Cells>>,
}

impl<T: Vectors> Filters<T> {
    fn new(domain: &Winograd, weight: &[T]) -> Self {
        let groups_per_thread = domain.sizes.batch.div_ceil(domain.group) / rayon::current_num_threads();
        let packed = (0..domain.positions()).map(|_| Cells::new(groups_per_thread)).collect();
        Self { all: domain.transform_weights(weight), packed }
    }

    /// (out, in) at each position, rows `pitch` apart.
    fn positions(&self, outputs: usize, pitch: usize) -> impl Iterator<Item = Matrix<'_, T>> {
        let filters = self.all.chunks_exact(outputs * pitch).zip(&self.packed);
        filters.map(move |(filters, cells)| Matrix::rows(filters, pitch).packed_in(cells.as_ref()))
    }
}

/// The forward pass.
pub(super) struct WinogradForward<T: Vectors> {
    domain: Winograd,
    filters: Filters<T>,
}

/// Working memory of a thread, and the result of [`WinogradForward::run`].
pub(super) struct WinogradBuffers<T: Vectors> {
    padded: Vec<T>,
    pixels: Vec<T>,
    v: Scratch<T>,
    m: Scratch<T>,
    /// (n, out, h, w)
    out: Scratch<T>,
}

impl<T: Vectors> WinogradForward<T> {
    /// `weight`: (out, in, 3, 3).
    pub fn new(domain: Winograd, weight: &[T]) -> Self {
        Self { filters: Filters::new(&domain, weight), domain }
    }

    pub fn buffers(&self) -> WinogradBuffers<T> {
        let domain = &self.domain;
        WinogradBuffers {
            padded: domain.padded(),
            pixels: domain.pixels(),
            v: Scratch::new(domain.transformed(domain.in_pitch())),
            m: Scratch::new(domain.transformed(domain.out_pitch())),
            out: Scratch::new(domain.group * domain.sizes.out_image()),
        }
    }

    /// Convolves up to a group of images (n, in, h, w).
    pub fn run(&self, images: &[T], buffers: &mut WinogradBuffers<T>) {
        let (domain, s) = (&self.domain, &self.domain.sizes);
        let tiles = domain.transform_input(images, &mut buffers.padded, &mut buffers.v);
        let (inputs, outputs) = (domain.in_pitch(), domain.out_pitch());
        let products = buffers.m.chunks_exact_mut(tiles * outputs).zip(buffers.v.chunks_exact(tiles * inputs));
        for ((m, v), filters) in products.zip(self.filters.positions(s.out_channels, inputs)) {
            let factors = (Matrix::rows(v, inputs), filters.t());
            let size = (tiles, s.out_channels, s.in_channels);
            multiply(size, (m, outputs), Old::Replaced, T::one(), factors, domain.products());
        }
        let (grid, plane) = (domain.tiles, tiles * outputs);
        for (index, out) in buffers.out.chunks_exact_mut(s.out_image()).take(images.len() / s.image()).enumerate() {
            let m = &buffers.m[index * grid.count() * outputs..];
            let pixels = &mut buffers.pixels;
            T::dispatch(TransformKernel(OutputTransform { m, plane, pixels, tiles: grid, pitch: outputs }));
            let at = Pixels { size: (s.out_channels, s.height, s.width), row: grid.row(outputs), pitch: outputs };
            planes_from_pixels(&buffers.pixels, at, out, Merge::Replace);
        }
    }

    /// An output channel of an image of the last run, dense.
    pub fn plane<'a>(&self, buffers: &'a WinogradBuffers<T>, image: usize, channel: usize) -> &'a [T] {
        let s = &self.domain.sizes;
        let plane = s.height * s.width;
        &buffers.out[(image * s.out_channels + channel) * plane..][..plane]
    }
}

/// The backward passes.
pub(super) struct WinogradBackward<T: Vectors> {
    domain: Winograd,
    /// Absent when the input needs no gradient.
    filters: Option<Filters<T>>,
}

/// Working memory of a thread.
pub(super) struct WinogradBackwardBuffers<T: Vectors> {
    padded: Vec<T>,
    pixels: Vec<T>,
    /// Transformed inputs, then their gradient.
    v: Scratch<T>,
    /// Transformed output gradient.
    m: Scratch<T>,
    /// Gradient of the transformed weights so far, once `has_filters`.
    filters: Scratch<T>,
    has_filters: bool,
}

impl<T: Vectors> WinogradBackwardBuffers<T> {
    /// Forgets the gradient so far.
    pub fn begin(&mut self) {
        self.has_filters = false;
    }
}

impl<T: Vectors> WinogradBackward<T> {
    /// `weight`: (out, in, 3, 3), when the input's gradient is wanted.
    pub fn new(domain: Winograd, weight: Option<&[T]>) -> Self {
        Self { filters: weight.map(|weight| Filters::new(&domain, weight)), domain }
    }

    pub fn buffers(&self) -> WinogradBackwardBuffers<T> {
        let domain = &self.domain;
        WinogradBackwardBuffers {
            padded: domain.padded(),
            pixels: domain.pixels(),
            v: Scratch::new(domain.transformed(domain.in_pitch())),
            m: Scratch::new(domain.transformed(domain.out_pitch())),
            filters: Scratch::new(domain.filters()),
            has_filters: false,
        }
    }

    /// Adds up the weight gradient of up to a group of images in the buffers, for [`Self::finish_weights`].
    pub fn weights(&self, images: &[T], dy: &[T], buffers: &mut WinogradBackwardBuffers<T>) {
        let (domain, s) = (&self.domain, &self.domain.sizes);
        let tiles = domain.transform_input(images, &mut buffers.padded, &mut buffers.v);
        domain.transform_gradient(dy, &mut buffers.pixels, &mut buffers.m);
        let (inputs, outputs) = (domain.in_pitch(), domain.out_pitch());
        let old = if buffers.has_filters { Old::Kept } else { Old::Replaced };
        buffers.has_filters = true;
        let factors = buffers.v.chunks_exact(tiles * inputs).zip(buffers.m.chunks_exact(tiles * outputs));
        for ((v, m), u) in factors.zip(buffers.filters.chunks_exact_mut(s.out_channels * inputs)) {
            let factors = (Matrix::rows(m, outputs).t(), Matrix::rows(v, inputs));
            let size = (s.out_channels, s.in_channels, tiles);
            multiply(size, (u, inputs), old, T::one(), factors, domain.products());
        }
    }

    /// Writes what [`Self::weights`] added up to `dw`, (out, in, 3, 3).
    pub fn finish_weights(&self, dw: &mut [T], buffers: &WinogradBackwardBuffers<T>) {
        if !buffers.has_filters {
            return dw.fill(T::zero());
        }
        let (inputs, outputs, pitch) =
            (self.domain.sizes.in_channels, self.domain.sizes.out_channels, self.domain.in_pitch());
        let filtering = self.domain.tiles.filtering;
        let gradient = FilterGradient { filters: &buffers.filters, filtering, dw, inputs, outputs, pitch };
        T::dispatch(TransformKernel(gradient));
    }

    /// Merges the input gradient of the images that [`Self::weights`] was called with last into `dx`, (n, in, h, w).
    pub fn input(&self, dx: &mut [T], merge: Merge, buffers: &mut WinogradBackwardBuffers<T>) {
        let Some(filters) = &self.filters else { return };
        let (domain, s) = (&self.domain, &self.domain.sizes);
        let grid = domain.tiles;
        let tiles = dx.len() / s.image() * grid.count();
        let (inputs, outputs) = (domain.in_pitch(), domain.out_pitch());
        let products = buffers.v.chunks_exact_mut(tiles * inputs).zip(buffers.m.chunks_exact(tiles * outputs));
        for ((v, m), filters) in products.zip(filters.positions(s.out_channels, inputs)) {
            let factors = (Matrix::rows(m, outputs), filters);
            let size = (tiles, s.in_channels, s.out_channels);
            multiply(size, (v, inputs), Old::Replaced, T::one(), factors, domain.products());
        }
        let plane = tiles * inputs;
        for (index, dx) in dx.chunks_exact_mut(s.image()).enumerate() {
            let v = &buffers.v[index * grid.count() * inputs..];
            buffers.padded.fill(T::zero());
            let padded = &mut buffers.padded;
            T::dispatch(TransformKernel(InputAdjoint { v, plane, padded, tiles: grid, pitch: inputs }));
            let inside = &buffers.padded[grid.padded_start(inputs)..];
            let at = Pixels { size: (s.in_channels, s.height, s.width), row: grid.padded_row(inputs), pitch: inputs };
            planes_from_pixels(inside, at, dx, merge);
        }
        // What lies on the border is no pixel's; the next images expect it to be zero.
        buffers.padded.fill(T::zero());
    }
}
