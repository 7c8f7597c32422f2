//! Tokenizers read back, cut, met with characters that they do not know.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::TextEncoder;
use super::cuts::Cuts;
use super::format::{self, Own};
use crate::data::{DataError, TokenizerSpec};
use crate::unwatched;

/// The encoder of a `tokenizer.json` with this content.
fn open(content: &str) -> Result<TextEncoder, DataError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    TextEncoder::new(&TokenizerSpec::File { path: file.path().into() }, &[], Path::new("text"), unwatched!())
}

/// The encoder as a checkpoint writes and a later run reads it.
fn reopened(encoder: &TextEncoder) -> TextEncoder {
    open(&encoder.tokenizer.to_string(true).unwrap()).unwrap()
}

fn built_in(spec: &TokenizerSpec, text: &str) -> TextEncoder {
    TextEncoder::new(spec, &[text.to_owned()], Path::new("text"), unwatched!()).unwrap()
}

fn with(model: &Value, pre_tokenizer: &Value, added_tokens: &Value) -> TextEncoder {
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added_tokens, "normalizer": null,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": null, "model": model,
    });
    open(&file.to_string()).unwrap()
}

fn special(id: u32, content: &str) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": true})
}

/// A byte-level BPE with merges of white space, so that a cut in a wrong place shows.
fn byte_level(added_tokens: &Value) -> TextEncoder {
    let pairs = [("Ġ", "Ġ"), ("Ċ", "Ċ"), ("Ġ", "Ċ"), ("Ċ", "Ġ"), ("Ġ", "a"), ("Ċ", "a"), ("'", "s"), ("ĠĠ", "ĠĠ")];
    let mut vocab = format::byte_vocab();
    for (i, (left, right)) in (256..).zip(pairs) {
        vocab.insert(format!("{left}{right}"), i);
    }
    open(&format::byte_level_bpe(&json!(vocab), &json!(pairs), true, added_tokens).to_string()).unwrap()
}

fn end_of_text() -> Value {
    json!([special(264, "<|endoftext|>")])
}

/// Every character of ASCII, line ends and zero among them, and some of each other length.
fn all_sorts() -> String {
    (0..128).map(char::from).chain("éß\u{85}\u{3000}漢\u{feff}\u{fffd}😀".chars()).collect()
}

#[test]
fn own_tokenizers_load_back_as_they_were() {
    let text = all_sorts();
    for spec in [TokenizerSpec::Char, TokenizerSpec::Byte] {
        let encoder = built_in(&spec, &text);
        let again = reopened(&encoder);
        assert_eq!(again.vocab_size, encoder.vocab_size);
        assert_eq!(again.document_end(), None);
        for c in text.chars() {
            let c = c.to_string();
            assert_eq!(again.encode(&c).unwrap(), encoder.encode(&c).unwrap(), "{spec:?} {c:?}");
        }
        assert_eq!(again.encode(&text).unwrap(), encoder.encode(&text).unwrap());
        // The quick way gives what the library gives, so that every reader of the file agrees.
        assert_eq!(format::encode(&again.tokenizer, &text).unwrap(), encoder.encode(&text).unwrap().0);
        let own = format::recognize(&again.tokenizer);
        match spec {
            TokenizerSpec::Byte => assert_eq!(own, Some(Own::Bytes)),
            TokenizerSpec::Char | TokenizerSpec::Gpt2 { .. } | TokenizerSpec::File { .. } => {
                assert!(matches!(own, Some(Own::Characters { ids, .. }) if ids.len() == encoder.vocab_size));
            }
        }
    }
}

#[test]
fn characters_that_a_loaded_tokenizer_lacks_are_counted() {
    let again = reopened(&built_in(&TokenizerSpec::Char, "abc"));
    // a, b, c and the sign for others; a line end is one of them.
    assert_eq!(again.encode("aΩ\nb").unwrap(), (vec![0, 3, 3, 1], 2));
    let bytes = reopened(&built_in(&TokenizerSpec::Byte, "abc"));
    assert_eq!(bytes.encode("Ω\n").unwrap(), (vec![0xce, 0xa9, 10], 0));
}

#[test]
fn others_are_not_taken_for_our_own() {
    let text = "abc";
    let own = built_in(&TokenizerSpec::Char, text).tokenizer.to_string(false).unwrap();
    let own: Value = serde_json::from_str(&own).unwrap();
    let changed = |pointer: &str, value: Value| {
        let mut file = own.clone();
        *file.pointer_mut(pointer).unwrap() = value;
        format::recognize(&open(&file.to_string()).unwrap().tokenizer)
    };
    assert!(changed("/version", json!("1.0")).is_some());
    assert_eq!(changed("/normalizer", json!({"type": "Lowercase"})), None);
    assert_eq!(changed("/added_tokens", json!([special(4, "ab")])), None);
    assert_eq!(changed("/pre_tokenizer/behavior", json!("Removed")), None);
    assert_eq!(changed("/model/vocab", json!({"a": 0, "\u{fffd}": 1, "bc": 2})), None);
    assert_eq!(format::recognize(&byte_level(&json!([])).tokenizer), None);
}

