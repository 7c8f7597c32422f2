//! Quantization-aware training: when weights are quantized, how strongly, and what a forward pass reads then.
//!
//! The optimizer goes on moving full-precision *latent* weights `w`. A forward pass computes with
//! `w + s · (q(w) - w)`, where `s` is the strength of the step and `q` stores and restores a tensor exactly as an export
//! into safetensors does; the difference counts as constant, so that the gradient passes straight through to `w`
//! (Bengio et al. 2013, arXiv 1308.3432, section 4). Full precision first and then the switch, with the optimizer's
//! state kept: Nielsen et al. 2025, arXiv 2502.11895, section 4.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::plan::{Container, Storage, TensorPlan, plan};
use super::tensor::restored;
use super::{QuantError, QuantScheme};
use crate::models::ops::Activations;
use crate::models::{ParamStore, Params, TensorSpec};

/// Learning from the network as it was before the switch, beside the data.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distillation {
    /// Share of the teacher in what is minimized: (1 - weight) · cross entropy + weight · [`distillation_loss`].
    ///
    /// [`distillation_loss`]: crate::models::ops::distillation_loss
    pub weight: f64,
    /// Temperature of both networks' answers.
    pub temperature: f64,
}

impl Distillation {
    /// Half from the data, half from the teacher, at a temperature of 2.
    pub const DEFAULT: Self = Self { weight: 0.5, temperature: 2.0 };
}

/// A factor that changes nothing.
fn unchanged() -> f64 {
    1.0
}

/// Settings of quantization-aware training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QatConfig {
    /// What the weights are trained for.
    pub scheme: QuantScheme,
    /// Share of the run in full precision before the switch; 0 quantizes from the first step.
    pub start_fraction: f64,
    /// Share of the run over which the strength rises from 0 to 1 after that; 0 switches at once.
    pub ramp_fraction: f64,
    /// How matrices whose weights become integers read their inputs from the switch on, at once whatever the ramp.
    /// foretrain-edge rounds them to 8 bits. Runs of earlier versions trained with floats.
    #[serde(default)]
    pub activations: Activations,
    /// The learning rate is multiplied by this once the strength is 1, and by as much less as the strength is before.
    /// Runs of earlier versions kept their rate.
    #[serde(default = "unchanged")]
    pub learning_rate_factor: f64,
    /// From the switch on the full-precision weights of just before it teach, where this is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distillation: Option<Distillation>,
}

impl QatConfig {
    /// Schemes that there is something to train for: the float types lose too little.
    pub const SCHEMES: [QuantScheme; 3] = [QuantScheme::Int8, QuantScheme::Int4, QuantScheme::Ternary];

    /// The settings that suit a new run: its first part in full precision, then the switch.
    ///
    /// Four and eight bits come at once. Three values come along a ramp, and at a higher rate than full precision: a weight
    /// takes another of them only after it has moved far (Ma et al. 2024, arXiv 2402.17764). docs/quantization.md has our
    /// figures.
    #[must_use]
    pub fn new(scheme: QuantScheme) -> Self {
        let (start_fraction, ramp_fraction, learning_rate_factor) = match scheme {
            QuantScheme::Ternary => (0.2, 0.3, 3.0),
            _ => (0.3, 0.0, unchanged()),
        };
        let activations = Activations::Int8;
        Self { scheme, start_fraction, ramp_fraction, activations, learning_rate_factor, distillation: None }
    }

    /// The settings that suit weights learned before: quantized from the first step, at the rate that is given for it.
    #[must_use]
    pub fn fine_tuning(scheme: QuantScheme) -> Self {
        Self { start_fraction: 0.0, ramp_fraction: 0.0, learning_rate_factor: unchanged(), ..Self::new(scheme) }
    }

