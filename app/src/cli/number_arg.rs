//! Numbers as typed, with their ranges, so that what is out of range is wrong usage before anything is done.

use std::str::FromStr;

/// A count of at least 1.
pub(super) fn parse_count<T: FromStr + PartialOrd + From<u8>>(text: &str) -> Result<T, String> {
    match text.parse::<T>() {
        Ok(number) if number >= T::from(1) => Ok(number),
        _ => Err("expected a whole number of at least 1, such as 8".to_owned()),
    }
}

/// A whole number of at least zero.
pub(super) fn parse_whole<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "expected a whole number of at least 0, such as 4".to_owned())
}

/// A number above zero.
pub(super) fn parse_above_zero(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("expected a number above 0, such as 0.001".to_owned()),
    }
}

/// A number of at least zero.
pub(super) fn parse_at_least_zero(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err("expected a number of at least 0, such as 1.5".to_owned()),
    }
}

/// A share, 0 to 1.
pub(super) fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err("expected a number from 0 to 1, such as 0.6".to_owned()),
    }
}

/// A sampling temperature: at least zero.
pub(super) fn parse_temperature(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err("expected a number of at least 0, such as 0.8".to_owned()),
    }
}

/// Bytes from GiB; at least one, since none means the default.
pub(super) fn parse_gib(text: &str) -> Result<u64, String> {
    match text.parse::<f64>() {
        Ok(gib) if gib.is_finite() && gib > 0.0 => Ok(((gib * f64::from(1 << 30)) as u64).max(1)),
        _ => Err("expected a number of GiB above 0, such as 2.5".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_whole_numbers_in_their_range() {
        assert_eq!((parse_count::<u32>("1"), parse_whole::<u64>("0")), (Ok(1), Ok(0)));
        for text in ["0", "-1", "x", "1.5", "", "4294967296"] {
            assert!(parse_count::<u32>(text).is_err(), "{text}");
        }
        assert!(parse_whole::<u64>("-1").is_err());
    }
}
