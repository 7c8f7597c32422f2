//! Folders of Hugging Face transformers: `config.json` and safetensors, in one file or in shards.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::DType;
use safetensors::Dtype;
use serde_json::Value;

use super::ImportError;
use super::tensors::{Found, TensorSource};
use crate::export::{SHARD_INDEX_FILE, WEIGHTS_FILE, WeightsReader};
use crate::models::{ModelConfig, hf_config};

/// The config of a folder.
pub(super) const CONFIG_FILE: &str = "config.json";
/// Larger is no config and no index.
const MAX_JSON_BYTES: u64 = 64 << 20;

/// The network that a folder's `config.json` describes.
/// Errors: [`ImportError::Config`], [`ImportError::File`].
pub(super) fn read_config(folder: &Path) -> Result<ModelConfig, ImportError> {
    let path = folder.join(CONFIG_FILE);
    let json = read_json(&path, "a model's config")?;
    hf_config::from_json(&json).map_err(|source| ImportError::Config { source, path })
}

/// A folder's open weight files.
#[derive(Debug)]
pub(super) struct SafetensorsSource {
    files: Vec<(PathBuf, WeightsReader)>,
    /// Number of the file and the name in it, by the network's name.
    places: BTreeMap<String, (usize, String)>,
    found: BTreeMap<String, Found>,
    /// The head is the embedding, whatever else the file says.
    is_tied: bool,
    folder: PathBuf,
}

impl SafetensorsSource {
    /// Opens the folder's weights for `config`.
    /// Errors: [`ImportError::NotAModel`] for an index that leads out of the folder or repeats a tensor;
    /// [`ImportError::File`] for a safetensors file that is not what its header says.
    pub(super) fn open(folder: &Path, config: &ModelConfig) -> Result<Self, ImportError> {
        let mut source = Self {
            files: Vec::new(),
            places: BTreeMap::new(),
            found: BTreeMap::new(),
            is_tied: is_tied(config),
            folder: folder.to_owned(),
        };
        let is_gpt2 = matches!(config, ModelConfig::Gpt2(_));
        for name in weight_files(folder)? {
            source.add(folder.join(name), is_gpt2)?;
        }
        Ok(source)
    }

    fn add(&mut self, path: PathBuf, is_gpt2: bool) -> Result<(), ImportError> {
        let reader = WeightsReader::open(&path)?;
        for name in reader.names() {
            let Some(info) = reader.info(&name) else { continue };
            let ours = network_name(&name, is_gpt2);
            let is_number = matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64);
            let found = Found { dtype: format!("{:?}", info.dtype), shape: info.shape.clone(), is_number };
            if self.found.insert(ours.clone(), found).is_some() {
                return Err(ImportError::NotAModel {
                    expected: "every tensor once".to_owned(),
                    found: format!("{name:?} twice"),
                    hint: "Are there files of two models?",
                    path,
                });
            }
            self.places.insert(ours, (self.files.len(), name));
        }
        self.files.push((path, reader));
        Ok(())
    }
}

impl TensorSource for SafetensorsSource {
    fn found(&self) -> &BTreeMap<String, Found> {
        &self.found
    }

    fn path(&self, name: &str) -> &Path {
        let file = self.places.get(name).and_then(|(file, _)| self.files.get(*file));
        file.or_else(|| self.files.first()).map_or(&self.folder, |(path, _)| path)
    }

    fn values(&mut self, name: &str) -> Result<Vec<f32>, ImportError> {
        let place = self.places.get(name).cloned();
        let file = place.as_ref().and_then(|(file, name)| Some((self.files.get_mut(*file)?, name)));
        let Some(((_, reader), name)) = file else { return Ok(Vec::new()) };
        Ok(reader.read_tensor(name)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?)
    }

    fn is_dispensable(&self, name: &str) -> bool {
        // Masks and frequencies that older versions saved, and the head where it is the embedding.
        let is_buffer = [".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq"];
        is_buffer.iter().any(|suffix| name.ends_with(suffix)) || (self.is_tied && name == "lm_head.weight")
    }
}

fn is_tied(config: &ModelConfig) -> bool {
    match config {
        ModelConfig::Gpt2(_) => true,
        ModelConfig::Llama(config) => config.tie_word_embeddings,
        ModelConfig::Mlp(_) | ModelConfig::Cnn(_) | ModelConfig::ResNet(_) => false,
    }
}

/// The first GPT-2 files were of the model without a head, whose tensors have no prefix.
fn network_name(name: &str, is_gpt2: bool) -> String {
    let is_bare = is_gpt2 && ["wte.", "wpe.", "h.", "ln_f."].iter().any(|prefix| name.starts_with(prefix));
    if is_bare { format!("transformer.{name}") } else { name.to_owned() }
}

/// Names of the files that hold weights: those of the index, else the single one.
fn weight_files(folder: &Path) -> Result<Vec<String>, ImportError> {
    let index = folder.join(SHARD_INDEX_FILE);
    if !index.is_file() {
        return Ok(vec![WEIGHTS_FILE.to_owned()]);
    }
    let json = read_json(&index, "the index of the shards")?;
    let refuse = |expected: &str, found: String| ImportError::NotAModel {
        expected: expected.to_owned(),
        found,
        hint: "Is it the index that transformers wrote?",
        path: index.clone(),
    };
    let map = json.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| refuse("a weight_map of tensor to file", "none".to_owned()))?;
    let mut names = Vec::new();
    for file in map.values() {
        // A plain name only: the index must not lead out of the folder.
        let plain =
            file.as_str().filter(|name| !name.is_empty() && !name.contains(['/', '\\']) && !name.starts_with('.'));
        let name = plain.ok_or_else(|| refuse("names of files in this folder", file.to_string()))?.to_owned();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Err(refuse("at least one tensor", "an empty weight_map".to_owned()));
    }
    names.sort();
    Ok(names)
}

fn read_json(path: &Path, what: &'static str) -> Result<Value, ImportError> {
    use crate::export::ExportError;
    let failed = |source| ImportError::File(ExportError::read(path, source));
    let len = std::fs::metadata(path).map_err(failed)?.len();
    if len > MAX_JSON_BYTES {
        return Err(ImportError::NotAModel {
            expected: format!("{what} of at most {MAX_JSON_BYTES} bytes"),
            found: format!("{len} bytes"),
            hint: "Is it the right file?",
            path: path.to_owned(),
        });
    }
    let text = std::fs::read(path).map_err(failed)?;
    serde_json::from_slice(&text)
        .map_err(|source| ImportError::File(ExportError::Json { what, source, path: path.to_owned() }))
}
