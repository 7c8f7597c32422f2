//! The vocabulary of a GGUF file as a `tokenizer.json`: the reverse of what export writes.

use std::path::Path;

use foretrain_edge::gguf::{Array, GgufFile, Value};
use serde_json::{Value as Json, json};

use super::ImportError;

/// llama.cpp's types of tokens that are found in text before anything is split.
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
/// A number that stands for no token.
const UNUSED: i32 = 5;

/// The tokenizer of `file`: byte-level BPE with GPT-2's pattern, or single bytes.
/// Errors: [`ImportError::NotAModel`] for a vocabulary of another kind.
pub(super) fn tokenizer_json(file: &GgufFile, path: &Path) -> Result<Json, ImportError> {
    let refuse = |expected: &str, found: String| ImportError::NotAModel {
        expected: expected.to_owned(),
        found,
        hint: "Put the model's tokenizer.json beside the file",
        path: path.to_owned(),
    };
    let text = |key: &str| file.metadata().get(key).and_then(|value| value.as_str());
    let kind = text("tokenizer.ggml.model").unwrap_or("none");
    if kind != "gpt2" {
        return Err(refuse("tokenizer.ggml.model \"gpt2\" (byte-level BPE)", format!("{kind:?}")));
    }
    let strings = |key: &str| match file.metadata().get(key) {
        Some(Value::Array(Array::String(strings))) => Some(strings.as_slice()),
        _ => None,
    };
    let tokens = strings("tokenizer.ggml.tokens");
    let tokens = tokens.ok_or_else(|| refuse("tokenizer.ggml.tokens, a list of texts", "none".to_owned()))?;
    let merges = strings("tokenizer.ggml.merges").unwrap_or_default();
    let pattern = text("tokenizer.ggml.pre").unwrap_or("default");
    // Single bytes are not merged, so that it does not matter how text is split before.
    if pattern != "gpt-2" && !merges.is_empty() {
        return Err(refuse("tokenizer.ggml.pre \"gpt-2\"", format!("{pattern:?}")));
    }
    let kinds = match file.metadata().get("tokenizer.ggml.token_type") {
        Some(Value::Array(Array::I32(kinds))) => kinds.as_slice(),
        _ => &[],
    };
    let mut vocab = serde_json::Map::new();
    let mut added = Vec::new();
    for (id, token) in tokens.iter().enumerate() {
        let kind = kinds.get(id).copied().unwrap_or_default();
        if kind == UNUSED {
            continue;
        }
        if vocab.insert(token.clone(), json!(id)).is_some() {
            return Err(refuse("every token once", format!("{token:?} twice")));
        }
        if kind == CONTROL || kind == USER_DEFINED {
            added.push(json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": kind == CONTROL,
            }));
        }
    }
    Ok(crate::data::byte_level_bpe(&Json::Object(vocab), &json!(merges), !merges.is_empty(), &json!(added)))
}
