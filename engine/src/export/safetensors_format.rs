//! Weights of a package as safetensors: one file, or shards with an index where they are large.
//!
//! Float tensors keep the checkpoint's name and layout, so that with float schemes the folder is a Hugging Face one.
//! Other tensors are output-major, with their logical shape and format in the file's metadata.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::Dtype;
use serde_json::{Value, json};

use super::format::{FormatInput, WeightsFormat};
use super::partial_file::PartialFile;
use super::weights_file::{WeightEntry, WeightsReader, header_bytes, tensor_bytes, write_safetensors};
use super::{Checkpoint, ExportError, ModelCard, SHARD_INDEX_FILE, WEIGHTS_FILE};
use crate::device::{Watch, atomic_file};
use crate::models::Network;
use crate::quant::{
    Container, QuantScheme, QuantizedTensor, QuantizedWeights, Storage, TableType, Tables, TensorData, TensorPlan,
    has_table_choice, plan, plan_with_tables,
};

/// Suffix of the tensor that holds the scales of an int8 tensor.
pub(super) const SCALE_SUFFIX: &str = ".scale";
/// The same in transformers' BitNet.
pub(super) const BITNET_SCALE_SUFFIX: &str = "_scale";
/// Metadata of a file of quantized weights alone: the card of their model, and the tokenizer of a language model.
pub(super) const CARD_KEY: &str = "foretrain.card";
pub(super) const TOKENIZER_KEY: &str = "foretrain.tokenizer";

/// Safetensors files of a limited size.
#[derive(Debug, Clone, Copy)]
pub(super) struct SafetensorsFormat {
    /// What a tensor may look like.
    container: Container,
    /// Most bytes of tensors in a file; a tensor is not divided.
    shard_bytes: u64,
}

/// Writes the quantized weights of `checkpoint`, with its card and its tokenizer in the file's metadata, as the new
/// safetensors file `path`, which it becomes once it was compared with what was meant.
/// Errors: [`ExportError::NewFile`]; those of writing and of reading back. After an error nothing is there.
pub fn write_quantized(
    weights: &QuantizedWeights,
    checkpoint: &Checkpoint,
    path: &Path,
    watch: Watch<'_>,
) -> Result<(), ExportError> {
    let partial = PartialFile::new(path)?;
    let tensors: Vec<&QuantizedTensor> = weights.tensors().iter().collect();
    let about = about(checkpoint)?;
    write_file((&tensors, &about), partial.path(), watch)?;
    compare_file((&tensors, &about), partial.path(), watch)?;
    partial.publish()
}

/// Size of the file that [`write_quantized`] makes of a checkpoint at least, bytes: embedding and head that measuring
/// chooses count as the smallest. Errors: a tokenizer that cannot be read.
pub fn least_quantized_bytes(
    checkpoint: &Checkpoint,
    network: &Network,
    scheme: QuantScheme,
    tables: Tables,
) -> Result<u64, ExportError> {
    let container = Container::Safetensors;
    let has_choice = has_table_choice(&plan(&network.specs(), scheme, container), scheme, container);
    let tables = if has_choice { tables.or(TableType::Int3K) } else { tables };
    let plans = plan_with_tables(&network.specs(), scheme, container, tables);
    let header: usize = about(checkpoint)?.iter().map(|(key, value)| key.len() + value.len()).sum();
    Ok(SafetensorsFormat::OURS.predicted_bytes(&plans, &checkpoint.card) + header as u64)
}

/// What a file of weights alone says about their model.
fn about(checkpoint: &Checkpoint) -> Result<BTreeMap<String, String>, ExportError> {
    let card = serde_json::to_string(&checkpoint.card).map_err(|source| ExportError::Json {
        what: "the model card",
        source,
        path: checkpoint.folder.clone(),
    })?;
    let mut about = BTreeMap::from([(CARD_KEY.to_owned(), card)]);
    if let Some(path) = &checkpoint.tokenizer_json {
        let text = std::fs::read_to_string(path).map_err(|source| ExportError::read(path, source))?;
        about.insert(TOKENIZER_KEY.to_owned(), text);
    }
    Ok(about)
}

impl SafetensorsFormat {
    /// Everything that foretrain-edge reads; cut where transformers cuts.
    pub(super) const OURS: Self = Self { container: Container::Safetensors, shard_bytes: 5_000_000_000 };
    /// What transformers loads.
    pub(super) const TRANSFORMERS: Self = Self { container: Container::Transformers, ..Self::OURS };