    /// With another start and another ramp, where they are given. What is not given makes room: a ramp ends with the run.
    #[must_use]
    pub fn with_times(self, start: Option<f64>, ramp: Option<f64>) -> Self {
        let latest_start = ramp.map_or(1.0, |ramp| (1.0 - ramp).max(0.0));
        let start_fraction = start.unwrap_or_else(|| self.start_fraction.min(latest_start));
        let ramp_fraction = ramp.unwrap_or_else(|| self.ramp_fraction.min(1.0 - start_fraction));
        Self { start_fraction, ramp_fraction, ..self }
    }

    /// Errors: [`QuantError::Training`] for a scheme that is not trained for, or a number out of its range.
    pub fn check(&self) -> Result<(), QuantError> {
        let refuse = |setting, expected: &str, found: String| {
            Err(QuantError::Training { setting, expected: expected.to_owned(), found })
        };
        if !Self::SCHEMES.contains(&self.scheme) {
            let known = Self::SCHEMES.map(QuantScheme::label).join(", ");
            return refuse("scheme", &known, self.scheme.label().to_owned());
        }
        let (start, ramp) = (self.start_fraction, self.ramp_fraction);
        if !(0.0..1.0).contains(&start) {
            return refuse("start", "a share of the run, 0 to below 1", start.to_string());
        }
        if !((0.0..=1.0).contains(&ramp) && start + ramp <= 1.0) {
            let found = format!("{ramp} after a start at {start}");
            return refuse("ramp", "a share of the run that ends within it, after the start", found);
        }
        if !(self.learning_rate_factor > 0.0 && self.learning_rate_factor.is_finite()) {
            return refuse("learning rate's factor", "a number above 0", self.learning_rate_factor.to_string());
        }
        if let Some(Distillation { weight, temperature }) = self.distillation {
            if !(weight > 0.0 && weight <= 1.0) {
                return refuse("teacher's weight", "above 0, at most 1", weight.to_string());
            }
            if !(temperature > 0.0 && temperature.is_finite()) {
                return refuse("teacher's temperature", "a number above 0", temperature.to_string());
            }
        }
        Ok(())
    }

    /// What the learning rate is multiplied by where quantization is this strong.
    #[must_use]
    pub fn learning_rate_factor_at(&self, strength: f64) -> f64 {
        1.0 + strength * (self.learning_rate_factor - 1.0)
    }

    /// Strength of step `step`, from 1, of a run of `num_steps`: 0 before the switch, 1 at the ramp's end and after.
    #[must_use]
    pub fn strength(&self, step: u64, num_steps: u64) -> f64 {
        let start = self.start_fraction * num_steps as f64;
        let ramp = self.ramp_fraction * num_steps as f64;
        let into = step as f64 - start.floor();
        if into <= 0.0 {
            0.0
        } else if into >= ramp {
            1.0
        } else {
            into / ramp
        }
    }
}

/// Quantizes the weights of one network as a package would store them.
#[derive(Debug, Clone)]
pub struct FakeQuantizer {
    /// Tensors that change.
    plans: BTreeMap<String, TensorPlan>,
    /// Matrices whose inputs are rounded, too.
    rounded: Option<Arc<BTreeSet<String>>>,
}

impl FakeQuantizer {
    /// For the network with these tensors; reads inputs as they are.
    #[must_use]
    pub fn new(specs: &[TensorSpec], scheme: QuantScheme) -> Self {
        let plans = plan(specs, scheme, Container::Safetensors).into_iter();
        let changed = plans.filter(|plan| plan.storage != Storage::F32);
        Self { plans: changed.map(|plan| (plan.name.clone(), plan)).collect(), rounded: None }
    }

    /// The same, with matrices that become integers reading their inputs so: those that read rows. What a convolution
    /// reads is rounded by windows in foretrain-edge, and not here.
    #[must_use]
    pub fn reading(self, activations: Activations) -> Self {
        let is_rounded = |plan: &&TensorPlan| !plan.storage.is_float() && plan.shape.len() == 2;
        let names = || self.plans.values().filter(is_rounded).map(|plan| plan.name.clone()).collect();
        let rounded = match activations {
            Activations::Floats => None,
            Activations::Int8 => Some(Arc::new(names())),
        };
        Self { rounded, ..self }
    }

