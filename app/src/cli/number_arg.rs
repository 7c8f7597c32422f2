//! Numbers as typed, with their ranges, so that what is out of range is wrong usage before anything is done.

use clap::builder::{RangedU64ValueParser, TypedValueParser};

/// A count of at least 1.
pub(super) fn at_least_one() -> impl TypedValueParser<Value = usize> {
    RangedU64ValueParser::<usize>::new().range(1..)
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
