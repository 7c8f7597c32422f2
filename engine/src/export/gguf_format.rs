//! Weights of a language model as one GGUF file, in the names and the order of rows that llama.cpp expects.
//! Sources: ggml's `docs/gguf.md`; llama.cpp's `convert_hf_to_gguf.py` (classes GPT2Model and LlamaModel).

use std::borrow::Cow;
use std::io::{BufWriter, Write};
use std::path::Path;

use foretrain_edge::EdgeError;
use foretrain_edge::gguf::{GgufFile, GgufWriter, TensorType, Value, llama_cpp_name};

use super::format::{FormatInput, WeightsFormat};
use super::gguf_metadata::{architecture, metadata, predicted_vocabulary_bytes, unknown_to_llama_cpp, vocab_size};
use super::gguf_tokenizer::{GgufVocabulary, gguf_vocabulary};
use super::weights_file::tensor_bytes;
use super::{ExportError, ModelCard};
use crate::device::{Cancelled, Watch, atomic_file};
use crate::models::ModelConfig;
use crate::quant::{Container, QuantizedTensor, QuantizedWeights, Storage, TensorData, TensorPlan};

/// Name of the weight file within a package.
const FILE: &str = "model.gguf";
/// Where each tensor starts: a multiple of this.
const ALIGNMENT: u64 = 32;

/// One GGUF file.
#[derive(Debug)]
pub(super) struct GgufFormat;

impl WeightsFormat for GgufFormat {
    fn container(&self) -> Container {
        Container::Gguf
    }

    fn file_name(&self) -> &'static str {
        FILE
    }

    fn predicted_bytes(&self, plans: &[TensorPlan], card: &ModelCard) -> u64 {
        // Per tensor: length and text of the name, dimensions, type, offset. The names here are the longer ones of
        // transformers, by about as much as the metadata before them is not counted.
        let headers: u64 = plans.iter().map(|plan| 24 + (plan.name.len() + 8 * plan.shape.len()) as u64).sum();
        let tensors: u64 = plans.iter().map(|plan| plan.num_bytes().next_multiple_of(ALIGNMENT)).sum();
        headers + tensors + predicted_vocabulary_bytes(card)
    }

    fn write(&self, input: &FormatInput<'_>, folder: &Path, watch: Watch<'_>) -> Result<Vec<String>, ExportError> {
        let FormatInput { weights, card, .. } = *input;
        let failed = |error: EdgeError| ExportError::Runtime { tried: "composing model.gguf", what: error.to_string() };
        let mut writer = GgufWriter::new(architecture(card)?);
        for (key, value) in metadata(card, weights.scheme())? {
            writer.add_metadata(&key, value).map_err(failed)?;
        }
        let (vocabulary, reason_for_none) = vocabulary(input);
        for (key, value) in vocabulary {
            writer.add_metadata(key, value).map_err(failed)?;
        }
        let note = |reason: String| {
            format!(
                "model.gguf holds no vocabulary: {reason}. foretrain-edge reads tokenizer.json beside it; \
                 llama.cpp loads the weights but takes token numbers only"
            )
        };
        let notes = reason_for_none.map(note).into_iter().chain(unknown_to_llama_cpp(card)).collect();
        let tensors = gguf_tensors(weights, card)?;
        for tensor in &tensors {
            let data: Cow<'_, [u8]> = Cow::Borrowed(&tensor.data);
            writer.add_tensor(&tensor.name, tensor.kind, &tensor.shape, data).map_err(failed)?;
        }
        let total = tensors.iter().map(|tensor| tensor.data.len() as u64).sum();
        let mut failure = None;
        let written = atomic_file::write(&folder.join(FILE), |file| {
            let mut watched = WatchedWrite { inner: file, watch, done: 0, total, cancelled: None };
            let result = writer.write(&mut watched);
            if let Some(cancelled) = watched.cancelled {
                failure = Some(ExportError::from(cancelled));
            }
            match result {
                Ok(_) => Ok(()),
                Err(EdgeError::WriteFile { source }) => Err(source),
                Err(error) => Err(std::io::Error::other(error.to_string())),
            }
        });
        match (failure, written) {
            (Some(failure), _) => Err(failure),
            (None, written) => {
                written?;
                Ok(notes)
            }
        }
    }

    fn compare(&self, input: &FormatInput<'_>, folder: &Path, watch: Watch<'_>) -> Result<(), ExportError> {
        let FormatInput { weights, card, .. } = *input;
        let differs = |what: String, expected: String, found: String| ExportError::ReadBack { what, expected, found };
        let file = GgufFile::open(&folder.join(FILE))
            .map_err(|error| ExportError::Runtime { tried: "reopening model.gguf", what: error.to_string() })?;
        let tensors = gguf_tensors(weights, card)?;
        if file.tensors().len() != tensors.len() {
            let found = file.tensors().len().to_string();
            return Err(differs("number of tensors".to_owned(), tensors.len().to_string(), found));
        }
        for (key, value) in metadata(card, weights.scheme())? {
            if file.metadata().get(&key) != Some(&value) {
                let found = file.metadata().get(&key).map_or_else(|| "none".to_owned(), ToString::to_string);
                return Err(differs(format!("metadata {key:?}"), value.to_string(), found));
            }
        }
        for (key, value) in vocabulary(input).0 {
            if file.metadata().get(key) != Some(&value) {
                let expected = "the vocabulary that was written".to_owned();
                return Err(differs(format!("metadata {key:?}"), expected, "another".to_owned()));
            }
        }
        for (done, tensor) in tensors.iter().enumerate() {
            watch.step("comparing weights", done as u64, Some(tensors.len() as u64))?;
            let found = file.tensors().get(&tensor.name).map(|found| (found.kind, found.shape.clone()));
            if found.as_ref() != Some(&(tensor.kind, tensor.shape.clone())) {
                let expected = format!("{:?} {:?}", tensor.kind, tensor.shape);
                let found = found.map_or_else(|| "none".to_owned(), |(kind, shape)| format!("{kind:?} {shape:?}"));
                return Err(differs(format!("tensor {:?}", tensor.name), expected, found));
            }
            if file.data(&tensor.name) != Some(&tensor.data) {
                let expected = "the bytes that were written".to_owned();
                return Err(differs(format!("tensor {:?}", tensor.name), expected, "other bytes".to_owned()));
            }
        }
        Ok(())
    }
}

