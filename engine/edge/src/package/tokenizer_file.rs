//! `tokenizer.json`: looked through before the tokenizers library gets it, which trusts it.
//!
//! The library sets aside as much memory as a character map says that it is long, and multiplies a text by whatever its
//! steps say. Both are checked here, in one pass that keeps nothing; what remains is proportional to the file and the text.

use std::path::Path;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tokenizers::Tokenizer;
use tokenizers::models::ModelWrapper;

use super::files::read_small;
use crate::EdgeError;
use crate::text::guarded;

/// Largest tokenizer, in bytes.
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;
/// Most values outside the vocabulary, and most objects in the model around it: the library keeps each of them in up to a
/// thousand bytes while it reads.
const MAX_STEP_VALUES: usize = 1 << 12;
const MAX_MODEL_OBJECTS: usize = 1 << 10;
/// How much longer a text may get by its replacements: each puts its content in the place of its pattern, which may be
/// nothing at all when it is a regular expression.
const MAX_GROWTH: usize = 1 << 16;
/// Most bytes that are put before each piece of a text, and most copies of it that a template makes.
const MAX_PREPENDED: usize = 1 << 10;
const MAX_COPIES: usize = 8;

/// Opens the tokenizer at `path`. It neither pads nor cuts a text, and leaves nothing to chance.
///
/// Errors: [`EdgeError::Read`]; [`EdgeError::Format`] for a file that is no tokenizer, or asks for memory that neither it
/// nor a text justifies.
pub(super) fn open_tokenizer(path: &Path) -> Result<Tokenizer, EdgeError> {
    parse(&read_small(path, MAX_TOKENIZER_BYTES)?, path)
}

/// Looks through `content`, a `tokenizer.json`, before the tokenizers library reads it.
///
/// Errors: in words, for content that is not JSON, or asks for memory that neither it nor a text justifies.
pub fn check_tokenizer(content: &[u8]) -> Result<(), String> {
    let mut claims = Claims { growth: 1, ..Claims::default() };
    let mut json = serde_json::Deserializer::from_slice(content);
    let walked = Walk { claims: &mut claims, place: Place::Top }.deserialize(&mut json).and_then(|()| json.end());
    walked.map_err(|error| error.to_string())
}

fn parse(content: &[u8], path: &Path) -> Result<Tokenizer, EdgeError> {
    let refuse = |found: String| EdgeError::format(path, "a Hugging Face tokenizer", found);
    check_tokenizer(content).map_err(refuse)?;
    let mut tokenizer = guarded(|| Tokenizer::from_bytes(content)).map_err(refuse)?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|error| refuse(error.to_string()))?;
    if let ModelWrapper::BPE(model) = tokenizer.get_model()
        && model.dropout.is_some()
    {
        // For training: the same text would be cut differently each time.
        let mut model = model.clone();
        model.dropout = None;
        tokenizer.with_model(model);
    }
    Ok(tokenizer)
}

/// What a file asks for.
#[derive(Debug, Default)]
struct Claims {
    step_values: usize,
    model_objects: usize,
    growth: usize,
    prepended: usize,
    copies: usize,
    /// Bytes of a replacement's content and of what it takes the place of, until the object that they are in ends.
    content: Option<usize>,
    pattern: Option<usize>,
}

impl Claims {
    /// Multiplies by the replacement that was read; without a pattern it may go between any two bytes.
    fn end_object(&mut self) {
        if let Some(content) = self.content.take() {
            let factor = match self.pattern.take() {
                None | Some(0) => content.saturating_add(1),
                Some(pattern) => content.div_ceil(pattern).max(1),
            };
            self.growth = self.growth.saturating_mul(factor);
        }
    }

    /// Errors: the claim that is too large.
    fn check<E: Error>(&self) -> Result<(), E> {
        for (found, most, what) in [
            (self.step_values, MAX_STEP_VALUES, "values in the steps around the model"),
            (self.model_objects, MAX_MODEL_OBJECTS, "objects in the model"),
            (self.growth, MAX_GROWTH, "bytes for a byte of text after all replacements"),
            (self.prepended, MAX_PREPENDED, "bytes before each piece of a text"),
            (self.copies, MAX_COPIES, "copies of a text by templates"),
        ] {
            if found > most {
                return Err(E::custom(format!("more than {most} {what}")));
            }
        }
        Ok(())
    }
}

