//! Opening a package and asking it things.

use std::path::{Path, PathBuf};

use tokenizers::Tokenizer;

use super::files::{read_small, sha256, size};
use super::image_file::read_pixels;
use super::manifest::Manifest;
use crate::EdgeError;
use crate::models::{Config, ImageModel, LanguageModel, TextConfig, softmax};
use crate::runtime::with_threads;
use crate::text::{GenerateOptions, Generated, generate, guarded, text_losses, token_logits, token_losses, tokens};
use crate::weights::{Activations, Weights};

/// Largest manifest or config, in bytes.
const MAX_JSON_BYTES: u64 = 16 << 20;
/// Largest tokenizer, in bytes.
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;

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
    model: Model,
}

#[derive(Debug)]
enum Model {
    Image(ImageModel),
    Text(LanguageModel, Box<Tokenizer>),
}

impl Package {
    /// Opens the package in folder `dir`: checks the sizes that the manifest gives, loads config, tokenizer and weights
    /// (`model.gguf` when listed, else `model.safetensors` or its shards), and checks every tensor that the config asks for.
    /// Checksums are a separate call, [`Package::verify_checksums`].
    ///
    /// Errors: any [`EdgeError`] but [`EdgeError::Input`]; no file content can cause a panic.
    pub fn open(dir: &Path) -> Result<Self, EdgeError> {
        Self::open_with(dir, Activations::default())
    }

    /// [`Package::open`] to check it: how integer weights are multiplied is chosen. Errors: as there.
    pub fn open_with(dir: &Path, activations: Activations) -> Result<Self, EdgeError> {
        let manifest_path = dir.join("manifest.json");
        let manifest = Manifest::parse(&read_small(&manifest_path, MAX_JSON_BYTES)?, &manifest_path)?;
        for file in &manifest.files {
            let path = dir.join(&file.name);
            let found = size(&path)?;
            if found != file.bytes {
                return Err(EdgeError::format(
                    &path,
                    format!("{} bytes by the manifest", file.bytes),
                    found.to_string(),
                ));
            }
        }
        let listed = |name: &str| match manifest.file(name) {
            Some(_) => Ok(dir.join(name)),
            None => Err(EdgeError::format(&manifest_path, format!("{name:?} among the files"), "a list without it")),
        };
        if manifest.file("model.onnx").is_some() {
            let found = "ONNX, which foretrain-edge does not run. Its run.py does, with onnxruntime";
            return Err(EdgeError::format(&manifest_path, "a model in safetensors or GGUF", found));
        }
        let config_path = listed("config.json")?;
        let config = Config::parse(&read_small(&config_path, MAX_JSON_BYTES)?, &config_path)?;
        let weights = match (manifest.file("model.gguf"), &config) {
            (Some(_), Config::Text(TextConfig::Gpt2(_))) => Weights::open_gguf(&dir.join("model.gguf"), "gpt2")?,
            (Some(_), Config::Text(TextConfig::Llama(_))) => Weights::open_gguf(&dir.join("model.gguf"), "llama")?,
            (Some(_), Config::Image(_)) | (None, _) => {
                let shards = shards(&manifest, dir);
                match shards.split_first() {
                    Some((first, others)) => Weights::open_safetensors(first, others)?,
                    None => Weights::open_safetensors(&listed("model.safetensors")?, &[])?,
                }
            }
        };
        let weights = weights.with_activations(activations);
        let model = match config {
            Config::Image(config) => Model::Image(ImageModel::load(config, &weights)?),
            Config::Text(config) => {
                let tokenizer = open_tokenizer(&listed("tokenizer.json")?)?;
                Model::Text(LanguageModel::load(&config, &weights)?, Box::new(tokenizer))
            }
        };
        let formats = weights.bytes_by_format();
        let weight_bytes = formats.iter().map(|(_, bytes)| bytes).sum();
        Ok(Self { dir: dir.to_owned(), manifest, weight_bytes, formats, model })
    }

