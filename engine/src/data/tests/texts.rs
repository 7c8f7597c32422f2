//! Text: tokens there and back, splits, warnings.

use proptest::prelude::*;

use super::fixtures::*;
use crate::data::{DataWarning, DatasetSpec, SplitPart, TextDataset, TokenizerSpec};

fn from_str(content: &str, tokenizer: TokenizerSpec) -> TextDataset {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    std::fs::write(&path, content).unwrap();
    text(&text_spec(&path, tokenizer))
}

/// The tokenizer as read back from its file must give the same tokens, and the text again.
#[track_caller]
fn check_round_trip(dataset: &TextDataset, train: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    dataset.tokenizer.save(&path, false).unwrap();
    let reopened = tokenizers::Tokenizer::from_file(&path).unwrap();
    assert_eq!(reopened.encode(train, false).unwrap().get_ids(), dataset.train);
    assert_eq!(reopened.decode(&dataset.train, true).unwrap(), train);
    assert!(dataset.train.iter().all(|&id| (id as usize) < dataset.vocab_size));
}

#[test]
fn characters_are_the_training_parts() {
    let dataset = from_str("abcabcabcaabcabcabcé", TokenizerSpec::Char);
    // a, b, c and the sign for everything else.
    assert_eq!(dataset.vocab_size, 4);
    assert_eq!(dataset.validation, [2, 3]);
    assert!(dataset.warnings.contains(&DataWarning::UnknownCharacters { count: 1 }));
    assert_eq!(dataset.tokenizer.decode(&[0, 3], true).unwrap(), "a\u{fffd}");
    assert_eq!(dataset.split.num_train, 18);
}

#[test]
fn documents_keep_their_order_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    write_all(
        folder.path(),
        &[
            ("2.txt", b"second document.....".to_vec()),
            ("1.txt", b"first document......".to_vec()),
            ("note.md", b"not read".to_vec()),
            ("3.txt", vec![0xff, 0xfe]),
        ],
    );
    let dataset = text(&text_spec(folder.path(), TokenizerSpec::Byte));
    let joined = dataset.tokenizer.decode(&dataset.train, true).unwrap();
    assert_eq!(joined, "first document....\nsecond document...\n");
    assert_eq!(dataset.document_ends(SplitPart::Train), [19, 38]);
    assert_eq!(dataset.tokenizer.decode(&dataset.validation, true).unwrap(), "..\n..\n");
    assert!(dataset.split.rule.contains("each of 2 documents"), "{}", dataset.split.rule);
    let skipped = |warning: &DataWarning| matches!(warning, DataWarning::SkippedFiles { count: 1, examples } if examples[0].contains("3.txt"));
    assert!(dataset.warnings.iter().any(skipped), "{:?}", dataset.warnings);
}

#[test]
fn files_named_for_parts_are_parts() {
    let folder = tempfile::tempdir().unwrap();
    write_all(
        folder.path(),
        &[("train.txt", b"training".to_vec()), ("valid.txt", b"validating and measuring".to_vec())],
    );
    let dataset = text(&text_spec(folder.path(), TokenizerSpec::Byte));
    assert_eq!((dataset.split.num_train, dataset.split.num_validation), (8, 24));
    std::fs::rename(folder.path().join("train.txt"), folder.path().join("test.txt")).unwrap();
    let dataset = text(&text_spec(folder.path(), TokenizerSpec::Byte));
    assert_eq!((dataset.split.num_train, dataset.split.num_validation, dataset.split.num_test), (21, 3, 8));
    assert!(dataset.split.rule.contains("validation file"), "{}", dataset.split.rule);
}

#[test]
fn json_lines_are_documents() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let mut lines: Vec<String> = (0..30).map(|i| format!("{{\"n\": {i}, \"text\": \"document {i}\"}}")).collect();
    lines.extend(["{\"text\": 5}", "[]", "{}", "not json", ""].map(str::to_owned));
    std::fs::write(&path, lines.join("\n")).unwrap();
    let spec =
        |field: &str| DatasetSpec::Jsonl { path: path.clone(), field: field.into(), tokenizer: TokenizerSpec::Byte };
    let dataset = text(&spec("text"));
    let validation = dataset.tokenizer.decode(&dataset.validation, true).unwrap();
    assert_eq!(validation, "document 9\ndocument 19\ndocument 29\n");
    assert_eq!(dataset.document_ends(SplitPart::Train).len(), 27);
    assert!(dataset.warnings.iter().any(|w| matches!(w, DataWarning::SkippedFiles { count: 4, .. })));
    assert!(error_text(&spec("body")).contains("no field \"body\""));
}

#[test]
fn gpt2_files_make_a_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    // \u0120 is a space, \u010a a line end.
    let vocab = "{\"a\":0,\"b\":1,\"ab\":2,\"\u{120}\":3,\"\u{120}ab\":4,\"\u{10a}\":5,\"<|endoftext|>\":6}";
    write_all(
        folder.path(),
        &[
            ("vocab.json", vocab.into()),
            ("merges.txt", "#version: 0.2\na b\n\u{120} ab\n".into()),
            ("text/1.txt", "ab ab a b ab ab ab a".into()),
            ("text/2.txt", "b ab ab ab b a ab ab".into()),
        ],
    );
    let tokenizer = TokenizerSpec::Gpt2 { folder: folder.path().into() };
    let dataset = text(&text_spec(&folder.path().join("text"), tokenizer));
    assert_eq!(dataset.vocab_size, 7);
    // Each document ends its line, then the text says that it is over.
    assert_eq!(dataset.train[..4], [2, 4, 3, 0]);
    assert_eq!(dataset.train.iter().filter(|&&id| id == 6).count(), 2);
    assert_eq!(*dataset.train.last().unwrap(), 6);
}

#[test]
fn truncation_of_a_tokenizer_is_off() {
    let mut dataset = from_str(&"abc".repeat(400), TokenizerSpec::Char);
    let truncation = tokenizers::TruncationParams { max_length: 16, ..Default::default() };
    dataset.tokenizer.with_truncation(Some(truncation)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    dataset.tokenizer.save(&path, false).unwrap();
    assert_eq!(from_str(&"abc".repeat(400), TokenizerSpec::File { path }).split.num_train, 1080);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_and_characters_round_trip(content in "\\PC{20,60}[\\n\\t a-z]{0,20}") {
        prop_assume!(!content.trim().is_empty() && !content.starts_with('\u{feff}') && !content.contains('\u{fffd}'));
        let train: String = content.chars().take(content.chars().count() * 9 / 10).collect();
        check_round_trip(&from_str(&content, TokenizerSpec::Byte), &train);
        check_round_trip(&from_str(&content, TokenizerSpec::Char), &train);
    }
}
