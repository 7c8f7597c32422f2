//! Pixels of chosen images, normalized and perhaps changed, as floats.

use rayon::prelude::*;

use super::draw::Draw;
use super::{Augmentation, ImageDataset, ImageSplit};

/// Floats below which one thread is faster than a handful.
const PARALLEL_FROM: usize = 1 << 16;

/// What happens to one image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Mirror left to right.
    flip: bool,
    /// Pixels down.
    down: i64,
    /// Pixels right.
    right: i64,
}

impl Change {
    /// Draws the changes of a batch, one after another.
    pub fn draw(augmentation: Augmentation, count: usize, draw: &mut Draw) -> Vec<Self> {
        let most = i64::from(augmentation.shift_pixels);
        let shift = |draw: &mut Draw| if most == 0 { 0 } else { draw.below(2 * most as usize + 1) as i64 - most };
        (0..count)
            .map(|_| Self { flip: augmentation.flip && draw.chance(0.5), down: shift(draw), right: shift(draw) })
            .collect()
    }
}

/// (pixel/255 - mean) / std of the images `indices` of `split`, shape (n, channels, height, width).
/// `changes`: one per image, or none at all.
pub(super) fn gather(dataset: &ImageDataset, split: &ImageSplit, indices: &[u32], changes: &[Change]) -> Vec<f32> {
    let image_bytes = dataset.image_bytes();
    let tables = tables(dataset);
    let mut out = vec![0.0_f32; indices.len() * image_bytes];
    let fill = |(i, out): (usize, &mut [f32])| {
        let from = indices.get(i).map_or(0, |&index| index as usize) * image_bytes;
        let change = changes.get(i).copied().unwrap_or_default();
        if let Some(pixels) = split.pixels.get(from..from + image_bytes) {
            fill_image(dataset, &tables, pixels, change, out);
        }
    };
    if out.len() >= PARALLEL_FROM {
        out.par_chunks_exact_mut(image_bytes).enumerate().for_each(fill);
    } else {
        out.chunks_exact_mut(image_bytes).enumerate().for_each(fill);
    }
    out
}

/// For each channel, what each of the 256 pixel values becomes.
fn tables(dataset: &ImageDataset) -> Vec<[f32; 256]> {
    dataset
        .mean
        .iter()
        .zip(&dataset.std)
        .map(|(&mean, &std)| std::array::from_fn(|value| (value as f32 / 255.0 - mean) / std))
        .collect()
}

fn fill_image(dataset: &ImageDataset, tables: &[[f32; 256]], pixels: &[u8], change: Change, out: &mut [f32]) {
    let (height, width) = (dataset.height, dataset.width);
    let plane = height * width;
    for ((pixels, out), table) in pixels.chunks_exact(plane).zip(out.chunks_exact_mut(plane)).zip(tables) {
        if change == Change::default() {
            for (out, &pixel) in out.iter_mut().zip(pixels) {
                *out = table[usize::from(pixel)];
            }
            continue;
        }
        for (y, out) in out.chunks_exact_mut(width).enumerate() {
            let source = usize::try_from(y as i64 - change.down).ok().filter(|&y| y < height);
            let row = source.map(|y| &pixels[y * width..(y + 1) * width]);
            for (x, out) in out.iter_mut().enumerate() {
                let x = x as i64 - change.right;
                let x = if change.flip { width as i64 - 1 - x } else { x };
                let pixel = row.and_then(|row| row.get(usize::try_from(x).ok()?)).copied().unwrap_or(0);
                *out = table[usize::from(pixel)];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::data::SplitRecord;

    fn dataset() -> ImageDataset {
        ImageDataset {
            name: "two".into(),
            channels: 1,
            height: 2,
            width: 3,
            classes: vec!["a".into()],
            train: Arc::new(ImageSplit { pixels: vec![1, 2, 3, 4, 5, 6, 10, 20, 30, 40, 50, 60], labels: vec![0, 0] }),
            validation: Arc::default(),
            test: Arc::default(),
            mean: vec![0.0],
            std: vec![1.0 / 255.0],
            split: SplitRecord { rule: String::new(), num_train: 2, num_validation: 0, num_test: 0 },
            warnings: Vec::new(),
        }
    }

    #[track_caller]
    fn check(index: u32, change: Change, expected: [f32; 6]) {
        let dataset = dataset();
        let pixels: Vec<f32> =
            gather(&dataset, &dataset.train, &[index], &[change]).iter().map(|x| x.round()).collect();
        assert_eq!(pixels, expected);
    }

    #[test]
    fn changes_move_pixels() {
        check(1, Change::default(), [10., 20., 30., 40., 50., 60.]);
        check(0, Change { flip: true, ..Change::default() }, [3., 2., 1., 6., 5., 4.]);
        check(0, Change { down: 1, right: 1, flip: false }, [0., 0., 0., 0., 1., 2.]);
        check(0, Change { down: -1, right: -2, flip: false }, [6., 0., 0., 0., 0., 0.]);
        check(0, Change { down: 0, right: 1, flip: true }, [0., 3., 2., 0., 6., 5.]);
    }
}
