//! The built-in sets: the same everywhere, kept in the cache, and as their grammar says.

use sha2::{Digest, Sha256};

use super::fixtures::*;
use crate::data::{Dataset, DatasetSpec, ImageDataset, SplitPart, TextDataset, load};
use crate::unwatched;

// Recorded from the first build. Another value means another dataset: raise the version beside its generator.
const GLYPHS_SHA256: &str = "1bc1d60d33406ef6bc10b9c5324008d81bb1ae9c4ecef57ebbebb18d844410b2";
const GRAMMAR_SHA256: &str = "18ef0e59445999a7b15d4acbfb0dfdb80fac26900ae7788d2f89663fb4661b92";

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn glyphs(cache: &std::path::Path) -> ImageDataset {
    match load(&DatasetSpec::Glyphs, cache, unwatched!()) {
        Ok(Dataset::Images(images)) => images,
        other => panic!("expected images, found {other:?}"),
    }
}

fn grammar() -> TextDataset {
    text(&DatasetSpec::Grammar)
}

#[test]
fn glyphs_are_the_same_everywhere() {
    let cache = tempfile::tempdir().unwrap();
    let first = glyphs(cache.path());
    assert_eq!((first.split.num_train, first.split.num_validation, first.split.num_test), (18_000, 2_000, 4_000));
    assert!(first.warnings.is_empty(), "{:?}", first.warnings);
    assert!(first.class_counts().iter().all(|&count| count > 1_600), "{:?}", first.class_counts());
    assert_eq!(hex(&first.train.pixels), GLYPHS_SHA256);

    // From the cache; then from a cache that broke off, and one with a flipped bit.
    assert_eq!(glyphs(cache.path()), first);
    let path = std::fs::read_dir(cache.path()).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..1_000_000]).unwrap();
    assert_eq!(glyphs(cache.path()), first);
    assert!(std::fs::read(&path).unwrap() == whole, "the cache is whole again");
    let mut flipped = whole;
    flipped[5_000_000] ^= 1;
    std::fs::write(&path, &flipped).unwrap();
    assert_eq!(glyphs(cache.path()), first);
}

#[test]
fn a_cache_that_cannot_be_written_is_a_warning() {
    let file = tempfile::NamedTempFile::new().unwrap();
    // A folder cannot be made inside a file.
    let Ok(Dataset::Text(text)) = load(&DatasetSpec::Grammar, &file.path().join("cache"), unwatched!()) else {
        panic!("expected text")
    };
    assert_eq!(text.warnings.len(), 1, "{:?}", text.warnings);
}

#[test]
fn grammar_is_the_same_everywhere() {
    let dataset = grammar();
    assert!(dataset.warnings.is_empty(), "{:?}", dataset.warnings);
    let total = dataset.split.num_train + dataset.split.num_validation + dataset.split.num_test;
    assert!((1_990_000..=2_000_000).contains(&total), "{total} characters");
    assert!(dataset.vocab_size < 80, "{} characters", dataset.vocab_size);
    let train = dataset.tokenizer.decode(&dataset.train, false).unwrap();
    assert_eq!(hex(train.as_bytes()), GRAMMAR_SHA256);
    assert_eq!(*dataset.document_ends(SplitPart::Train).last().unwrap(), dataset.train.len());
}

#[test]
fn rounds_repeat() {
    let dataset = text(&DatasetSpec::Rounds);
    assert!(dataset.warnings.is_empty(), "{:?}", dataset.warnings);
    // Letters, the end of a line, and what is neither.
    assert_eq!(dataset.vocab_size, 18);
    let whole = [&dataset.train, &dataset.validation, &dataset.test].map(|part| dataset.tokenizer.decode(part, false));
    let mut lengths = [0; 10];
    for line in whole.iter().flat_map(|part| part.as_ref().unwrap().trim_end().lines()) {
        let letters = line.as_bytes();
        let length = letters.iter().skip(1).position(|letter| *letter == letters[0]).unwrap() + 1;
        let round: std::collections::BTreeSet<u8> = letters[..length].iter().copied().collect();
        assert_eq!((letters.len(), round.len()), (63, length), "{line}");
        assert!(letters.iter().zip(&letters[length..]).all(|(a, b)| a == b), "{line}");
        lengths[length] += 1;
    }
    let num_lines: usize = lengths.iter().sum();
    assert_eq!(num_lines, 15_625);
    assert!(lengths[..4] == [0; 4] && lengths[4..].iter().all(|&count| count > num_lines / 8), "{lengths:?}");
}

#[test]
fn grammar_agrees() {
    let dataset = grammar();
    let text = dataset.tokenizer.decode(&dataset.validation, false).unwrap();
    let documents: Vec<&str> = text.trim_end().split("\n\n").collect();
    assert!(documents.len() > 20);
    for document in documents {
        brackets_close(document);
        // Each character's belonging and its color come back in the last paragraph.
        let lines: Vec<&str> = document.lines().collect();
        let owned = |line: &str| -> Vec<String> {
            let sentences: Vec<&str> = line.trim_end_matches('.').split(". ").collect();
            let last_words = |s: &str| s.split(' ').rev().take(2).map(str::to_owned).collect::<Vec<_>>().join(" ");
            sentences
                .iter()
                .filter(|s| s.contains("has a") || s.contains("have a") || s.contains("keep"))
                .map(|s| last_words(s))
                .collect()
        };
        assert!(lines[0].starts_with("= ") && lines.len() >= 5, "{document}");
        assert_eq!(owned(lines[1]), owned(lines[lines.len() - 1]), "{document}");
        for wrong in ["she have ", "they has ", " a apple", "these fox ", " one foxes", "children sleeps"] {
            assert!(!document.contains(wrong), "{wrong:?} in {document}");
        }
    }
}

#[track_caller]
fn brackets_close(document: &str) {
    let mut open = Vec::new();
    for c in document.chars() {
        match c {
            '(' => open.push(')'),
            '[' => open.push(']'),
            ')' | ']' => assert_eq!(open.pop(), Some(c), "{document}"),
            _ => {}
        }
    }
    assert!(open.is_empty() && document.matches('"').count().is_multiple_of(2), "{document}");
}
