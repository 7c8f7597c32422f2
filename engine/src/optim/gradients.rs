//! Gradients by name: what a backward pass leaves and an optimizer takes.

use std::collections::{BTreeMap, HashSet};

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
        let mut seen = HashSet::new();
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
        let mut seen = HashSet::new();
        let owned = |(name, tensor): (String, Tensor)| {
            let tensor = owned(&tensor, tensor.dtype(), &mut seen)?;
            Ok((name, tensor))
        };
        Ok(Self(tensors.into_iter().map(owned).collect::<Result<_, OptimError>>()?))
    }

    /// A deep copy.
    pub fn copy(&self) -> Result<Self, OptimError> {
        let copied = self.0.iter().map(|(name, tensor)| Ok((name.clone(), tensor.copy()?)));
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
fn owned(tensor: &Tensor, dtype: DType, seen: &mut HashSet<usize>) -> Result<Tensor, OptimError> {
    let dtype = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let tensor = tensor.detach().to_dtype(dtype)?.contiguous()?;
    // Two weights that are added to one sum get one and the same gradient tensor from candle.
    let address = std::ptr::from_ref(&*tensor.storage_and_layout().0).addr();
    if seen.insert(address) {
        return Ok(tensor);
    }
    let copy = tensor.force_contiguous()?.copy()?;
    seen.insert(std::ptr::from_ref(&*copy.storage_and_layout().0).addr());
    Ok(copy)
}
