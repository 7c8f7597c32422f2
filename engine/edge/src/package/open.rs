//! Opening a package and asking it things.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::Tokenizer;

use super::files::{MAX_JSON_BYTES, read_json, read_small};
use super::image_file::read_pixels;
use super::manifest::{MANIFEST_FILE, Manifest};
use super::model::{Model, ModelParts};
use super::tokenizer_file::open_tokenizer;
use crate::EdgeError;
use crate::chat::ChatFormat;
use crate::models::{Config, ImageModel, TextConfig, softmax};
use crate::runtime::with_threads;
use crate::text::{GenerateOptions, Generated};
use crate::weights::{Activations, Weights};

/// What a model reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackageKind {
    /// Images of this shape, with a class each.
    Image {
        /// Color channels: 1 for gray, 3 for red, green, blue.
        channels: usize,
        /// Pixels.
        height: usize,
        /// Pixels.
        width: usize,
        /// Names in class order.
        classes: Vec<String>,
    },
    /// Text.
    Text,
}

/// An open package, ready to answer. Weights stay in the mapped file. An answer uses as many threads as rayon's current
/// pool has; they are its own and end with it.
#[derive(Debug)]
pub struct Package {
    dir: PathBuf,
    manifest: Manifest,
    weight_bytes: u64,
    formats: Vec<(&'static str, u64)>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Image(Box<ImageModel>),
    Text(Box<Model>),
}

impl Package {
    /// Opens the package in folder `dir`: checks the sizes that the manifest gives, loads config, tokenizer and weights
    /// (`model.gguf` when listed, else `model.safetensors` or its shards), and checks every tensor that the config asks for.
    /// Checksums are a separate call, [`Package::verify_checksums`]. A folder that an export has not finished is opened, too:
    /// see [`crate::refuse_unfinished`].
    ///
    /// Errors: any [`EdgeError`] but [`EdgeError::Input`]; no file content can cause a panic.
    pub fn open(dir: &Path) -> Result<Self, EdgeError> {
        Self::open_with(dir, Activations::default())
    }

    /// [`Package::open`] to check it: how integer weights are multiplied is chosen. Errors: as there.
    pub fn open_with(dir: &Path, activations: Activations) -> Result<Self, EdgeError> {
        let manifest = Manifest::open(dir)?;
        let manifest_path = dir.join(MANIFEST_FILE);
        let listed = |name: &str| match manifest.file(name) {
            Some(_) => Ok(dir.join(name)),
            None => Err(EdgeError::format(&manifest_path, format!("{name:?} among the files"), "a list without it")),
        };
        if manifest.file("model.onnx").is_some() {
            let found = "ONNX, which foretrain-edge does not run. Its run.py does, with onnxruntime";
            return Err(EdgeError::unsuited(&manifest_path, "a model in safetensors or GGUF", found));
        }
        let config_path = listed("config.json")?;
        let config = Config::parse(&read_json(&config_path)?, &config_path)?;
        let weights = match (manifest.file("model.gguf"), &config) {
            (Some(_), Config::Text(TextConfig::Gpt2(_))) => Weights::open_gguf(&dir.join("model.gguf"), &["gpt2"])?,
            (Some(_), Config::Text(TextConfig::Llama(config))) => {
                Weights::open_gguf(&dir.join("model.gguf"), config.gguf_architectures())?
            }
            (Some(_), Config::Image(_)) | (None, _) => {
                let shards = shards(&manifest, dir);
                match shards.split_first() {
                    Some((first, others)) => Weights::open_safetensors(first, others)?,
                    None => Weights::open_safetensors(&listed("model.safetensors")?, &[])?,
                }
            }
        };
        let weights = weights.with_activations(activations);
        let formats = weights.bytes_by_format();
        let weight_bytes = formats.iter().map(|(_, bytes)| bytes).sum();
        let content = match config {
            Config::Image(config) => Content::Image(Box::new(ImageModel::load(config, &weights)?)),
            Config::Text(config) => {
                let tokenizer = open_tokenizer(&listed("tokenizer.json")?)?;
                let chat = chat_format(&manifest, dir)?;
                let parts = ModelParts { name: manifest.name.clone(), config, weights, tokenizer, chat };
                Content::Text(Box::new(Model::assemble(parts)?))
            }
        };
        Ok(Self { dir: dir.to_owned(), manifest, weight_bytes, formats, content })
    }

