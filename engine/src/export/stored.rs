//! Weights as this room stores them, read back as the numbers that they mean: what a package or a quantized file is worth
//! is measured with the network that trained it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use foretrain_edge::gguf::{Q3_K_BLOCK_LEN, Q4_K_BLOCK_LEN, Q8_0_BLOCK_LEN};
use foretrain_edge::{EdgeError, Manifest};
use foretrain_ternary::{Packing, ROWS_PER_BYTE};
use safetensors::Dtype;
use serde_json::Value;

use super::checkpoint::check_finite;
use super::safetensors_format::{BITNET_SCALE_SUFFIX, CARD_KEY, SCALE_SUFFIX, TOKENIZER_KEY, entries};
use super::{Checkpoint, ExportError, ModelCard, TOKENIZER_FILE, WeightsReader};
use crate::device::Watch;
use crate::models::{Network, Params, TensorSpec};
use crate::quant::{QuantizedTensor, Storage, TensorData, TensorPlan, is_input_major};

/// A manifest is smaller: of a larger file no more is read to tell what it is.
const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// What the manifest of a package says.
#[derive(Debug, Clone, PartialEq)]
pub struct PackageRecord {
    /// The package's folder.
    pub folder: PathBuf,
    /// The card that the package was exported with.
    pub card: ModelCard,
    /// Names of its files.
    pub files: Vec<String>,
}

impl PackageRecord {
    /// The record of the package in `folder`, whose files are all what its manifest says; `None` where there is no manifest
    /// of a package, or none of a model that we trained.
    ///
    /// Errors: those of [`Manifest::open`] and [`Manifest::verify_checksums`].
    pub fn open(folder: &Path) -> Result<Option<Self>, EdgeError> {
        // What is no JSON may be a manifest that was damaged.
        let is_of_a_package = |text: Vec<u8>| {
            serde_json::from_slice::<Value>(&text).map_or(true, |value| value.get("format_version").is_some())
        };
        let mut start = Vec::new();
        let read = File::open(folder.join("manifest.json"))
            .and_then(|file| file.take(MAX_MANIFEST_BYTES).read_to_end(&mut start));
        if read.is_err() || !is_of_a_package(start) {
            return Ok(None);
        }
        let manifest = Manifest::open(folder)?;
        manifest.verify_checksums(folder)?;
        Ok(Self::of(manifest, folder))
    }

    /// The same by the files' sizes alone; `None` for a package that is damaged, too.
    #[must_use]
    pub fn find(folder: &Path) -> Option<Self> {
        Self::of(Manifest::open(folder).ok()?, folder)
    }

    fn of(manifest: Manifest, folder: &Path) -> Option<Self> {
        let card = serde_json::from_value(manifest.provenance).ok()?;
        let files = manifest.files.into_iter().map(|file| file.name).collect();
        Some(Self { folder: folder.to_owned(), card, files })
    }

    /// True for the name of one of its files.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.files.iter().any(|file| file == name)
    }

    /// The package as a checkpoint: its weights in safetensors, restored to f32.
    ///
    /// Errors: [`ExportError::WeightFile`] where a tensor is missing, or not what its network and storage ask for; those of
    /// reading.
    pub fn checkpoint(self, watch: Watch<'_>) -> Result<Checkpoint, ExportError> {
        let network = Network::new(&self.card.model)?;
        let files: Vec<PathBuf> = self
            .files
            .iter()
            .filter(|name| name.ends_with(".safetensors"))
            .map(|name| self.folder.join(name))
            .collect();
        let weights = read_stored(&files, &network, watch)?;
        let tokenizer_json = self.has(TOKENIZER_FILE).then(|| self.folder.join(TOKENIZER_FILE));
        Ok(Checkpoint { folder: self.folder, card: self.card, weights, tokenizer_json })
    }
}

/// What [`super::write_quantized`] wrote.
#[derive(Debug, Clone)]
pub struct QuantizedFile {
    /// Of the checkpoint that was quantized.
    pub card: ModelCard,
    /// Restored to f32.
    pub weights: Params,
    /// The content of `tokenizer.json`, of a language model.
    pub tokenizer_json: Option<String>,
}

impl QuantizedFile {
    /// Reads the file; `None` where it does not say which model its weights are of.
    ///
    /// Errors: [`ExportError::Json`] for its card, [`ExportError::WeightFile`]; those of reading.
    pub fn read(path: &Path, watch: Watch<'_>) -> Result<Option<Self>, ExportError> {
        let reader = WeightsReader::open(path)?;
        let Some(card) = reader.metadata(CARD_KEY) else { return Ok(None) };
        let card: ModelCard = serde_json::from_str(card).map_err(|source| ExportError::Json {
            what: "the model card",
            source,
            path: path.to_owned(),
        })?;
        let tokenizer_json = reader.metadata(TOKENIZER_KEY).map(str::to_owned);
        drop(reader);
        let weights = read_stored(&[path.to_owned()], &Network::new(&card.model)?, watch)?;
        Ok(Some(Self { card, weights, tokenizer_json }))
    }
}