    /// What the network computes with once it is quantized: every tensor of `params`, in its shape, type and place.
    /// Numbers that the scheme cannot hold, NaN among them, stay as they are.
    /// Errors: the tensor library's.
    pub fn quantized(&self, params: &Params) -> Result<Params, QuantError> {
        let mut quantized = params.clone();
        for (name, tensor) in self.blended(params.iter(), 1.0)? {
            quantized.insert(name, tensor);
        }
        Ok(match &self.rounded {
            Some(names) => quantized.with_rounded_inputs(Arc::clone(names)),
            None => quantized,
        })
    }

    /// The weights that a forward pass of strength `strength` reads, buffers included: quantized tensors are variables of
    /// their own, all others are `store`'s. A gradient with respect to one of those variables *is* the straight-through
    /// gradient of the weight of its name, so the graph holds nothing but the network.
    /// Errors: the tensor library's.
    pub fn view(&self, store: &ParamStore, strength: f64) -> Result<ParamStore, QuantError> {
        let weights: Vec<(&str, Tensor)> = store.vars().map(|(name, var)| (name, var.as_detached_tensor())).collect();
        let changed = self.blended(weights.iter().map(|(name, tensor)| (*name, tensor)), strength)?;
        let view = store.with_weights(changed.into_iter().collect())?;
        Ok(match &self.rounded {
            Some(names) => view.with_rounded_inputs(Arc::clone(names)),
            None => view,
        })
    }

