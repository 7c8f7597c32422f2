//! The token that ends a document, as a `tokenizer.json` names it: one answer for every file of a package.

use serde_json::Value;

use crate::data::DOCUMENT_ENDS;

/// A token that ends documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DocumentEnd {
    /// Its text.
    pub token: &'static str,
    /// Its number.
    pub id: u32,
}

/// The token that training put between documents, found in the same order; `None` for vocabularies without one (bytes,
/// characters), whose models never learned to end.
pub(super) fn document_end(tokenizer: &Value) -> Option<DocumentEnd> {
    let numbered = |token| Some(DocumentEnd { token, id: token_id(tokenizer, token)? });
    DOCUMENT_ENDS.into_iter().find_map(numbered)
}

/// The number of `token` among the added tokens, else in the model's vocabulary.
fn token_id(tokenizer: &Value, token: &str) -> Option<u32> {
    let added = tokenizer.get("added_tokens").and_then(Value::as_array).into_iter().flatten();
    let mut added = added.filter(|entry| entry.get("content").and_then(Value::as_str) == Some(token));
    let id = added.find_map(|entry| entry.get("id")?.as_u64()).or_else(|| {
        match tokenizer.get("model")?.get("vocab")? {
            // Unigram: a list of pieces with their scores, numbered by place.
            Value::Array(pieces) => {
                let place = pieces.iter().position(|piece| piece.get(0).and_then(Value::as_str) == Some(token))?;
                u64::try_from(place).ok()
            }
            vocab => vocab.get(token)?.as_u64(),
        }
    })?;
    u32::try_from(id).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(tokenizer: &Value, expected: Option<(&str, u32)>) {
        assert_eq!(document_end(tokenizer).map(|end| (end.token, end.id)), expected, "{tokenizer}");
    }

    #[test]
    fn every_name_that_training_knows_is_found() {
        for name in DOCUMENT_ENDS {
            check(&json!({ "added_tokens": [{ "id": 7, "content": name }] }), Some((name, 7)));
            check(&json!({ "added_tokens": [], "model": { "vocab": { "a": 0, name: 1 } } }), Some((name, 1)));
            check(&json!({ "model": { "type": "Unigram", "vocab": [["a", -1.0], [name, 0.0]] } }), Some((name, 1)));
        }
    }

    #[test]
    fn training_prefers_the_earlier_name() {
        let both = json!({ "added_tokens": [{ "id": 2, "content": "</s>" }, { "id": 5, "content": "<|endoftext|>" }] });
        check(&both, Some(("<|endoftext|>", 5)));
    }

    #[test]
    fn vocabularies_without_one_and_nonsense_have_none() {
        check(&json!({ "model": { "vocab": { "a": 0, "b": 1 } } }), None);
        check(
            &json!({ "added_tokens": [{ "id": -1, "content": "</s>" }, { "id": u64::MAX, "content": "<eos>" }] }),
            None,
        );
        check(&json!({ "added_tokens": 3, "model": { "vocab": [[], 3, [4]] } }), None);
        check(&json!([]), None);
    }
}
