//! What a tokenizer does not know of a text.

use std::collections::{BTreeSet, HashMap};
use std::fmt::{self, Display};

use tokenizers::models::ModelWrapper;
use tokenizers::{Model as _, OffsetReferential, OffsetType, PreTokenizer as _, Tokenizer};

use super::generate::encode;
use super::guard::guarded;
use crate::EdgeError;

/// How many different ones are kept to show.
const MAX_SHOWN: usize = 5;
/// Unicode's last code point, which stands for no character ever: a vocabulary does not have it.
const NO_CHARACTER: &str = "\u{10ffff}";

/// What a tokenizer does not know of a text: the model sees nothing in its place, or the token for what is unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unknown {
    /// Characters of the text that leave no token, or became the token for what is unknown.
    pub num_characters: usize,
    /// The first few of them, each once; whole words where a tokenizer knows whole words.
    pub first: Vec<String>,
    /// There are others than those.
    pub has_others: bool,
}

impl Unknown {
    /// True when the tokenizer knows all of the text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.num_characters == 0
    }

    /// Adds what is unknown of another text.
    pub fn merge(&mut self, other: &Self) {
        self.num_characters += other.num_characters;
        other.first.iter().for_each(|part| self.show(part));
        self.has_others |= other.has_others;
    }

    fn add(&mut self, part: &str) {
        self.num_characters += part.chars().count();
        self.show(part);
    }

    fn show(&mut self, part: &str) {
        if self.first.iter().any(|known| known == part) {
            return;
        }
        if self.first.len() < MAX_SHOWN {
            self.first.push(part.to_owned());
        } else {
            self.has_others = true;
        }
    }
}

impl Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { num_characters, first, has_others } = self;
        let first: Vec<String> = first.iter().map(|part| format!("{part:?}")).collect();
        let (first, others) = (first.join(", "), if *has_others { " and others" } else { "" });
        let are = if *num_characters == 1 { "character is" } else { "characters are" };
        write!(
            f,
            "{num_characters} {are} unknown to the model's tokenizer ({first}{others}); the model cannot tell what they are"
        )
    }
}

/// What `tokenizer` does not know of `text`. White space that it drops on purpose is not unknown, nor is the token for
/// what is unknown where the text spells it.
///
/// Errors: [`EdgeError::Tokenizer`].
pub(crate) fn unknown(tokenizer: &Tokenizer, text: &str) -> Result<Unknown, EdgeError> {
    let mut unknown = Unknown::default();
    let Some(token) = unknown_token(tokenizer) else {
        let characters: BTreeSet<char> = text.chars().collect();
        let lost: HashMap<char, bool> = characters.into_iter().map(|c| (c, leaves_nothing(tokenizer, c))).collect();
        for c in text.chars().filter(|c| lost.get(c) == Some(&true)) {
            unknown.add(c.encode_utf8(&mut [0; 4]));
        }
        return Ok(unknown);
    };
    let added = tokenizer.get_added_tokens_decoder();
    let spelled = added.get(&token).map(|token| token.content.as_str());
    let encoding = encode(tokenizer, text)?;
    for (&id, &(start, end)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
        let part = text.get(start..end).unwrap_or_default();
        if id == token && Some(part) != spelled {
            unknown.add(part);
        }
    }
    Ok(unknown)
}

/// What characters become that the vocabulary lacks; `None` where they leave nothing, or where there are none.
fn unknown_token(tokenizer: &Tokenizer) -> Option<u32> {
    match tokenizer.get_model() {
        ModelWrapper::BPE(model) => tokenizer.token_to_id(model.unk_token.as_ref()?),
        ModelWrapper::WordPiece(model) => tokenizer.token_to_id(&model.unk_token),
        ModelWrapper::WordLevel(model) => tokenizer.token_to_id(&model.unk_token),
        // It keeps its own to itself. Where it knows bytes, the tokens are several.
        ModelWrapper::Unigram(model) => match guarded(|| model.tokenize(NO_CHARACTER)).ok()?.as_slice() {
            [only] => Some(only.id),
            _ => None,
        },
    }
}

