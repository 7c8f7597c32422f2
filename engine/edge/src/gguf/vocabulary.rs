//! The vocabulary in a GGUF file's metadata as a `tokenizer.json`.
//! Sources: llama.cpp, `src/llama-vocab.cpp` (kinds, patterns); transformers, `convert_slow_tokenizer.py` (merges from
//! scores).

use std::path::Path;

use serde_json::{Map, Value as Json, json};

use super::{Array, GgufFile, Value};
use crate::EdgeError;

/// llama.cpp's types of tokens that are found in text before anything is split.
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
/// A number that stands for no token.
const UNUSED: i32 = 5;
/// A longer piece is taken apart at no place: no vocabulary merges such, and looking would take long.
const MAX_MERGED_BYTES: usize = 256;
/// What stands for a space in sentencepiece's pieces.
const SPACE: &str = "\u{2581}";
/// How Llama 3 splits text. Source: its `tokenizer.json`.
const LLAMA3_PATTERN: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// A byte-level BPE in the form of `tokenizer.json`; `use_regex` splits text by GPT-2's pattern.
#[must_use]
pub fn byte_level_bpe(vocab: &Json, merges: &Json, use_regex: bool, added_tokens: &Json) -> Json {
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added_tokens, "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges,
        },
    })
}

/// The tokenizer of `file`: byte-level BPE with the pattern of GPT-2 or Llama 3, single bytes, or the pieces of Llama 2.
///
/// Errors: [`EdgeError::Format`] for a vocabulary of another kind, or none.
pub fn tokenizer_json(file: &GgufFile, path: &Path) -> Result<Json, EdgeError> {
    let refuse = |expected: &str, found: String| Err(EdgeError::format(path, expected, found));
    let text = |key: &str| file.metadata().get(key).and_then(Value::as_str);
    let kind = text("tokenizer.ggml.model").unwrap_or("none");
    if !["gpt2", "llama"].contains(&kind) {
        let expected = "tokenizer.ggml.model \"gpt2\" (byte-level BPE) or \"llama\" (pieces with scores)";
        return refuse(expected, format!("{kind:?}"));
    }
    let Some(tokens) = strings(file, "tokenizer.ggml.tokens") else {
        return refuse("tokenizer.ggml.tokens, a list of texts", "none".to_owned());
    };
    let kinds = match file.metadata().get("tokenizer.ggml.token_type") {
        Some(Value::Array(Array::I32(kinds))) => kinds.as_slice(),
        _ => &[],
    };
    let mut vocab = Map::new();
    let mut added = Vec::new();
    for (id, token) in tokens.iter().enumerate() {
        let kind = kinds.get(id).copied().unwrap_or_default();
        if kind == UNUSED {
            continue;
        }
        if vocab.insert(token.clone(), json!(id)).is_some() {
            return refuse("every token once", format!("{token:?} twice"));
        }
        if kind == CONTROL || kind == USER_DEFINED {
            added.push(json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": kind == CONTROL,
            }));
        }
    }
    if kind == "llama" {
        let scores = match file.metadata().get("tokenizer.ggml.scores") {
            Some(Value::Array(Array::F32(scores))) if scores.len() == tokens.len() => scores,
            _ => return refuse("a score for every token in tokenizer.ggml.scores", "none".to_owned()),
        };
        let unknown = file.metadata().get("tokenizer.ggml.unknown_token_id").and_then(Value::as_u64).unwrap_or(0);
        let unknown = usize::try_from(unknown).ok().and_then(|id| tokens.get(id));
        let prefix = !matches!(file.metadata().get("tokenizer.ggml.add_space_prefix"), Some(Value::Bool(false)));
        let merges = merges_of_scores(&vocab, tokens, scores);
        return Ok(pieces(vocab, &merges, unknown, &added, prefix));
    }
    let merges = strings(file, "tokenizer.ggml.merges").unwrap_or_default();
    let pattern = text("tokenizer.ggml.pre").unwrap_or("default");
    let mut json = byte_level_bpe(&Json::Object(vocab), &json!(merges), !merges.is_empty(), &json!(added));
    match pattern {
        // Single bytes are not merged, so that it does not matter how text is split before.
        _ if merges.is_empty() => {}
        "gpt-2" => {}
        "llama-bpe" | "llama3" | "llama-v3" => {
            let split = json!({
                "type": "Split", "pattern": {"Regex": LLAMA3_PATTERN}, "behavior": "Isolated", "invert": false,
            });
            json["pre_tokenizer"]["use_regex"] = json!(false);
            let byte_level = json["pre_tokenizer"].take();
            json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [split, byte_level]});
            json["model"]["ignore_merges"] = json!(true);
        }
        _ => return refuse("tokenizer.ggml.pre \"gpt-2\" or \"llama-bpe\"", format!("{pattern:?}")),
    }
    Ok(json)
}

fn strings<'a>(file: &'a GgufFile, key: &str) -> Option<&'a [String]> {
    match file.metadata().get(key) {
        Some(Value::Array(Array::String(strings))) => Some(strings),
        _ => None,
    }
}

