//! Factors of a product, as one or three bf16 numbers each, laid out in tiles as the kernels read them.
#![allow(unsafe_code, reason = "vector instructions on slices whose bounds are asserted before")]

use std::arch::x86_64::*;
use std::sync::{Mutex, PoisonError};

use super::kernel::EXACT_PARTS;
use crate::buffers::Shelved;
use crate::span::Span;
use crate::transpose::{mask, transposed};

/// Lines (rows of the left factor, columns of the right one) of a tile.
pub(super) const TILE_LINES: usize = 16;
/// Inner positions of a tile.
pub(super) const TILE_DEPTH: usize = 32;

/// 16 lines by 16 pairs of neighboring inner positions; the even position of a pair is the lower half.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Tile([u32; 256]);

impl Tile {
    /// Vector `index` of 16.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn store(&mut self, index: usize, vector: __m512i) {
        // SAFETY: 16 numbers of 32 bits, aligned to 64 bytes as the tile is.
        unsafe { _mm512_store_si512(self.0.as_chunks_mut::<16>().0[index].as_mut_ptr().cast(), vector) };
    }

    /// Lines become pairs, and pairs lines.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn transpose(&mut self) {
        let vectors = self.0.as_chunks::<16>().0;
        // SAFETY: as in `store`.
        let load = |index: usize| unsafe { _mm512_load_si512(vectors[index].as_ptr().cast()) };
        let columns = transposed(std::array::from_fn(load));
        for (index, column) in columns.into_iter().enumerate() {
            self.store(index, column);
        }
    }
}

impl Shelved for Tile {
    const ZERO: Self = Self([0; 256]);

    fn shelf() -> &'static Mutex<Vec<Vec<Self>>> {
        static SHELF: Mutex<Vec<Vec<Tile>>> = Mutex::new(Vec::new());
        &SHELF
    }
}

/// Gives packed factors' memory back to the system.
pub(crate) fn release_scratch() {
    Tile::shelf().lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// How a tile is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// (lines, pairs): the left factor.
    Lines,
    /// (pairs, lines): the right factor.
    Pairs,
}

/// A factor as lines along the inner dimension: (line, depth) is `data[line * line_stride + depth * depth_stride]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines<'a> {
    /// The numbers.
    pub(super) data: &'a [f32],
    /// From one line to the next.
    pub(super) line_stride: usize,
    /// From one inner position to the next.
    pub(super) depth_stride: usize,
}

/// True when this processor has the instructions of [`pack`].
pub(super) fn is_supported() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512bf16")
}

/// Lines of a panel: two tiles side by side.
pub(super) const PANEL: usize = 2 * TILE_LINES;
/// Pairs of tiles of a panel that are multiplied in one go, at most, where a number has one part: both factors' fit the
/// first-level cache. Of more parts all are: writing sums and taking them up again costs more than reading tiles from the
/// second-level cache.
const MAX_PAIRS: usize = 12;
/// How far ahead numbers are fetched that become tiles.
const TILES_AHEAD: usize = 2;

/// How tiles of panels follow one another: by section of the inner dimension, panel, step, part, half of the panel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    parts: usize,
    num_panels: usize,
    num_steps: usize,
    section_steps: usize,
}

/// Steps of a section of all panels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Section {
    /// Index of its first tile.
    pub(super) start: usize,
    /// Steps, each of two tiles per panel and part.
    pub(super) steps: usize,
}

impl Layout {
    /// Panels for this many lines and inner positions, of numbers in this many parts.
    pub(super) fn new(lines: usize, depth: usize, parts: usize) -> Self {
        let num_steps = depth.div_ceil(TILE_DEPTH);
        let most = if parts == 1 { MAX_PAIRS } else { num_steps.max(1) };
        let num_sections = num_steps.div_ceil(most).max(1);
        let section_steps = num_steps.div_ceil(num_sections).max(1);
        Self { parts, num_panels: lines.div_ceil(PANEL), num_steps, section_steps }
    }

    /// Tiles in all.
    pub(super) fn num_tiles(self) -> usize {
        2 * self.parts * self.num_panels * self.num_steps
    }

    /// Sections in order.
    pub(super) fn sections(self) -> impl Iterator<Item = Section> {
        (0..self.num_steps).step_by(self.section_steps).map(move |first| Section {
            start: 2 * self.parts * first * self.num_panels,
            steps: self.section_steps.min(self.num_steps - first),
        })
    }
}