/// True when the model is given `c`, alone, and makes nothing of it.
fn leaves_nothing(tokenizer: &Tokenizer, c: char) -> bool {
    let mut buffer = [0; 4];
    let text: &str = c.encode_utf8(&mut buffer);
    if !encode(tokenizer, text).is_ok_and(|encoding| encoding.is_empty()) {
        return false;
    }
    let reaches_model = guarded(|| {
        let mut split = tokenizer.get_added_vocabulary().extract_and_normalize(tokenizer.get_normalizer(), text);
        tokenizer.get_pre_tokenizer().map_or(Ok(()), |pre| pre.pre_tokenize(&mut split))?;
        let parts = split.get_splits(OffsetReferential::Original, OffsetType::None);
        Ok::<_, tokenizers::Error>(parts.iter().any(|(part, ..)| !part.is_empty()))
    });
    reaches_model.unwrap_or(false)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(model: &Value, pre: &Value, added: &Value, text: &str, num_characters: usize, first: &[&str]) {
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
            "pre_tokenizer": pre, "post_processor": null, "decoder": null, "model": model,
        });
        let tokenizer = Tokenizer::from_bytes(json.to_string()).unwrap();
        let found = unknown(&tokenizer, text).unwrap();
        assert_eq!(
            (found.num_characters, found.first),
            (num_characters, first.iter().map(ToString::to_string).collect())
        );
    }

    #[test]
    fn what_vanishes_is_counted() {
        let model = json!({"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []});
        check(&model, &Value::Null, &json!([]), "a\nbéaé", 3, &["\n", "é"]);
        check(&model, &Value::Null, &json!([]), "abba", 0, &[]);
        // White space is dropped on purpose here.
        check(&model, &json!({"type": "Whitespace"}), &json!([]), "a b\nc a", 1, &["c"]);
    }

    #[test]
    fn what_becomes_the_unknown_token_is_counted() {
        let each = json!({"type": "Split", "pattern": {"Regex": "[\\s\\S]"}, "behavior": "Isolated", "invert": false});
        let model = json!({"type": "WordLevel", "vocab": {"a": 0, "\u{fffd}": 1}, "unk_token": "\u{fffd}"});
        check(&model, &each, &json!([]), "aÖäaü€Ö", 5, &["Ö", "ä", "ü", "€"]);
        let model = json!({"type": "BPE", "unk_token": "?", "fuse_unk": true, "vocab": {"a": 0, "?": 1}, "merges": []});
        check(&model, &Value::Null, &json!([]), "abca", 2, &["bc"]);
        let special = json!([{"id": 1, "content": "[UNK]", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}]);
        let model = json!({"type": "WordLevel", "vocab": {"hello": 0, "[UNK]": 1}, "unk_token": "[UNK]"});
        check(&model, &json!({"type": "Whitespace"}), &special, "hello world [UNK] hello", 5, &["world"]);
        let model = json!({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0], ["b", -1.5]]});
        check(&model, &Value::Null, &json!([]), "a?b!!a", 3, &["?", "!!"]);
    }

    #[test]
    fn many_are_told_in_few_words() {
        let mut unknown = Unknown::default();
        assert!(unknown.is_empty());
        unknown.add("Ö");
        assert!(
            unknown.to_string().starts_with("1 character is unknown to the model's tokenizer (\"Ö\");"),
            "{unknown}"
        );
        "äüß€Ööä".chars().for_each(|c| unknown.add(&c.to_string()));
        let told = unknown.to_string();
        assert!(told.starts_with("8 characters are") && told.contains("\"€\" and others)"), "{told}");
        let mut both = Unknown { num_characters: 2, first: vec!["x".to_owned(), "Ö".to_owned()], has_others: false };
        both.merge(&unknown);
        assert_eq!((both.num_characters, both.first.len(), both.has_others), (10, MAX_SHOWN, true));
    }
}
