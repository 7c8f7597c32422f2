//! A `tokenizer.json` in the metadata of a GGUF file, as far as llama.cpp has a form for it.
//!
//! llama.cpp's "gpt2" model is byte-level BPE with the pre-tokenizer's pattern chosen by name. Anything else
//! (characters, words, unigrams, text that is changed before it is merged) would tokenize differently there, so it is
//! left out and said so.

use foretrain_edge::gguf::{Array, Value};
use serde_json::Value as Json;

use super::document_end::document_end;

/// llama.cpp's token types: normal, control (left out of text), user-defined (found in text before anything is split),
/// unused.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
/// The byte 0xff in GPT-2's alphabet.
const BYTE_FF: &str = "\u{ff}";

/// Metadata of a vocabulary, or why there is none.
pub(super) enum GgufVocabulary {
    /// Keys and values to add.
    Bpe(Vec<(&'static str, Value)>),
    /// No form for it; the reason in words.
    None(String),
}

/// The vocabulary of `tokenizer` for a model of `vocab_size` tokens.
pub(super) fn gguf_vocabulary(tokenizer: &Json, vocab_size: usize) -> GgufVocabulary {
    match bpe_metadata(tokenizer, vocab_size) {
        Ok(metadata) => GgufVocabulary::Bpe(metadata),
        Err(reason) => GgufVocabulary::None(reason),
    }
}

fn bpe_metadata(tokenizer: &Json, vocab_size: usize) -> Result<Vec<(&'static str, Value)>, String> {
    let model = tokenizer.get("model").ok_or("tokenizer.json has no model")?;
    let kind = model.get("type").and_then(Json::as_str).unwrap_or("BPE");
    if kind != "BPE" {
        return Err(format!("its tokenizer is {kind}, not byte-level BPE"));
    }
    let byte_level = byte_level(tokenizer.get("pre_tokenizer")).ok_or("its tokenizer does not work on bytes")?;
    check_neutral(tokenizer, byte_level, model)?;
    let merges = merges(model)?;
    let uses_pattern = byte_level.get("use_regex").and_then(Json::as_bool).unwrap_or(true);
    if !uses_pattern && !merges.is_empty() {
        return Err("its tokenizer splits text by no pattern that llama.cpp knows".to_owned());
    }
    let mut tokens: Vec<Option<(String, i32)>> = vec![None; vocab_size];
    let mut place = |id: Option<u64>, text: &str, kind: i32| -> Result<(), String> {
        let slot = id.and_then(|id| usize::try_from(id).ok()).and_then(|id| tokens.get_mut(id));
        *slot.ok_or_else(|| format!("token {text:?} lies outside the model's {vocab_size}"))? =
            Some((text.to_owned(), kind));
        Ok(())
    };
    let vocab = model.get("vocab").and_then(Json::as_object).ok_or("tokenizer.json has no vocabulary")?;
    for (text, id) in vocab {
        place(id.as_u64(), text, NORMAL)?;
    }
    for added in tokenizer.get("added_tokens").and_then(Json::as_array).into_iter().flatten() {
        let text = added.get("content").and_then(Json::as_str).unwrap_or_default();
        let is_special = is_true(added, "special");
        place(added.get("id").and_then(Json::as_u64), text, if is_special { CONTROL } else { USER_DEFINED })?;
    }
    let end = match document_end(tokenizer) {
        Some(end) => end.id,
        None => never_said(&tokens).ok_or("its tokenizer has no token that ends a text, nor one to name instead")?,
    };
    let (texts, kinds): (Vec<String>, Vec<i32>) = tokens
        .into_iter()
        .enumerate()
        .map(|(id, token)| token.unwrap_or_else(|| (format!("[PAD{id}]"), UNUSED)))
        .unzip();
    Ok(vec![
        ("tokenizer.ggml.model", Value::from("gpt2")),
        ("tokenizer.ggml.pre", Value::from("gpt-2")),
        ("tokenizer.ggml.tokens", Value::Array(Array::String(texts))),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds))),
        ("tokenizer.ggml.merges", Value::Array(Array::String(merges))),
        ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
        ("tokenizer.ggml.bos_token_id", Value::U32(end)),
        ("tokenizer.ggml.eos_token_id", Value::U32(end)),
    ])
}

