//! The real sets, where they are: counts, splits and statistics as published.

use super::fixtures::*;
use crate::data::{DatasetSpec, SplitPart, TokenizerSpec};

#[test]
fn mnist() {
    let Some(path) = real("mnist") else { return };
    let dataset = images(&idx_spec(&path));
    assert_eq!(
        (dataset.split.num_train, dataset.split.num_validation, dataset.split.num_test),
        (50_000, 10_000, 10_000)
    );
    assert!((dataset.mean[0] - 0.1307).abs() < 0.001 && (dataset.std[0] - 0.3081).abs() < 0.001);
    assert_eq!(dataset.train.labels[..5], [5, 0, 4, 1, 9]);
    assert_eq!(dataset.test.labels[..5], [7, 2, 1, 0, 4]);
    assert!(dataset.warnings.is_empty(), "{:?}", dataset.warnings);
}

#[test]
fn cifar10_with_one_batch() {
    let Some(path) = real("cifar10/cifar-10-binary-batch1.tar.gz") else { return };
    let dataset = images(&DatasetSpec::Cifar10 { path });
    assert_eq!((dataset.split.num_train, dataset.split.num_validation, dataset.split.num_test), (9_000, 1_000, 10_000));
    assert_eq!((dataset.classes[0].as_str(), dataset.classes[9].as_str()), ("airplane", "truck"));
    for (measured, known) in
        dataset.mean.iter().chain(&dataset.std).zip([0.4913, 0.4821, 0.4465, 0.2452, 0.2428, 0.2606])
    {
        assert!((measured - known).abs() < 0.01, "{measured} is not about {known}");
    }
    let counts = [0; 10].map(|_: u32| 0_usize);
    let counts = dataset.test.labels.iter().fold(counts, |mut counts, &label| {
        counts[label as usize] += 1;
        counts
    });
    assert_eq!(counts, [1000; 10]);
}

#[test]
fn tinyshakespeare_by_characters() {
    let Some(path) = real("tinyshakespeare/input.txt") else { return };
    let dataset = text(&text_spec(&path, TokenizerSpec::Char));
    assert_eq!(
        (dataset.split.num_train, dataset.split.num_validation, dataset.split.num_test),
        (1_003_854, 111_540, 0)
    );
    // 65 characters and the sign for all others.
    assert_eq!(dataset.vocab_size, 66);
    assert!(dataset.warnings.is_empty(), "{:?}", dataset.warnings);
    let start = dataset.tokenizer.decode(&dataset.train[..14], true).unwrap();
    assert_eq!(start, "First Citizen:");
}

#[test]
fn gpt2_tokens_are_the_published_ones() {
    let (Some(folder), Some(text_path)) = (real("gpt2-tokenizer"), real("tinyshakespeare/input.txt")) else { return };
    let dataset = text(&text_spec(&text_path, TokenizerSpec::Gpt2 { folder }));
    assert_eq!(dataset.vocab_size, 50_257);
    let ids = |text: &str| dataset.tokenizer.encode(text, false).unwrap().get_ids().to_vec();
    assert_eq!(ids("Hello world"), [15496, 995]);
    assert_eq!(ids("<|endoftext|>"), [50256]);
    // nanoGPT's prepare.py counts 301,966 and 36,059 on the same split.
    assert_eq!((dataset.split.num_train, dataset.split.num_validation), (301_966, 36_059));
    let validation = dataset.tokenizer.decode(&dataset.validation, true).unwrap();
    let whole = std::fs::read_to_string(text_path).unwrap();
    assert!(whole.ends_with(&validation));
}

#[test]
fn wikitext_trains_on_its_validation_file() {
    let Some(path) = real("wikitext-2") else { return };
    let dataset = text(&text_spec(&path, TokenizerSpec::Byte));
    assert_eq!(dataset.split.num_test, 1_256_449);
    assert!(dataset.split.rule.contains("validation file"), "{}", dataset.split.rule);
    assert!(dataset.part(SplitPart::Train).len() > 1_000_000);
}
