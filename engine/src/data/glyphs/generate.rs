//! The digits as a dataset: generated in parallel, kept in the cache.

use std::path::Path;

use rayon::prelude::*;

use super::fonts::FONTS;
use super::pen::{Canvas, Hand, SIDE};
use crate::data::cache::{self, Cached};
use crate::data::draw::Draw;
use crate::data::images::{self, RawImages};
use crate::data::{DataError, Dataset, ImageSplit};
use crate::device::Watch;
use crate::device::seed::Stream;

/// Part of the cache's name: another number for other images.
const VERSION: u32 = 1;
/// Seed of all images; they are the same for every run.
const SEED: u64 = 0x676c_7970_6873;
const NUM_TRAIN: usize = 20_000;
const NUM_TEST: usize = 4_000;
/// The end of the training images, for validation.
const NUM_VALIDATION: usize = 2_000;
const NUM_IMAGES: usize = NUM_TRAIN + NUM_TEST;
const IMAGE_BYTES: usize = SIDE * SIDE;

/// The digits, from the cache or newly drawn.
pub(in crate::data) fn load(folder: &Path, watch: Watch<'_>) -> Result<Dataset, DataError> {
    let payload_bytes = (NUM_IMAGES * (1 + IMAGE_BYTES)) as u64;
    let name = format!("glyphs-v{VERSION}.bin");
    let Cached { bytes, warning } = cache::load_or_make(folder, &name, payload_bytes, watch, || generate(watch))?;
    let (labels, pixels) = bytes.split_at(NUM_IMAGES.min(bytes.len()));
    let (train_labels, test_labels) = labels.split_at(NUM_TRAIN.min(labels.len()));
    let (train_pixels, test_pixels) = pixels.split_at((NUM_TRAIN * IMAGE_BYTES).min(pixels.len()));
    let split = |pixels: &[u8], labels: &[u8]| ImageSplit {
        pixels: pixels.to_vec(),
        labels: labels.iter().map(|&label| u32::from(label)).collect(),
    };
    images::finish(RawImages {
        name: "glyphs".to_owned(),
        channels: 1,
        height: SIDE,
        width: SIDE,
        classes: (0..10).map(|digit| digit.to_string()).collect(),
        train: split(train_pixels, train_labels),
        validation: None,
        test: split(test_pixels, test_labels),
        num_held_out: Some(NUM_VALIDATION),
        rule_test: "4,000 images drawn after the training images",
        warnings: warning.into_iter().collect(),
        path: folder.to_owned(),
    })
}

/// All labels, then all pixels. Errors: [`DataError::Cancelled`].
fn generate(watch: Watch<'_>) -> Result<Vec<u8>, DataError> {
    /// Images between two looks at the watch.
    const SLAB: usize = 1000;
    let mut bytes = vec![0; NUM_IMAGES * (1 + IMAGE_BYTES)];
    let (labels, pixels) = bytes.split_at_mut(NUM_IMAGES);
    let slabs = labels.chunks_mut(SLAB).zip(pixels.chunks_mut(SLAB * IMAGE_BYTES));
    for (slab, (labels, pixels)) in slabs.enumerate() {
        watch.step("drawing digits", (slab * SLAB) as u64, Some(NUM_IMAGES as u64))?;
        labels
            .par_iter_mut()
            .zip(pixels.par_chunks_exact_mut(IMAGE_BYTES))
            .enumerate()
            .for_each(|(i, (label, pixels))| *label = draw_image((slab * SLAB + i) as u64, pixels));
    }
    watch.step("drawing digits", NUM_IMAGES as u64, Some(NUM_IMAGES as u64))?;
    Ok(bytes)
}

/// Draws image `index` into `pixels` and returns its digit.
fn draw_image(index: u64, pixels: &mut [u8]) -> u8 {
    let mut draw = Draw::new(SEED, Stream::Generate, index);
    let digit = draw.below(10);
    let font = &FONTS[draw.below(FONTS.len())];
    let mut canvas = Canvas::blank();
    // A stray stroke, as from a ruled line or a neighboring digit.
    if draw.chance(0.3) {
        let side = SIDE as f64;
        let (x, y) = (draw.range(0.0, side), draw.range(0.0, side));
        let (dx, dy) = (draw.range(-12.0, 12.0), draw.range(-12.0, 12.0));
        let (radius, strength) = (draw.range(0.3, 0.9), draw.range(0.25, 0.6));
        canvas.ink(&[(x, y), (x + dx, y + dy)], (radius, radius), strength);
    }
    Hand::draw(&mut draw).write(font[digit], &mut draw, &mut canvas);
    canvas.blur(draw.range(0.0, 0.9));
    let paper = draw.range(0.0, 0.15);
    let ink = draw.range(0.6, 1.0);
    let tilt = (draw.range(-0.004, 0.004), draw.range(-0.004, 0.004));
    let noise = draw.range(0.01, 0.08);
    for (i, (pixel, ink_here)) in pixels.iter_mut().zip(canvas.0).enumerate() {
        let (x, y) = ((i % SIDE) as f64, (i / SIDE) as f64);
        let light = paper + tilt.0 * x + tilt.1 * y;
        let value = light + (ink - light) * ink_here + noise * draw.bell();
        *pixel = (value * 255.0 + 0.5).clamp(0.0, 255.0) as u8;
    }
    digit as u8
}
