//! A model of any origin as a checkpoint, and what a run needs to know to start from it.

use std::path::{Path, PathBuf};

use foretrain_edge::EdgeError;
use foretrain_edge::gguf::{GgufFile, tokenizer_json};

use super::ImportError;
use super::gguf::GgufSource;
use super::hugging_face::SafetensorsSource;
use super::source::{GGUF_FILE, Source, is_safetensors, recognize};
use super::tensors::{TensorSource, check_leftovers, read_tensor, read_tensors};
use super::{gguf_config, hugging_face};
use crate::data::{DatasetSpec, SplitRecord, TokenizerSpec};
use crate::device::{Watch, atomic_file};
use crate::export::{
    self, Checkpoint, ExportError, ModelCard, PackageRecord, Preprocessing, QuantizedFile, TOKENIZER_FILE,
};
use crate::models::{ModelConfig, ModelError, Network, TensorSpec};

/// What is known of a model before its weights are read.
#[derive(Debug, Clone, PartialEq)]
pub struct StartingPoint {
    /// The network.
    pub model: ModelConfig,
    /// The `tokenizer.json` of a language model.
    pub tokenizer: Option<PathBuf>,
}

/// Reads the config and finds the tokenizer of the model in `path`: a checkpoint or run folder of ours, a folder of
/// transformers' GPT-2 or Llama, or a GGUF file. A vocabulary that lies within a GGUF file is written below `cache`.
///
/// Errors: [`ImportError`], for everything but its weights.
pub fn starting_point(path: &Path, cache: &Path) -> Result<StartingPoint, ImportError> {
    match recognize(path)? {
        Source::Checkpoint(folder) => {
            let tokenizer = folder.join(TOKENIZER_FILE);
            let tokenizer = tokenizer.is_file().then_some(tokenizer);
            Ok(StartingPoint { model: ModelCard::read(&folder)?.model, tokenizer })
        }
        Source::HuggingFace(folder) => {
            let model = hugging_face::read_config(&folder)?;
            Ok(StartingPoint { model, tokenizer: Some(folder_tokenizer(&folder)?) })
        }
        Source::Gguf(file) => {
            let gguf = GgufFile::open(&file)?;
            let (model, _) = gguf_config::read_config(&gguf, &file)?;
            Ok(StartingPoint { model, tokenizer: Some(file_tokenizer(&gguf, &file, cache)?) })
        }
    }
}

/// Reads the model in `path` whole, as [`starting_point`] finds it: weights as f32, each checked.
///
/// Errors: any [`ImportError`]; cancelled between tensors.
pub fn read_model(path: &Path, cache: &Path, watch: Watch<'_>) -> Result<Checkpoint, ImportError> {
    let (folder, weights, start, config_path) = match recognize(path)? {
        Source::Checkpoint(folder) => return Ok(export::read_checkpoint_watched(&folder, watch)?),
        Source::HuggingFace(folder) => {
            let start = starting_point(path, cache)?;
            let config_path = folder.join(hugging_face::CONFIG_FILE);
            let network = network(&start.model, &config_path)?;
            let mut source = SafetensorsSource::open(&folder, &start.model)?;
            (folder, read_tensors(&network, &mut source, watch)?, start, config_path)
        }
        Source::Gguf(file) => {
            let gguf = GgufFile::open(&file)?;
            let (model, architecture) = gguf_config::read_config(&gguf, &file)?;
            let tokenizer = Some(file_tokenizer(&gguf, &file, cache)?);
            let network = network(&model, &file)?;
            let mut source = GgufSource::new(gguf, &file, model.clone(), architecture);
            let weights = read_tensors(&network, &mut source, watch)?;
            (file.clone(), weights, StartingPoint { model, tokenizer }, file)
        }
    };
    let network = network(&start.model, &config_path)?;
    let name = folder.file_stem().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned());
    let tokenizer_json = start.tokenizer;
    let card = ModelCard {
        name,
        num_params: network.num_params() as u64,
        model: start.model,
        // It does not say what it learned from; whoever measures it names a dataset.
        data: DatasetSpec::Text {
            path: PathBuf::new(),
            tokenizer: TokenizerSpec::File { path: tokenizer_json.clone().unwrap_or_default() },
        },
        dataset_name: "data that it does not name".to_owned(),
        preprocessing: Preprocessing::Text,
        split: SplitRecord { rule: "unknown".to_owned(), num_train: 0, num_validation: 0, num_test: 0 },
        sequence_length: trained_length(path, &network),
        tier: ModelCard::IMPORTED.to_owned(),
        recipe: None,
        step: 0,
        num_steps: 0,
        trained_for: None,
        validation_loss: None,
        validation_accuracy: None,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    Ok(Checkpoint { folder, card, weights, tokenizer_json })
}

