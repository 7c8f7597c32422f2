//! JSON of a package's small files, looked through before it is read into memory.

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

/// Counts the objects in `content`: read, even an empty one of 3 bytes with one member takes some 700 in memory.
///
/// Errors: content that is not JSON, or has more than `most`.
pub(super) fn check_objects(content: &[u8], most: usize) -> Result<(), serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(content);
    Count { left: &mut { most }, most }.deserialize(&mut json)?;
    json.end()
}

struct Count<'a> {
    left: &'a mut usize,
    most: usize,
}

impl<'de> DeserializeSeed<'de> for Count<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Count<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some(left) = self.left.checked_sub(1) else {
            return Err(A::Error::custom(format!("more than {} objects", self.most)));
        };
        *self.left = left;
        while map.next_key::<serde::de::IgnoredAny>()?.is_some() {
            map.next_value_seed(Count { left: self.left, most: self.most })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Count { left: self.left, most: self.most })?.is_some() {}
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::check_objects;

    #[test]
    fn objects_are_counted_wherever_they_are() {
        let text = br#"{"a": [{}, [{"b": {"c": null}}]], "d": [1, -2, 3.5, true, "e"]}"#;
        check_objects(text, 4).unwrap();
        assert!(check_objects(text, 3).unwrap_err().to_string().contains("more than 3 objects"));
        assert!(check_objects(b"{", 9).is_err() && check_objects(b"{} {}", 9).is_err());
    }
}
