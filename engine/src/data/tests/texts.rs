//! Text: tokens there and back, splits, warnings.

use std::sync::Mutex;

use proptest::prelude::*;

use super::fixtures::*;
use crate::data::{DataError, DataWarning, DatasetSpec, SplitPart, TextDataset, TokenizerSpec, load};
use crate::device::{CancelFlag, Progress, Watch};

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
fn json_texts_are_unescaped_and_broken_ones_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let lines = [
        r#"{"n": 1e999, "more": [[1, 2.5], {"text": "inner"}], "text": "\u00e9t\u00e9 \ud83d\ude00"}"#,
        r#"{"text": "half a pair \ud83d"}"#,
        r#"{"text": NaN}"#,
        r#"{"text": -17.5}"#,
        r#"{"text": "two\nlines\tand \"quotes\""}"#,
    ];
    std::fs::write(&path, lines.join("\n")).unwrap();
    let dataset = text(&DatasetSpec::Jsonl { path, field: "text".into(), tokenizer: TokenizerSpec::Byte });
    // Two documents, the last tenth of each held out.
    let train = dataset.tokenizer.decode(&dataset.train, true).unwrap();
    assert_eq!(train, "été \ntwo\nlines\tand \"quot\n");
    assert_eq!(dataset.tokenizer.decode(&dataset.validation, true).unwrap(), "😀\nes\"\n");
    let is_told = |warning: &DataWarning| match warning {
        DataWarning::SkippedFiles { count, examples } => {
            *count == 3 && examples[0].contains("line 2: ") && examples[2].contains("line 4: \"text\" is not a string")
        }
        DataWarning::ClassImbalance { .. }
        | DataWarning::SmallValidation { .. }
        | DataWarning::UnknownCharacters { .. }
        | DataWarning::NotCached { .. } => false,
    };
    assert!(dataset.warnings.iter().any(is_told), "{:?}", dataset.warnings);
}

#[test]
fn the_mark_of_some_editors_is_no_text() {
    let text = from_str(&format!("\u{feff}{}", "ab".repeat(10)), TokenizerSpec::Byte);
    assert_eq!(text.train, [u32::from(b'a'), u32::from(b'b')].repeat(9));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    std::fs::write(&path, "\u{feff} \n").unwrap();
    assert!(error_text(&text_spec(&path, TokenizerSpec::Byte)).contains("some text"));
}

#[test]
fn a_vocabulary_with_holes_says_what_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    write_all(
        folder.path(),
        &[
            ("vocab.json", br#"{"a":0,"b":1}"#.to_vec()),
            ("merges.txt", Vec::new()),
            ("a.txt", b"ab\nxabababab".to_vec()),
        ],
    );
    let tokenizer = TokenizerSpec::Gpt2 { folder: folder.path().into() };
    let dataset = text(&text_spec(&folder.path().join("a.txt"), tokenizer));
    assert_eq!(dataset.split.num_train + dataset.split.num_validation, 10);
    assert!(dataset.warnings.contains(&DataWarning::UnknownCharacters { count: 2 }), "{:?}", dataset.warnings);
}

#[test]
fn encoding_by_a_file_is_cut_told_and_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    // \u0120 is a space.
    write_all(
        folder.path(),
        &[
            ("gpt2/vocab.json", "{\"a\":0,\"b\":1,\"\u{120}\":2}".into()),
            ("gpt2/merges.txt", Vec::new()),
            ("a.txt", "ab ".repeat(2 << 20).into_bytes()),
            ("b.txt", b"ab ab ab ab ab".to_vec()),
        ],
    );
    let gpt2 = TokenizerSpec::Gpt2 { folder: folder.path().join("gpt2") };
    let file = folder.path().join("tokenizer.json");
    let small = text(&text_spec(&folder.path().join("b.txt"), gpt2));
    std::fs::write(&file, small.tokenizer.to_string(false).unwrap()).unwrap();

    let spec = text_spec(&folder.path().join("a.txt"), TokenizerSpec::File { path: file });
    let cancel = CancelFlag::default();
    let told = Mutex::new(Vec::new());
    let on_progress = |progress: Progress| {
        if progress.what.starts_with("encoding") && progress.done > 0 {
            told.lock().unwrap().push((progress.done, progress.total));
            cancel.set();
        }
    };
    let result = load(&spec, folder.path(), Watch::new(&cancel, &on_progress));
    assert!(matches!(result, Err(DataError::Cancelled(_))), "{result:?}");
    let told = told.into_inner().unwrap();
    assert!(matches!(told[..], [(done, Some(total))] if done < total), "{told:?}");
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
