//! Weights of a package as one safetensors file.
//!
//! Float tensors keep the checkpoint's name and layout, so that with float schemes the folder is a Hugging Face one.
//! Int8 and ternary tensors are output-major, with their logical shape and format in the file's metadata.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::Dtype;

use super::format::{FormatInput, WeightsFormat};
use super::partial_file::PartialFile;
use super::weights_file::{WeightEntry, WeightsReader, header_bytes, tensor_bytes, write_safetensors};
use super::{ExportError, ModelCard};
use crate::device::Watch;
use crate::quant::{Container, QuantizedTensor, QuantizedWeights, Storage, TensorData, TensorPlan};

/// Suffix of the tensor that holds the scales of an int8 tensor.
const SCALE_SUFFIX: &str = ".scale";

/// One safetensors file.
#[derive(Debug)]
pub(super) struct SafetensorsFormat;

/// Writes quantized weights alone, as the new safetensors file `path`, which it becomes once it was compared with what
/// was meant. Errors: [`ExportError::NewFile`]; those of writing and of reading back. After an error nothing is there.
pub fn write_quantized(
    weights: &QuantizedWeights,
    card: &ModelCard,
    path: &Path,
    watch: Watch<'_>,
) -> Result<(), ExportError> {
    let input = FormatInput { weights, card, tokenizer: None };
    let partial = PartialFile::new(path)?;
    SafetensorsFormat.write(&input, partial.path(), watch)?;
    SafetensorsFormat.compare(&input, partial.path(), watch)?;
    partial.publish()
}

impl WeightsFormat for SafetensorsFormat {
    fn container(&self) -> Container {
        Container::Safetensors
    }

    fn file_name(&self) -> &'static str {
        super::WEIGHTS_FILE
    }

    fn predicted_bytes(&self, plans: &[TensorPlan], _card: &ModelCard) -> u64 {
        let entries: Vec<WeightEntry> = plans.iter().flat_map(entries).collect();
        let data: usize = entries.iter().map(|entry| entry.num_bytes).sum();
        (header_bytes(&entries, &metadata(plans.iter())).len() + data) as u64
    }

    fn write(&self, input: &FormatInput<'_>, path: &Path, watch: Watch<'_>) -> Result<Vec<String>, ExportError> {
        let weights = input.weights;
        let plans = || weights.tensors().iter().map(|tensor| &tensor.plan);
        let entries: Vec<WeightEntry> = plans().flat_map(entries).collect();
        write_safetensors(path, &entries, &metadata(plans()), watch, |name| stored_bytes(weights, name))?;
        Ok(Vec::new())
    }

    fn compare(&self, input: &FormatInput<'_>, path: &Path, watch: Watch<'_>) -> Result<(), ExportError> {
        let weights = input.weights;
        let mut reader = WeightsReader::open(path)?;
        let wanted: Vec<WeightEntry> = weights.tensors().iter().flat_map(|tensor| entries(&tensor.plan)).collect();
        let differs = |what: String, expected: String, found: String| ExportError::ReadBack { what, expected, found };
        if reader.names().len() != wanted.len() {
            let found = reader.names().len().to_string();
            return Err(differs("number of tensors".to_owned(), wanted.len().to_string(), found));
        }
        for (key, value) in metadata(weights.tensors().iter().map(|tensor| &tensor.plan)) {
            if reader.metadata(&key) != Some(value.as_str()) {
                let found = reader.metadata(&key).unwrap_or("none").to_owned();
                return Err(differs(format!("metadata {key:?}"), value, found));
            }
        }
        for (done, entry) in wanted.iter().enumerate() {
            watch.step("comparing weights", done as u64, Some(wanted.len() as u64))?;
            let found = reader.info(&entry.name).map(|info| (info.dtype, info.shape.clone()));
            if found.as_ref() != Some(&(entry.dtype, entry.shape.clone())) {
                let expected = format!("{:?} {:?}", entry.dtype, entry.shape);
                let found = found.map_or_else(|| "none".to_owned(), |(dtype, shape)| format!("{dtype:?} {shape:?}"));
                return Err(differs(format!("tensor {:?}", entry.name), expected, found));
            }
            if reader.read_bytes(&entry.name)? != stored_bytes(weights, &entry.name)? {
                let expected = "the bytes that were written".to_owned();
                return Err(differs(format!("tensor {:?}", entry.name), expected, "other bytes".to_owned()));
            }
        }
        Ok(())
    }
}

/// The file's tensors for one of ours: itself, and its scales when it is int8.
fn entries(plan: &TensorPlan) -> Vec<WeightEntry> {
    let (num_rows, row_len) = plan.rows();
    let entry = |dtype, shape, num_bytes| WeightEntry { name: plan.name.clone(), dtype, shape, num_bytes };
    let num_bytes = plan.num_bytes() as usize;
    match plan.storage {
        Storage::F32 => vec![entry(Dtype::F32, plan.shape.clone(), num_bytes)],
        Storage::F16 => vec![entry(Dtype::F16, plan.shape.clone(), num_bytes)],
        Storage::Bf16 => vec![entry(Dtype::BF16, plan.shape.clone(), num_bytes)],
        Storage::Int8Rows => vec![
            entry(Dtype::I8, plan.output_major_shape(), num_rows * row_len),
            WeightEntry {
                name: format!("{}{SCALE_SUFFIX}", plan.name),
                dtype: Dtype::F32,
                shape: vec![num_rows],
                num_bytes: num_rows * 4,
            },
        ],
        // Q8_0 is planned for GGUF only; in safetensors it would be bytes like ternary.
        Storage::Q8Blocks | Storage::Ternary => vec![entry(Dtype::U8, vec![num_bytes], num_bytes)],
    }
}

/// `format: pt` (transformers asks for it), and format and logical shape of what is not float.
fn metadata<'a>(plans: impl Iterator<Item = &'a TensorPlan>) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    for plan in plans.filter(|plan| !plan.storage.is_float()) {
        metadata.insert(format!("{}.format", plan.name), plan.storage.label().to_owned());
        metadata.insert(format!("{}.shape", plan.name), format!("{:?}", plan.output_major_shape()));
    }
    metadata
}

/// The bytes of one of the file's tensors.
fn stored_bytes(weights: &QuantizedWeights, name: &str) -> Result<Vec<u8>, ExportError> {
    let missing = || ExportError::Model(crate::models::ModelError::MissingTensor { name: name.to_owned() });
    if let Some(QuantizedTensor { data, .. }) = weights.find(name) {
        return Ok(match data {
            TensorData::Float(tensor) => tensor_bytes(tensor)?,
            TensorData::Int8 { codes, .. } => bytemuck::cast_slice(codes).to_vec(),
            TensorData::Q8 { blocks } | TensorData::Ternary { blocks } => blocks.clone(),
        });
    }
    let scaled = name.strip_suffix(SCALE_SUFFIX).and_then(|name| weights.find(name)).ok_or_else(missing)?;
    match &scaled.data {
        TensorData::Int8 { scales, .. } => Ok(bytemuck::cast_slice(scales).to_vec()),
        TensorData::Float(_) | TensorData::Q8 { .. } | TensorData::Ternary { .. } => Err(missing()),
    }
}
