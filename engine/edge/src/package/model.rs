//! An open language model: from a package's folder or from a GGUF file alone.

use std::path::Path;

use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use super::context::Context;
use super::open::Package;
use super::tokenizer_file::open_tokenizer;
use super::unfinished::refuse_unfinished;
use crate::EdgeError;
use crate::chat::{ChatFormat, ChatPrompt, Message, PLAIN_WORDS};
use crate::gguf::{self, GgufFile};
use crate::models::{CacheFormat, LanguageModel, TextConfig};
use crate::runtime::with_threads;
use crate::text::{
    Batch, Finish, GenerateOptions, Generator, Memory, Unknown, encode, guarded, num_passed_over, text_losses,
    token_logits, token_losses, unknown,
};
use crate::weights::{Activations, Weights};

/// A language model with its tokenizer, ready to answer. Weights stay in the mapped file. An answer uses as many threads
/// as rayon's current pool has, or as [`crate::with_threads`] says.
#[derive(Debug)]
pub struct Model {
    network: LanguageModel,
    tokenizer: Tokenizer,
    name: String,
    chat: ChatFormat,
    /// Stands before every prompt.
    start_token: Option<u32>,
    weights: Weights,
    /// The config in words: part of what tells models apart.
    config: String,
}

/// The parts of a model.
pub(super) struct ModelParts {
    pub(super) name: String,
    pub(super) config: TextConfig,
    pub(super) weights: Weights,
    pub(super) tokenizer: Tokenizer,
    pub(super) chat: ChatFormat,
}

impl Model {
    /// Opens the language model at `path`: a package's folder, or a GGUF file of architecture "gpt2", "llama", "bitnet" or
    /// "bitnet-b1.58", whose tokenizer is the `tokenizer.json` beside it, else the file's own vocabulary.
    ///
    /// Errors: any [`EdgeError`]; [`EdgeError::Input`] for the package of an image model, [`EdgeError::Unfinished`]. No file content can cause a panic.
    pub fn open(path: &Path) -> Result<Self, EdgeError> {
        Self::open_with(path, Activations::default())
    }

