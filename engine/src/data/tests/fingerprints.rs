//! What tells datasets apart, and what a model of one needs to be measured on another.

use std::path::Path;
use std::sync::Arc;

use super::fixtures::*;
use crate::data::{
    Augmentation, BatchConfig, BatchSource, DataError, DataWarning, Dataset, DatasetSpec, ImageDataset, ImageSplit,
    SplitPart, SplitRecord, TokenizerSpec,
};

/// Images of one pixel.
fn pixels(train: Vec<u8>) -> ImageDataset {
    let labels = (0..train.len()).map(|i| i as u32 % 2).collect();
    let split = SplitRecord { rule: "a rule".into(), num_train: train.len(), num_validation: 2, num_test: 0 };
    ImageDataset {
        name: "pixels".into(),
        channels: 1,
        height: 1,
        width: 1,
        classes: vec!["a".into(), "b".into()],
        train: Arc::new(ImageSplit { pixels: train, labels }),
        validation: Arc::new(ImageSplit { pixels: vec![7, 9], labels: vec![0, 1] }),
        test: Arc::default(),
        mean: vec![0.5],
        std: vec![0.25],
        split,
        warnings: Vec::new(),
    }
}

#[test]
fn fingerprints_are_the_same_everywhere() {
    // Computed with Python's hashlib from the layout that fingerprint.rs describes.
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path(), &idx_files());
    assert_eq!(load_from(&idx_spec(folder.path())).unwrap().fingerprint(), "5552c3cd183b4323");
    let path = folder.path().join("a.txt");
    std::fs::write(&path, "abcabcabcaabcabcabcé").unwrap();
    let dataset = load_from(&text_spec(&path, TokenizerSpec::Char)).unwrap();
    assert_eq!(dataset.fingerprint(), "d9fed5a568497803");
    // Some blocks long.
    let long = pixels((0..9_u32 << 20).map(|i| (i % 251) as u8).collect());
    assert_eq!(Dataset::Images(long).fingerprint(), "537ae90a81ff7ba5");
}

#[test]
fn every_part_of_an_image_dataset_counts() {
    let base = pixels((0..100).collect());
    let fingerprint = |change: &dyn Fn(&mut ImageDataset)| {
        let mut changed = base.clone();
        change(&mut changed);
        Dataset::Images(changed).fingerprint()
    };
    let unchanged = fingerprint(&|_| {});
    let same: [&dyn Fn(&mut ImageDataset); 4] = [
        &|images| images.name = "another".into(),
        &|images| images.mean = vec![0.1],
        &|images| images.warnings.push(DataWarning::SmallValidation { count: 2 }),
        &|images| images.split.rule = "in other words".into(),
    ];
    for change in same {
        assert_eq!(fingerprint(change), unchanged);
    }
    let other: [&dyn Fn(&mut ImageDataset); 8] = [
        &|images| Arc::make_mut(&mut images.train).pixels[99] ^= 1,
        &|images| Arc::make_mut(&mut images.train).labels[0] = 1,
        &|images| Arc::make_mut(&mut images.train).pixels.swap(0, 1),
        &|images| Arc::make_mut(&mut images.validation).pixels[0] = 0,
        &|images| std::mem::swap(&mut images.validation, &mut images.test),
        &|images| images.classes[1] = "c".into(),
        &|images| std::mem::swap(&mut images.train, &mut images.validation),
        &|images| images.height = 2,
    ];
    let mut seen = vec![unchanged];
    for change in other {
        let changed = fingerprint(change);
        assert_eq!(changed.len(), 16);
        assert!(!seen.contains(&changed), "{seen:?} {changed}");
        seen.push(changed);
    }
}

#[test]
fn every_part_of_a_text_counts() {
    let folder = tempfile::tempdir().unwrap();
    let fingerprint = |contents: &[&str], tokenizer: TokenizerSpec| {
        let texts = folder.path().join("texts");
        let _ = std::fs::remove_dir_all(&texts);
        for (i, content) in contents.iter().enumerate() {
            write_all(&texts, &[(&format!("{i}.txt"), content.as_bytes().to_vec())]);
        }
        load_from(&text_spec(&texts, tokenizer)).unwrap().fingerprint()
    };
    let text = "some words, and some more of them";
    let changed_end = "some words, and some more of then";
    let fingerprints = [
        fingerprint(&[text], TokenizerSpec::Byte),
        fingerprint(&[text], TokenizerSpec::Char),
        fingerprint(&[changed_end], TokenizerSpec::Byte),
        fingerprint(&["Some words, and some more of them"], TokenizerSpec::Byte),
        // The same characters in the same order, as two documents.
        fingerprint(&["some words, and so", "me more of them"], TokenizerSpec::Byte),
    ];
    for (i, fingerprint) in fingerprints.iter().enumerate() {
        assert!(!fingerprints[..i].contains(fingerprint), "{i}: {fingerprints:?}");
    }
    assert_eq!(fingerprint(&[text], TokenizerSpec::Byte), fingerprints[0], "a copy under another name is no other");
}