    /// Tensors of each file, in the network's order.
    fn shards<'a>(&self, weights: &'a QuantizedWeights) -> Vec<Vec<&'a QuantizedTensor>> {
        let mut shards = vec![Vec::new()];
        let mut bytes = 0;
        for tensor in weights.tensors() {
            let tensor_bytes = tensor.num_bytes();
            if bytes > 0 && bytes + tensor_bytes > self.shard_bytes {
                shards.push(Vec::new());
                bytes = 0;
            }
            bytes += tensor_bytes;
            if let Some(shard) = shards.last_mut() {
                shard.push(tensor);
            }
        }
        shards
    }
}

impl WeightsFormat for SafetensorsFormat {
    fn container(&self) -> Container {
        self.container
    }

    fn file_name(&self) -> &'static str {
        WEIGHTS_FILE
    }

    fn holds(&self, file: &str) -> bool {
        file.ends_with(".safetensors")
    }

    fn predicted_bytes(&self, plans: &[TensorPlan], _card: &ModelCard) -> u64 {
        let entries: Vec<WeightEntry> = plans.iter().flat_map(entries).collect();
        let data: usize = entries.iter().map(|entry| entry.num_bytes).sum();
        (header_bytes(&entries, &metadata(plans.iter())).len() + data) as u64
    }

    fn write(&self, input: &FormatInput<'_>, folder: &Path, watch: Watch<'_>) -> Result<Vec<String>, ExportError> {
        let shards = self.shards(input.weights);
        for (number, shard) in shards.iter().enumerate() {
            write_file((shard, &BTreeMap::new()), &folder.join(shard_name(number, shards.len())), watch)?;
        }
        if shards.len() > 1 {
            let index = index_json(&shards);
            atomic_file::write(&folder.join(SHARD_INDEX_FILE), |file| Ok(serde_json::to_writer_pretty(file, &index)?))?;
        }
        Ok(Vec::new())
    }

    fn compare(&self, input: &FormatInput<'_>, folder: &Path, watch: Watch<'_>) -> Result<(), ExportError> {
        let shards = self.shards(input.weights);
        for (number, shard) in shards.iter().enumerate() {
            compare_file((shard, &BTreeMap::new()), &folder.join(shard_name(number, shards.len())), watch)?;
        }
        if shards.len() > 1 {
            let path = folder.join(SHARD_INDEX_FILE);
            let text = std::fs::read(&path).map_err(|source| ExportError::read(&path, source))?;
            if serde_json::from_slice::<Value>(&text).ok() != Some(index_json(&shards)) {
                let (what, expected) = (SHARD_INDEX_FILE.to_owned(), "the index that was written".to_owned());
                return Err(ExportError::ReadBack { what, expected, found: "another".to_owned() });
            }
        }
        Ok(())
    }
}

/// The name that transformers gives to file `number` of `count`.
fn shard_name(number: usize, count: usize) -> String {
    if count == 1 { WEIGHTS_FILE.to_owned() } else { format!("model-{:05}-of-{count:05}.safetensors", number + 1) }
}

/// Which tensor is in which file, as transformers writes it.
fn index_json(shards: &[Vec<&QuantizedTensor>]) -> Value {
    let mut map = serde_json::Map::new();
    let mut total_size = 0;
    for (number, shard) in shards.iter().enumerate() {
        for tensor in shard {
            total_size += tensor.num_bytes();
            let names = entries(&tensor.plan).into_iter().map(|entry| entry.name);
            map.extend(names.map(|name| (name, shard_name(number, shards.len()).into())));
        }
    }
    json!({ "metadata": { "total_size": total_size }, "weight_map": map })
}

/// What goes into a file: tensors, and metadata beside those of the tensors.
type Content<'a> = (&'a [&'a QuantizedTensor], &'a BTreeMap<String, String>);

fn write_file((tensors, about): Content<'_>, path: &Path, watch: Watch<'_>) -> Result<(), ExportError> {
    let plans = || tensors.iter().map(|tensor| &tensor.plan);
    let entries: Vec<WeightEntry> = plans().flat_map(entries).collect();
    let mut metadata = metadata(plans());
    metadata.extend(about.clone());
    write_safetensors(path, &entries, &metadata, watch, |name| stored_bytes(tensors, name))
}

