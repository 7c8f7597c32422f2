//! From records to a split image dataset with its statistics and warnings.

use std::path::PathBuf;
use std::sync::Arc;

use super::{DataError, DataWarning, Dataset, ImageDataset, ImageSplit, SplitRecord, split};

/// Images as read, before the split.
#[derive(Debug)]
pub(super) struct RawImages {
    pub name: String,
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    pub classes: Vec<String>,
    pub train: ImageSplit,
    /// A validation part of its own, with its rule; otherwise it comes off the training part.
    pub validation: Option<(ImageSplit, String)>,
    pub test: ImageSplit,
    /// How many at the end of the training part are for validation; `None` takes 10,000 of 60,000 or more, else a tenth.
    pub num_held_out: Option<usize>,
    /// Where the test part came from, in words.
    pub rule_test: &'static str,
    pub warnings: Vec<DataWarning>,
    pub path: PathBuf,
}

/// Fewer validation images cannot tell 1% apart: the standard error at 90% is then above 1%.
const MIN_VALIDATION: usize = 900;
/// Classes further apart than this are called out.
const MAX_IMBALANCE: usize = 3;

/// Splits, measures and warns. Errors: too few images to split.
pub(super) fn finish(raw: RawImages) -> Result<Dataset, DataError> {
    let RawImages { name, channels, height, width, classes, train, validation, test, num_held_out, .. } = raw;
    let image_bytes = channels * height * width;
    let (train, validation, rule) = match validation {
        Some((validation, rule)) => (train, validation, rule),
        None => hold_out(&train, image_bytes, classes.len(), num_held_out),
    };
    if train.labels.is_empty() || validation.labels.is_empty() {
        return Err(DataError::format(
            "images",
            "enough images for a training and a validation part",
            format!("{} and {}", train.labels.len(), validation.labels.len()),
            "Add images: at least two of each class",
            &raw.path,
        ));
    }
    let rule = if test.labels.is_empty() {
        format!("validation: {rule}; no test part")
    } else {
        format!("validation: {rule}; test: {}", raw.rule_test)
    };
    let split = SplitRecord {
        rule,
        num_train: train.labels.len(),
        num_validation: validation.labels.len(),
        num_test: test.labels.len(),
    };
    let (mean, std) = statistics(&train.pixels, channels, height * width);
    let mut images = ImageDataset {
        name,
        channels,
        height,
        width,
        classes,
        train: Arc::new(train),
        validation: Arc::new(validation),
        test: Arc::new(test),
        mean,
        std,
        split,
        warnings: raw.warnings,
    };
    let warnings = warnings(&images);
    images.warnings.extend(warnings);
    Ok(Dataset::Images(images))
}

/// Takes the end of the training part for validation; by class and seed where the end lacks a class.
fn hold_out(
    all: &ImageSplit,
    image_bytes: usize,
    num_classes: usize,
    num_held_out: Option<usize>,
) -> (ImageSplit, ImageSplit, String) {
    let num_images = all.labels.len();
    let default = if num_images >= 60_000 { 10_000 } else { (num_images / 10).max(1) };
    let held_out = num_held_out.unwrap_or(default);
    let by_end = split::last(num_images, held_out);
    let (is_held_out, rule) = if split::misses_class(&all.labels, &by_end, num_classes) {
        (split::stratified(&all.labels, num_classes), "a seeded tenth of each class".to_owned())
    } else {
        (by_end, format!("the last {held_out} of {num_images} training images"))
    };
    let (train, validation) = partition(all, image_bytes, &is_held_out);
    (train, validation, rule)
}

/// Cuts one split in two: kept and held out, each in the order it had.
pub(super) fn partition(all: &ImageSplit, image_bytes: usize, is_held_out: &[bool]) -> (ImageSplit, ImageSplit) {
    let mut parts = [ImageSplit::default(), ImageSplit::default()];
    for ((pixels, &label), &is_held_out) in all.pixels.chunks_exact(image_bytes).zip(&all.labels).zip(is_held_out) {
        let part = &mut parts[usize::from(is_held_out)];
        part.pixels.extend_from_slice(pixels);
        part.labels.push(label);
    }
    let [kept, held_out] = parts;
    (kept, held_out)
}

/// Mean and standard deviation of pixel/255 per channel; integer sums, so every machine gets the same.
fn statistics(pixels: &[u8], channels: usize, plane: usize) -> (Vec<f32>, Vec<f32>) {
    let mut sums = vec![(0_u64, 0_u64); channels];
    for (i, values) in pixels.chunks_exact(plane).enumerate() {
        let (sum, squares) = values.iter().fold((0_u64, 0_u64), |(sum, squares), &value| {
            (sum + u64::from(value), squares + u64::from(value) * u64::from(value))
        });
        let total = &mut sums[i % channels];
        *total = (total.0 + sum, total.1 + squares);
    }
    let count = (pixels.len() / channels).max(1) as f64;
    sums.iter()
        .map(|&(sum, squares)| {
            let mean = sum as f64 / count / 255.0;
            let variance = squares as f64 / count / (255.0 * 255.0) - mean * mean;
            // A channel without contrast is left as it is rather than blown up.
            let std = variance.max(0.0).sqrt();
            (mean as f32, if std < 1e-3 { 1.0 } else { std as f32 })
        })
        .unzip()
}

fn warnings(images: &ImageDataset) -> Vec<DataWarning> {
    let mut warnings = Vec::new();
    let counts = images.class_counts();
    let largest = counts.iter().enumerate().max_by_key(|&(_, &count)| count);
    let smallest = counts.iter().enumerate().min_by_key(|&(_, &count)| count);
    if let (Some((i, &most)), Some((j, &least))) = (largest, smallest)
        && most > MAX_IMBALANCE * least
    {
        let name = |class: usize| images.classes.get(class).cloned().unwrap_or_default();
        warnings.push(DataWarning::ClassImbalance { largest: (name(i), most), smallest: (name(j), least) });
    }
    let count = images.validation.labels.len();
    if count < MIN_VALIDATION {
        warnings.push(DataWarning::SmallValidation { count });
    }
    warnings
}
