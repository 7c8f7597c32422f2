//! Generation: prompt, then one token at a time.

use std::time::Instant;

use tokenizers::Tokenizer;

use super::guard::guarded;
use super::sampler::Sampler;
use super::stream::TextStream;
use crate::EdgeError;
use crate::models::{Cache, LanguageModel};

/// How to continue a prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GenerateOptions {
    /// Most new tokens.
    pub max_tokens: usize,
    /// Divides the logits before sampling; 0 always takes the likeliest token.
    pub temperature: f32,
    /// Only the likeliest this many tokens are considered; 0 considers all.
    pub top_k: usize,
    /// The same seed gives the same text.
    pub seed: u64,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self { max_tokens: 128, temperature: 0.8, top_k: 40, seed: 0 }
    }
}

/// A continued prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// The new text, without the prompt.
    pub text: String,
    /// New tokens.
    pub num_tokens: usize,
    /// Time to read the prompt and have the first logits, milliseconds.
    pub prompt_ms: f64,
    /// Time for all new tokens, milliseconds.
    pub decode_ms: f64,
}

/// Continues `prompt`; see [`crate::Package::generate`].
pub(crate) fn generate(
    model: &LanguageModel,
    tokenizer: &Tokenizer,
    prompt: &str,
    options: GenerateOptions,
    on_token: &mut dyn FnMut(&str) -> bool,
) -> Result<Generated, EdgeError> {
    let tried = "continuing a prompt";
    if !options.temperature.is_finite() || options.temperature < 0.0 {
        return Err(EdgeError::input(tried, "a temperature of at least 0", options.temperature.to_string()));
    }
    let mut tokens = tokens(tokenizer, prompt)?;
    if tokens.is_empty() {
        return Err(EdgeError::input(tried, "a prompt of at least one known token", format!("{prompt:?}")));
    }
    let prompt_start = Instant::now();
    let mut stream = TextStream::new(tokenizer, &tokens);
    let mut sampler = Sampler::new(options.temperature, options.top_k, options.seed);
    let (mut cache, mut logits) = read_anew(model, &tokens)?;
    let prompt_ms = milliseconds(prompt_start);
    let decode_start = Instant::now();
    let (mut text, mut num_tokens) = (String::new(), 0);
    while num_tokens < options.max_tokens {
        let token = sampler.sample(&logits)?;
        if Some(token) == model.end_token() {
            break;
        }
        tokens.push(token);
        num_tokens += 1;
        let piece = stream.push(token)?;
        text.push_str(&piece);
        if !on_token(&piece) || num_tokens == options.max_tokens {
            break;
        }
        if cache.num_positions() < model.max_positions() {
            logits = model.logits(&model.forward(&[token], &mut cache)?)?;
        } else {
            (cache, logits) = read_anew(model, &tokens)?;
        }
    }
    let rest = stream.finish()?;
    if !rest.is_empty() {
        text.push_str(&rest);
        on_token(&rest);
    }
    Ok(Generated { text, num_tokens, prompt_ms, decode_ms: milliseconds(decode_start) })
}

/// The tokens of `text`; see [`crate::Package::tokens`].
pub(crate) fn tokens(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, EdgeError> {
    let encoding = guarded(|| tokenizer.encode(text, false))
        .map_err(|message| EdgeError::Tokenizer { tried: "encoding a text".to_owned(), message })?;
    Ok(encoding.get_ids().to_vec())
}

/// Reads the end of `tokens` into a fresh cache and returns the logits of what follows. When they fill more than the
/// model's positions, only the last half counts, so that the next tokens have room.
fn read_anew(model: &LanguageModel, tokens: &[u32]) -> Result<(Cache, Vec<f32>), EdgeError> {
    let most = model.max_positions();
    let kept = if tokens.len() > most { most.div_ceil(2) } else { tokens.len() };
    let mut cache = model.empty_cache();
    let hidden = model.forward(&tokens[tokens.len() - kept..], &mut cache)?;
    let last = &hidden[hidden.len().saturating_sub(model.width())..];
    let logits = model.logits(last)?;
    Ok((cache, logits))
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}