/// The tensors of `network` out of safetensors files that this room wrote, in any storage, as f32 on the CPU.
fn read_stored(files: &[PathBuf], network: &Network, watch: Watch<'_>) -> Result<Params, ExportError> {
    let mut readers = files.iter().map(|path| WeightsReader::open(path)).collect::<Result<Vec<_>, _>>()?;
    let specs = network.specs();
    let mut weights = Params::default();
    for (done, spec) in specs.iter().enumerate() {
        watch.step("reading weights", done as u64, Some(specs.len() as u64))?;
        let reader = match readers.iter_mut().position(|reader| reader.info(&spec.name).is_some()) {
            Some(place) => readers.get_mut(place),
            None => readers.first_mut(),
        };
        let Some(reader) = reader else {
            return Err(ExportError::NotACheckpoint {
                expected: "a file of weights in safetensors".to_owned(),
                found: "none".to_owned(),
                path: files.first().cloned().unwrap_or_default(),
            });
        };
        let tensor = read_tensor(reader, spec, &specs)?;
        check_finite(reader, spec, &tensor)?;
        weights.insert(&spec.name, tensor);
    }
    Ok(weights)
}

/// One tensor, restored.
fn read_tensor(reader: &mut WeightsReader, spec: &TensorSpec, specs: &[TensorSpec]) -> Result<Tensor, ExportError> {
    let plan = plan_in_file(reader, spec, specs)?;
    let name = plan.name.as_str();
    for entry in entries(&plan) {
        let expected = (entry.dtype, &entry.shape);
        let found = reader.info(&entry.name).map(|info| (info.dtype, &info.shape));
        if found != Some(expected) {
            let found = found.map_or_else(|| "none".to_owned(), |(dtype, shape)| format!("{dtype:?} {shape:?}"));
            let storage = plan.storage.label();
            let expected = format!("tensor {:?} {:?} {:?}, stored as {storage}", entry.name, entry.dtype, entry.shape);
            return Err(reader.wrong(expected, found));
        }
    }
    let data = match plan.storage {
        Storage::F32 | Storage::F16 | Storage::Bf16 => TensorData::Float(reader.read_tensor(name)?),
        Storage::Int8Rows => TensorData::Int8 {
            codes: reader.read_bytes(name)?.into_iter().map(u8::cast_signed).collect(),
            scales: floats(&reader.read_bytes(&format!("{name}{SCALE_SUFFIX}"))?),
        },
        Storage::BitnetRows => TensorData::Bitnet {
            codes: reader.read_bytes(name)?,
            scale: floats(&reader.read_bytes(&format!("{name}{BITNET_SCALE_SUFFIX}"))?).first().copied().unwrap_or(0.0),
        },
        Storage::Q8Blocks => TensorData::Q8 { blocks: reader.read_bytes(name)? },
        Storage::Q4Blocks => TensorData::Q4 { blocks: reader.read_bytes(name)? },
        Storage::Q3KBlocks => TensorData::Q3K { blocks: reader.read_bytes(name)? },
        Storage::Q4KBlocks => TensorData::Q4K { blocks: reader.read_bytes(name)? },
        Storage::Ternary => TensorData::Ternary { blocks: reader.read_bytes(name)?, packing: Packing::Tq2_0 },
        Storage::TernaryBase3 => TensorData::Ternary { blocks: reader.read_bytes(name)?, packing: Packing::Tq1_0 },
    };
    Ok(QuantizedTensor { plan, data, relative_error: 0.0 }.dequantized()?)
}

/// How the file says that a tensor is stored. Errors: a tensor that is not there, or a storage that cannot be of its shape.
fn plan_in_file(reader: &WeightsReader, spec: &TensorSpec, specs: &[TensorSpec]) -> Result<TensorPlan, ExportError> {
    let expected = || format!("tensor {:?} of shape {:?}", spec.name, spec.shape);
    let Some(info) = reader.info(&spec.name) else {
        return Err(reader.missing(expected(), spec, specs));
    };
    let label = reader.metadata(&format!("{}.format", spec.name));
    let storage = match label {
        Some(label) => Storage::ALL.into_iter().find(|storage| storage.label() == label),
        None => match info.dtype {
            Dtype::F32 => Some(Storage::F32),
            Dtype::F16 => Some(Storage::F16),
            Dtype::BF16 => Some(Storage::Bf16),
            // The crate's enum is not ours and may grow.
            _ => None,
        },
    };
    let (name, shape) = (spec.name.clone(), spec.shape.clone());
    let plan = storage.map(|storage| {
        let is_input_major = is_input_major(&name, &shape);
        TensorPlan { name, shape, kind: spec.kind, storage, is_input_major }
    });
    plan.filter(holds_whole_blocks).ok_or_else(|| {
        let found = label.map_or_else(|| format!("{:?}", info.dtype), str::to_owned);
        reader.wrong(format!("{} in a storage that Foretrain writes", expected()), found)
    })
}

/// True where the rows of a tensor fill what its storage is made of.
fn holds_whole_blocks(plan: &TensorPlan) -> bool {
    let (num_rows, row_len) = plan.rows();
    match plan.storage {
        Storage::Q8Blocks => row_len.is_multiple_of(Q8_0_BLOCK_LEN),
        Storage::Q3KBlocks => row_len.is_multiple_of(Q3_K_BLOCK_LEN),
        Storage::Q4KBlocks => row_len.is_multiple_of(Q4_K_BLOCK_LEN),
        Storage::BitnetRows => num_rows.is_multiple_of(ROWS_PER_BYTE),
        // These pad.
        Storage::F32
        | Storage::F16
        | Storage::Bf16
        | Storage::Int8Rows
        | Storage::Q4Blocks
        | Storage::Ternary
        | Storage::TernaryBase3 => true,
    }
}

/// Little-endian f32.
fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}
