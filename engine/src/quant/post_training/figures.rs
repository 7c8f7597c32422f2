//! What quantization did, tensor by tensor, and the advice that follows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::OutputError;
use crate::quant::{QuantError, QuantScheme, QuantizedWeights, Storage};

/// What quantization did to one tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerFigures {
    /// Its name, as in the checkpoint.
    pub name: String,
    /// How it is stored: "INT8", "TQ2_0".
    pub storage: String,
    /// Numbers in it.
    pub num_weights: u64,
    /// Bytes as stored, scales included.
    pub bytes: u64,
    /// ‖stored - trained‖₂ / ‖trained‖₂.
    pub weight_error: f64,
    /// Share of the stored numbers that are 0.
    pub zero_share: f64,
    /// ‖x(stored - trained)‖ / ‖x · trained‖ over the calibration set, each weight rounded by itself; `None` where the
    /// layer was not calibrated.
    #[serde(default)]
    pub nearest_output_error: Option<f64>,
    /// The same as stored.
    #[serde(default)]
    pub output_error: Option<f64>,
    /// By how much the loss grows when this tensor alone is quantized, nats per image or token; `None` where it was not
    /// measured. Negative ones are noise, or luck.
    #[serde(default)]
    pub loss_increase: Option<f64>,
}

/// Of how few inputs a layer's second moments are known too badly to rely on: rows per input.
const FEW_ROWS_PER_INPUT: f64 = 1.0;
/// Layers that are named.
const NUM_WORST: usize = 3;
/// Loss that one layer may cost before there is advice about it, nats.
const NOTABLE_LOSS: f64 = 0.002;
/// Share of a layer's outputs that may be lost before there is advice about it.
const NOTABLE_ERROR: f64 = 0.2;

/// One entry for each tensor that is not stored as it was, in the network's order. `loss_increases` by name.
/// Errors: packed bytes that do not unpack.
pub fn layer_figures(
    weights: &QuantizedWeights,
    output_errors: &BTreeMap<String, OutputError>,
    loss_increases: &BTreeMap<String, f64>,
) -> Result<Vec<LayerFigures>, QuantError> {
    let changed = weights.tensors().iter().filter(|tensor| tensor.plan.storage != Storage::F32);
    let figures = changed.map(|tensor| {
        let name = tensor.plan.name.clone();
        let outputs = output_errors.get(&name);
        Ok(LayerFigures {
            storage: tensor.plan.storage.label().to_owned(),
            num_weights: tensor.plan.num_weights() as u64,
            bytes: tensor.num_bytes(),
            weight_error: tensor.relative_error,
            nearest_output_error: outputs.map(|error| error.nearest),
            output_error: outputs.map(|error| error.stored),
            loss_increase: loss_increases.get(&name).copied(),
            zero_share: tensor.zero_share()?,
            name,
        })
    });
    figures.collect()
}

/// Layers that read fewer rows of the calibration set than they have inputs, in words; `None` when there are none.
#[must_use]
pub fn small_calibration_note(output_errors: &BTreeMap<String, OutputError>) -> Option<String> {
    let is_small = |error: &OutputError| (error.num_rows as f64) < FEW_ROWS_PER_INPUT * error.num_inputs as f64;
    let small: Vec<_> = output_errors.iter().filter(|(_, error)| is_small(error)).collect();
    let (name, error) = small.iter().max_by_key(|(_, error)| error.num_inputs)?;
    let others = match small.len() - 1 {
        0 => String::new(),
        1 => " and one other layer".to_owned(),
        more => format!(" and {more} other layers"),
    };
    Some(format!(
        "The calibration set is small: {name} has {} inputs and read {} rows{others}. Calibrate on more samples, so \
         that what the layers read is known and not guessed",
        error.num_inputs, error.num_rows
    ))
}

