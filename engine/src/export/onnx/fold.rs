//! Weights of a layer as its ONNX node takes them, checked, with batch norm folded in.

use candle_core::DType;

use crate::export::ExportError;
use crate::models::{BATCH_NORM_EPS, Network, Params};
use crate::quant::QuantError;

/// A tensor of floats. Without numbers when the graph is composed from shapes alone.
#[derive(Debug, Clone)]
pub(super) struct Floats {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// A layer's weight (out, in...) and bias (out).
#[derive(Debug, Clone)]
pub(super) struct Folded {
    pub weight: Floats,
    pub bias: Floats,
}

/// Where the tensors of a graph come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    /// A checkpoint.
    Weights(&'a Params),
    /// Their shapes alone, to know sizes beforehand.
    Shapes(&'a Network),
}

impl Source<'_> {
    /// The tensor called `name`. Errors: it is not there, or holds what is no number.
    pub(super) fn read(&self, name: &str) -> Result<Floats, ExportError> {
        match self {
            Self::Weights(params) => {
                let tensor = params.get(name)?;
                let values: Vec<f32> = tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?;
                if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                    return Err(not_finite(name, &values, index));
                }
                Ok(Floats { shape: tensor.dims().to_vec(), values })
            }
            Self::Shapes(network) => {
                let spec = network.specs().into_iter().find(|spec| spec.name == name);
                let missing = || crate::models::ModelError::MissingTensor { name: name.to_owned() };
                Ok(Floats { shape: spec.ok_or_else(missing)?.shape, values: Vec::new() })
            }
        }
    }
}

/// The convolution `layer` with its batch norm: w·γ/√(σ² + ε), and β - μ·γ/√(σ² + ε).
/// Errors: a tensor that is missing or not finite; a negative variance; a product that no float holds.
pub(super) fn fold_norm(source: &Source<'_>, layer: &str) -> Result<Folded, ExportError> {
    let weight_name = format!("{layer}.convolution.weight");
    let mut weight = source.read(&weight_name)?;
    let norm = |suffix: &str| source.read(&format!("{layer}.normalization.{suffix}"));
    let (gain, shift, mean, var) = (norm("weight")?, norm("bias")?, norm("running_mean")?, norm("running_var")?);
    if let Some(index) = var.values.iter().position(|var| *var < 0.0) {
        return Err(ExportError::Runtime {
            tried: "folding batch norm into a convolution",
            what: format!(
                "{:?}: expected variances of at least 0, found {} at index {index}",
                format!("{layer}.normalization.running_var"),
                var.values.get(index).copied().unwrap_or(f32::NAN)
            ),
        });
    }
    let scales: Vec<f64> = gain
        .values
        .iter()
        .zip(&var.values)
        .map(|(gain, var)| f64::from(*gain) / (f64::from(*var) + BATCH_NORM_EPS).sqrt())
        .collect();
    let row_len: usize = weight.shape.iter().skip(1).product::<usize>().max(1);
    for (row, scale) in weight.values.chunks_mut(row_len).zip(&scales) {
        row.iter_mut().for_each(|weight| *weight = (f64::from(*weight) * scale) as f32);
    }
    let parts = scales.iter().zip(&shift.values).zip(&mean.values);
    let bias: Vec<f32> =
        parts.map(|((scale, shift), mean)| (f64::from(*shift) - f64::from(*mean) * scale) as f32).collect();
    for (name, values) in [(&weight_name, &weight.values), (&format!("{layer}.normalization.bias"), &bias)] {
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(not_finite(name, values, index));
        }
    }
    Ok(Folded { bias: Floats { shape: shift.shape, values: bias }, weight })
}

fn not_finite(name: &str, values: &[f32], index: usize) -> ExportError {
    let found = values.get(index).copied().unwrap_or(f32::NAN);
    QuantError::NotFinite { tensor: name.to_owned(), found, index }.into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    fn params(var: [f32; 2]) -> Params {
        let vector = |values: [f32; 2]| Tensor::new(&values, &Device::Cpu).unwrap();
        let weight = Tensor::new(&[1_f32, 2.0, 3.0, 4.0], &Device::Cpu).unwrap().reshape((2, 2, 1, 1)).unwrap();
        let named = [
            ("l.convolution.weight", weight),
            ("l.normalization.weight", vector([2.0, -1.0])),
            ("l.normalization.bias", vector([0.5, 0.25])),
            ("l.normalization.running_mean", vector([1.0, 2.0])),
            ("l.normalization.running_var", vector(var)),
        ];
        named.map(|(name, tensor)| (name.to_owned(), tensor)).into_iter().collect()
    }

    #[test]
    fn folding_is_what_normalizing_afterwards_is() {
        // Variances whose roots with ε are 2 and 1.
        let params = params([4.0 - 1e-5, 1.0 - 1e-5]);
        let folded = fold_norm(&Source::Weights(&params), "l").unwrap();
        let near = |found: &[f32], wanted: &[f32]| found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(near(&folded.weight.values, &[1.0, 2.0, -3.0, -4.0]), "{:?}", folded.weight);
        assert!(near(&folded.bias.values, &[-0.5, 2.25]), "{:?}", folded.bias);
    }

    #[test]
    fn a_negative_variance_and_an_overflow_are_named() {
        let error = fold_norm(&Source::Weights(&params([1.0, -0.5])), "l").unwrap_err().to_string();
        assert!(error.contains("l.normalization.running_var") && error.contains("-0.5"), "{error}");
        let mut large = params([0.0, 0.0]);
        large.insert("l.convolution.weight", Tensor::full(3e38_f32, (2, 2, 1, 1), &Device::Cpu).unwrap());
        let error = fold_norm(&Source::Weights(&large), "l").unwrap_err().to_string();
        assert!(error.contains("l.convolution.weight") && error.contains("inf"), "{error}");
    }
}