/// Reads what `path` holds as it is stored, to be measured: all that [`read_model`] reads, a package of ours with the card
/// that it was exported with, and a file of quantized weights; in f32.
///
/// Errors: [`ImportError::NotAModel`] for an ONNX package and for a file that does not say which model its weights are of;
/// [`ImportError::Edge`] for a package whose files are not what its manifest says; any other [`ImportError`].
pub fn read_stored_model(path: &Path, cache: &Path, watch: Watch<'_>) -> Result<Checkpoint, ImportError> {
    export::refuse_unfinished(path)?;
    let record = if path.is_dir() { PackageRecord::open(path)? } else { package_of(path) };
    let Some(record) = record else {
        let is_alone = is_safetensors(path);
        return if is_alone { read_quantized_file(path, cache, watch) } else { read_model(path, cache, watch) };
    };
    if record.has("model.onnx") {
        return Err(ImportError::NotAModel {
            expected: "weights in safetensors or GGUF".to_owned(),
            found: "an ONNX graph".to_owned(),
            hint: "What it is worth was measured with its graph when it was exported, and is in its README.md; `foretrain \
                   export --format onnx` measures again",
            path: record.folder,
        });
    }
    if !record.has(GGUF_FILE) {
        return Ok(record.checkpoint(watch)?);
    }
    let read = read_model(path, cache, watch)?;
    // A file of weights alone does not say where they come from.
    let is_same = Network::new(&record.card.model).is_ok_and(|network| has_tensors_of(&network, &read.card.model));
    Ok(if is_same { Checkpoint { card: record.card, ..read } } else { read })
}

/// What `foretrain quantize` wrote.
fn read_quantized_file(path: &Path, cache: &Path, watch: Watch<'_>) -> Result<Checkpoint, ImportError> {
    let found = QuantizedFile::read(path, watch)?;
    let QuantizedFile { card, weights, tokenizer_json } = found.ok_or_else(|| ImportError::NotAModel {
        expected: "a safetensors file of `foretrain quantize`, which says what its weights are of".to_owned(),
        found: "weights alone".to_owned(),
        hint: "Quantize again with this version, or name the folder that the file lies in with its config.json",
        path: path.to_owned(),
    })?;
    let tokenizer_json = tokenizer_json.map(|text| cached_tokenizer(&text, cache)).transpose()?;
    Ok(Checkpoint { folder: path.to_owned(), card, weights, tokenizer_json })
}

/// What the manifest says of the package that `path`, a folder or a file of its weights, belongs to.
fn package_of(path: &Path) -> Option<PackageRecord> {
    if path.is_dir() {
        return PackageRecord::find(path);
    }
    let record = PackageRecord::find(path.parent()?)?;
    record.has(path.file_name()?.to_str()?).then_some(record)
}

/// Tokens per sequence that the weights in `path` were trained with, where they lie in a package of ours of the same
/// network.
fn trained_length(path: &Path, network: &Network) -> Option<usize> {
    let card = package_of(path)?.card;
    card.sequence_length.filter(|_| has_tensors_of(network, &card.model))
}

/// True for a network whose tensors are called and shaped alike.
fn has_tensors_of(network: &Network, other: &ModelConfig) -> bool {
    let tensors = |network: &Network| -> Vec<(String, Vec<usize>)> {
        network.specs().into_iter().map(|spec| (spec.name, spec.shape)).collect()
    };
    Network::new(other).is_ok_and(|other| tensors(&other) == tensors(network))
}