/// The worst layers, worst first, and what to do about them; empty where none is notable.
#[must_use]
pub fn layer_advice(layers: &[LayerFigures], scheme: QuantScheme) -> Vec<String> {
    let measured = |layer: &&LayerFigures| layer.loss_increase.is_some_and(|loss| loss > NOTABLE_LOSS || loss.is_nan());
    let mut worst: Vec<&LayerFigures> = layers.iter().filter(measured).collect();
    let by_loss = |layer: &LayerFigures| layer.loss_increase.filter(|loss| !loss.is_nan()).unwrap_or(f64::INFINITY);
    worst.sort_by(|a, b| by_loss(b).total_cmp(&by_loss(a)));
    let named: Vec<String> = if worst.is_empty() && layers.iter().all(|layer| layer.loss_increase.is_none()) {
        let lossy = |layer: &&LayerFigures| layer.output_error.is_some_and(|error| error > NOTABLE_ERROR);
        worst = layers.iter().filter(lossy).collect();
        worst.sort_by(|a, b| b.output_error.unwrap_or(0.0).total_cmp(&a.output_error.unwrap_or(0.0)));
        let text = |layer: &&LayerFigures| {
            format!("{} ({:.0}% of its outputs)", layer.name, layer.output_error.unwrap_or(0.0) * 100.0)
        };
        worst.iter().take(NUM_WORST).map(text).collect()
    } else {
        let text = |layer: &&LayerFigures| {
            format!("{} ({:+.4} nats by itself)", layer.name, layer.loss_increase.unwrap_or(f64::NAN))
        };
        worst.iter().take(NUM_WORST).map(text).collect()
    };
    if named.is_empty() {
        return Vec::new();
    }
    let advice = match scheme {
        QuantScheme::Ternary | QuantScheme::TernaryBase3 => {
            "Train with this scheme in the loop (quantization-aware), or take int8; mixed precision within a budget of bits \
             gives these layers more of them first"
        }
        QuantScheme::Int4 | QuantScheme::Int4K => {
            "Keep these in int8: mixed precision within a budget of bits does so, worst first"
        }
        QuantScheme::Int8 => "Keep these in a float type: mixed precision within a budget of bits does so, worst first",
        QuantScheme::F32 | QuantScheme::F16 | QuantScheme::Bf16 => "Take f32",
    };
    vec![format!("Worst layers: {}. {advice}", named.join(", "))]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, output_error: Option<f64>, loss_increase: Option<f64>) -> LayerFigures {
        LayerFigures {
            name: name.to_owned(),
            storage: "TQ2_0".to_owned(),
            num_weights: 10,
            bytes: 4,
            weight_error: 0.5,
            zero_share: 0.0,
            nearest_output_error: output_error,
            output_error,
            loss_increase,
        }
    }

    #[test]
    fn the_worst_are_named_by_what_was_measured() {
        let layers = [
            layer("a", Some(0.9), Some(0.01)),
            layer("b", Some(0.1), Some(0.5)),
            layer("c", None, Some(0.0)),
            layer("d", None, Some(-0.1)),
        ];
        let advice = layer_advice(&layers, QuantScheme::Ternary);
        assert!(advice[0].starts_with("Worst layers: b (+0.5000 nats by itself), a (+0.0100"), "{advice:?}");
        assert!(!advice[0].contains("c (") && advice[0].contains("int8"), "{advice:?}");
        assert!(!advice[0].contains("--"), "the window shows it, too: {advice:?}");
        let unmeasured = [layer("a", Some(0.3), None), layer("b", Some(0.1), None)];
        let advice = layer_advice(&unmeasured, QuantScheme::Int8);
        assert!(advice[0].starts_with("Worst layers: a (30% of its outputs). Keep"), "{advice:?}");
        assert!(layer_advice(&[layer("a", Some(0.9), Some(0.0))], QuantScheme::Ternary).is_empty());
        assert!(layer_advice(&[], QuantScheme::Int8).is_empty());
        let diverged = [layer("a", None, Some(0.3)), layer("b", None, Some(f64::NAN))];
        assert!(layer_advice(&diverged, QuantScheme::Int8)[0].starts_with("Worst layers: b (NaN"));
    }

    #[test]
    fn a_set_with_fewer_rows_than_inputs_is_told() {
        let error = |num_rows, num_inputs| OutputError { nearest: 0.1, stored: 0.1, num_rows, num_inputs };
        let mut errors = BTreeMap::from([("a".to_owned(), error(100, 64))]);
        assert_eq!(small_calibration_note(&errors), None);
        errors.insert("b".to_owned(), error(100, 128));
        errors.insert("c".to_owned(), error(100, 3136));
        let note = small_calibration_note(&errors).unwrap_or_default();
        assert!(note.contains("c has 3136 inputs and read 100 rows and one other layer"), "{note}");
    }
}
