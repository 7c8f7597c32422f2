//! A `tokenizer.json` in the metadata of a GGUF file, as far as llama.cpp has a form for it.
//!
//! llama.cpp's "gpt2" model is byte-level BPE with the pre-tokenizer's pattern chosen by name. Anything else
//! (characters, words, unigrams) would tokenize differently there, so it is left out and said so.

use foretrain_edge::gguf::{Array, Value};
use serde_json::Value as Json;

/// llama.cpp's token types: normal, control, unused.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const UNUSED: i32 = 5;

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
        place(added.get("id").and_then(Json::as_u64), text, CONTROL)?;
    }
    let (texts, kinds): (Vec<String>, Vec<i32>) = tokens
        .into_iter()
        .enumerate()
        .map(|(id, token)| token.unwrap_or_else(|| (format!("[PAD{id}]"), UNUSED)))
        .unzip();
    let mut metadata = vec![
        ("tokenizer.ggml.model", Value::from("gpt2")),
        ("tokenizer.ggml.pre", Value::from("gpt-2")),
        ("tokenizer.ggml.tokens", Value::Array(Array::String(texts))),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds))),
        ("tokenizer.ggml.merges", Value::Array(Array::String(merges))),
        ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
    ];
    if let Some(end) = super::config_json::end_of_text_id(tokenizer).and_then(|id| u32::try_from(id).ok()) {
        metadata.push(("tokenizer.ggml.bos_token_id", Value::U32(end)));
        metadata.push(("tokenizer.ggml.eos_token_id", Value::U32(end)));
    }
    Ok(metadata)
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
            "pre_tokenizer": { "type": "ByteLevel", "use_regex": use_regex },
            "model": { "type": "BPE", "vocab": { "a": 0, "b": 1, "ab": 2 }, "merges": merges },
        })
    }

    #[test]
    fn byte_level_bpe_goes_in_whole() {
        for merges in [json!(["a b"]), json!([["a", "b"]])] {
            let GgufVocabulary::Bpe(metadata) = gguf_vocabulary(&tokenizer(true, &merges), 5) else {
                panic!("byte-level BPE has a form")
            };
            let get = |key: &str| metadata.iter().find(|(k, _)| *k == key).map(|(_, value)| value.clone());
            let tokens = ["a", "b", "ab", "<|endoftext|>", "[PAD4]"].map(str::to_owned).to_vec();
            assert_eq!(get("tokenizer.ggml.tokens"), Some(Value::Array(Array::String(tokens))));
            assert_eq!(get("tokenizer.ggml.token_type"), Some(Value::Array(Array::I32(vec![1, 1, 1, 3, 5]))));
            assert_eq!(get("tokenizer.ggml.merges"), Some(Value::Array(Array::String(vec!["a b".to_owned()]))));
            assert_eq!(get("tokenizer.ggml.eos_token_id"), Some(Value::U32(3)));
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