    /// What the package says about itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What the model reads.
    #[must_use]
    pub fn kind(&self) -> PackageKind {
        match &self.model {
            Model::Image(model) => {
                let config = model.config();
                PackageKind::Image {
                    channels: config.channels,
                    height: config.height,
                    width: config.width,
                    classes: config.classes.clone(),
                }
            }
            Model::Text(..) => PackageKind::Text,
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
        for file in &self.manifest.files {
            let path = self.dir.join(&file.name);
            let found = sha256(&path)?;
            if !found.eq_ignore_ascii_case(&file.sha256) {
                return Err(EdgeError::format(&path, format!("SHA-256 {}", file.sha256), found));
            }
        }
        Ok(())
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
    /// Errors: [`EdgeError::Input`] for a language model; [`EdgeError::Read`], [`EdgeError::Format`] for the file.
    pub fn read_image(&self, path: &Path) -> Result<Vec<u8>, EdgeError> {
        let config = self.image_model()?.config();
        read_pixels(path, config.channels, config.height, config.width)
    }

    /// Continues `prompt`. `on_token` gets each piece of new text (empty while a character is incomplete) and returns
    /// false to stop. When the text outgrows the model's positions, its older half is forgotten.
    ///
    /// Errors: [`EdgeError::Input`] for an image model, an empty prompt or a bad temperature; [`EdgeError::Tokenizer`];
    /// [`EdgeError::Format`] for damaged weights, which give NaN or infinity.
    pub fn generate(
        &self,
        prompt: &str,
        options: GenerateOptions,
        on_token: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Generated, EdgeError> {
        let (model, tokenizer) = self.language_model()?;
        with_threads(rayon::current_num_threads(), || generate(model, tokenizer, prompt, options, on_token))
    }

    /// -ln p of each next token, nats: n tokens give n - 1 losses.
    ///
    /// Errors: [`EdgeError::Input`] for an image model, a token outside the vocabulary, or more than
    /// [`Package::max_positions`] + 1 tokens; [`EdgeError::Format`] for damaged weights, which give NaN or infinity.
    pub fn token_losses(&self, tokens: &[u32]) -> Result<Vec<f32>, EdgeError> {
        let (model, _) = self.language_model()?;
        with_threads(rayon::current_num_threads(), || token_losses(model, tokens))
    }

    /// -ln p of each next token, nats, of a text of any length: it is cut into stretches of the model's positions, each of
    /// them read by itself. n tokens give n - 1 losses; their mean's exponential is the perplexity.
    ///
    /// Errors: as [`Package::token_losses`], but none for the length.
    pub fn text_losses(&self, tokens: &[u32]) -> Result<Vec<f32>, EdgeError> {
        let (model, _) = self.language_model()?;
        with_threads(rayon::current_num_threads(), || text_losses(model, tokens))
    }

    /// Logits after each of `tokens` (n): (n, vocabulary), row-major.
    ///
    /// Errors: [`EdgeError::Input`] for an image model, a token outside the vocabulary, or more than
    /// [`Package::max_positions`] tokens; [`EdgeError::Format`] for damaged weights, which give NaN or infinity.
    pub fn token_logits(&self, tokens: &[u32]) -> Result<Vec<f32>, EdgeError> {
        let (model, _) = self.language_model()?;
        with_threads(rayon::current_num_threads(), || token_logits(model, tokens))
    }

    /// The tokens of `text`, without any that the tokenizer would add around it.
    ///
    /// Errors: [`EdgeError::Input`] for an image model; [`EdgeError::Tokenizer`].
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>, EdgeError> {
        tokens(self.language_model()?.1, text)
    }

    /// The tokenizer of a language model.
    #[must_use]
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.language_model().ok().map(|(_, tokenizer)| tokenizer)
    }

    /// Longest token sequence of a language model.
    #[must_use]
    pub fn max_positions(&self) -> Option<usize> {
        self.language_model().ok().map(|(model, _)| model.max_positions())
    }

    pub(crate) fn text_model(&self) -> Result<&LanguageModel, EdgeError> {
        self.language_model().map(|(model, _)| model)
    }

    fn image_model(&self) -> Result<&ImageModel, EdgeError> {
        match &self.model {
            Model::Image(model) => Ok(model),
            Model::Text(..) => Err(EdgeError::input("classifying an image", "an image model", "a language model")),
        }
    }

    fn language_model(&self) -> Result<(&LanguageModel, &Tokenizer), EdgeError> {
        match &self.model {
            Model::Text(model, tokenizer) => Ok((model, tokenizer)),
            Model::Image(_) => Err(EdgeError::input("reading text", "a language model", "an image model")),
        }
    }
}

/// The files of weights that are in several, which have an index beside them; empty for weights in one.
fn shards(manifest: &Manifest, dir: &Path) -> Vec<PathBuf> {
    if manifest.file("model.safetensors.index.json").is_none() {
        return Vec::new();
    }
    let names = manifest.files.iter().map(|file| &file.name);
    names.filter(|name| name.ends_with(".safetensors")).map(|name| dir.join(name)).collect()
}

fn open_tokenizer(path: &Path) -> Result<Tokenizer, EdgeError> {
    let content = read_small(path, MAX_TOKENIZER_BYTES)?;
    // Most damage shows here; the tokenizer's own parser would panic on some of it.
    let json: Result<serde::de::IgnoredAny, _> = serde_json::from_slice(&content);
    let refuse = |found: String| EdgeError::format(path, "a Hugging Face tokenizer", found);
    json.map_err(|error| refuse(error.to_string()))?;
    guarded(|| Tokenizer::from_bytes(&content)).map_err(refuse)
}
