//! Named tensors: what a network computes with, what an optimizer moves, what a file holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};

use super::ModelError;
use foretrain_ops::Activations;

/// Tensors by name, sorted by name, so that every flattening has one order.
///
/// A network's forward pass reads its weights from here, never from itself: detached weights
/// build no graph, fake-quantized weights make quantization-aware training, averaged weights
/// make the evaluation of an EMA, all through the same forward. They also say which matrices read rounded inputs.
#[derive(Debug, Clone, Default)]
pub struct Params {
    tensors: BTreeMap<String, Tensor>,
    /// Names of matrices that read their inputs rounded to 8 bits; `None` for none of them.
    rounded: Option<Arc<BTreeSet<String>>>,
}

impl Params {
    /// The tensor called `name`. Errors: [`ModelError::MissingTensor`].
    pub fn get(&self, name: &str) -> Result<&Tensor, ModelError> {
        self.tensors.get(name).ok_or_else(|| ModelError::MissingTensor { name: name.to_owned() })
    }

    /// The tensor called `name`, when there is one.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.tensors.insert(name.into(), tensor);
    }

    /// Names and tensors in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The same tensors, with the inputs of the matrices called `names` rounded to 8 bits in a forward pass. Convolutions
    /// read theirs as they are.
    #[must_use]
    pub fn with_rounded_inputs(self, names: Arc<BTreeSet<String>>) -> Self {
        Self { rounded: Some(names), ..self }
    }

    /// How the matrix called `weight` reads its inputs.
    #[must_use]
    pub fn activations_of(&self, weight: &str) -> Activations {
        match &self.rounded {
            Some(names) if names.contains(weight) => Activations::Int8,
            Some(_) | None => Activations::Floats,
        }
    }

    /// How many tensors there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// True without any tensor.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// False when a tensor of floating-point numbers holds NaN or infinity, or so large numbers that their sum is one.
    pub fn is_finite(&self) -> Result<bool, ModelError> {
        let floats = self.tensors.values().filter(|tensor| tensor.dtype().is_float());
        let sums = floats.map(|tensor| Ok(tensor.to_dtype(DType::F32)?.sum_all()?));
        let sums = sums.collect::<Result<Vec<Tensor>, ModelError>>()?;
        // A teacher may be on a GPU, what is saved with it in the machine's memory.
        let (here, away): (Vec<Tensor>, Vec<Tensor>) = sums.into_iter().partition(|sum| sum.device().is_cpu());
        for sums in [here, away].iter().filter(|sums| !sums.is_empty()) {
            // One read for all: each would make a device wait.
            if !Tensor::stack(sums, 0)?.to_vec1::<f32>()?.into_iter().all(f32::is_finite) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Each tensor through `f`, with its name.
    pub fn map<E>(&self, mut f: impl FnMut(&str, &Tensor) -> Result<Tensor, E>) -> Result<Self, E> {
        let mapped = self.tensors.iter().map(|(name, tensor)| Ok((name.clone(), f(name, tensor)?)));
        Ok(Self { tensors: mapped.collect::<Result<_, E>>()?, rounded: self.rounded.clone() })
    }
}

impl FromIterator<(String, Tensor)> for Params {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(iter: I) -> Self {
        Self { tensors: iter.into_iter().collect(), rounded: None }
    }
}

impl IntoIterator for Params {
    type Item = (String, Tensor);
    type IntoIter = std::collections::btree_map::IntoIter<String, Tensor>;

    fn into_iter(self) -> Self::IntoIter {
        self.tensors.into_iter()
    }
}

/// A copy in the machine's memory, wherever `tensor` is.
pub(crate) fn host_copy(tensor: &Tensor) -> candle_core::Result<Tensor> {
    if tensor.device().is_cpu() { tensor.copy() } else { tensor.to_device(&Device::Cpu) }
}

/// Trainable weights, plus buffers that training updates without a gradient (batch-norm statistics).
#[derive(Debug, Clone)]
pub struct ParamStore {
    vars: BTreeMap<String, Var>,
    buffers: Params,
    /// As in [`Params`].
    rounded: Option<Arc<BTreeSet<String>>>,
}

impl ParamStore {
    /// Weights become variables on `device` (a copy); buffers move there, too.
    pub fn new(weights: Params, buffers: Params, device: &Device) -> Result<Self, ModelError> {
        let vars = weights
            .into_iter()
            .map(|(name, tensor)| Ok((name, Var::from_tensor(&tensor.to_device(device)?.copy()?)?)))
            .collect::<Result<_, ModelError>>()?;
        Ok(Self { vars, buffers: buffers.map(|_, buffer| buffer.to_device(device))?, rounded: None })
    }

    /// Where the weights are; the processor for a network without any.
    #[must_use]
    pub fn device(&self) -> Device {
        self.vars.values().next().map_or(Device::Cpu, |var| var.device().clone())
    }

    /// Variables in name order.
    pub fn vars(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.vars.iter().map(|(name, var)| (name.as_str(), var))
    }

    /// Buffers in name order.
    #[must_use]
    pub fn buffers(&self) -> &Params {
        &self.buffers
    }

    /// Replaces the buffers called by these names.
    pub fn update_buffers(&mut self, updates: Params) {
        for (name, tensor) in updates {
            self.buffers.insert(name, tensor);
        }
    }

    /// Weights and buffers with the graph attached: a forward over them can be differentiated.
    #[must_use]
    pub fn tracked(&self) -> Params {
        self.view(|var| var.as_tensor().clone())
    }

    /// Weights and buffers without a graph: a forward over them stores nothing for a backward.
    #[must_use]
    pub fn detached(&self) -> Params {
        self.view(Var::as_detached_tensor)
    }

    /// The same buffers and variables, but for new variables that hold copies of `weights`; names that are none
    /// of a variable are left out. Errors: [`ModelError::Shape`].
    pub fn with_weights(&self, weights: Params) -> Result<Self, ModelError> {
        let mut vars = self.vars.clone();
        for (name, tensor) in weights {
            let Some(var) = vars.get_mut(&name) else { continue };
            if tensor.dims() != var.dims() {
                let (expected, found) = (var.dims().to_vec(), tensor.dims().to_vec());
                return Err(ModelError::Shape { name, expected, found });
            }
            *var = Var::from_tensor(&tensor)?;
        }
        Ok(Self { vars, buffers: self.buffers.clone(), rounded: self.rounded.clone() })
    }

    /// [`Params::with_rounded_inputs`] of what passes read of it.
    #[must_use]
    pub fn with_rounded_inputs(self, names: Arc<BTreeSet<String>>) -> Self {
        Self { rounded: Some(names), ..self }
    }

    /// False when a weight or a buffer is NaN or infinite: see [`Params::is_finite`].
    pub fn is_finite(&self) -> Result<bool, ModelError> {
        self.detached().is_finite()
    }

    /// A deep copy of weights and buffers in the machine's memory, safe from later updates.
    pub fn snapshot(&self) -> Result<Params, ModelError> {
        self.detached().map(|_, tensor| Ok(host_copy(tensor)?))
    }

    /// Sets every weight from `weights`, by name; buffers stay.
    /// Errors: [`ModelError::MissingTensor`], [`ModelError::Shape`].
    pub fn set_weights(&mut self, weights: &Params) -> Result<(), ModelError> {
        for (name, var) in &self.vars {
            let tensor = weights.get(name)?;
            if tensor.dims() != var.dims() {
                return Err(ModelError::Shape {
                    name: name.clone(),
                    expected: var.dims().to_vec(),
                    found: tensor.dims().to_vec(),
                });
            }
            var.set(&tensor.to_device(var.device())?)?;
        }
        Ok(())
    }

    /// Sets every weight and buffer from `saved`, by name.
    /// Errors: [`ModelError::MissingTensor`], [`ModelError::Shape`].
    pub fn restore(&mut self, saved: &Params) -> Result<(), ModelError> {
        self.set_weights(saved)?;
        self.buffers = self
            .buffers
            .map(|name, buffer| saved.get(name)?.to_device(buffer.device())?.copy().map_err(ModelError::from))?;
        Ok(())
    }

    fn view(&self, tensor_of: impl Fn(&Var) -> Tensor) -> Params {
        let vars = self.vars.iter().map(|(name, var)| (name.clone(), tensor_of(var)));
        let buffers = self.buffers.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone()));
        Params { tensors: vars.chain(buffers).collect(), rounded: self.rounded.clone() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn one_number_that_is_none_is_found() {
        let params = |value: f32| -> Params {
            let tensor = |values: Vec<f32>| Tensor::from_vec(values, (2, 3), &Device::Cpu).unwrap();
            let counts = Tensor::new(&[1_u32, u32::MAX], &Device::Cpu).unwrap();
            let whole = tensor(vec![1e30; 6]);
            let named = [("a", whole), ("b", tensor(vec![0.0, -3.0, 0.0, value, 1.0, 0.0])), ("c", counts)];
            named.map(|(name, tensor)| (name.to_owned(), tensor)).into_iter().collect()
        };
        assert!(params(2.0).is_finite().unwrap() && Params::default().is_finite().unwrap());
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!params(value).is_finite().unwrap(), "{value}");
            let store = ParamStore::new(params(1.0), params(value), &Device::Cpu).unwrap();
            assert!(!store.is_finite().unwrap(), "{value} in a buffer");
        }
    }
}
