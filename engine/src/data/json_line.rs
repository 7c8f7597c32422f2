//! One text out of a line of JSON.
//!
//! Invariant: whatever else the line holds is read over and never kept. A list of a million numbers takes thirty
//! times its length as a tree of values.

use std::fmt;

use serde::Deserializer;
use serde::de::{Deserialize, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The text in `field` of the object that `line` holds; of a field that comes twice, the last.
/// Errors: why there is none, for people.
pub(super) fn text_in(line: &str, field: &str) -> Result<String, String> {
    let mut deserializer = serde_json::Deserializer::from_str(line);
    let found = deserializer
        .deserialize_map(FieldOf(field))
        .and_then(|found| deserializer.end().map(|()| found))
        .map_err(|error| error.to_string())?;
    match found {
        Some(Content::Text(text)) if text.is_empty() => Err(format!("{field:?} is empty")),
        Some(Content::Text(text)) => Ok(text),
        Some(Content::Other) => Err(format!("{field:?} is not a string")),
        None => Err(format!("no field {field:?}")),
    }
}

/// Visits an object for what one of its fields holds.
struct FieldOf<'f>(&'f str);

impl<'de> Visitor<'de> for FieldOf<'_> {
    type Value = Option<Content>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = object.next_key::<String>()? {
            if name == self.0 {
                found = Some(object.next_value()?);
            } else {
                object.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// What a field holds, as far as it matters.
enum Content {
    Text(String),
    Other,
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Content, E> {
        Ok(Content::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Content, E> {
        Ok(Content::Text(text))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Content, E> {
        Ok(Content::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Content, E> {
        Ok(Content::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Content, E> {
        Ok(Content::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Content, E> {
        Ok(Content::Other)
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Content, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Content::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Content, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Content::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &str) {
        assert_eq!(text_in(line, "text").as_deref(), Ok(expected), "{line}");
    }

    #[track_caller]
    fn check_refused(line: &str, word: &str) {
        match text_in(line, "text") {
            Ok(text) => panic!("{line}: expected an error, found {text:?}"),
            Err(reason) => assert!(reason.contains(word), "{line}: {word:?} is missing in: {reason}"),
        }
    }

    #[test]
    fn texts_are_found_among_anything() {
        check(r#"{"text": "plain"}"#, "plain");
        check(r#"{"id": 7, "tags": [1, [2.5, null], {"text": "inner"}], "text": "outer", "is": true}"#, "outer");
        check(r#"{"text": 1, "text": "last"}"#, "last");
        check(" {\"text\":\"a\\tb\\n\\\"c\\\"\\/\"}\r", "a\tb\n\"c\"/");
        // Escapes, a pair of surrogates among them; a name that is escaped; a number that no f64 holds, elsewhere.
        check(r#"{"n": 1e999, "te\u0078t": "\u00e9t\u00e9 \ud83d\ude00"}"#, "été 😀");
    }

    #[test]
    fn everything_else_says_why() {
        for other in ["5", "-1.5", "null", "false", "[\"a\"]", "{\"text\": \"a\"}"] {
            check_refused(&format!("{{\"text\": {other}}}"), "\"text\" is not a string");
        }
        check_refused(r#"{"text": ""}"#, "is empty");
        check_refused("{}", "no field");
        check_refused("[]", "expected an object");
        check_refused("5", "expected an object");
        // Half of a pair of surrogates is no character.
        check_refused(r#"{"text": "\ud800"}"#, "hex escape");
        check_refused(r#"{"text": "\udc00 a"}"#, "hex escape");
        check_refused(r#"{"text": NaN}"#, "expected value");
        check_refused(r#"{"text": 1e999}"#, "out of range");
        check_refused(r#"{"text": "a"} {}"#, "trailing");
        check_refused(r#"{"text": "a"#, "EOF");
        check_refused("{\"text\": \"a\tb\"}", "control character");
        // Read over without a stack frame for each.
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        check_refused(&format!("{{\"text\": {deep}}}"), "is not a string");
        check(&format!("{{\"other\": {deep}, \"text\": \"a\"}}"), "a");
    }
}
