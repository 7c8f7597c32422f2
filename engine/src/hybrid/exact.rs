//! Numbers that survive a JSON file bit for bit: written as text in Rust's shortest exact form.
//!
//! JSON numbers would lose NaN and infinity, and a reader may round their last digit.

use std::collections::VecDeque;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Use as `#[serde(with = "exact")]`.
pub(super) fn serialize<T: Exact, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    value.to_text().serialize(serializer)
}

pub(super) fn deserialize<'de, T: Exact, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let text = T::Text::deserialize(deserializer)?;
    T::from_text(&text).ok_or_else(|| D::Error::custom("expected a number written as text"))
}

/// A value made of `f64`s with an exact text form.
pub(super) trait Exact: Sized {
    type Text: Serialize + for<'de> Deserialize<'de>;
    fn to_text(&self) -> Self::Text;
    fn from_text(text: &Self::Text) -> Option<Self>;
}

impl Exact for f64 {
    type Text = String;

    fn to_text(&self) -> String {
        format!("{self:?}")
    }

    fn from_text(text: &String) -> Option<Self> {
        text.parse().ok()
    }
}

impl<T: Exact> Exact for Option<T> {
    type Text = Option<T::Text>;

    fn to_text(&self) -> Self::Text {
        self.as_ref().map(T::to_text)
    }

    fn from_text(text: &Self::Text) -> Option<Self> {
        match text {
            Some(text) => T::from_text(text).map(Some),
            None => Some(None),
        }
    }
}

impl<T: Exact> Exact for VecDeque<T> {
    type Text = Vec<T::Text>;

    fn to_text(&self) -> Self::Text {
        self.iter().map(T::to_text).collect()
    }

    fn from_text(text: &Self::Text) -> Option<Self> {
        text.iter().map(T::from_text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_survives() {
        for value in [0.1 + 0.2, 1e-310, -0.0, f64::MAX, f64::INFINITY, std::f64::consts::PI] {
            let back = f64::from_text(&value.to_text()).map(f64::to_bits);
            assert_eq!(back, Some(value.to_bits()));
        }
        assert!(f64::from_text(&f64::NAN.to_text()).is_some_and(f64::is_nan));
        assert_eq!(f64::from_text(&"twelve".to_owned()), None);
    }
}
