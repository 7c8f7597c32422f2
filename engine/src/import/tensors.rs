//! The tensors of a network out of those that a file has, each checked.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};

use super::ImportError;
use crate::device::Watch;
use crate::models::{Network, Params, TensorSpec, nearest, nearest_found};

/// What a file's tensor is, before its numbers are read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    /// In the file's words: "F16".
    pub dtype: String,
    /// As the network has it.
    pub shape: Vec<usize>,
    /// True for a type that becomes f32.
    pub is_number: bool,
}

/// A file, or several, whose tensors go by the network's names.
pub(super) trait TensorSource {
    /// Everything there is.
    fn found(&self) -> &BTreeMap<String, Found>;

    /// The file that holds `name`, for errors; any of them for one that is not there.
    fn path(&self, name: &str) -> &Path;

    /// The numbers of `name`, row-major in the network's shape.
    fn values(&mut self, name: &str) -> Result<Vec<f32>, ImportError>;

    /// True for a tensor that may be there without being of use, such as a buffer that others save.
    fn is_dispensable(&self, name: &str) -> bool;
}

/// The tensors of `network`, f32, on the CPU.
///
/// Errors: those of [`read_tensor`] and [`check_leftovers`]; cancelled between tensors.
pub(super) fn read_tensors(
    network: &Network,
    source: &mut dyn TensorSource,
    watch: Watch<'_>,
) -> Result<Params, ImportError> {
    let specs = network.specs();
    let mut weights = Params::default();
    for (done, spec) in specs.iter().enumerate() {
        watch.step("reading weights", done as u64, Some(specs.len() as u64))?;
        let values = read_tensor(&specs, spec, source)?;
        let tensor = Tensor::from_vec(values, spec.shape.as_slice(), &Device::Cpu)?;
        weights.insert(spec.name.clone(), tensor);
    }
    check_leftovers(&specs, source)?;
    Ok(weights)
}

/// The numbers of one tensor of the network that `specs` describe, row-major.
///
/// Errors: [`ImportError::Tensor`] for one that is missing (the nearest name is told), of another shape or type, or not
/// finite.
pub(super) fn read_tensor(
    specs: &[TensorSpec],
    spec: &TensorSpec,
    source: &mut dyn TensorSource,
) -> Result<Vec<f32>, ImportError> {
    let name = spec.name.as_str();
    let refuse = |source: &dyn TensorSource, found: String, hint| ImportError::Tensor {
        name: name.to_owned(),
        expected: format!("numbers of shape {:?}", spec.shape),
        found,
        hint,
        path: source.path(name).to_owned(),
    };
    match source.found().get(name) {
        None => {
            let near = nearest_found(name, specs, source.found().keys().map(String::as_str));
            let near = near.map_or_else(String::new, |near| format!("; the nearest is {near:?}"));
            let hint = "Do config.json and the weights belong together?";
            return Err(refuse(source, format!("none of that name{near}"), hint));
        }
        Some(found) if !found.is_number => {
            let hint = "Quantized models are not trained on; take the one in full or half precision";
            return Err(refuse(source, format!("{} of shape {:?}", found.dtype, found.shape), hint));
        }
        Some(found) if found.shape != spec.shape => {
            let hint = "Do config.json and the weights belong together?";
            return Err(refuse(source, format!("{} of shape {:?}", found.dtype, found.shape), hint));
        }
        Some(_) => {}
    }
    let values = source.values(name)?;
    if values.len() != spec.num_elements() {
        return Err(refuse(source, format!("{} numbers", values.len()), "Is the file complete?"));
    }
    if let Some((index, bad)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        let hint = "Did the training that wrote it diverge?";
        return Err(refuse(source, format!("{bad} at index {index}"), hint));
    }
    Ok(values)
}

/// Errors: [`ImportError::Tensor`] for one that no tensor of `specs` is, and that is not dispensable.
pub(super) fn check_leftovers(specs: &[TensorSpec], source: &dyn TensorSource) -> Result<(), ImportError> {
    let is_stranger = |name: &&String| specs.iter().all(|spec| spec.name != **name) && !source.is_dispensable(name);
    let Some(stranger) = source.found().keys().find(is_stranger) else { return Ok(()) };
    let near = nearest(stranger, specs.iter().map(|spec| spec.name.as_str()));
    Err(ImportError::Tensor {
        name: stranger.clone(),
        expected: format!("only the {} tensors of this network", specs.len()),
        found: near.map_or_else(|| "it".to_owned(), |near| format!("it beside them; the nearest of them is {near:?}")),
        hint: "Another variant of this architecture is not built here",
        path: source.path(stranger).to_owned(),
    })
}
