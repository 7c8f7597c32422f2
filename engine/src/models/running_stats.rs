//! Running statistics of batch norm.

use candle_core::DType;

use super::{BatchStats, ModelError, Params};

/// PyTorch's default share of the new batch.
pub const BATCH_NORM_MOMENTUM: f64 = 0.1;

/// New `NAME.running_mean` and `NAME.running_var` for every layer NAME that reported `NAME.mean`, `NAME.var` (biased)
/// and `NAME.count`: `(1 − momentum)·old + momentum·new`, with the variance made unbiased, as PyTorch does.
/// Without a count the variance is taken as it is.
/// Errors: [`ModelError::MissingTensor`] when a buffer or a variance is absent.
pub fn updated_running_stats(buffers: &Params, stats: &BatchStats, momentum: f64) -> Result<Params, ModelError> {
    let mut updated = Params::default();
    for (name, mean) in stats.iter() {
        let Some(norm) = name.strip_suffix(".mean") else { continue };
        let var = stats.get(&format!("{norm}.var"))?;
        let count = match stats.find(&format!("{norm}.count")) {
            Some(count) => Some(count.to_dtype(DType::F64)?.mean_all()?.to_scalar::<f64>()?),
            None => None,
        };
        let unbias = count.filter(|count| *count > 1.0).map_or(1.0, |count| count / (count - 1.0));
        let parts = [("running_mean", mean, 1.0), ("running_var", var, unbias)];
        for (suffix, new, factor) in parts {
            let key = format!("{norm}.{suffix}");
            let old = buffers.get(&key)?;
            let new = new.detach().to_dtype(old.dtype())?;
            let value = (old.affine(1.0 - momentum, 0.0)? + new.affine(momentum * factor, 0.0)?)?;
            updated.insert(key, value);
        }
    }
    Ok(updated)
}
