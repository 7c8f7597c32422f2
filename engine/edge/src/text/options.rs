//! How a text is continued.

use crate::EdgeError;

/// Most stop strings, and most bytes of one.
const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 1024;

/// How to continue a prompt. Candidates are narrowed in llama.cpp's order: repetition penalty, top-k, top-p, min-p, and
/// only then the temperature.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// Most new tokens.
    pub max_tokens: usize,
    /// Divides the logits before sampling; 0 always takes the likeliest token.
    pub temperature: f32,
    /// Only the likeliest this many tokens are considered; 0 considers all.
    pub top_k: usize,
    /// Only the likeliest tokens that together have this probability are considered; 1 considers all.
    /// Source: Holtzman et al. 2020, arXiv 1904.09751.
    pub top_p: f32,
    /// Only tokens at least this many times as likely as the likeliest are considered; 0 considers all.
    /// Source: Nguyen et al. 2024, arXiv 2407.01082.
    pub min_p: f32,
    /// Makes the last [`GenerateOptions::repeat_last`] tokens less likely: divides their logits if positive, else
    /// multiplies them; 1 changes nothing. Source: Keskar et al. 2019, arXiv 1909.05858.
    pub repeat_penalty: f32,
    /// How many of the last tokens, the prompt's included, the penalty is for.
    pub repeat_last: usize,
    /// The same seed gives the same text.
    pub seed: u64,
    /// The text ends before the first of these that would come.
    pub stop: Vec<String>,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_tokens: 128,
            temperature: 0.8,
            top_k: 40,
            top_p: 1.0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            repeat_last: 64,
            seed: 0,
            stop: Vec::new(),
        }
    }
}

impl GenerateOptions {
    /// Errors: [`EdgeError::Input`] for the first option that is out of its range.
    pub fn check(&self) -> Result<(), EdgeError> {
        let check = |is_fine: bool, expected: &str, found: String| {
            if is_fine { Ok(()) } else { Err(EdgeError::input("continuing a prompt", expected, found)) }
        };
        let Self { temperature, top_p, min_p, repeat_penalty, stop, .. } = self;
        let is_fine = temperature.is_finite() && *temperature >= 0.0;
        check(is_fine, "a temperature of at least 0", temperature.to_string())?;
        check(*top_p > 0.0 && *top_p <= 1.0, "top_p above 0, at most 1", top_p.to_string())?;
        check((0.0..=1.0).contains(min_p), "min_p from 0 to 1", min_p.to_string())?;
        let is_fine = repeat_penalty.is_finite() && *repeat_penalty > 0.0;
        check(is_fine, "a positive repeat_penalty", repeat_penalty.to_string())?;
        check(stop.len() <= MAX_STOPS, &format!("at most {MAX_STOPS} stop strings"), stop.len().to_string())?;
        for stop in stop {
            let expected = format!("stop strings of 1 to {MAX_STOP_BYTES} bytes");
            check((1..=MAX_STOP_BYTES).contains(&stop.len()), &expected, stop.len().to_string())?;
        }
        Ok(())
    }
}