/// Where in the file a value is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Top,
    /// In the model: mostly a vocabulary, whose size the file's size bounds.
    Model,
    /// In the list of added tokens, which is read as what it should be.
    Added,
    /// In the steps before and after the model.
    Step,
    /// There, under one of these keys.
    CharacterMap,
    Content,
    Pattern,
    PatternText,
    Prepend,
    Sequence,
}

impl Place {
    fn under(self, key: &str) -> Self {
        match (self, key) {
            (Self::Model, _) | (Self::Top, "model") => Self::Model,
            (Self::Added, _) | (Self::Top, "added_tokens") => Self::Added,
            (_, "precompiled_charsmap") => Self::CharacterMap,
            (_, "content") => Self::Content,
            (_, "pattern") => Self::Pattern,
            (Self::Pattern, "String") => Self::PatternText,
            (_, "prepend") => Self::Prepend,
            (_, "Sequence") => Self::Sequence,
            _ => Self::Step,
        }
    }
}

struct Walk<'a> {
    claims: &'a mut Claims,
    place: Place,
}

impl Walk<'_> {
    /// Where the elements of a list are.
    fn element(&self) -> Place {
        if self.place == Place::Model { Place::Model } else { Place::Step }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.place {
            // Only its grammar: what is in it is the library's to judge.
            Place::Added => return serde::Deserialize::deserialize(deserializer).map(|IgnoredAny| ()),
            Place::Model => {}
            Place::Top
            | Place::Step
            | Place::CharacterMap
            | Place::Content
            | Place::Pattern
            | Place::PatternText
            | Place::Prepend
            | Place::Sequence => {
                self.claims.step_values += 1;
                self.claims.check()?;
            }
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.place {
            Place::CharacterMap => check_character_map(text),
            Place::Content => {
                // One that is still there is of an object around this one: counted without its pattern.
                if let Some(outer) = self.claims.content.replace(text.len()) {
                    self.claims.growth = self.claims.growth.saturating_mul(outer.saturating_add(1));
                }
                self.claims.check()
            }
            Place::PatternText => {
                let shortest = self.claims.pattern.map_or(text.len(), |pattern| pattern.min(text.len()));
                self.claims.pattern = Some(shortest);
                Ok(())
            }
            Place::Pattern => {
                self.claims.pattern = Some(0);
                Ok(())
            }
            Place::Prepend => {
                self.claims.prepended = self.claims.prepended.saturating_add(text.len());
                self.claims.check()
            }
            Place::Top | Place::Model | Place::Added | Place::Step | Place::Sequence => Ok(()),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        match self.place {
            Place::Sequence => self.claims.copies += 1,
            Place::Model => self.claims.model_objects += 1,
            Place::Top
            | Place::Added
            | Place::Step
            | Place::CharacterMap
            | Place::Content
            | Place::Pattern
            | Place::PatternText
            | Place::Prepend => {}
        }
        self.claims.check()?;
        while let Some(key) = map.next_key::<String>()? {
            if self.place == Place::Pattern && key != "String" {
                self.claims.pattern = Some(0);
            }
            map.next_value_seed(Walk { claims: self.claims, place: self.place.under(&key) })?;
        }
        if self.place != Place::Pattern {
            self.claims.end_object();
        }
        self.claims.check()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let place = self.element();
        while list.next_element_seed(Walk { claims: self.claims, place })?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A map starts with the length of its trie, for which the library sets memory aside before it looks for it.
/// Source: `precompiled_charsmap` of sentencepiece: u32 length (little-endian), trie, replacements; here in base 64.
fn check_character_map<E: Error>(base64: &str) -> Result<(), E> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(u32::from(byte - b'A')),
        b'a'..=b'z' => Some(u32::from(byte - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(byte - b'0') + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits: Option<Vec<u32>> = base64.bytes().take(6).map(digit).collect();
    // Six digits are 36 bits, of which the first 32 are the length. Anything shorter the library refuses by itself.
    let Some([a, b, c, d, e, f]) = digits.as_deref() else { return Ok(()) };
    let bits = u64::from(a << 18 | b << 12 | c << 6 | d) << 12 | u64::from(e << 6 | f);
    let len = u64::from(((bits >> 4) as u32).swap_bytes());
    let most = (base64.len() / 4 * 3) as u64;
    if len <= most {
        return Ok(());
    }
    Err(E::custom(format!("a character map of {len} bytes in {most}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn tokenizer() -> Value {
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": null, "post_processor": null, "decoder": null,
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "content": 2}, "merges": []},
        })
    }

    fn open_with(key: &str, value: Value) -> Result<Tokenizer, String> {
        let mut json = tokenizer();
        json[key] = value;
        parse(json.to_string().as_bytes(), Path::new("tokenizer.json")).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn refused(key: &str, value: Value, says: &str) {
        let error = open_with(key, value).unwrap_err();
        assert!(error.contains(says) && error.contains("tokenizer.json"), "{error}");
    }

    fn replace(content: &str) -> Value {
        json!({"type": "Replace", "pattern": {"String": "a"}, "content": content})
    }

    #[test]
    fn a_character_map_is_as_long_as_it_says() {
        // 4 GiB of trie in 12 bytes; the length in bytes, little-endian, is ff ff ff fc.
        refused(
            "normalizer",
            json!({"type": "Precompiled", "precompiled_charsmap": "/////P//////////"}),
            "character map",
        );
        let nested = json!({"type": "Sequence", "normalizers": [
            {"type": "Precompiled", "precompiled_\u{63}harsmap": "AAAAQAAAAAAAAAAA"},
        ]});
        refused("normalizer", nested, "1073741824 bytes in 12");
        // An empty trie is no lie.
        assert!(check_character_map::<serde_json::Error>("AAAAAAAA").is_ok());
        assert!(check_character_map::<serde_json::Error>("BAAAAAAAAAA=").is_ok());
    }

    #[test]
    fn steps_do_not_multiply_a_text_without_bound() {
        let replacements = |count: usize, one: Value| json!({"type": "Sequence", "normalizers": vec![one; count]});
        assert!(open_with("normalizer", replacements(16, replace("aa"))).is_ok());
        refused("normalizer", replacements(17, replace("aa")), "for a byte of text");
        // One character for another, as often as one likes; between any two bytes, not.
        assert!(open_with("normalizer", replacements(100, replace("b"))).is_ok());
        let anywhere = |pattern: Value| json!({"type": "Replace", "content": "b", "pattern": pattern});
        assert!(open_with("normalizer", replacements(16, anywhere(json!({"Regex": "x*"})))).is_ok());
        refused("normalizer", replacements(17, anywhere(json!({"Regex": "x*"}))), "for a byte of text");
        refused("normalizer", replacements(17, anywhere(json!({"String": ""}))), "for a byte of text");
        // An object within does not hide the one around it.
        let mut hiding = replace(&"x".repeat(MAX_GROWTH + 1));
        hiding["more"] = json!({"pattern": {"String": "long"}, "content": "b"});
        refused("normalizer", hiding, "for a byte of text");
        refused("decoder", replace(&"x".repeat(MAX_GROWTH + 1)), "for a byte of text");
        refused(
            "normalizer",
            json!({"type": "Prepend", "prepend": "x".repeat(MAX_PREPENDED + 1)}),
            "before each piece",
        );
        let piece = json!({"Sequence": {"id": "A", "type_id": 0}});
        let template = |count: usize| json!({"type": "TemplateProcessing", "single": vec![piece.clone(); count], "pair": [], "special_tokens": {}});
        assert!(open_with("post_processor", template(3)).is_ok());
        refused("post_processor", template(MAX_COPIES + 1), "copies of a text");
        let list = json!({"type": "Sequence", "normalizers": vec![json!([]); MAX_STEP_VALUES]});
        refused("normalizer", list, "values in the steps");
        let merges = vec![json!({}); MAX_MODEL_OBJECTS];
        refused("model", json!({"type": "BPE", "vocab": {}, "merges": merges}), "objects in the model");
    }

    #[test]
    fn texts_are_neither_padded_nor_cut_nor_left_to_chance() {
        let padding = json!({
            "strategy": {"Fixed": 1_u64 << 60}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "a",
        });
        let truncation = json!({"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0});
        for (key, value) in [("padding", padding), ("truncation", truncation)] {
            let tokenizer = open_with(key, value).unwrap();
            assert_eq!(tokenizer.encode("abab", false).unwrap().get_ids(), [0, 1, 0, 1], "{key}");
        }
        let model = json!({"type": "BPE", "dropout": 1.0, "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]});
        assert_eq!(open_with("model", model).unwrap().encode("ab", false).unwrap().get_ids(), [2]);
    }

    #[test]
    fn what_is_no_tokenizer_is_refused() {
        refused("model", json!({"type": "BPE"}), "tokenizer");
        for text in ["", "[", "{}", "{\"model\": }", "[1]", "{} x"] {
            assert!(parse(text.as_bytes(), Path::new("tokenizer.json")).is_err(), "{text}");
        }
    }
}