/// Fails with the first setting that changes text, or chooses tokens, in a way that llama.cpp does not know: its
/// "gpt-2" neither normalizes, nor puts a space before the text, nor marks parts of words, nor takes words unmerged.
fn check_neutral(tokenizer: &Json, byte_level: &Json, model: &Json) -> Result<(), String> {
    if let Some(normalizer) = tokenizer.get("normalizer").filter(|normalizer| !is_empty_normalizer(normalizer)) {
        let kind = normalizer.get("type").and_then(Json::as_str).unwrap_or("of an unknown kind");
        return Err(format!("its tokenizer changes text by a normalizer ({kind})"));
    }
    if is_true(byte_level, "add_prefix_space") {
        return Err("its tokenizer puts a space before every text".to_owned());
    }
    if is_true(model, "ignore_merges") {
        return Err("its tokenizer takes whole words without merging them".to_owned());
    }
    for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
        let text = model.get(key).filter(|text| !text.is_null() && text.as_str() != Some(""));
        if let Some(text) = text {
            return Err(format!("its tokenizer marks parts of words ({key} {text})"));
        }
    }
    Ok(())
}

/// None at all, or a sequence of none.
fn is_empty_normalizer(normalizer: &Json) -> bool {
    let parts = normalizer.get("normalizers").and_then(Json::as_array);
    normalizer.is_null() || parts.is_some_and(|parts| parts.iter().all(is_empty_normalizer))
}

fn is_true(object: &Json, key: &str) -> bool {
    object.get(key).and_then(Json::as_bool).unwrap_or(false)
}

/// The number to give as the end of a text where the tokenizer has no such token: one that a model never says, because
/// no text holds it. A number that stands for no token, else that of the byte 0xff, which UTF-8 never has.
///
/// Without any number, llama.cpp takes 11, a token like all others, and stops there; a number outside the vocabulary
/// it ignores, and takes 11 too. Leaving out the vocabulary would be safe as well, but then it reads no text at all.
/// Source: llama.cpp, `llama_vocab::impl::load` in `src/llama-vocab.cpp`.
fn never_said(tokens: &[Option<(String, i32)>]) -> Option<u32> {
    let byte_ff = Some((BYTE_FF.to_owned(), NORMAL));
    let id_of = |wanted: &Option<(String, i32)>| tokens.iter().position(|token| token == wanted);
    u32::try_from(id_of(&None).or_else(|| id_of(&byte_ff))?).ok()
}

/// The byte-level pre-tokenizer, alone or within a sequence of nothing else that splits.
fn byte_level(pre_tokenizer: Option<&Json>) -> Option<&Json> {
    let pre_tokenizer = pre_tokenizer?;
    match pre_tokenizer.get("type")?.as_str()? {
        "ByteLevel" => Some(pre_tokenizer),
        "Sequence" => match pre_tokenizer.get("pretokenizers")?.as_array()?.as_slice() {
            [only] => byte_level(Some(only)),
            _ => None,
        },
        _ => None,
    }
}