/// Sentencepiece joins the two neighbors whose piece scores highest: the same as merging pairs in the order of the scores
/// of what they make.
fn merges_of_scores(vocab: &Map<String, Json>, tokens: &[String], scores: &[f32]) -> Vec<[String; 2]> {
    let id = |piece: &str| vocab.get(piece).and_then(Json::as_u64);
    let mut merges: Vec<(f32, u64, u64, [String; 2])> = Vec::new();
    for (token, score) in tokens.iter().zip(scores).filter(|(token, _)| token.len() <= MAX_MERGED_BYTES) {
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let Some((left_id, right_id)) = id(left).zip(id(right)) {
                merges.push((*score, left_id, right_id, [left.to_owned(), right.to_owned()]));
            }
        }
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    merges.into_iter().map(|(_, _, _, pair)| pair).collect()
}

/// Pieces that fall back to bytes, in the form of `tokenizer.json`.
fn pieces(
    vocab: Map<String, Json>,
    merges: &[[String; 2]],
    unknown: Option<&String>,
    added: &[Json],
    prefix: bool,
) -> Json {
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let normalizers = if prefix { vec![json!({"type": "Prepend", "prepend": SPACE}), spaces] } else { vec![spaces] };
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocab, "merges": merges,
        },
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tokenizers::Tokenizer;

    use super::*;
    use crate::gguf::GgufWriter;

    fn tokenizer(metadata: &[(&str, Value)]) -> Result<Tokenizer, String> {
        let mut writer = GgufWriter::new("llama");
        for (key, value) in metadata {
            writer.add_metadata(&format!("tokenizer.ggml.{key}"), value.clone()).unwrap();
        }
        let mut bytes = Vec::new();
        writer.write(&mut bytes).unwrap();
        let file = GgufFile::parse(bytes.into(), Path::new("model.gguf")).unwrap();
        let json = tokenizer_json(&file, Path::new("model.gguf")).map_err(|error| error.to_string())?;
        Tokenizer::from_bytes(json.to_string()).map_err(|error| error.to_string())
    }

    fn texts(texts: &[&str]) -> Value {
        Value::Array(Array::String(texts.iter().map(|text| (*text).to_owned()).collect()))
    }

    fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
        tokenizer.encode(text, false).unwrap().get_ids().to_vec()
    }

    #[test]
    fn pieces_join_by_score_and_fall_back_to_bytes() {
        let mut tokens = vec!["<unk>", "<s>", "▁", "a", "b", "c", "ab", "bc", "▁ab", "</s>"];
        let byte_names: Vec<String> = (0..256).map(|byte| format!("<0x{byte:02X}>")).collect();
        tokens.extend(byte_names.iter().map(String::as_str));
        let mut scores = vec![0.0, 0.0, -9.0, -9.0, -9.0, -9.0, -2.0, -1.0, -3.0, 0.0];
        scores.resize(tokens.len(), 0.0);
        let mut kinds = vec![2, 3, 1, 1, 1, 1, 1, 1, 1, 3];
        kinds.resize(tokens.len(), 6);
        let tokenizer = tokenizer(&[
            ("model", Value::from("llama")),
            ("tokens", texts(&tokens)),
            ("scores", Value::Array(Array::F32(scores))),
            ("token_type", Value::Array(Array::I32(kinds))),
        ])
        .unwrap();
        assert_eq!(ids(&tokenizer, "ab"), [8]);
        // "bc" scores higher than "ab".
        assert_eq!(ids(&tokenizer, "abc"), [2, 3, 7]);
        assert_eq!(ids(&tokenizer, "é"), [2, 10 + 0xc3, 10 + 0xa9]);
        assert_eq!(ids(&tokenizer, "a</s>")[2], 9);
        assert_eq!(tokenizer.decode(&[8, 2, 10 + 0xc3, 10 + 0xa9], true).unwrap(), "ab é");
    }

    #[test]
    fn byte_level_patterns_split_as_their_models_do() {
        let tokens = ["1", "2", "3", "12", "123", "23", "1231", "Ġ", "a", "Ġa"];
        let merges = ["1 2", "12 3", "2 3", "123 1", "Ġ a"];
        let with = |pattern: &str| {
            tokenizer(&[
                ("model", Value::from("gpt2")),
                ("pre", Value::from(pattern)),
                ("tokens", texts(&tokens)),
                ("merges", texts(&merges)),
            ])
        };
        assert_eq!(ids(&with("gpt-2").unwrap(), "1231 a"), [6, 9]);
        // Llama 3 takes digits by threes.
        assert_eq!(ids(&with("llama-bpe").unwrap(), "1231 a"), [4, 0, 9]);
        assert!(with("tekken").unwrap_err().contains("tekken"));
    }

    #[test]
    fn what_is_missing_is_told() {
        assert!(tokenizer(&[]).unwrap_err().contains("none"));
        assert!(tokenizer(&[("model", Value::from("bert"))]).unwrap_err().contains("bert"));
        assert!(tokenizer(&[("model", Value::from("gpt2"))]).unwrap_err().contains("tokens"));
        let twice = [("model", Value::from("gpt2")), ("tokens", texts(&["a", "a"]))];
        assert!(tokenizer(&twice).unwrap_err().contains("twice"));
        let unscored = [("model", Value::from("llama")), ("tokens", texts(&["a"]))];
        assert!(tokenizer(&unscored).unwrap_err().contains("score"));
    }
}