    /// What the package says about itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What the model reads.
    #[must_use]
    pub fn kind(&self) -> PackageKind {
        match &self.content {
            Content::Image(model) => {
                let config = model.config();
                PackageKind::Image {
                    channels: config.channels,
                    height: config.height,
                    width: config.width,
                    classes: config.classes.clone(),
                }
            }
            Content::Text(_) => PackageKind::Text,
        }
    }

    /// Bytes of all weights as stored, scales included, headers not.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// Bytes of weights by storage format ("F32", "TQ2_0", …), in a fixed order.
    #[must_use]
    pub fn weight_formats(&self) -> &[(&'static str, u64)] {
        &self.formats
    }

    /// Reads every file and compares its SHA-256 with the manifest's.
    ///
    /// Errors: [`EdgeError::Format`] for the first file that differs; [`EdgeError::Read`].
    pub fn verify_checksums(&self) -> Result<(), EdgeError> {
        self.manifest.verify_checksums(&self.dir)
    }

    /// The probability of each class, with its name, in class order. `pixels`: (channels, height, width), 0 to 255.
    ///
    /// Errors: [`EdgeError::Input`] for a language model or another number of pixels; [`EdgeError::Format`] for damaged
    /// weights, which give NaN or infinity.
    pub fn classify(&self, pixels: &[u8]) -> Result<Vec<(String, f32)>, EdgeError> {
        let mut scores = self.logits(pixels)?;
        softmax(&mut scores);
        Ok(self.image_model()?.config().classes.iter().cloned().zip(scores).collect())
    }

    /// The logit of each class, in class order. `pixels`: (channels, height, width), 0 to 255.
    ///
    /// Errors: [`EdgeError::Input`] for a language model or another number of pixels; [`EdgeError::Format`] for damaged
    /// weights, which give NaN or infinity.
    pub fn logits(&self, pixels: &[u8]) -> Result<Vec<f32>, EdgeError> {
        let model = self.image_model()?;
        with_threads(rayon::current_num_threads(), || model.logits(pixels))
    }

    /// The picture in the PNG or JPEG file at `path` as the pixels that [`Package::classify`] takes: scaled to the
    /// model's height and width, gray or red, green, blue as the model reads.
    ///
    /// Errors: [`EdgeError::Input`] for a language model; [`EdgeError::Read`], [`EdgeError::Unsuited`] or
    /// [`EdgeError::Format`] for the file.
    pub fn read_image(&self, path: &Path) -> Result<Vec<u8>, EdgeError> {
        let config = self.image_model()?.config();
        read_pixels(path, config.channels, config.height, config.width)
    }

    /// Continues `prompt`. `on_text` gets each piece of new text (empty while a character is incomplete or a stop string
    /// may have begun) and returns false to stop. When the text outgrows the model's positions, its older half is forgotten.
    ///
    /// Errors: [`EdgeError::Input`] for an image model, an empty prompt or bad options; [`EdgeError::Tokenizer`];
    /// [`EdgeError::Format`] for damaged weights, which give NaN or infinity.
    pub fn generate(
        &self,
        prompt: &str,
        options: &GenerateOptions,
        on_text: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Generated, EdgeError> {
        let model = self.language_model()?;
        model.context().generate(model.prompt_tokens(prompt)?, options, on_text)
    }

    /// As [`Model::token_losses`]. Errors: as there; [`EdgeError::Input`] for an image model.
    pub fn token_losses(&self, tokens: &[u32]) -> Result<Vec<f32>, EdgeError> {
        self.language_model()?.token_losses(tokens)
    }

    /// As [`Model::token_logits`]. Errors: as there; [`EdgeError::Input`] for an image model.
    pub fn token_logits(&self, tokens: &[u32]) -> Result<Vec<f32>, EdgeError> {
        self.language_model()?.token_logits(tokens)
    }

    /// As [`Model::tokens`]. Errors: as there; [`EdgeError::Input`] for an image model.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>, EdgeError> {
        self.language_model()?.tokens(text)
    }

    /// The tokenizer of a language model.
    #[must_use]
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.language_model().ok().map(Model::tokenizer)
    }