/// Rounds `lines` by `depth` of `from` to the nearest bf16, ties to even, into tiles laid out by [`Layout`]; where numbers
/// have several parts, each is what those before have left, rounded so. Beyond the spans' ends are zeros. Denormal parts
/// become zero; infinity leaves NaN.
///
/// Panics when the spans leave `from`, or `to` is of another length, or the processor lacks the instructions.
pub(super) fn pack(from: Lines<'_>, lines: Span, depth: Span, (order, parts): (Order, usize), to: &mut [Tile]) {
    assert_eq!(to.len(), Layout::new(lines.len, depth.len, parts).num_tiles(), "tiles");
    if to.is_empty() {
        return;
    }
    let last = (lines.start + lines.len - 1) * from.line_stride + (depth.start + depth.len - 1) * from.depth_stride;
    assert!(last < from.data.len() && is_supported(), "factor out of bounds");
    // SAFETY: the features were detected, and the last element lies in the slice.
    unsafe {
        match parts {
            1 => pack_tiles::<1>(from, lines, depth, order, to),
            EXACT_PARTS => pack_tiles::<EXACT_PARTS>(from, lines, depth, order, to),
            _ => unreachable!("kernels read one part or {EXACT_PARTS}, not {parts}"),
        }
    }
}

/// Safety: the last element of the spans lies in `from`, so all do.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack_tiles<const PARTS: usize>(from: Lines<'_>, lines: Span, depth: Span, order: Order, to: &mut [Tile]) {
    let layout = Layout::new(lines.len, depth.len, PARTS);
    let mut at = 0;
    for section in layout.sections() {
        let section_tiles = 2 * PARTS * section.steps * layout.num_panels;
        let tiles = &mut to[section.start..section.start + section_tiles];
        let mut one = |line_tile: usize, step: usize| {
            let (line, inner) = (line_tile * TILE_LINES, at + step * TILE_DEPTH);
            let source = Source {
                // The panel's second half may be empty, and then starts outside.
                start: from
                    .data
                    .as_ptr()
                    .wrapping_add((lines.start + line) * from.line_stride + (depth.start + inner) * from.depth_stride),
                line_stride: from.line_stride,
                depth_stride: from.depth_stride,
                num_lines: TILE_LINES.min(lines.len.saturating_sub(line)),
                num_depth: TILE_DEPTH.min(depth.len - inner),
            };
            let to = &mut tiles[2 * PARTS * (line_tile / 2 * section.steps + step)..][..2 * PARTS];
            source.fetch_ahead();
            // SAFETY: the source's elements lie in the slice by the caller's promise.
            unsafe { pack_tile::<PARTS>(source, order, line_tile % 2, to) };
        };
        // Along memory, so that each cache line is read once.
        if from.depth_stride <= from.line_stride {
            for line_tile in 0..2 * layout.num_panels {
                for step in 0..section.steps {
                    one(line_tile, step);
                }
            }
        } else {
            for step in 0..section.steps {
                for line_tile in 0..2 * layout.num_panels {
                    one(line_tile, step);
                }
            }
        }
        at += section.steps * TILE_DEPTH;
    }
}

/// What becomes one tile of each part.
#[derive(Clone, Copy)]
struct Source {
    start: *const f32,
    line_stride: usize,
    depth_stride: usize,
    /// At most 16.
    num_lines: usize,
    /// At most 32.
    num_depth: usize,
}

impl Source {
    /// Fetches what becomes a tile a little later, where memory goes on.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn fetch_ahead(self) {
        // Fetching from anywhere harms nothing.
        let fetch = |number: usize| _mm_prefetch::<_MM_HINT_T0>(self.start.wrapping_add(number).cast());
        if self.depth_stride == 1 {
            for line in 0..TILE_LINES {
                let ahead = line * self.line_stride + TILES_AHEAD * TILE_DEPTH;
                fetch(ahead);
                fetch(ahead + TILE_DEPTH / 2);
            }
        } else {
            for depth in 0..TILE_DEPTH {
                fetch(depth * self.depth_stride + TILES_AHEAD * TILE_LINES);
            }
        }
    }
}