#[test]
fn text_is_cut_only_where_that_is_safe() {
    assert_eq!(Cuts::of(&byte_level(&end_of_text()).tokenizer), Cuts::BeforeSpaces);
    let changed = |key: &str, value: Value| {
        let mut token = special(264, "<|endoftext|>");
        token[key] = value;
        Cuts::of(&byte_level(&json!([token])).tokenizer)
    };
    assert_eq!(changed("single_word", json!(true)), Cuts::BeforeSpaces);
    assert_eq!(changed("lstrip", json!(true)), Cuts::Nowhere);
    assert_eq!(changed("rstrip", json!(true)), Cuts::Nowhere);
    assert_eq!(changed("content", json!("two words")), Cuts::Nowhere);
    // Without the pattern, or with a space put before each piece.
    let direct = format::byte_level_bpe(&json!(format::byte_vocab()), &json!([]), false, &json!([]));
    assert_eq!(Cuts::of(&open(&direct.to_string()).unwrap().tokenizer), Cuts::Nowhere);
    let mut prefixed = format::byte_level_bpe(&json!(format::byte_vocab()), &json!([]), true, &json!([]));
    prefixed["pre_tokenizer"]["add_prefix_space"] = json!(true);
    assert_eq!(Cuts::of(&open(&prefixed.to_string()).unwrap().tokenizer), Cuts::Nowhere);
}

#[test]
fn what_cannot_be_cut_must_not_be_long() {
    let words = with(
        &json!({"type": "WordLevel", "vocab": {"ab": 0, "[UNK]": 1}, "unk_token": "[UNK]"}),
        &json!({"type": "Whitespace"}),
        &json!([]),
    );
    let spaced = "ab ".repeat(24 << 20);
    let error = words.pieces(&spaced).unwrap_err().to_string();
    assert!(error.contains("at most 67.1 MB") && error.contains("found 75.5 MB"), "{error}");
    assert!(error.contains("several files"), "{error}");
    assert_eq!(words.pieces("ab ab").unwrap(), ["ab ab"]);
    let bytes = byte_level(&json!([]));
    assert!(bytes.pieces(&spaced).unwrap().len() > 1000);
    let solid = "ab".repeat(36 << 20);
    let error = bytes.pieces(&solid).unwrap_err().to_string();
    assert!(error.contains("spaces or line ends"), "{error}");
    assert!(built_in(&TokenizerSpec::Byte, "ab").pieces(&solid).unwrap().len() > 1000);
}

#[test]
fn a_huge_file_is_no_tokenizer() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(65 << 20).unwrap();
    let spec = TokenizerSpec::File { path: file.path().into() };
    let error = TextEncoder::new(&spec, &[], Path::new("text"), unwatched!()).unwrap_err().to_string();
    assert!(error.contains("at most 67.1 MB, found 68.2 MB") && error.contains("tokenizer"), "{error}");
}

#[test]
fn dropout_is_off() {
    let model = json!({"type": "BPE", "dropout": 1.0, "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]});
    let encoder = with(&model, &Value::Null, &json!([]));
    assert_eq!(encoder.encode("abab").unwrap().0, [2, 2]);
    assert!(!encoder.tokenizer.to_string(false).unwrap().contains("\"dropout\":1"));
}

#[track_caller]
fn check_unknown(encoder: &TextEncoder, text: &str, tokens: &[u32], num_unknown: usize) {
    assert_eq!(encoder.encode(text).unwrap(), (tokens.to_vec(), num_unknown), "{text:?}");
}

#[test]
fn unknown_characters_are_counted() {
    // Without an unknown token, characters vanish.
    let model = json!({"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []});
    check_unknown(&with(&model, &Value::Null, &json!([])), "a\nbéaé", &[0, 1, 0], 3);
    // White space that is dropped on purpose is not unknown.
    let spaced = with(&model, &json!({"type": "Whitespace"}), &json!([]));
    check_unknown(&spaced, "a b\nc a", &[0, 1, 0], 1);
    let model = json!({"type": "BPE", "unk_token": "?", "vocab": {"a": 0, "?": 1}, "merges": []});
    check_unknown(&with(&model, &Value::Null, &json!([])), "abca", &[0, 1, 1, 0], 2);
    // An unknown token that the text spells is known.
    let model = json!({"type": "WordLevel", "vocab": {"hello": 0, "[UNK]": 1}, "unk_token": "[UNK]"});
    let words = with(&model, &json!({"type": "Whitespace"}), &json!([special(1, "[UNK]")]));
    check_unknown(&words, "hello world [UNK] hello there", &[0, 1, 1, 0, 1], 2);
    let model = json!({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0], ["b", -1.5]]});
    check_unknown(&with(&model, &Value::Null, &json!([])), "a?b!!a", &[1, 0, 2, 0, 1], 2);
    // Bytes know all.
    check_unknown(&byte_level(&json!([])), "Ω", &[0xce, 0xa9], 0);
    // Without one in the vocabulary, the library says so.
    let model = json!({"type": "WordLevel", "vocab": {"hello": 0}, "unk_token": "[UNK]"});
    let words = with(&model, &json!({"type": "Whitespace"}), &json!([]));
    let error = words.encode("hello world").unwrap_err().to_string();
    assert!(error.contains("[UNK]"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_give_the_tokens_of_the_whole(
        // What GPT-2's pattern and added tokens tell apart, white space most of all.
        text in r"(a|b|é|1|!|'s|'| | | |\n|\n|\t|\r\n|\u{a0}|\u{3000}|<\|endoftext\|>|<\|){0,80}",
        num_bytes in 1..8_usize,
    ) {
        let encoder = byte_level(&end_of_text());
        let pieces = Cuts::of(&encoder.tokenizer).pieces_from(&text, num_bytes);
        let tokens: Vec<u32> = pieces.iter().flat_map(|piece| encoder.encode(piece).unwrap().0).collect();
        prop_assert_eq!(tokens, encoder.encode(&text).unwrap().0, "{:?}", pieces);
    }
}