/// Merges as "left right"; the format has them as strings or as pairs.
fn merges(model: &Json) -> Result<Vec<String>, String> {
    let merge = |merge: &Json| match (merge.as_str(), merge.as_array().map(Vec::as_slice)) {
        (Some(text), _) => Some(text.to_owned()),
        (None, Some([left, right])) => Some(format!("{} {}", left.as_str()?, right.as_str()?)),
        (None, _) => None,
    };
    let list = model.get("merges").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|entry| merge(entry).ok_or_else(|| format!("its merge {entry} has no known form"))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tokenizer(use_regex: bool, merges: &Json) -> Json {
        json!({
            "added_tokens": [{ "id": 3, "content": "<|endoftext|>", "special": true }],
            "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "use_regex": use_regex },
            "model": { "type": "BPE", "vocab": { "a": 0, "b": 1, "ab": 2 }, "merges": merges },
        })
    }

    /// What `tokenizer` puts under `key` for a model of `vocab_size` tokens.
    #[track_caller]
    fn value(tokenizer: &Json, vocab_size: usize, key: &str) -> Value {
        let GgufVocabulary::Bpe(metadata) = gguf_vocabulary(tokenizer, vocab_size) else {
            panic!("{tokenizer} has a form")
        };
        metadata.into_iter().find(|(found, _)| *found == key).map(|(_, value)| value).unwrap_or_else(|| panic!("{key}"))
    }

    #[test]
    fn byte_level_bpe_goes_in_whole() {
        for merges in [json!(["a b"]), json!([["a", "b"]])] {
            let get = |key: &str| value(&tokenizer(true, &merges), 5, key);
            let tokens = ["a", "b", "ab", "<|endoftext|>", "[PAD4]"].map(str::to_owned).to_vec();
            assert_eq!(get("tokenizer.ggml.tokens"), Value::Array(Array::String(tokens)));
            assert_eq!(get("tokenizer.ggml.token_type"), Value::Array(Array::I32(vec![1, 1, 1, 3, 5])));
            assert_eq!(get("tokenizer.ggml.merges"), Value::Array(Array::String(vec!["a b".to_owned()])));
            assert_eq!(get("tokenizer.ggml.eos_token_id"), Value::U32(3));
        }
    }

    #[test]
    fn added_tokens_are_control_only_when_they_are_special() {
        let mut tokenizer = tokenizer(true, &json!(["a b"]));
        tokenizer["added_tokens"] = json!([
            { "id": 3, "content": "</s>", "special": true },
            { "id": 4, "content": "<user>", "special": false },
        ]);
        let kinds = Value::Array(Array::I32(vec![1, 1, 1, 3, 4]));
        assert_eq!(value(&tokenizer, 5, "tokenizer.ggml.token_type"), kinds);
        assert_eq!(value(&tokenizer, 5, "tokenizer.ggml.eos_token_id"), Value::U32(3));
    }

    /// llama.cpp's own choice would be 11, whatever that is.
    #[test]
    fn without_an_end_a_token_that_no_text_holds_is_named() {
        let ends = |tokenizer: &Json, vocab_size| {
            ["bos", "eos"].map(|which| value(tokenizer, vocab_size, &format!("tokenizer.ggml.{which}_token_id")))
        };
        let mut tokenizer = tokenizer(true, &json!(["a b"]));
        tokenizer["added_tokens"] = json!([]);
        assert_eq!(ends(&tokenizer, 5), [Value::U32(3), Value::U32(3)], "a number without a token");
        check_none(&tokenizer, 3, "no token that ends a text");
        tokenizer["model"]["vocab"]["ÿ"] = json!(3);
        assert_eq!(ends(&tokenizer, 4), [Value::U32(3), Value::U32(3)], "the byte 0xff");
        tokenizer["added_tokens"] = json!([{ "id": 3, "content": "ÿ", "special": false }]);
        check_none(&tokenizer, 4, "no token that ends a text");
    }

    #[test]
    fn settings_that_llama_cpp_does_not_know_stay_out() {
        let check = |part: &str, key: &str, setting: Json, expected: &str| {
            let mut tokenizer = tokenizer(true, &json!(["a b"]));
            let object = if part.is_empty() { &mut tokenizer } else { &mut tokenizer[part] };
            object[key] = setting;
            if expected.is_empty() {
                value(&tokenizer, 5, "tokenizer.ggml.model");
            } else {
                check_none(&tokenizer, 5, expected);
            }
        };
        check("", "normalizer", json!({ "type": "Lowercase" }), "normalizer (Lowercase)");
        check("", "normalizer", json!({ "type": "Sequence", "normalizers": [{ "type": "NFC" }] }), "normalizer");
        check("", "normalizer", json!({ "type": "Sequence", "normalizers": [] }), "");
        check("", "normalizer", Json::Null, "");
        check("pre_tokenizer", "add_prefix_space", json!(true), "a space before every text");
        check("model", "ignore_merges", json!(true), "without merging");
        check("model", "ignore_merges", json!(false), "");
        for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
            check("model", key, json!("##"), key);
            check("model", key, json!(""), "");
            check("model", key, Json::Null, "");
        }
    }

    #[track_caller]
    fn check_none(tokenizer: &Json, vocab_size: usize, expected: &str) {
        match gguf_vocabulary(tokenizer, vocab_size) {
            GgufVocabulary::Bpe(_) => panic!("no form expected"),
            GgufVocabulary::None(reason) => assert!(reason.contains(expected), "{reason}"),
        }
    }

    #[test]
    fn what_llama_cpp_would_split_differently_stays_out() {
        check_none(&tokenizer(false, &json!(["a b"])), 5, "no pattern");
        check_none(&tokenizer(true, &json!(["a b"])), 3, "outside the model's 3");
        check_none(&tokenizer(true, &json!([7])), 5, "merge 7");
        check_none(&json!({ "model": { "type": "WordLevel", "vocab": {} } }), 5, "WordLevel");
        check_none(&json!({ "model": { "type": "BPE", "vocab": {} } }), 5, "not work on bytes");
        check_none(&json!([]), 5, "no model");
        check_none(&json!({ "pre_tokenizer": { "type": "Sequence", "pretokenizers": 3 }, "model": {} }), 5, "bytes");
    }

    #[test]
    fn bytes_without_merges_need_no_pattern() {
        assert!(matches!(gguf_vocabulary(&tokenizer(false, &json!([])), 5), GgufVocabulary::Bpe(_)));
    }
}
