//! `perplexity`: how well a language model predicts a text.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use foretrain_edge::{Activations, with_threads};
use serde_json::json;

use super::model_arguments::ModelArguments;
use super::report::warn;

/// Arguments of `perplexity`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  foretrain-edge perplexity --package packages/shakespeare-cpu --text held-out.txt
  foretrain-edge perplexity --package packages/shakespeare-cpu --text held-out.txt --max-tokens 200 --logits --json")]
pub(super) struct PerplexityArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Text file in UTF-8. A text longer than the model's positions is read in stretches of that many.
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Read only this many tokens from its start; 0 reads all.
    #[arg(long, default_value_t = 0)]
    max_tokens: usize,
    /// Multiply integer weights with inputs as they are, not rounded to 8 bits: what the stored weights mean.
    #[arg(long)]
    exact: bool,
    /// Add every token and its logits to the JSON object; the tokens must fit the model's positions.
    #[arg(long, requires = "json")]
    logits: bool,
    /// Print one JSON object on one line instead of text.
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(arguments: &PerplexityArguments, out: &mut impl Write) -> anyhow::Result<()> {
    with_threads(arguments.model.num_threads(), || measure(arguments, out))
}

fn measure(arguments: &PerplexityArguments, out: &mut impl Write) -> anyhow::Result<()> {
    let PerplexityArguments { model, text, max_tokens, exact, logits, json } = arguments;
    let activations = if *exact { Activations::Floats } else { Activations::default() };
    let model = model.open_with(activations)?;
    let content = std::fs::read_to_string(text).with_context(|| format!("reading a text from {}", text.display()))?;
    let mut tokens = model.tokens(&content)?;
    let unknown = model.unknown(&content)?;
    if !unknown.is_empty() {
        warn(format_args!("--text: {unknown}"));
    }
    if *max_tokens > 0 {
        tokens.truncate(*max_tokens);
    }
    if tokens.len() < 2 {
        bail!("measuring perplexity: expected at least 2 tokens, found {} in {}", tokens.len(), text.display());
    }
    let start = Instant::now();
    let losses = model.text_losses(&tokens)?;
    let seconds = start.elapsed().as_secs_f64();
    let loss = losses.iter().map(|loss| f64::from(*loss)).sum::<f64>() / losses.len() as f64;
    if !json {
        let (count, perplexity) = (losses.len(), loss.exp());
        writeln!(out, "perplexity {perplexity:.4}, loss {loss:.4} nats, {count} tokens predicted in {seconds:.2} s")?;
        return Ok(());
    }
    let mut answer = json!({
        "perplexity": loss.exp(), "loss": loss, "num_tokens": losses.len(), "seconds": seconds, "is_exact": exact,
        "unknown_characters": unknown.num_characters, "first_unknown": unknown.first,
    });
    if *logits {
        let flat = model.token_logits(&tokens)?;
        let rows: Vec<&[f32]> = flat.chunks_exact(flat.len() / tokens.len()).collect();
        answer["tokens"] = json!(tokens);
        answer["logits"] = json!(rows);
    }
    writeln!(out, "{answer}")?;
    Ok(())
}
