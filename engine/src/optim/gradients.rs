//! Gradients by name: what a backward pass leaves and an optimizer takes.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor};

use super::{OptimError, kernels};
use crate::models::ParamStore;

/// One gradient for each weight, sorted by name.
///
/// Sums run in f64, chunk by chunk in name order: the same bits on every run. A NaN or an infinity
/// anywhere shows in [`Gradients::norm`]; nothing here rejects it, that is the caller's decision.
/// Not `Clone`, because updates are in place: see [`Gradients::copy`].
#[derive(Debug, Default)]
pub struct Gradients(BTreeMap<String, Tensor>);

impl Gradients {
    /// The gradient of every weight of `store`, f32 or f64 as the weight.
    ///
    /// Takes over the tensors in `grads` (no copy): build one set from one backward pass.
    /// Errors: [`OptimError::MissingGradient`] when a weight took no part in the loss.
    pub fn from_backward(grads: &GradStore, store: &ParamStore) -> Result<Self, OptimError> {
        let mut seen = Seen::default();
        let mut gradients = BTreeMap::new();
        for (name, var) in store.vars() {
            let Some(gradient) = grads.get(var.as_tensor()) else {
                return Err(OptimError::MissingGradient { name: name.to_owned() });
            };
            let gradient = owned(gradient, var.dtype(), &mut seen)?;
            gradients.insert(name.to_owned(), gradient);
        }
        Ok(Self(gradients))
    }

    /// From named tensors (f32 or f64), which must not be changed elsewhere afterwards.
    pub fn from_tensors(tensors: impl IntoIterator<Item = (String, Tensor)>) -> Result<Self, OptimError> {
        let mut seen = Seen::default();
        let owned = |(name, tensor): (String, Tensor)| {
            let tensor = owned(&tensor, tensor.dtype(), &mut seen)?;
            Ok((name, tensor))
        };
        Ok(Self(tensors.into_iter().map(owned).collect::<Result<_, OptimError>>()?))
    }

    /// A deep copy.
    pub fn copy(&self) -> Result<Self, OptimError> {
        let copied = self.0.iter().map(|(name, tensor)| Ok((name.clone(), tensor.force_contiguous()?.detach())));
        Ok(Self(copied.collect::<Result<_, OptimError>>()?))
    }

    /// The gradient of the weight called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// Names and gradients in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// How many tensors there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True without any tensor.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `self += factor * other`, in place. Errors: [`OptimError::Mismatch`].
    pub fn add_scaled(&mut self, other: &Self, factor: f64) -> Result<(), OptimError> {
        self.check_names(other)?;
        for (mine, theirs) in self.0.values_mut().zip(other.0.values()) {
            *mine = kernels::axpby(mine, theirs, 1.0, factor)?;
        }
        Ok(())
    }

    /// `self *= factor`, in place.
    pub fn scale(&mut self, factor: f64) -> Result<(), OptimError> {
        for tensor in self.0.values_mut() {
            *tensor = kernels::scale(tensor, factor)?;
        }
        Ok(())
    }

    /// Global L2 norm over all tensors; not finite exactly when a gradient is not (or overflows f64).
    pub fn norm(&self) -> Result<f64, OptimError> {
        Ok(kernels::sum_of_squares(&self.tensors())?.sqrt())
    }

    /// Inner product over all tensors. Errors: [`OptimError::Mismatch`].
    pub fn dot(&self, other: &Self) -> Result<f64, OptimError> {
        Ok(self.products(other)?[1])
    }

    /// Cosine of the angle to `other`, in one pass; 0 when either is zero. Errors: [`OptimError::Mismatch`].
    pub fn cosine(&self, other: &Self) -> Result<f64, OptimError> {
        let [aa, ab, bb] = self.products(other)?;
        let scale = aa.sqrt() * bb.sqrt();
        Ok(if scale == 0.0 { 0.0 } else { (ab / scale).clamp(-1.0, 1.0) })
    }

    /// Scales everything down to a global L2 norm of `max_norm` when it is above; returns the norm before.
    /// A norm that is not finite is returned and nothing is scaled.
    pub fn clip(&mut self, max_norm: f64) -> Result<f64, OptimError> {
        let norm = self.norm()?;
        if norm.is_finite() && norm > max_norm {
            self.scale(max_norm / norm)?;
        }
        Ok(norm)
    }

    fn tensors(&self) -> Vec<&Tensor> {
        self.0.values().collect()
    }

