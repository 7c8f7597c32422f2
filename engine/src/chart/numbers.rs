//! Numbers of a description: 14 significant digits, `null` in JSON for what is not a number.
//!
//! Why 14: JSON readers may be off by the last of a number's 53 bits. What is written and what is drawn is rounded
//! first, to the same 14 digits, so that a chart read back is the same picture to the byte.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `value` with 14 significant digits; NaN for anything that is not finite.
pub(super) fn rounded(value: f64) -> f64 {
    if !value.is_finite() {
        return f64::NAN;
    }
    // Whole numbers of this size have no digits to lose.
    if value.fract() == 0.0 && value.abs() < 1e14 {
        return value;
    }
    format!("{value:.13e}").parse().unwrap_or(f64::NAN)
}

fn optional(value: f64) -> Option<f64> {
    let value = rounded(value);
    value.is_finite().then_some(value)
}

/// For one number.
pub(super) mod one {
    use super::{Deserialize, Deserializer, Serialize, Serializer, optional};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        optional(*value).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
    }
}

/// For a column of numbers.
pub(super) mod many {
    use super::{Deserialize, Deserializer, Serializer, optional};

    pub fn serialize<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|value| optional(*value)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        let values = Vec::<Option<f64>>::deserialize(deserializer)?;
        Ok(values.into_iter().map(|value| value.unwrap_or(f64::NAN)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_twice_is_rounding_once() {
        let mut value = 0.1_f64;
        for _ in 0..10_000 {
            value = (value * 1.37).rem_euclid(1e9) + 1e-7;
            let once = rounded(value);
            assert_eq!(once.to_bits(), rounded(once).to_bits());
            let neighbour = f64::from_bits(once.to_bits() + 1);
            assert_eq!(once.to_bits(), rounded(neighbour).to_bits(), "the last bit does not count: {once}");
        }
    }

    #[test]
    fn what_is_no_number_is_none() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(rounded(value).is_nan());
        }
        assert_eq!((rounded(12_345.0), rounded(0.1 + 0.2)), (12_345.0, 0.3));
    }
}