#[test]
fn a_models_own_normalization_is_used() {
    let images = pixels((0..100).collect());
    let measured = images.with_normalization(&[0.1], &[0.5]).unwrap();
    assert_eq!((measured.mean.as_slice(), measured.std.as_slice()), (&[0.1][..], &[0.5][..]));
    assert!(Arc::ptr_eq(&measured.train, &images.train) && Arc::ptr_eq(&measured.validation, &images.validation));
    let (images, measured) = (Dataset::Images(images), Dataset::Images(measured));
    assert_eq!(images.fingerprint(), measured.fingerprint());
    let config = BatchConfig {
        batch_size: 1,
        sequence_length: 0,
        augmentation: Augmentation::default(),
        seed: 0,
        device: candle_core::Device::Cpu,
    };
    let source = BatchSource::new(Arc::new(measured), config).unwrap();
    let batch = source.evaluation_batches(SplitPart::Validation, 1).next().unwrap().unwrap();
    let value = batch.inputs.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
    assert!((value - (7.0 / 255.0 - 0.1) / 0.5).abs() < 1e-6, "{value}");
    let wrong: [(&[f32], &[f32]); 5] =
        [(&[], &[]), (&[0.1, 0.2], &[0.5]), (&[0.1], &[0.0]), (&[f32::NAN], &[1.0]), (&[0.1], &[f32::INFINITY])];
    for (mean, std) in wrong {
        let error = images.with_normalization(mean, std).unwrap_err();
        assert!(matches!(&error, DataError::Normalization { .. }), "{error}");
        assert!(error.to_string().contains("each of 1 channels"), "{error}");
    }
}

#[test]
fn a_models_own_tokenizer_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let first = write("first.txt", &"a line of text,\nand another\tone!\r\n".repeat(20));
    let tokenizer = folder.path().join("tokenizer.json");
    for spec in [TokenizerSpec::Char, TokenizerSpec::Byte] {
        let spec = text_spec(&first, spec);
        let trained = text(&spec);
        // As a checkpoint writes it.
        std::fs::write(&tokenizer, trained.tokenizer.to_string(true).unwrap()).unwrap();
        let again = text(&spec.with_tokenizer(&tokenizer));
        assert_eq!((&again.train, &again.validation), (&trained.train, &trained.validation));
        assert_eq!((again.vocab_size, &again.warnings), (trained.vocab_size, &trained.warnings));
        let fingerprints = [again, trained].map(|text| Dataset::Text(Box::new(text)).fingerprint());
        assert_eq!(fingerprints[0], fingerprints[1]);
    }

    let trained = text(&text_spec(&first, TokenizerSpec::Char));
    std::fs::write(&tokenizer, trained.tokenizer.to_string(true).unwrap()).unwrap();
    let second = write("second.txt", &"a line of text,\nnot Zed\n".repeat(20));
    let spec = text_spec(&second, TokenizerSpec::Char).with_tokenizer(&tokenizer);
    let measured = text(&spec);
    assert_eq!(measured.vocab_size, trained.vocab_size);
    let unknown = measured.tokenizer.token_to_id("\u{fffd}").unwrap();
    let all = || measured.train.iter().chain(&measured.validation);
    let count = all().filter(|&&id| id == unknown).count();
    assert_eq!(count, 20, "Z alone is new, in training as in validation");
    assert!(measured.warnings.contains(&DataWarning::UnknownCharacters { count }), "{:?}", measured.warnings);
    let line_end = trained.tokenizer.token_to_id("\n").unwrap();
    assert_eq!(all().filter(|&&id| id == line_end).count(), 40);
}

#[test]
fn only_text_takes_a_tokenizer() {
    let path = Path::new("tokenizer.json");
    let file = TokenizerSpec::File { path: path.into() };
    let jsonl = |tokenizer| DatasetSpec::Jsonl { path: "a".into(), field: "text".into(), tokenizer };
    assert_eq!(jsonl(TokenizerSpec::Byte).with_tokenizer(path), jsonl(file.clone()));
    assert_eq!(text_spec(path, TokenizerSpec::Char).with_tokenizer(path), text_spec(path, file));
    let others = [
        DatasetSpec::Glyphs,
        DatasetSpec::Grammar,
        DatasetSpec::Rounds,
        idx_spec(path),
        DatasetSpec::Cifar10 { path: path.into() },
        DatasetSpec::ImageFolder { path: path.into(), image_size: (8, 8) },
    ];
    for spec in others {
        assert_eq!(spec.with_tokenizer(path), spec);
    }
}