    /// `w + strength · (q(w) - w)` of the tensors that change.
    fn blended<'a>(
        &self,
        tensors: impl Iterator<Item = (&'a str, &'a Tensor)>,
        strength: f64,
    ) -> Result<Vec<(String, Tensor)>, QuantError> {
        let planned: Vec<(&TensorPlan, &Tensor)> =
            tensors.filter_map(|(name, tensor)| Some((self.plans.get(name)?, tensor))).collect();
        let blended = planned.into_par_iter().map(|(plan, tensor)| {
            let on_cpu = tensor.detach().to_device(&Device::Cpu)?.to_dtype(candle_core::DType::F32)?;
            let latent = on_cpu.flatten_all()?.to_vec1::<f32>()?;
            let mut values = restored(plan, latent.clone());
            if strength < 1.0 {
                let strength = strength as f32;
                values
                    .iter_mut()
                    .zip(&latent)
                    .for_each(|(value, latent)| *value = latent + strength * (*value - latent));
            }
            let blended = Tensor::from_vec(values, tensor.shape(), &Device::Cpu)?;
            Ok((plan.name.clone(), blended.to_dtype(tensor.dtype())?.to_device(tensor.device())?))
        });
        blended.collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use candle_core::DType;
    use proptest::prelude::*;

    use super::*;
    use crate::models::{Init, TensorKind};
    use crate::quant::{TensorData, quantize};

    const MATRIX: &str = "h.0.attn.c_attn.weight";

    fn spec(name: &str, shape: &[usize], kind: TensorKind) -> TensorSpec {
        TensorSpec { name: name.to_owned(), shape: shape.to_vec(), kind, init: Init::Constant(0.0) }
    }

    /// An embedding, which is stored in half precision, a matrix and a vector, which is kept as it is.
    fn network(shape: &[usize], values: &[f32]) -> (Vec<TensorSpec>, ParamStore) {
        let specs = vec![
            spec("wte", &[2, 2], TensorKind::Embedding),
            spec(MATRIX, shape, TensorKind::Matrix),
            spec("h.0.bias", &[2], TensorKind::Vector),
        ];
        let tensor = |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
        let weights = [
            ("wte".to_owned(), tensor(&[0.5, 1.0003, 2.0, 4.0], &[2, 2])),
            (MATRIX.to_owned(), tensor(values, shape)),
            ("h.0.bias".to_owned(), tensor(&[0.1, 0.2], &[2])),
        ];
        (specs, ParamStore::new(weights.into_iter().collect(), Params::default(), &Device::Cpu).unwrap())
    }

    fn values(params: &Params, name: &str) -> Vec<f32> {
        params.get(name).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    }

    #[test]
    fn strength_rises_from_the_switch_to_the_end_of_the_ramp() {
        let config = QatConfig { start_fraction: 0.5, ramp_fraction: 0.25, ..QatConfig::new(QuantScheme::Ternary) };
        let at = |step| config.strength(step, 40);
        assert_eq!([at(1), at(20), at(21), at(25), at(30), at(40)], [0.0, 0.0, 0.1, 0.5, 1.0, 1.0]);
        let at_once = QatConfig { ramp_fraction: 0.0, ..config };
        assert_eq!([at_once.strength(20, 40), at_once.strength(21, 40)], [0.0, 1.0]);
        let from_the_start = QatConfig { start_fraction: 0.0, ..at_once };
        assert_eq!((from_the_start.strength(0, 40), from_the_start.strength(1, 40)), (0.0, 1.0));
    }

    #[test]
    fn the_learning_rate_follows_the_strength() {
        let config = QatConfig { learning_rate_factor: 3.0, ..QatConfig::new(QuantScheme::Ternary) };
        assert_eq!([0.0, 0.5, 1.0].map(|strength| config.learning_rate_factor_at(strength)), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let good = QatConfig::new(QuantScheme::Ternary);
        assert!(good.check().is_ok());
        let bad = [
            (QatConfig { scheme: QuantScheme::F16, ..good }, "scheme"),
            (QatConfig { start_fraction: 1.0, ..good }, "start"),
            (QatConfig { start_fraction: f64::NAN, ..good }, "start"),
            (QatConfig { start_fraction: 0.6, ramp_fraction: 0.5, ..good }, "ramp"),
            (QatConfig { learning_rate_factor: 0.0, ..good }, "learning rate"),
            (QatConfig { learning_rate_factor: f64::INFINITY, ..good }, "learning rate"),
            (QatConfig { distillation: Some(Distillation { weight: 0.0, ..Distillation::DEFAULT }), ..good }, "weight"),
            (QatConfig { distillation: Some(Distillation { temperature: 0.0, weight: 0.5 }), ..good }, "temperature"),
        ];
        for (config, setting) in bad {
            let message = config.check().unwrap_err().to_string();
            assert!(message.contains(setting), "{message}");
        }
    }

    #[test]
    fn what_is_left_out_makes_room_for_what_is_given() {
        let times = |start, ramp| {
            let config = QatConfig::new(QuantScheme::Ternary).with_times(start, ramp);
            config.check().unwrap();
            (config.start_fraction, config.ramp_fraction)
        };
        assert_eq!(times(None, None), (0.2, 0.3));
        assert_eq!(times(Some(0.75), None), (0.75, 0.25));
        assert_eq!(times(None, Some(1.0)), (0.0, 1.0));
        for percent in 0..100 {
            let share = f64::from(percent) / 100.0;
            assert_eq!((times(Some(share), None).0, times(None, Some(share)).1), (share, share));
        }
        let both = QatConfig::new(QuantScheme::Ternary).with_times(Some(0.9), Some(0.3));
        assert!(both.check().unwrap_err().to_string().contains("0.3 after a start at 0.9"));
    }

    /// d/dw of sum(f(w)²) by both ways: a variable in place of the quantized tensor, and the textbook's
    /// `w + (s · (q(w) - w)).detach()` through candle's own graph.
    #[test]
    fn the_gradient_is_that_of_the_textbook() {
        let numbers = [0.9, -0.1, 0.3, -1.2, 0.05, 0.7];
        for (scheme, strength) in [(QuantScheme::Ternary, 1.0), (QuantScheme::Int8, 1.0), (QuantScheme::Ternary, 0.4)] {
            let (specs, store) = network(&[2, 3], &numbers);
            let view = FakeQuantizer::new(&specs, scheme).view(&store, strength).unwrap();
            let loss = |weights: &Params| weights.get(MATRIX).unwrap().sqr().unwrap().sum_all().unwrap();
            let of_view = loss(&view.tracked()).backward().unwrap();
            let var = |store: &ParamStore| store.vars().find(|(name, _)| *name == MATRIX).unwrap().1.clone();
            let found = of_view.get(var(&view).as_tensor()).unwrap();

            let stored = quantize(&specs, &store.detached(), scheme).unwrap().dequantized().unwrap();
            let latent = var(&store);
            let change = ((stored.get(MATRIX).unwrap() - latent.as_detached_tensor()).unwrap() * strength).unwrap();
            let textbook = (latent.as_tensor() + change.detach()).unwrap();
            let gradients = textbook.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            let expected = gradients.get(latent.as_tensor()).unwrap();
            let distance = (found - expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(distance < 1e-6, "{scheme:?} at {strength}: {distance}");
            // It is not the gradient at the latent weights: the forward pass was quantized.
            let plain = (latent.as_detached_tensor() * 2.0).unwrap();
            let distance = (found - plain).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(distance > 1e-4, "{scheme:?} at {strength}: {distance}");
        }
    }

    #[test]
    fn what_is_not_quantized_is_shared_and_the_store_stays() {
        let (specs, store) = network(&[2, 2], &[0.9, -0.1, 0.3, -1.2]);
        let view = FakeQuantizer::new(&specs, QuantScheme::Ternary).view(&store, 1.0).unwrap();
        let id = |store: &ParamStore, name: &str| store.tracked().get(name).unwrap().id();
        assert_eq!(id(&view, "h.0.bias"), id(&store, "h.0.bias"));
        assert_ne!(id(&view, MATRIX), id(&store, MATRIX));
        assert_eq!(values(&store.detached(), MATRIX), [0.9, -0.1, 0.3, -1.2]);
        assert_eq!(values(&view.detached(), "wte")[1], half::f16::from_f32(1.0003).to_f32());
    }

    #[test]
    fn numbers_that_no_scheme_holds_show_in_what_is_computed() {
        for scheme in QatConfig::SCHEMES {
            let (specs, store) = network(&[2, 2], &[1.0, f32::NAN, 0.0, 1.0]);
            let quantized = FakeQuantizer::new(&specs, scheme).quantized(&store.detached()).unwrap();
            assert!(values(&quantized, MATRIX)[1].is_nan());
        }
    }

    #[test]
    fn f64_weights_are_taken_too() {
        let (specs, store) = network(&[2, 2], &[0.9, -0.1, 0.3, -1.2]);
        let weights = store.detached().map(|_, tensor| tensor.to_dtype(DType::F64)).unwrap();
        let quantized = FakeQuantizer::new(&specs, QuantScheme::Ternary).quantized(&weights).unwrap();
        assert_eq!(quantized.get(MATRIX).unwrap().dtype(), DType::F64);
    }

    proptest! {
        #[test]
        fn training_computes_with_what_an_export_stores(
            rows in 1_usize..20, columns in 1_usize..20, numbers in prop::collection::vec(-3.0_f32..3.0, 400),
        ) {
            let (specs, store) = network(&[rows, columns], &numbers[..rows * columns]);
            for scheme in QuantScheme::ALL {
                let weights = store.detached();
                let found = FakeQuantizer::new(&specs, scheme).quantized(&weights).unwrap();
                let stored = quantize(&specs, &weights, scheme).unwrap();
                let expected = stored.dequantized().unwrap();
                prop_assert_eq!(found.len(), expected.len());
                for (name, _) in expected.iter() {
                    prop_assert_eq!(values(&found, name), values(&expected, name));
                }
                // Storing what was trained for a scheme by that scheme changes nothing any more.
                let again = quantize(&specs, &found, scheme).unwrap();
                if let TensorData::Ternary { .. } = &again.tensors()[1].data {
                    prop_assert_eq!(again.tensors()[1].relative_error, 0.0);
                }
                if QatConfig::SCHEMES.contains(&scheme) {
                    prop_assert!(again.tensors().iter().all(|tensor| tensor.relative_error < 1e-6));
                }
            }
        }
    }
}