    /// Longest token sequence of a language model.
    #[must_use]
    pub fn max_positions(&self) -> Option<usize> {
        self.language_model().ok().map(Model::max_positions)
    }

    /// The language model.
    ///
    /// Errors: [`EdgeError::Input`] for an image model.
    pub fn language_model(&self) -> Result<&Model, EdgeError> {
        match &self.content {
            Content::Text(model) => Ok(model),
            Content::Image(_) => Err(no_text()),
        }
    }

    /// The language model alone. Errors: [`EdgeError::Input`] for an image model.
    pub(super) fn into_model(self) -> Result<Model, EdgeError> {
        match self.content {
            Content::Text(model) => Ok(*model),
            Content::Image(_) => Err(no_text()),
        }
    }

    fn image_model(&self) -> Result<&ImageModel, EdgeError> {
        match &self.content {
            Content::Image(model) => Ok(model),
            Content::Text(_) => Err(EdgeError::input("classifying an image", "an image model", "a language model")),
        }
    }
}

fn no_text() -> EdgeError {
    EdgeError::input("reading text", "a language model", "an image model")
}

/// What the package says about conversations, in the files where transformers keeps it: all of them may be missing.
///
/// Errors: [`EdgeError::Read`]; [`EdgeError::Format`] for one that is no JSON, or too large.
fn chat_format(manifest: &Manifest, dir: &Path) -> Result<ChatFormat, EdgeError> {
    let content = |name: &str| match manifest.file(name) {
        Some(_) => read_small(&dir.join(name), MAX_JSON_BYTES).map(Some),
        None => Ok(None),
    };
    let mut format = ChatFormat::default();
    if let Some(content) = content("tokenizer_config.json")? {
        let path = dir.join("tokenizer_config.json");
        let json: Value =
            serde_json::from_slice(&content).map_err(|error| EdgeError::format(&path, "JSON", error.to_string()))?;
        // A token is its text, or an object that holds it.
        let token = |name: &str| {
            let token = json.get(name)?;
            token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
        };
        format.start = token("bos_token").unwrap_or_default();
        format.end = token("eos_token").unwrap_or_default();
        // One template, or several with names.
        format.template = match json.get("chat_template") {
            Some(Value::String(template)) => Some(template.clone()),
            Some(Value::Array(named)) => {
                let default = named.iter().find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"));
                default.and_then(|entry| entry.get("template")?.as_str()).map(str::to_owned)
            }
            _ => None,
        };
    }
    if let Some(template) = content("chat_template.jinja")? {
        let path = dir.join("chat_template.jinja");
        let refuse = |error: std::string::FromUtf8Error| EdgeError::format(&path, "UTF-8", error.to_string());
        format.template = Some(String::from_utf8(template).map_err(refuse)?);
    }
    Ok(format)
}

/// The files of weights that are in several, which have an index beside them; empty for weights in one.
fn shards(manifest: &Manifest, dir: &Path) -> Vec<PathBuf> {
    if manifest.file("model.safetensors.index.json").is_none() {
        return Vec::new();
    }
    let names = manifest.files.iter().map(|file| &file.name);
    names.filter(|name| name.ends_with(".safetensors")).map(|name| dir.join(name)).collect()
}
