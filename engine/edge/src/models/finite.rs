//! Answers that are no numbers are not given.

use std::ops::Deref;
use std::path::Path;

use crate::EdgeError;

/// `logits` as they are.
///
/// Errors: [`EdgeError::Format`] naming the weights file when one is NaN or infinite. Files are not searched for such
/// weights when they are opened, because that would read all of a large one; damage that reaches an answer shows here.
pub(super) fn finite<T: Deref<Target = [f32]>>(logits: T, weights: &Path) -> Result<T, EdgeError> {
    match logits.iter().find(|logit| !logit.is_finite()) {
        Some(bad) => Err(EdgeError::format(weights, "undamaged weights, which give finite answers", bad.to_string())),
        None => Ok(logits),
    }
}
