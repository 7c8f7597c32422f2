//! What the encoders of blocks share: the checks before, and scales.

use half::f16;

use crate::EdgeError;

fn refuse(kind: &str, expected: &str, found: String) -> EdgeError {
    EdgeError::Write { what: format!("{kind} tensor"), expected: expected.to_owned(), found }
}

/// `values` in whole blocks of `LEN`, all of them finite.
///
/// Errors: [`EdgeError::Write`] naming `kind`.
pub(super) fn checked<'a, const LEN: usize>(kind: &str, values: &'a [f32]) -> Result<&'a [[f32; LEN]], EdgeError> {
    let (blocks, rest) = values.as_chunks::<LEN>();
    if !rest.is_empty() {
        return Err(refuse(kind, &format!("a multiple of {LEN} values"), values.len().to_string()));
    }
    match values.iter().find(|value| !value.is_finite()) {
        Some(bad) => Err(refuse(kind, "finite values", bad.to_string())),
        None => Ok(blocks),
    }
}

/// `scale` in half precision.
///
/// Errors: [`EdgeError::Write`] naming `kind` for one that it cannot hold.
pub(super) fn half_scale(kind: &str, scale: f32) -> Result<f16, EdgeError> {
    let half = f16::from_f32(scale);
    if half.is_finite() {
        Ok(half)
    } else {
        Err(refuse(kind, "a scale within half precision (magnitudes up to 65504)", scale.to_string()))
    }
}

/// 1 / `scale`, or 0 where that is no number: such a scale is 0 in half precision, so that every code means 0.
pub(super) fn inverse(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if inverse.is_finite() { inverse } else { 0.0 }
}