fn compare_file((tensors, about): Content<'_>, path: &Path, watch: Watch<'_>) -> Result<(), ExportError> {
    let mut reader = WeightsReader::open(path)?;
    let wanted: Vec<WeightEntry> = tensors.iter().flat_map(|tensor| entries(&tensor.plan)).collect();
    let differs = |what: String, expected: String, found: String| ExportError::ReadBack { what, expected, found };
    if reader.names().len() != wanted.len() {
        let found = reader.names().len().to_string();
        return Err(differs("number of tensors".to_owned(), wanted.len().to_string(), found));
    }
    for (key, value) in metadata(tensors.iter().map(|tensor| &tensor.plan)).iter().chain(about) {
        if reader.metadata(key) != Some(value.as_str()) {
            let found = reader.metadata(key).unwrap_or("none").to_owned();
            return Err(differs(format!("metadata {key:?}"), value.clone(), found));
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
        if reader.read_bytes(&entry.name)? != stored_bytes(tensors, &entry.name)? {
            let expected = "the bytes that were written".to_owned();
            return Err(differs(format!("tensor {:?}", entry.name), expected, "other bytes".to_owned()));
        }
    }
    Ok(())
}

/// The file's tensors for one of ours: itself, and its scales when it is int8.
pub(super) fn entries(plan: &TensorPlan) -> Vec<WeightEntry> {
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
        Storage::BitnetRows => {
            let scale_name = format!("{}{BITNET_SCALE_SUFFIX}", plan.name);
            let packed_rows = num_rows / foretrain_ternary::ROWS_PER_BYTE;
            vec![
                entry(Dtype::U8, vec![packed_rows, row_len], packed_rows * row_len),
                WeightEntry { name: scale_name, dtype: Dtype::F32, shape: vec![1], num_bytes: 4 },
            ]
        }
        // Q8_0 is planned for GGUF only; in safetensors it would be bytes like ternary.
        Storage::Q8Blocks
        | Storage::Q4Blocks
        | Storage::Q3KBlocks
        | Storage::Q4KBlocks
        | Storage::Ternary
        | Storage::TernaryBase3 => vec![entry(Dtype::U8, vec![num_bytes], num_bytes)],
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
fn stored_bytes(tensors: &[&QuantizedTensor], name: &str) -> Result<Vec<u8>, ExportError> {
    let missing = || ExportError::Model(crate::models::ModelError::MissingTensor { name: name.to_owned() });
    let find = |name: &str| tensors.iter().find(|tensor| tensor.plan.name == name);
    if let Some(QuantizedTensor { data, .. }) = find(name) {
        return Ok(match data {
            TensorData::Float(tensor) => tensor_bytes(tensor)?,
            TensorData::Int8 { codes, .. } => bytemuck::cast_slice(codes).to_vec(),
            TensorData::Bitnet { codes, .. } => codes.clone(),
            TensorData::Q8 { blocks }
            | TensorData::Q4 { blocks }
            | TensorData::Q3K { blocks }
            | TensorData::Q4K { blocks }
            | TensorData::Ternary { blocks, .. } => blocks.clone(),
        });
    }
    let owner = name.strip_suffix(SCALE_SUFFIX).or_else(|| name.strip_suffix(BITNET_SCALE_SUFFIX));
    let scaled = owner.and_then(find).ok_or_else(missing)?;
    match &scaled.data {
        TensorData::Int8 { scales, .. } => Ok(bytemuck::cast_slice(scales).to_vec()),
        TensorData::Bitnet { scale, .. } => Ok(scale.to_le_bytes().to_vec()),
        TensorData::Float(_)
        | TensorData::Q8 { .. }
        | TensorData::Q4 { .. }
        | TensorData::Q3K { .. }
        | TensorData::Q4K { .. }
        | TensorData::Ternary { .. } => Err(missing()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::export::test_model::tiny_llama;
    use crate::export::{PackageFormat, TargetPreset, blockers, export_package, quantize_for_target};
    use crate::quant::quantize;
    use crate::unwatched;

    #[test]
    fn large_weights_are_cut_between_tensors_and_indexed() {
        let root = tempfile::tempdir().unwrap();
        let checkpoint = tiny_llama(root.path());
        let specs = Network::new(&checkpoint.card.model).unwrap().specs();
        for scheme in [QuantScheme::F32, QuantScheme::Int8] {
            let weights = quantize(&specs, &checkpoint.weights, scheme).unwrap();
            let input = FormatInput { weights: &weights, card: &checkpoint.card, tokenizer: None };
            let folder = root.path().join(scheme.label());
            std::fs::create_dir(&folder).unwrap();
            // Larger than the largest tensor, smaller than all.
            let shard_bytes = weights.bytes() / 3;
            let format = SafetensorsFormat { shard_bytes, ..SafetensorsFormat::OURS };
            format.write(&input, &folder, unwatched!()).unwrap();
            format.compare(&input, &folder, unwatched!()).unwrap();
            let index: Value = serde_json::from_slice(&std::fs::read(folder.join(SHARD_INDEX_FILE)).unwrap()).unwrap();
            assert_eq!(index["metadata"]["total_size"], weights.bytes());
            let map = index["weight_map"].as_object().unwrap();
            let mut files: Vec<&str> = map.values().map(|file| file.as_str().unwrap()).collect();
            files.sort_unstable();
            files.dedup();
            assert!(
                files.len() > 2 && files[0] == format!("model-00001-of-{:05}.safetensors", files.len()),
                "{files:?}"
            );
            for file in &files {
                let reader = WeightsReader::open(&folder.join(file)).unwrap();
                let names = reader.names();
                let sizes = names.iter().map(|name| {
                    assert_eq!(map[name], *file);
                    let (start, end) = reader.info(name).unwrap().data_offsets;
                    (end - start) as u64
                });
                assert!(sizes.sum::<u64>() <= shard_bytes);
            }
            // A damaged shard, and an index of another model, are noticed.
            let first = folder.join(files[0]);
            let mut bytes = std::fs::read(&first).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            std::fs::write(&first, &bytes).unwrap();
            assert!(format.compare(&input, &folder, unwatched!()).is_err());
            *bytes.last_mut().unwrap() ^= 1;
            std::fs::write(&first, &bytes).unwrap();
            std::fs::write(folder.join(SHARD_INDEX_FILE), "{}").unwrap();
            assert!(format.compare(&input, &folder, unwatched!()).is_err());
        }
        let weights = quantize(&specs, &checkpoint.weights, QuantScheme::F32).unwrap();
        assert_eq!(SafetensorsFormat::OURS.shards(&weights).len(), 1);
    }

    #[test]
    fn ternary_for_transformers_has_the_layout_of_its_bitnet() {
        let root = tempfile::tempdir().unwrap();
        let checkpoint = tiny_llama(root.path());
        let target = TargetPreset::find("edge-board").unwrap().with_format(PackageFormat::Transformers);
        let folder = root.path().join("package");
        // Written, compared, and run by foretrain-edge.
        export_package(&checkpoint, &target, &folder, None, unwatched!()).unwrap();
        let stored = quantize_for_target(&checkpoint, &target, unwatched!()).unwrap();
        let mut reader = WeightsReader::open(&folder.join(WEIGHTS_FILE)).unwrap();
        let name = "model.layers.1.mlp.down_proj.weight";
        let info = reader.info(name).unwrap();
        assert_eq!((info.dtype, info.shape.as_slice()), (Dtype::U8, [16, 64].as_slice()));
        let scale = reader.read_tensor(&format!("{name}_scale")).unwrap().to_vec1::<f32>().unwrap();
        let trits = foretrain_ternary::unpack_rows(&reader.read_bytes(name).unwrap()).unwrap();
        let values: Vec<f32> = trits.iter().map(|trit| f32::from(*trit) * scale[0]).collect();
        assert_eq!(values, stored.find(name).unwrap().output_major_values().unwrap());
        let config: Value = serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
        assert_eq!(config["quantization_config"]["quant_method"], "bitnet");
        assert_eq!(config["quantization_config"]["modules_to_not_convert"], json!(["lm_head"]));
        for scheme in [QuantScheme::Int8, QuantScheme::Int4, QuantScheme::TernaryBase3] {
            let blockers = blockers(&checkpoint.card, &target.clone().with_scheme(scheme));
            assert!(blockers[0].what.contains(scheme.label()), "{blockers:?}");
        }
        assert!(blockers(&checkpoint.card, &target.with_scheme(QuantScheme::Bf16)).is_empty());
    }
}