    /// [`Model::open`] to check it: how integer weights are multiplied is chosen. Errors: as there.
    pub fn open_with(path: &Path, activations: Activations) -> Result<Self, EdgeError> {
        refuse_unfinished(path)?;
        if path.is_dir() {
            return Package::open_with(path, activations)?.into_model();
        }
        let file = GgufFile::open(path)?;
        let (config, architecture) = TextConfig::from_gguf(&file, path)?;
        let weights = Weights::from_gguf(&file, path, architecture)?.with_activations(activations);
        let beside = path.with_file_name("tokenizer.json");
        let tokenizer = if beside.is_file() {
            open_tokenizer(&beside)?
        } else {
            let json = gguf::tokenizer_json(&file, path).map_err(without_vocabulary)?.to_string();
            let refuse = |found: String| EdgeError::format(path, "a vocabulary that makes a tokenizer", found);
            guarded(|| Tokenizer::from_bytes(&json)).map_err(refuse)?
        };
        let name = path.file_stem().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned());
        let special = SpecialTokens::of(&file);
        let chat = special.chat_format(&file);
        let mut model = Self::assemble(ModelParts { name, config, weights, tokenizer, chat })?;
        model.start_token = special.start.filter(|_| special.is_start_added);
        model.network = model.network.with_end_tokens(special.end.into_iter().chain(special.end_of_turn));
        Ok(model)
    }

    pub(super) fn assemble(parts: ModelParts) -> Result<Self, EdgeError> {
        let ModelParts { name, config, weights, tokenizer, chat } = parts;
        let network = LanguageModel::load(&config, &weights)?;
        let config = format!("{config:?}");
        Ok(Self { network, tokenizer, name, chat, start_token: None, weights, config })
    }

    /// The same model, which keeps keys and values between tokens in `format`.
    #[must_use]
    pub fn with_cache_format(self, format: CacheFormat) -> Self {
        Self { network: self.network.with_cache_format(format), ..self }
    }

    /// Name of the package, or of the file without its ending.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Longest token sequence.
    #[must_use]
    pub fn max_positions(&self) -> usize {
        self.network.max_positions()
    }

    /// Distinct tokens.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.network.vocab_size()
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// True when the model brings a chat template of its own.
    #[must_use]
    pub fn has_chat_template(&self) -> bool {
        self.chat.template.is_some()
    }

    /// The tokens of `text`, without any that the tokenizer would add around it.
    ///
    /// Errors: [`EdgeError::Tokenizer`].
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>, EdgeError> {
        Ok(encode(&self.tokenizer, text)?.get_ids().to_vec())
    }

    /// What the tokenizer does not know of `text`: the model sees nothing in its place, or the token for what is unknown.
    ///
    /// Errors: [`EdgeError::Tokenizer`].
    pub fn unknown(&self, text: &str) -> Result<Unknown, EdgeError> {
        unknown(&self.tokenizer, text)
    }

    /// What the tokenizer does not know of the plain form that a model without a chat template is spoken to in; nothing for
    /// one with a template, which is the model's own.
    ///
    /// Errors: [`EdgeError::Tokenizer`].
    pub fn unknown_of_plain_form(&self) -> Result<Unknown, EdgeError> {
        if self.has_chat_template() { Ok(Unknown::default()) } else { self.unknown(PLAIN_WORDS) }
    }

    /// How many of a prompt's `num_tokens` are passed over, from its start, because it is longer than
    /// [`Model::max_positions`]: all but as many as fill half of them, so that the next have room.
    #[must_use]
    pub fn num_passed_over(&self, num_tokens: usize) -> usize {
        num_passed_over(num_tokens, self.max_positions())
    }

    /// The tokens of `text` as a prompt: after the token that starts every text, where the model has one.
    ///
    /// Errors: [`EdgeError::Tokenizer`].
    pub fn prompt_tokens(&self, text: &str) -> Result<Vec<u32>, EdgeError> {
        let mut tokens = self.tokens(text)?;
        if let Some(start) = self.start_token.filter(|start| tokens.first() != Some(start)) {
            tokens.insert(0, start);
        }
        Ok(tokens)
    }

    /// The text of a conversation, by the model's own template, else [`crate::PLAIN_FORM`].
    ///
    /// Errors: [`EdgeError::Input`] for messages that the template refuses.
    pub fn chat_prompt(&self, messages: &[Message]) -> Result<ChatPrompt, EdgeError> {
        self.chat.prompt(messages)
    }

    /// A context without text.
    #[must_use]
    pub fn context(&self) -> Context<'_> {
        Context::new(self)
    }

    /// A batch for `num_slots` continuations at a time.
    #[must_use]
    pub fn batch(&self, num_slots: usize) -> Batch<'_> {
        Batch::new(&self.network, &self.tokenizer, num_slots)
    }

    /// Continues `prompt`: pieces of text, one for each token that completes some. When the text outgrows the model's
    /// positions, its older half is forgotten. A [`Context`] remembers what was read; this does not.
    ///
    /// Errors: [`EdgeError::Input`] for an empty prompt or bad options; [`EdgeError::Tokenizer`]; [`EdgeError::Format`] for
    /// damaged weights, which give NaN or infinity.
    pub fn generate(&self, prompt: &str, options: &GenerateOptions) -> Result<Pieces<'_>, EdgeError> {
        let prompt = self.prompt_tokens(prompt)?;
        let start = || Generator::start(&self.network, &self.tokenizer, Memory::empty(&self.network), prompt, options);
        Ok(Pieces { generator: with_threads(rayon::current_num_threads(), start)?, finish: None, has_failed: false })
    }

    /// -ln p of each next token, nats: n tokens give n - 1 losses.
    ///
    /// Errors: [`EdgeError::Input`] for a token outside the vocabulary or more than [`Model::max_positions`] + 1 tokens;
    /// [`EdgeError::Format`] for damaged weights, which give NaN or infinity.
    pub fn token_losses(&self, tokens: &[u32]) -> Result<Vec<f32>, EdgeError> {
        with_threads(rayon::current_num_threads(), || token_losses(&self.network, tokens))
    }

    /// [`Model::token_losses`] of a text of any length: one longer than the model's positions is read in stretches of that
    /// many, each by itself, so that no token but the very first goes unpredicted.
    ///
    /// Errors: as there, but none for the length.
    pub fn text_losses(&self, tokens: &[u32]) -> Result<Vec<f32>, EdgeError> {
        with_threads(rayon::current_num_threads(), || text_losses(&self.network, tokens))
    }

    /// Logits after each of `tokens` (n): (n, vocabulary), row-major.
    ///
    /// Errors: as [`Model::token_losses`].
    pub fn token_logits(&self, tokens: &[u32]) -> Result<Vec<f32>, EdgeError> {
        with_threads(rayon::current_num_threads(), || token_logits(&self.network, tokens))
    }

    pub(crate) fn network(&self) -> &LanguageModel {
        &self.network
    }

    /// Tells this model, computed in this way, from others: a SHA-256 over its config, how it keeps keys and values, and
    /// names, shapes and samples of its weights.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(self.config.as_bytes());
        hasher.update(format!("{:?}", self.network.empty_cache()).as_bytes());
        self.weights.sample(&mut |bytes| hasher.update(bytes));
        hasher.finalize().into()
    }
}