/// The metadata of the vocabulary; with the reason when it says that there is none.
fn vocabulary(input: &FormatInput<'_>) -> (Vec<(&'static str, Value)>, Option<String>) {
    let found = input.tokenizer.map(|tokenizer| gguf_vocabulary(tokenizer, vocab_size(input.card)));
    match found.unwrap_or_else(|| GgufVocabulary::None("there is no tokenizer.json".to_owned())) {
        GgufVocabulary::Bpe(entries) => (entries, None),
        GgufVocabulary::None(reason) => (vec![("tokenizer.ggml.model", Value::from("none"))], Some(reason)),
    }
}

/// A tensor as it lies in the file.
struct GgufTensorData<'a> {
    name: String,
    kind: TensorType,
    /// Row-major, outermost first.
    shape: Vec<usize>,
    data: Cow<'a, [u8]>,
}

fn gguf_tensors<'a>(weights: &'a QuantizedWeights, card: &ModelCard) -> Result<Vec<GgufTensorData<'a>>, ExportError> {
    let architecture = architecture(card)?;
    weights
        .tensors()
        .iter()
        .map(|tensor| {
            let plan = &tensor.plan;
            let name = llama_cpp_name(architecture, &plan.name).ok_or_else(|| ExportError::Runtime {
                tried: "naming tensors for llama.cpp",
                what: format!("{:?} has no name in architecture {architecture}", plan.name),
            })?;
            let mut data = output_major_bytes(tensor)?;
            if let Some(num_heads) = rotary_heads(card, &plan.name) {
                data = Cow::Owned(interleaved_rows(&data, plan.rows().0, num_heads));
            }
            Ok(GgufTensorData { name, kind: tensor_type(plan.storage)?, shape: plan.output_major_shape(), data })
        })
        .collect()
}

fn output_major_bytes(tensor: &QuantizedTensor) -> Result<Cow<'_, [u8]>, ExportError> {
    Ok(match &tensor.data {
        TensorData::Float(values) if tensor.plan.is_input_major => {
            Cow::Owned(tensor_bytes(&values.t()?.contiguous()?)?)
        }
        TensorData::Float(values) => Cow::Owned(tensor_bytes(values)?),
        TensorData::Int8 { codes, .. } => Cow::Borrowed(bytemuck::cast_slice(codes)),
        TensorData::Bitnet { codes, .. } => Cow::Borrowed(codes),
        TensorData::Q8 { blocks }
        | TensorData::Q4 { blocks }
        | TensorData::Q3K { blocks }
        | TensorData::Q4K { blocks }
        | TensorData::Ternary { blocks, .. } => Cow::Borrowed(blocks),
    })
}

/// Number of heads in a query or key matrix of Llama, whose rows llama.cpp wants in another order; those of a BitNet stay.
fn rotary_heads(card: &ModelCard, name: &str) -> Option<usize> {
    match &card.model {
        ModelConfig::Llama(config) if config.sub_norms => None,
        ModelConfig::Llama(config) if name.ends_with(".self_attn.q_proj.weight") => Some(config.num_attention_heads),
        ModelConfig::Llama(config) if name.ends_with(".self_attn.k_proj.weight") => Some(config.num_key_value_heads),
        ModelConfig::Llama(_)
        | ModelConfig::Gpt2(_)
        | ModelConfig::Mlp(_)
        | ModelConfig::Cnn(_)
        | ModelConfig::ResNet(_) => None,
    }
}

