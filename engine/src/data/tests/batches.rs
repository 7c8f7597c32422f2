//! Batches: functions of the step alone.

use std::sync::Arc;

use candle_core::Device;

use super::fixtures::*;
use crate::data::{Augmentation, BatchConfig, BatchSource, DataError, Dataset, SplitPart, TokenizerSpec};

fn config(batch_size: usize, sequence_length: usize) -> BatchConfig {
    BatchConfig { batch_size, sequence_length, augmentation: Augmentation::default(), seed: 5, device: Device::Cpu }
}

fn image_source(config: BatchConfig) -> BatchSource {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path(), &idx_files());
    BatchSource::new(Arc::new(load_from(&idx_spec(folder.path())).unwrap()), config).unwrap()
}

/// A text of `documents` files, each of one letter, so that a window tells where it came from.
fn text_source(documents: u8, config: BatchConfig) -> Result<BatchSource, DataError> {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..documents {
        let line: Vec<u8> = (0..100).map(|j| b'a' + 3 * i + j % 3).collect();
        write_all(folder.path(), &[(&format!("{i}.txt"), line)]);
    }
    BatchSource::new(Arc::new(load_from(&text_spec(folder.path(), TokenizerSpec::Byte)).unwrap()), config)
}

#[test]
fn an_epoch_shows_each_image_once() {
    let source = image_source(config(9, 0));
    let mut first = Vec::new();
    for step in 0..3 {
        let batch = source.train_batch(step).unwrap();
        assert_eq!(batch.inputs.dims(), [9, 1, 2, 3]);
        first.extend(batch.inputs.flatten_all().unwrap().to_vec1::<f32>().unwrap().chunks(6).map(|image| image[0]));
    }
    let mut sorted = first.clone();
    sorted.sort_by(f32::total_cmp);
    sorted.dedup();
    assert_eq!(sorted.len(), 27, "27 training images, each once");
    assert_ne!(first, sorted, "in random order");
}

#[test]
fn a_batch_is_a_function_of_its_step() {
    let augmentation = Augmentation { flip: true, shift_pixels: 1 };
    let new = || image_source(BatchConfig { augmentation, ..config(20, 0) });
    let values = |source: &BatchSource, step| {
        let batch = source.train_batch(step).unwrap();
        (batch.inputs.flatten_all().unwrap().to_vec1::<f32>().unwrap(), batch.targets.to_vec1::<u32>().unwrap())
    };
    let source = new();
    let in_order: Vec<_> = (0..5).map(|step| values(&source, step)).collect();
    let resumed = new();
    for step in [4, 0, 3, 1, 2] {
        assert_eq!(values(&resumed, step), in_order[step as usize]);
    }
    assert_ne!(in_order[0], in_order[1]);
    assert_ne!(values(&image_source(BatchConfig { seed: 6, augmentation, ..config(20, 0) }), 0), in_order[0]);
    // The last step there can be does not overflow.
    values(&source, u64::MAX);
}

#[test]
fn a_batch_may_be_larger_than_the_dataset() {
    let batch = image_source(config(100, 0)).train_batch(7).unwrap();
    assert_eq!((batch.inputs.dims(), batch.targets.dims()), (&[100, 1, 2, 3][..], &[100][..]));
}

#[test]
fn evaluation_goes_in_order_and_spreads() {
    let source = image_source(config(4, 0));
    let labels = |max| -> Vec<Vec<u32>> {
        let batches = source.evaluation_batches(SplitPart::Test, max);
        batches.map(|batch| batch.unwrap().targets.to_vec1().unwrap()).collect()
    };
    assert_eq!(labels(usize::MAX), [vec![0, 1, 2, 0], vec![1, 2, 0, 1], vec![2, 0]]);
    // Images 0, 3, 6 of ten.
    assert_eq!(labels(3), [vec![0, 0, 0]]);
    assert_eq!(labels(0), Vec::<Vec<u32>>::new());
    assert_eq!(source.num_examples(SplitPart::Validation), 3);
}

#[test]
fn text_windows_stay_in_their_document() {
    let source = text_source(3, config(64, 12)).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for step in 0..4 {
        let batch = source.train_batch(step).unwrap();
        let (inputs, targets) = (batch.inputs.to_vec2::<u32>().unwrap(), batch.targets.to_vec2::<u32>().unwrap());
        assert_eq!((inputs.len(), inputs[0].len()), (64, 12));
        for (input, target) in inputs.iter().zip(&targets) {
            assert_eq!(input[1..], target[..11]);
            let document = |token: &u32| (token - u32::from(b'a')) / 3;
            let first = document(&input[0]);
            let own = |token: &&u32| **token != u32::from(b'\n');
            assert!(input.iter().chain(target).filter(own).all(|token| document(token) == first));
            seen.insert(first);
        }
    }
    assert_eq!(seen.len(), 3);
}

#[test]
fn text_evaluation_covers_the_part() {
    let source = text_source(1, config(2, 30)).unwrap();
    // 90 training tokens hold two windows of 30 and their next tokens.
    let starts: Vec<Vec<Vec<u32>>> = source
        .evaluation_batches(SplitPart::Train, usize::MAX)
        .map(|batch| batch.unwrap().inputs.to_vec2().unwrap())
        .collect();
    assert_eq!(starts.concat().len(), source.num_examples(SplitPart::Train));
    // The validation part, 10 tokens, is shorter than a window and is used as far as it goes.
    let short: Vec<_> = source.evaluation_batches(SplitPart::Validation, 100).map(|b| b.unwrap()).collect();
    assert_eq!((short.len(), short[0].inputs.dims()), (1, &[1, 9][..]));
    assert_eq!(source.evaluation_batches(SplitPart::Test, 100).count(), 0);
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    for (batch_size, length, word) in [(0, 8, "batch size"), (4, 0, "sequence"), (4, 5000, "5001 tokens")] {
        let error = text_source(2, config(batch_size, length)).err().unwrap().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn gather_normalizes() {
    let source = image_source(config(27, 0));
    let Dataset::Images(images) = &**source.dataset() else { panic!("expected images") };
    assert!(images.std[0] > 0.0);
    let values = source.train_batch(0).unwrap().inputs.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    let variance = values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32;
    assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-4, "mean {mean}, variance {variance}");
}
