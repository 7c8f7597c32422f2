//! Reading saved state back, checked.

use candle_core::{DType, Tensor};

use super::OptimError;
use crate::models::Params;

/// The count called `name`.
pub(super) fn count(state: &Params, name: &str) -> Result<u64, OptimError> {
    let missing = || OptimError::MissingState { name: name.to_owned() };
    let saved = state.find(name).ok_or_else(missing)?;
    let values: Vec<i64> = saved.to_dtype(DType::I64)?.flatten_all()?.to_vec1()?;
    values.first().and_then(|&value| u64::try_from(value).ok()).ok_or_else(missing)
}

/// The tensor called `name`, which must have this shape.
pub(super) fn tensor<'a>(state: &'a Params, name: &str, shape: &[usize]) -> Result<&'a Tensor, OptimError> {
    let saved = state.find(name).ok_or_else(|| OptimError::MissingState { name: name.to_owned() })?;
    if saved.dims() != shape {
        return Err(OptimError::Shape {
            tried: "restoring",
            name: name.to_owned(),
            expected: shape.to_vec(),
            found: saved.dims().to_vec(),
        });
    }
    Ok(saved)
}