/// A model of others whose tensors are read one by one, for those that are larger than memory.
pub struct ModelReader {
    specs: Vec<TensorSpec>,
    source: Box<dyn TensorSource>,
}

impl std::fmt::Debug for ModelReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelReader").field("num_tensors", &self.specs.len()).finish_non_exhaustive()
    }
}

impl ModelReader {
    /// Opens the model in `path`, as [`starting_point`] finds it, and checks that it has nothing but its network's tensors.
    /// Errors: [`ImportError::NotAModel`] for a checkpoint of ours; any other [`ImportError`].
    pub fn open(path: &Path) -> Result<Self, ImportError> {
        let (specs, source): (_, Box<dyn TensorSource>) = match recognize(path)? {
            Source::Checkpoint(folder) => {
                return Err(ImportError::NotAModel {
                    expected: "a folder of transformers or a GGUF file".to_owned(),
                    found: "a checkpoint of Foretrain".to_owned(),
                    hint: "What was trained in memory goes on in memory: leave out the folder for blocks",
                    path: folder,
                });
            }
            Source::HuggingFace(folder) => {
                let model = hugging_face::read_config(&folder)?;
                let specs = network(&model, &folder.join(hugging_face::CONFIG_FILE))?.specs();
                (specs, Box::new(SafetensorsSource::open(&folder, &model)?))
            }
            Source::Gguf(file) => {
                let gguf = GgufFile::open(&file)?;
                let (model, architecture) = gguf_config::read_config(&gguf, &file)?;
                let specs = network(&model, &file)?.specs();
                (specs, Box::new(GgufSource::new(gguf, &file, model, architecture)))
            }
        };
        check_leftovers(&specs, source.as_ref())?;
        Ok(Self { specs, source })
    }

    /// The numbers of one tensor, row-major. Errors: those of [`read_model`] for this tensor.
    pub fn values(&mut self, spec: &TensorSpec) -> Result<Vec<f32>, ImportError> {
        read_tensor(&self.specs, spec, self.source.as_mut())
    }
}

fn network(config: &ModelConfig, path: &Path) -> Result<Network, ImportError> {
    Network::new(config).map_err(|source: ModelError| ImportError::Config { source, path: path.to_owned() })
}

fn folder_tokenizer(folder: &Path) -> Result<PathBuf, ImportError> {
    let tokenizer = folder.join(TOKENIZER_FILE);
    if tokenizer.is_file() {
        return Ok(tokenizer);
    }
    Err(ImportError::NotAModel {
        expected: format!("a file {TOKENIZER_FILE}"),
        found: "none".to_owned(),
        hint: "Save the model's fast tokenizer into the same folder",
        path: folder.to_owned(),
    })
}

/// The tokenizer beside a GGUF file, else the one that its vocabulary makes, in a folder of its own below `cache`.
fn file_tokenizer(gguf: &GgufFile, file: &Path, cache: &Path) -> Result<PathBuf, ImportError> {
    let beside = file.with_file_name(TOKENIZER_FILE);
    if beside.is_file() {
        return Ok(beside);
    }
    let text = tokenizer_json(gguf, file).map_err(|error| match error {
        EdgeError::Format { path, expected, found } => {
            ImportError::NotAModel { expected, found, hint: "Put the model's tokenizer.json beside the file", path }
        }
        other => ImportError::Edge(other),
    })?;
    cached_tokenizer(&text.to_string(), cache)
}

/// The place of a `tokenizer.json` with this content, in a folder of its own below `cache`.
fn cached_tokenizer(text: &str, cache: &Path) -> Result<PathBuf, ImportError> {
    use sha2::{Digest, Sha256};
    let digest: String = Sha256::digest(text.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let folder = cache.join("tokenizers").join(digest);
    let path = folder.join(TOKENIZER_FILE);
    if !path.is_file() {
        std::fs::create_dir_all(&folder).map_err(|source| ImportError::File(ExportError::read(&folder, source)))?;
        atomic_file::write_bytes(&path, text.as_bytes()).map_err(|error| ImportError::File(error.into()))?;
    }
    Ok(path)
}
