//! How fast a stored language model can generate on each target, predicted from what it has to read.

use serde::{Deserialize, Serialize};

use super::SessionError;
use crate::export::{ModelCard, TargetPreset};
use crate::models::TensorKind;
use crate::quant::QuantizedWeights;

/// A prediction for one target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetSpeed {
    /// Id of the target.
    pub target: String,
    /// Its name.
    pub name: String,
    /// Tokens a second for one reader at most: the weights are read once for each token, and no memory is faster than its
    /// data sheet.
    pub most_tokens_per_second: f64,
}

/// One entry per built-in target; none for image models, which wait for arithmetic and not for memory.
/// Errors: a built-in target that does not parse.
pub(super) fn predict(card: &ModelCard, weights: &QuantizedWeights) -> Result<Vec<TargetSpeed>, SessionError> {
    if !card.is_language_model() {
        return Ok(Vec::new());
    }
    let bytes = bytes_per_token(weights);
    let speed = |target: TargetPreset| TargetSpeed {
        most_tokens_per_second: target.memory_bandwidth as f64 / bytes.max(1) as f64,
        target: target.id,
        name: target.name,
    };
    Ok(TargetPreset::all()?.into_iter().map(speed).collect())
}

/// Bytes read for one token: everything but the rows of embeddings that are looked up, unless the token embedding is the
/// head, too.
fn bytes_per_token(weights: &QuantizedWeights) -> u64 {
    let is_of = |kind| move |plan: &&crate::quant::TensorPlan| plan.kind == kind;
    let plans = || weights.tensors().iter().map(|tensor| &tensor.plan);
    let is_tied = plans().find(is_of(TensorKind::Head)).is_none();
    // The token embedding is the first, positions follow.
    let head = plans().find(is_of(TensorKind::Embedding)).filter(|_| is_tied);
    weights
        .tensors()
        .iter()
        .filter(|tensor| {
            tensor.plan.kind != TensorKind::Embedding || head.is_some_and(|head| head.name == tensor.plan.name)
        })
        .map(crate::quant::QuantizedTensor::num_bytes)
        .sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::*;
    use crate::models::{Init, Params, TensorSpec};
    use crate::quant::{QuantScheme, quantize};

    #[test]
    fn lookups_are_not_read_and_a_tied_head_is() {
        let spec = |name: &str, rows, kind| TensorSpec {
            name: name.to_owned(),
            shape: vec![rows, 10],
            kind,
            init: Init::Constant(0.0),
        };
        let tied = vec![
            spec("tokens", 100, TensorKind::Embedding),
            spec("positions", 50, TensorKind::Embedding),
            spec("matrix", 4, TensorKind::Matrix),
        ];
        let bytes = |specs: &[TensorSpec]| {
            let zeros = |spec: &TensorSpec| {
                (spec.name.clone(), Tensor::zeros(spec.shape.as_slice(), DType::F32, &Device::Cpu).unwrap())
            };
            let weights: Params = specs.iter().map(zeros).collect();
            bytes_per_token(&quantize(specs, &weights, QuantScheme::F16).unwrap())
        };
        assert_eq!(bytes(&tied), 2 * (1000 + 40));
        let mut untied = tied;
        untied.push(spec("head", 100, TensorKind::Head));
        assert_eq!(bytes(&untied), 2 * (1000 + 40));
    }
}