/// Rows of each head from halves (transformers rotates element i with i + d/2) to pairs (llama.cpp rotates 2i with
/// 2i + 1). Rows are moved whole, so that packed ones stay packed.
/// Source: `LlamaModel.permute` in llama.cpp's converter.
fn interleaved_rows(data: &[u8], num_rows: usize, num_heads: usize) -> Vec<u8> {
    let row_bytes = data.len() / num_rows.max(1);
    let head_rows = num_rows / num_heads.max(1);
    let half = head_rows / 2;
    let mut moved = Vec::with_capacity(data.len());
    for head in data.chunks(head_rows.max(1) * row_bytes.max(1)) {
        for pair in 0..half {
            for part in 0..2 {
                let start = (part * half + pair) * row_bytes;
                moved.extend_from_slice(head.get(start..start + row_bytes).unwrap_or_default());
            }
        }
    }
    moved
}

fn tensor_type(storage: Storage) -> Result<TensorType, ExportError> {
    match storage {
        Storage::F32 => Ok(TensorType::F32),
        Storage::F16 => Ok(TensorType::F16),
        Storage::Bf16 => Ok(TensorType::Bf16),
        Storage::Q8Blocks => Ok(TensorType::Q8_0),
        Storage::Q4Blocks => Ok(TensorType::Q4_0),
        Storage::Q3KBlocks => Ok(TensorType::Q3K),
        Storage::Q4KBlocks => Ok(TensorType::Q4K),
        Storage::Ternary => Ok(TensorType::Tq2_0),
        Storage::TernaryBase3 => Ok(TensorType::Tq1_0),
        Storage::Int8Rows => Err(ExportError::Runtime {
            tried: "composing model.gguf",
            what: "int8 with a scale per row has no form in GGUF; Q8_0 does".to_owned(),
        }),
        Storage::BitnetRows => Err(ExportError::Runtime {
            tried: "composing model.gguf",
            what: "four rows to a byte have no form in GGUF; TQ2_0 does".to_owned(),
        }),
    }
}

/// Tells a watch how far a writer is, and stops when asked to.
struct WatchedWrite<'a, W: Write> {
    inner: &'a mut BufWriter<W>,
    watch: Watch<'a>,
    done: u64,
    total: u64,
    cancelled: Option<Cancelled>,
}

impl<W: Write> Write for WatchedWrite<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if let Err(cancelled) = self.watch.step("writing weights", self.done.min(self.total), Some(self.total)) {
            self.cancelled = Some(cancelled);
            return Err(std::io::Error::other(cancelled));
        }
        let written = self.inner.write(&bytes[..bytes.len().min(4 << 20)])?;
        self.done += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::export::test_model::tiny_llama;
    use crate::models::Network;
    use crate::quant::{QuantScheme, quantize_for};
    use crate::unwatched;

    #[test]
    fn another_vocabulary_than_the_one_meant_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let checkpoint = tiny_llama(root.path());
        let specs = Network::new(&checkpoint.card.model).unwrap().specs();
        let weights =
            quantize_for(&specs, &checkpoint.weights, QuantScheme::F32, Container::Gguf, unwatched!()).unwrap();
        let tokenizer = |second: &str| {
            json!({
                "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false },
                "model": { "type": "BPE", "vocab": { "a": 0, second: 1 }, "merges": [] },
            })
        };
        let (meant, other) = (tokenizer("b"), tokenizer("c"));
        let input = |tokenizer| FormatInput { weights: &weights, card: &checkpoint.card, tokenizer };
        assert!(GgufFormat.write(&input(Some(&meant)), root.path(), unwatched!()).unwrap().is_empty());
        GgufFormat.compare(&input(Some(&meant)), root.path(), unwatched!()).unwrap();
        for another in [Some(&other), None] {
            match GgufFormat.compare(&input(another), root.path(), unwatched!()) {
                Err(ExportError::ReadBack { what, .. }) => assert!(what.contains("tokenizer.ggml."), "{what}"),
                passed => panic!("{another:?}: {passed:?}"),
            }
        }
    }

    #[test]
    fn halves_become_pairs_within_each_head() {
        // Two heads of four rows, one byte per row.
        assert_eq!(interleaved_rows(&[0, 1, 2, 3, 4, 5, 6, 7], 8, 2), [0, 2, 1, 3, 4, 6, 5, 7]);
        // One head of two rows stays.
        assert_eq!(interleaved_rows(&[0, 0, 1, 1], 2, 1), [0, 0, 1, 1]);
    }
}