    fn products(&self, other: &Self) -> Result<[f64; 3], OptimError> {
        self.check_names(other)?;
        let pairs: Vec<_> = self.0.values().zip(other.0.values()).collect();
        Ok(kernels::products(&pairs)?)
    }

    fn check_names(&self, other: &Self) -> Result<(), OptimError> {
        let differ = |(a, b): (&(&String, &Tensor), &(&String, &Tensor))| a.0 != b.0 || a.1.dims() != b.1.dims();
        let (mine, theirs): (Vec<_>, Vec<_>) = (self.0.iter().collect(), other.0.iter().collect());
        let first = mine.iter().zip(&theirs).find(|&pair| differ(pair)).map(|(a, _)| a.0);
        let shorter = mine.len().min(theirs.len());
        let extra = || mine.get(shorter).or_else(|| theirs.get(shorter)).map(|pair| pair.0);
        match first.or_else(extra) {
            None => Ok(()),
            Some(name) => Err(OptimError::Mismatch { name: name.clone() }),
        }
    }
}

/// `tensor` as a contiguous f32 or f64 tensor whose numbers nobody else among `seen` holds.
fn owned(tensor: &Tensor, dtype: DType, seen: &mut Seen) -> Result<Tensor, OptimError> {
    let dtype = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let tensor = tensor.detach().to_dtype(dtype)?.contiguous()?;
    // Two weights that are added to one sum get one and the same gradient tensor from candle.
    if seen.is_new(&tensor) {
        return Ok(tensor);
    }
    let copy = tensor.force_contiguous()?;
    seen.is_new(&copy);
    Ok(copy)
}

/// Which numbers tensors hold: places in storages, by the storage's address. Gradients of a layer's weights are parts of
/// one storage.
#[derive(Debug, Default)]
struct Seen(HashMap<usize, Vec<Range<usize>>>);