/// Text that comes piece by piece; see [`Model::generate`].
#[derive(Debug)]
pub struct Pieces<'m> {
    generator: Generator<'m>,
    finish: Option<Finish>,
    has_failed: bool,
}

impl Pieces<'_> {
    /// Why the text ended; `None` while it goes on.
    #[must_use]
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// New tokens so far.
    #[must_use]
    pub fn num_tokens(&self) -> usize {
        self.generator.num_tokens()
    }
}

impl Iterator for Pieces<'_> {
    type Item = Result<String, EdgeError>;

    /// The next piece that is not empty. After an error there is nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        while self.finish.is_none() && !self.has_failed {
            match with_threads(rayon::current_num_threads(), || self.generator.step()) {
                Ok((text, finish)) => {
                    self.finish = finish;
                    if !text.is_empty() {
                        return Some(Ok(text));
                    }
                }
                Err(error) => {
                    self.has_failed = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

/// A file whose vocabulary is none of ours is no damaged one.
fn without_vocabulary(error: EdgeError) -> EdgeError {
    match error {
        EdgeError::Format { path, expected, found } => {
            let found = format!("{found}. Put the model's tokenizer.json beside the file");
            EdgeError::Unsuited { path, expected, found }
        }
        other => other,
    }
}

/// The tokens that a GGUF file gives a meaning.
struct SpecialTokens {
    start: Option<u32>,
    is_start_added: bool,
    end: Option<u32>,
    /// Ends an answer in a conversation.
    end_of_turn: Option<u32>,
}

impl SpecialTokens {
    fn of(file: &GgufFile) -> Self {
        let get = |name: &str| file.metadata().get(&format!("tokenizer.ggml.{name}"));
        let token = |name: &str| get(name).and_then(gguf::Value::as_u64).and_then(|token| u32::try_from(token).ok());
        let text = |name: &str| get(name).and_then(gguf::Value::as_str);
        // What llama.cpp does where the file does not say.
        let is_usual =
            text("model") == Some("llama") || matches!(text("pre"), Some("llama-bpe" | "llama3" | "llama-v3"));
        let is_start_added = if let Some(gguf::Value::Bool(adds)) = get("add_bos_token") { *adds } else { is_usual };
        Self {
            start: token("bos_token_id"),
            is_start_added,
            end: token("eos_token_id"),
            end_of_turn: token("eot_token_id"),
        }
    }

    fn chat_format(&self, file: &GgufFile) -> ChatFormat {
        let text_of = |token: Option<u32>| match file.metadata().get("tokenizer.ggml.tokens") {
            Some(gguf::Value::Array(gguf::Array::String(texts))) => {
                token.and_then(|token| texts.get(token as usize)).cloned().unwrap_or_default()
            }
            _ => String::new(),
        };
        let template = file.metadata().get("tokenizer.chat_template").and_then(gguf::Value::as_str);
        ChatFormat { template: template.map(str::to_owned), start: text_of(self.start), end: text_of(self.end) }
    }
}
