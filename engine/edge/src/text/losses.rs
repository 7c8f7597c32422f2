//! How well a model predicts a text.

use crate::EdgeError;
use crate::models::LanguageModel;

/// Positions whose logits are held at once.
const CHUNK: usize = 64;

/// -ln p of each next token, nats: `tokens` (n) give n - 1 losses, the first for `tokens[1]`.
///
/// Errors: [`EdgeError::Input`] for a token outside the vocabulary or more tokens than positions; [`EdgeError::Format`]
/// for weights that give NaN or infinity.
pub(crate) fn token_losses(model: &LanguageModel, tokens: &[u32]) -> Result<Vec<f32>, EdgeError> {
    let Some((_, targets)) = tokens.split_first() else { return Ok(Vec::new()) };
    let inputs = &tokens[..targets.len()];
    if let Some(bad) = targets.iter().find(|&&token| token as usize >= model.vocab_size()) {
        let expected = format!("tokens below {}", model.vocab_size());
        return Err(EdgeError::input("measuring losses", expected, format!("token {bad}")));
    }
    let hidden = model.forward(inputs, &mut model.empty_cache())?;
    let mut losses = Vec::with_capacity(targets.len());
    let chunks = hidden.chunks(CHUNK * model.width()).zip(targets.chunks(CHUNK));
    for (hidden, targets) in chunks {
        let logits = model.logits(hidden)?;
        losses.extend(logits.chunks_exact(model.vocab_size()).zip(targets).map(|(row, &target)| loss(row, target)));
    }
    Ok(losses)
}

/// The losses of a text of any length: as [`token_losses`] over stretches of the model's positions, each read by itself,
/// so that no token but the very first goes unpredicted.
///
/// Errors: as [`token_losses`], but none for the length.
pub(crate) fn text_losses(model: &LanguageModel, tokens: &[u32]) -> Result<Vec<f32>, EdgeError> {
    let positions = model.max_positions().max(1);
    let mut losses = Vec::with_capacity(tokens.len());
    for start in (0..tokens.len().saturating_sub(1)).step_by(positions) {
        let end = start.saturating_add(positions).saturating_add(1).min(tokens.len());
        losses.extend(token_losses(model, tokens.get(start..end).unwrap_or_default())?);
    }
    Ok(losses)
}

/// Logits after each of `tokens` (n): (n, vocab_size).
///
/// Errors: as [`token_losses`].
pub(crate) fn token_logits(model: &LanguageModel, tokens: &[u32]) -> Result<Vec<f32>, EdgeError> {
    Ok(model.logits(&model.forward(tokens, &mut model.empty_cache())?)?.into_vec())
}

/// ln Σ exp(logits) - logits[target], summed in f64.
fn loss(logits: &[f32], target: u32) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
    let chosen = logits.get(target as usize).copied().unwrap_or(f32::NEG_INFINITY);
    (sum.ln() + f64::from(largest) - f64::from(chosen)) as f32
}