impl Seen {
    /// Adds a contiguous tensor; false when it shares numbers with an earlier one.
    fn is_new(&mut self, tensor: &Tensor) -> bool {
        let (storage, layout) = tensor.storage_and_layout();
        let place = layout.start_offset()..layout.start_offset() + tensor.elem_count();
        let places = self.0.entry(std::ptr::from_ref(&*storage).addr()).or_default();
        let is_new = places.iter().all(|other| place.end <= other.start || other.end <= place.start);
        places.push(place);
        is_new
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use candle_core::{Device, Tensor};

    use super::*;
    use crate::models::Params;

    /// Sizes around the chunk and lane edges.
    fn sample(seed: u32) -> Gradients {
        let tensor = |(index, len): (usize, usize)| {
            let value = |i: usize| ((i * 31 + index * 7) as f32 * 0.37 + seed as f32).sin();
            let values: Vec<f32> = (0..len).map(value).collect();
            (format!("t{index}"), Tensor::from_vec(values, len, &Device::Cpu).unwrap())
        };
        Gradients::from_tensors([1, 7, 8, 16 * 1024, 16 * 1024 + 5, 50_001].into_iter().enumerate().map(tensor))
            .unwrap()
    }

    fn flat(gradients: &Gradients) -> Vec<f64> {
        let values = |tensor: &Tensor| tensor.to_vec1::<f32>().unwrap().into_iter().map(f64::from);
        gradients.iter().flat_map(|(_, tensor)| values(tensor)).collect()
    }

    #[track_caller]
    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1.0), "expected {expected}, found {found}");
    }

    #[test]
    fn sums_are_those_of_a_plain_loop() {
        let (a, b) = (sample(1), sample(2));
        let (flat_a, flat_b) = (flat(&a), flat(&b));
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        close(a.norm().unwrap(), dot(&flat_a, &flat_a).sqrt());
        close(a.dot(&b).unwrap(), dot(&flat_a, &flat_b));
        let cosine = dot(&flat_a, &flat_b) / (dot(&flat_a, &flat_a) * dot(&flat_b, &flat_b)).sqrt();
        close(a.cosine(&b).unwrap(), cosine);
        close(a.cosine(&a.copy().unwrap()).unwrap(), 1.0);
    }

    #[test]
    fn sums_do_not_depend_on_threads() {
        let (a, b) = (sample(1), sample(2));
        let sums = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| [a.norm().unwrap(), a.dot(&b).unwrap(), a.cosine(&b).unwrap()].map(f64::to_bits))
        };
        assert_eq!(sums(1), sums(3));
    }

    #[test]
    fn add_and_scale_are_in_place_and_exact() {
        let (mut a, b) = (sample(1), sample(2));
        let expected: Vec<f64> = flat(&a).iter().zip(flat(&b)).map(|(a, b)| 2.0 * (a + 0.5 * b)).collect();
        a.add_scaled(&b, 0.5).unwrap();
        a.scale(2.0).unwrap();
        for (found, expected) in flat(&a).into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn clipping_scales_down_to_the_limit_only_when_above() {
        let mut a = sample(1);
        let before = a.norm().unwrap();
        let untouched = flat(&a);
        close(a.clip(before * 1.01).unwrap(), before);
        assert_eq!(flat(&a), untouched);
        close(a.clip(0.25).unwrap(), before);
        assert!((a.norm().unwrap() - 0.25).abs() < 1e-7);
        assert!((a.cosine(&sample(1)).unwrap() - 1.0).abs() < 1e-12, "clipping must keep the direction");
    }

    #[test]
    fn not_a_number_shows_in_the_norm_and_is_not_spread() {
        let bad = Tensor::new(&[1.0_f32, f32::NAN], &Device::Cpu).unwrap();
        let good = Tensor::new(&[3.0_f32], &Device::Cpu).unwrap();
        let mut gradients = Gradients::from_tensors([("a".to_owned(), bad), ("b".to_owned(), good)]).unwrap();
        assert!(gradients.clip(1.0).unwrap().is_nan());
        assert_eq!(gradients.get("b").unwrap().to_vec1::<f32>().unwrap(), [3.0]);
    }

    #[test]
    fn sets_of_two_models_do_not_mix() {
        let mut a = sample(1);
        let b = Gradients::from_tensors(sample(2).0.into_iter().take(5)).unwrap();
        assert!(matches!(a.add_scaled(&b, 1.0), Err(OptimError::Mismatch { name }) if name == "t5"));
        assert!(matches!(b.dot(&a), Err(OptimError::Mismatch { .. })));
    }

    #[test]
    fn parts_of_one_storage_are_taken_over_and_shared_numbers_are_copied() {
        let all = Tensor::new(&[1.0_f32, 2.0, 3.0, 4.0], &Device::Cpu).unwrap();
        let part = |start, len| all.narrow(0, start, len).unwrap();
        let named =
            [("a", part(0, 2)), ("b", part(2, 2)), ("c", part(1, 2))].map(|(name, part)| (name.to_owned(), part));
        let mut gradients = Gradients::from_tensors(named).unwrap();
        gradients.scale(10.0).unwrap();
        let numbers = |name| gradients.get(name).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!((numbers("a"), numbers("b"), numbers("c")), (vec![10.0, 20.0], vec![30.0, 40.0], vec![20.0, 30.0]));
        let address = |tensor: &Tensor| std::ptr::from_ref(&*tensor.storage_and_layout().0).addr();
        let is_taken_over = ["a", "b", "c"].map(|name| address(gradients.get(name).unwrap()) == address(&all));
        assert_eq!(is_taken_over, [true, true, false]);
    }

    #[test]
    fn one_gradient_tensor_for_two_weights_is_scaled_once() {
        let weight = |value: f32| Tensor::new(&[value, 2.0, 3.0], &Device::Cpu).unwrap();
        let weights: Params = [("a".to_owned(), weight(1.0)), ("b".to_owned(), weight(5.0))].into_iter().collect();
        let store = ParamStore::new(weights, Params::default(), &Device::Cpu).unwrap();
        let tracked = store.tracked();
        let sum = (tracked.get("a").unwrap() + tracked.get("b").unwrap()).unwrap();
        let grads = sum.sum_all().unwrap().backward().unwrap();
        let mut gradients = Gradients::from_backward(&grads, &store).unwrap();
        gradients.scale(0.5).unwrap();
        for (_, tensor) in gradients.iter() {
            assert_eq!(tensor.to_vec1::<f32>().unwrap(), [0.5; 3]);
        }
    }

    #[test]
    fn a_weight_outside_the_loss_is_named() {
        let weight = Tensor::new(&[1.0_f32], &Device::Cpu).unwrap();
        let weights: Params = [("a".to_owned(), weight.clone()), ("b".to_owned(), weight)].into_iter().collect();
        let store = ParamStore::new(weights, Params::default(), &Device::Cpu).unwrap();
        let grads = store.tracked().get("a").unwrap().sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let error = Gradients::from_backward(&grads, &store);
        assert!(matches!(error, Err(OptimError::MissingGradient { name }) if name == "b"));
    }
}
