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

/// The bits of many numbers, 16 hexadecimal digits each: a network's weights in one short string.
impl Exact for Vec<f64> {
    type Text = String;

    fn to_text(&self) -> String {
        to_hex(self)
    }

    fn from_text(text: &String) -> Option<Self> {
        from_hex(text)
    }
}

impl<const N: usize> Exact for [f64; N] {
    type Text = String;

    fn to_text(&self) -> String {
        to_hex(self)
    }

    fn from_text(text: &String) -> Option<Self> {
        from_hex(text)?.try_into().ok()
    }
}

/// Digits of a number's bits.
const HEX_DIGITS: usize = 16;

fn to_hex(values: &[f64]) -> String {
    let mut text = String::with_capacity(HEX_DIGITS * values.len());
    for value in values {
        let bits = value.to_bits();
        let digits = (0..HEX_DIGITS).rev().map(|digit| (bits >> (4 * digit)) as u32 & 15);
        text.extend(digits.filter_map(|digit| char::from_digit(digit, 16)));
    }
    text
}

fn from_hex(text: &str) -> Option<Vec<f64>> {
    let number = |digits: &[u8]| {
        let bits =
            digits.iter().try_fold(0, |bits: u64, &digit| Some(bits << 4 | u64::from(char::from(digit).to_digit(16)?)));
        bits.map(f64::from_bits)
    };
    let (numbers, rest) = text.as_bytes().as_chunks::<HEX_DIGITS>();
    if rest.is_empty() { numbers.iter().map(|digits| number(digits)).collect() } else { None }
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

    #[test]
    fn every_bit_of_many_survives() {
        let values = [0.1 + 0.2, 1e-310, -0.0, f64::NEG_INFINITY, f64::NAN];
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        let text = values.to_text();
        assert_eq!(text.len(), 5 * HEX_DIGITS);
        assert_eq!(Vec::from_text(&text).map(|back| bits(&back)), Some(bits(&values)));
        assert_eq!(<[f64; 5]>::from_text(&text).map(|back| bits(&back)), Some(bits(&values)));
        assert_eq!(<[f64; 4]>::from_text(&text), None, "another length");
        for broken in ["3fe", "zfe0000000000000", "3fé0000000000000"] {
            assert_eq!(Vec::from_text(&broken.to_owned()), None, "{broken}");
        }
        assert_eq!(Vec::from_text(&String::new()), Some(vec![]));
    }
}