/// To number `half` of each pair of tiles. Safety: the source's elements are readable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack_tile<const PARTS: usize>(source: Source, order: Order, half: usize, to: &mut [Tile]) {
    // SAFETY: the caller's promise.
    let found = unsafe {
        if source.depth_stride == 1 {
            lines_of::<PARTS>(source, half, to);
            Order::Lines
        } else if source.line_stride == 1 {
            pairs_of::<PARTS>(source, half, to);
            Order::Pairs
        } else {
            gathered_lines_of::<PARTS>(source, half, to);
            Order::Lines
        }
    };
    if found != order {
        to.iter_mut().skip(half).step_by(2).for_each(|tile| tile.transpose());
    }
}

/// Whatever the strides. Safety: as [`pack_tile`].
#[cold]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn gathered_lines_of<const PARTS: usize>(source: Source, half: usize, to: &mut [Tile]) {
    let mut room = [0.0_f32; TILE_LINES * TILE_DEPTH];
    for line in 0..source.num_lines {
        for depth in 0..source.num_depth {
            // SAFETY: the caller's promise.
            let from = unsafe { *source.start.add(line * source.line_stride + depth * source.depth_stride) };
            room[line * TILE_DEPTH + depth] = from;
        }
    }
    let start = room.as_ptr();
    // SAFETY: `room` holds 16 lines of 32 numbers.
    unsafe { lines_of::<PARTS>(Source { start, line_stride: TILE_DEPTH, depth_stride: 1, ..source }, half, to) }
}

/// 32 numbers as words, the lower ones first: each part is what is left by those before, rounded.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn parts_of<const PARTS: usize>(mut low: __m512, mut high: __m512) -> [__m512i; PARTS] {
    let mut parts = [_mm512_setzero_si512(); PARTS];
    for (index, part) in parts.iter_mut().enumerate() {
        // SAFETY: both are 512 bits of any value.
        *part = unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) };
        if index + 1 < PARTS {
            let widened = |words| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(words)));
            low = _mm512_sub_ps(low, widened(_mm512_castsi512_si256(*part)));
            high = _mm512_sub_ps(high, widened(_mm512_extracti64x4_epi64::<1>(*part)));
        }
    }
    parts
}

/// 16 lines of 16 pairs. Safety: as [`pack_tile`]; the depth stride is 1.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn lines_of<const PARTS: usize>(source: Source, half: usize, to: &mut [Tile]) {
    let (low, high) = (mask(source.num_depth), mask(source.num_depth.saturating_sub(16)));
    for line in 0..TILE_LINES {
        let (low, high) = if line < source.num_lines { (low, high) } else { (0, 0) };
        let from = source.start.wrapping_add(line * source.line_stride);
        // SAFETY: lanes beyond the source are masked out, and such memory is not touched; the pointers' offsets wrap where
        // all of them are.
        let (low, high) =
            unsafe { (_mm512_maskz_loadu_ps(low, from), _mm512_maskz_loadu_ps(high, from.wrapping_add(16))) };
        for (part, words) in parts_of::<PARTS>(low, high).into_iter().enumerate() {
            to[2 * part + half].store(line, words);
        }
    }
}

/// 16 pairs of 16 lines. Safety: as [`pack_tile`]; the line stride is 1.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pairs_of<const PARTS: usize>(source: Source, half: usize, to: &mut [Tile]) {
    let lanes = mask(source.num_lines);
    // Word 2 · i from the lower half, 2 · i + 1 from the upper one.
    let mut interleave = [0_u16; 32];
    for (word, from) in interleave.iter_mut().zip(0..) {
        *word = from / 2 + from % 2 * 16;
    }
    // SAFETY: 32 words.
    let interleave = unsafe { _mm512_loadu_si512(interleave.as_ptr().cast()) };
    for pair in 0..TILE_DEPTH / 2 {
        let lanes_at = |depth| if depth < source.num_depth { lanes } else { 0 };
        let from = source.start.wrapping_add(2 * pair * source.depth_stride);
        // SAFETY: as above.
        let (even, odd) = unsafe {
            (
                _mm512_maskz_loadu_ps(lanes_at(2 * pair), from),
                _mm512_maskz_loadu_ps(lanes_at(2 * pair + 1), from.wrapping_add(source.depth_stride)),
            )
        };
        for (part, words) in parts_of::<PARTS>(even, odd).into_iter().enumerate() {
            to[2 * part + half].store(pair, _mm512_permutexvar_epi16(interleave, words));
        }
    }
}
