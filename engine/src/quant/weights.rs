//! A checkpoint's weights as they will be stored, with the price of it.

use rayon::prelude::*;

use super::plan::{Container, Storage, TensorPlan, plan};
use super::tensor::{QuantizedTensor, quantize_tensor};
use super::{PostTraining, QuantError, QuantScheme};
use crate::device::Watch;
use crate::models::{Block, ModelError, Params, TensorSpec};

/// All tensors of a network, stored.
#[derive(Debug, Clone)]
pub struct QuantizedWeights {
    scheme: QuantScheme,
    container: Container,
    tensors: Vec<QuantizedTensor>,
}

impl QuantizedWeights {
    /// `tensors` in the network's order.
    pub(super) fn new(scheme: QuantScheme, container: Container, tensors: Vec<QuantizedTensor>) -> Self {
        Self { scheme, container, tensors }
    }

    /// The scheme asked for.
    #[must_use]
    pub fn scheme(&self) -> QuantScheme {
        self.scheme
    }

    /// The container it is meant for.
    #[must_use]
    pub fn container(&self) -> Container {
        self.container
    }

    /// Tensors in the network's order.
    #[must_use]
    pub fn tensors(&self) -> &[QuantizedTensor] {
        &self.tensors
    }

    /// The tensor called `name`, by the checkpoint.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&QuantizedTensor> {
        self.tensors.iter().find(|tensor| tensor.plan.name == name)
    }

    /// Puts the tensors of `others` in the places of those of their names.
    pub fn replace(&mut self, others: Self) {
        for tensor in others.tensors {
            if let Some(place) = self.tensors.iter_mut().find(|place| place.plan.name == tensor.plan.name) {
                *place = tensor;
            }
        }
    }

    /// What a runtime computes with: f32, names and layout of the checkpoint, on the CPU.
    pub fn dequantized(&self) -> Result<Params, QuantError> {
        let named = |tensor: &QuantizedTensor| Ok((tensor.plan.name.clone(), tensor.dequantized()?));
        let tensors: Result<Vec<_>, QuantError> = self.tensors.par_iter().map(named).collect();
        Ok(tensors?.into_iter().collect())
    }

    /// [`Self::dequantized`] of what one block of the network reads.
    /// Errors: [`QuantError`] for a tensor that is not there or does not unpack.
    pub fn dequantized_for(&self, block: &dyn Block) -> Result<Params, QuantError> {
        let names: Vec<String> = block.specs().into_iter().map(|spec| spec.name).chain(block.borrows()).collect();
        let named = |name: String| {
            let Some(stored) = self.find(&name) else { return Err(ModelError::MissingTensor { name }.into()) };
            let tensor = stored.dequantized()?;
            Ok((name, tensor))
        };
        let tensors: Result<Vec<_>, QuantError> = names.into_par_iter().map(named).collect();
        Ok(tensors?.into_iter().collect())
    }

    /// Bytes of all tensors, scales included, file headers left out.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(QuantizedTensor::num_bytes).sum()
    }

    /// Numbers in all tensors, buffers included.
    #[must_use]
    pub fn num_weights(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.plan.num_weights() as u64).sum()
    }

    /// Bits per number over *all* tensors: embeddings, biases, scales and padding count.
    #[must_use]
    pub fn bits_per_weight(&self) -> f64 {
        self.bytes() as f64 * 8.0 / self.num_weights().max(1) as f64
    }

    /// Relative L2 error of each tensor that is not stored as it was, in the network's order.
    #[must_use]
    pub fn tensor_errors(&self) -> Vec<(String, f64)> {
        let changed = self.tensors.iter().filter(|tensor| tensor.plan.storage != Storage::F32);
        changed.map(|tensor| (tensor.plan.name.clone(), tensor.relative_error)).collect()
    }
}

/// Stores `weights` by `scheme`, for a safetensors package; `specs` are the network's.
///
/// Errors: [`QuantError::NotFinite`] naming the tensor; [`QuantError::Range`]; a tensor missing or of another shape.
pub fn quantize(specs: &[TensorSpec], weights: &Params, scheme: QuantScheme) -> Result<QuantizedWeights, QuantError> {
    quantize_for(specs, weights, scheme, Container::Safetensors, crate::unwatched!())
}

/// [`quantize`] for a container, with progress and cancel.
pub fn quantize_for(
    specs: &[TensorSpec],
    weights: &Params,
    scheme: QuantScheme,
    container: Container,
    watch: Watch<'_>,
) -> Result<QuantizedWeights, QuantError> {
    quantize_planned(weights, (scheme, container, plan(specs, scheme, container)), &PostTraining::default(), watch)
}

