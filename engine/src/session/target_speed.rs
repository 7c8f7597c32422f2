//! How fast a stored language model can generate on each target, predicted from what it has to read.

use serde::{Deserialize, Serialize};

use super::SessionError;
use crate::export::{ModelCard, TargetPreset};
use crate::models::TensorKind;
use crate::quant::{QuantizedWeights, TensorPlan};

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

/// One entry per built-in target; none for image models.
/// Errors: a built-in target that does not parse.
pub(super) fn predict(card: &ModelCard, weights: &QuantizedWeights) -> Result<Vec<TargetSpeed>, SessionError> {
    let plans: Vec<&TensorPlan> = weights.tensors().iter().map(|tensor| &tensor.plan).collect();
    let speed = |target: TargetPreset| {
        let most_tokens_per_second = most_tokens_per_second(card, &plans, &target)?;
        Some(TargetSpeed { target: target.id, name: target.name, most_tokens_per_second })
    };
    Ok(TargetPreset::all()?.into_iter().filter_map(speed).collect())
}

/// Tokens a second for one reader on `target` at most, of weights stored as `plans` say; `None` for image models, which
/// wait for arithmetic and not for memory.
pub(super) fn most_tokens_per_second(card: &ModelCard, plans: &[&TensorPlan], target: &TargetPreset) -> Option<f64> {
    card.is_language_model().then(|| target.memory_bandwidth as f64 / bytes_per_token(plans).max(1) as f64)
}

/// Bytes read for one token: everything but the rows of embeddings that are looked up, unless the token embedding is the
/// head, too.
fn bytes_per_token(plans: &[&TensorPlan]) -> u64 {
    let first_of = |kind| plans.iter().find(|plan| plan.kind == kind);
    // The token embedding is the first, positions follow.
    let head = first_of(TensorKind::Embedding).filter(|_| first_of(TensorKind::Head).is_none());
    let is_read =
        |plan: &&&TensorPlan| plan.kind != TensorKind::Embedding || head.is_some_and(|head| head.name == plan.name);
    plans.iter().filter(is_read).map(|plan| plan.num_bytes()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Init, TensorSpec};
    use crate::quant::{Container, QuantScheme, plan};

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
            let plans = plan(specs, QuantScheme::F16, Container::Safetensors);
            bytes_per_token(&plans.iter().collect::<Vec<_>>())
        };
        assert_eq!(bytes(&tied), 2 * (1000 + 40));
        let mut untied = tied;
        untied.push(spec("head", 100, TensorKind::Head));
        assert_eq!(bytes(&untied), 2 * (1000 + 40));
    }
}