/// [`quantize_for`] with a storage per tensor, in the network's order, and without a calibration: of `options`, what
/// concerns the rounding of single numbers counts.
pub fn quantize_planned(
    weights: &Params,
    (scheme, container, plans): (QuantScheme, Container, Vec<TensorPlan>),
    options: &PostTraining,
    watch: Watch<'_>,
) -> Result<QuantizedWeights, QuantError> {
    let total = plans.iter().map(|plan| plan.num_weights() as u64).sum();
    let done = std::sync::atomic::AtomicU64::new(0);
    let tensors = plans
        .into_par_iter()
        .map(|plan| {
            let count = plan.num_weights() as u64;
            let tensor = quantize_tensor(plan.clone(), weights.get(&plan.name)?, options)?;
            let done = done.fetch_add(count, std::sync::atomic::Ordering::Relaxed) + count;
            watch.step("quantizing", done, Some(total))?;
            Ok(tensor)
        })
        .collect::<Result<Vec<_>, QuantError>>()?;
    Ok(QuantizedWeights { scheme, container, tensors })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use candle_core::{Device, Tensor};
    use proptest::prelude::*;

    use super::*;
    use crate::models::{Init, TensorKind};
    use crate::quant::TensorData;

    fn spec(name: &str, shape: &[usize], kind: TensorKind) -> TensorSpec {
        TensorSpec { name: name.to_owned(), shape: shape.to_vec(), kind, init: Init::Constant(0.0) }
    }

    /// An embedding, so that no layer counts as the first of an image model; then one matrix.
    fn pair(shape: &[usize], values: Vec<f32>) -> (Vec<TensorSpec>, Params) {
        let specs = vec![
            spec("wte", &[2, 2], TensorKind::Embedding),
            spec("h.0.attn.c_attn.weight", shape, TensorKind::Matrix),
        ];
        let embedding = Tensor::new(&[[0.5_f32, 1.0], [2.0, 4.0]], &Device::Cpu).unwrap();
        let matrix = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
        let weights = [("wte".to_owned(), embedding), ("h.0.attn.c_attn.weight".to_owned(), matrix)];
        (specs, weights.into_iter().collect())
    }

    #[test]
    fn conv1d_scales_belong_to_outputs_and_the_layout_comes_back() {
        // (in 2, out 3): output 0 reads [1, 127], output 1 [-254, 2], output 2 [0, 0].
        let (specs, weights) = pair(&[2, 3], vec![1.0, -254.0, 0.0, 127.0, 2.0, 0.0]);
        let quantized = quantize(&specs, &weights, QuantScheme::Int8).unwrap();
        let TensorData::Int8 { codes, scales } = &quantized.tensors()[1].data else { panic!("int8 expected") };
        assert_eq!((codes.as_slice(), scales.as_slice()), (&[1, 127, -127, 1, 0, 0][..], &[1.0, 2.0, 0.0][..]));
        let back = quantized.dequantized().unwrap();
        let back = back.get("h.0.attn.c_attn.weight").unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(back, [[1.0, -254.0, 0.0], [127.0, 2.0, 0.0]]);
        assert_eq!(quantized.bytes(), 8 + 6 + 12);
        assert!((quantized.bits_per_weight() - 26.0 * 8.0 / 10.0).abs() < 1e-12);
        assert_eq!(quantized.tensor_errors().len(), 2);
    }

    #[test]
    fn ternary_keeps_three_values_and_two_bits() {
        let values: Vec<f32> = (0..512).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
        let (specs, weights) = pair(&[2, 256], values);
        let quantized = quantize(&specs, &weights, QuantScheme::Ternary).unwrap();
        let TensorData::Ternary { blocks, .. } = &quantized.tensors()[1].data else { panic!("ternary expected") };
        assert_eq!(blocks.len(), 2 * 66);
        let back = quantized.dequantized().unwrap();
        let back = back.get("h.0.attn.c_attn.weight").unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let scale = back.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
        assert!(scale > 0.0 && back.iter().all(|v| *v == 0.0 || v.abs() == scale));
        assert!(back.contains(&scale) && back.contains(&-scale) && back.contains(&0.0));
        let error = quantized.tensors()[1].relative_error;
        assert!(error > 0.1 && error < 0.7, "{error}");
    }

    #[test]
    fn gguf_int8_is_q8_0() {
        let values: Vec<f32> = (0..128).map(|i| i as f32 / 7.0).collect();
        let (specs, weights) = pair(&[64, 2], values);
        let quantized =
            quantize_for(&specs, &weights, QuantScheme::Int8, Container::Gguf, crate::unwatched!()).unwrap();
        let tensor = &quantized.tensors()[1];
        let TensorData::Q8 { blocks } = &tensor.data else { panic!("q8_0 expected") };
        assert_eq!(blocks.len(), 4 * 34);
        assert!(tensor.relative_error < 0.005, "{}", tensor.relative_error);
    }

    #[test]
    fn int4_rows_are_padded_to_blocks_and_come_back() {
        // (in 40, out 3): rows of 40 take two blocks each, whose second holds 24 zeros.
        let values: Vec<f32> = (0..120).map(|i| (i as f32 * 0.7).sin()).collect();
        let (specs, weights) = pair(&[40, 3], values.clone());
        let quantized = quantize(&specs, &weights, QuantScheme::Int4).unwrap();
        let tensor = &quantized.tensors()[1];
        let TensorData::Q4 { blocks } = &tensor.data else { panic!("q4_0 expected") };
        assert_eq!(blocks.len(), 3 * 2 * 18);
        assert!(tensor.relative_error > 0.001 && tensor.relative_error < 0.1, "{}", tensor.relative_error);
        let back = quantized.dequantized().unwrap();
        let back = back.get("h.0.attn.c_attn.weight").unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        // A step is an eighth of the largest magnitude; the far end may be a whole one off.
        assert!(values.iter().zip(back).all(|(w, back)| (w - back).abs() <= 0.126));
    }

    #[test]
    fn both_ternary_packings_hold_the_same_numbers() {
        let values: Vec<f32> = (0..512).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
        let (specs, weights) = pair(&[2, 256], values);
        let [two_bits, base3] = [QuantScheme::Ternary, QuantScheme::TernaryBase3]
            .map(|scheme| quantize(&specs, &weights, scheme).unwrap().tensors()[1].clone());
        assert_eq!((two_bits.num_bytes(), base3.num_bytes()), (132, 108));
        assert_eq!(two_bits.output_major_values().unwrap(), base3.output_major_values().unwrap());
    }

    #[test]
    fn a_cancelled_quantization_says_that_it_was_cancelled() {
        let (specs, weights) = pair(&[2, 2], vec![1.0; 4]);
        let cancel = crate::device::CancelFlag::default();
        cancel.set();
        let ignore = |_: crate::device::Progress| {};
        let watch = Watch::new(&cancel, &ignore);
        let stopped = quantize_for(&specs, &weights, QuantScheme::Int8, Container::Safetensors, watch);
        assert!(matches!(stopped, Err(QuantError::Cancelled(_))));
    }

    #[test]
    fn nan_names_its_tensor() {
        for scheme in QuantScheme::ALL {
            let (specs, weights) = pair(&[2, 2], vec![1.0, f32::NAN, 0.0, 1.0]);
            let error = quantize(&specs, &weights, scheme).unwrap_err().to_string();
            assert!(error.contains("c_attn") && error.contains("index 1"), "{error}");
        }
    }

    #[test]
    fn half_precision_refuses_what_it_cannot_hold() {
        let (specs, weights) = pair(&[2, 2], vec![1.0, 1e6, 0.0, 1.0]);
        assert!(matches!(quantize(&specs, &weights, QuantScheme::F16), Err(QuantError::Range { .. })));
        assert!(quantize(&specs, &weights, QuantScheme::Bf16).is_ok());
    }

    #[test]
    fn wrong_shapes_and_missing_tensors_are_errors() {
        let (mut specs, weights) = pair(&[2, 2], vec![1.0; 4]);
        specs[1].shape = vec![4, 1];
        assert!(matches!(quantize(&specs, &weights, QuantScheme::Int8), Err(QuantError::Model(_))));
        specs[1].name = "other".to_owned();
        assert!(matches!(quantize(&specs, &weights, QuantScheme::Int8), Err(QuantError::Model(_))));
    }

    proptest! {
        #[test]
        fn int8_is_within_half_a_step(values in prop::collection::vec(-5.0_f32..5.0, 24)) {
            let (specs, weights) = pair(&[4, 6], values.clone());
            let quantized = quantize(&specs, &weights, QuantScheme::Int8).unwrap();
            let back = quantized.dequantized().unwrap();
            let back = back.get("h.0.attn.c_attn.weight").unwrap().to_vec2::<f32>().unwrap();
            for out in 0..6 {
                let column: Vec<f32> = (0..4).map(|i| values[i * 6 + out]).collect();
                let step = column.iter().fold(0.0_f32, |m, v| m.max(v.abs())) / 127.0;
                for i in 0..4 {
                    prop_assert!((back[i][out] - column[i]).abs() <= step * 0.5001 + 1e-12);
                }
            }
        }

        #[test]
        fn planned_bytes_are_the_real_ones(rows in 1_usize..40, columns in 1_usize..300) {
            let (specs, weights) = pair(&[rows, columns], vec![0.25; rows * columns]);
            for scheme in QuantScheme::ALL {
                for container in [Container::Safetensors, Container::Transformers, Container::Gguf] {
                    let planned: u64 = plan(&specs, scheme, container).iter().map(TensorPlan::num_bytes).sum();
                    let real = quantize_for(&specs, &weights, scheme, container, crate::unwatched!()).unwrap().bytes();
                    prop_assert_eq!(planned, real);
                }
            }
        }
    }
}
