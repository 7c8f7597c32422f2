//! `run`: continue a prompt.

use std::io::Write;

use clap::Args;
use foretrain_edge::{GenerateOptions, Generated, Package};
use serde_json::json;

use super::PackageArguments;

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  foretrain-edge run --package packages/shakespeare-cpu --prompt \"ROMEO:\" --seed 7"
)]
pub(super) struct RunArguments {
    #[command(flatten)]
    common: PackageArguments,
    /// Text to continue.
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// Most new tokens.
    #[arg(long, default_value_t = 128)]
    max_tokens: usize,
    /// Randomness: 0 always takes the likeliest token.
    #[arg(long, default_value_t = 0.8)]
    temperature: f32,
    /// Consider only this many of the likeliest tokens; 0 considers all.
    #[arg(long, default_value_t = 40)]
    top_k: usize,
    /// The same seed gives the same text.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

pub(super) fn run(arguments: &RunArguments, out: &mut impl Write) -> anyhow::Result<()> {
    let RunArguments { common, prompt, max_tokens, temperature, top_k, seed } = arguments;
    let package = Package::open(&common.package)?;
    let options = GenerateOptions { max_tokens: *max_tokens, temperature: *temperature, top_k: *top_k, seed: *seed };
    if common.json {
        let generated = package.generate(prompt, options, &mut |_| true)?;
        let Generated { text, num_tokens, prompt_ms, decode_ms } = &generated;
        let answer = json!({
            "prompt": prompt, "text": text, "num_tokens": num_tokens, "prompt_ms": prompt_ms, "decode_ms": decode_ms,
            "tokens_per_second": tokens_per_second(&generated),
        });
        writeln!(out, "{answer}")?;
        return Ok(());
    }
    write!(out, "{prompt}")?;
    out.flush()?;
    let mut written = Ok(());
    let generated = package.generate(prompt, options, &mut |piece| {
        written = write!(out, "{piece}").and_then(|()| out.flush());
        written.is_ok()
    })?;
    written?;
    let Generated { num_tokens, prompt_ms, decode_ms, .. } = generated;
    writeln!(out, "\n")?;
    write!(out, "[prompt {prompt_ms:.1} ms; {num_tokens} tokens in {decode_ms:.1} ms")?;
    if let Some(speed) = tokens_per_second(&generated) {
        write!(out, ", {speed:.1} per second")?;
    }
    writeln!(out, "]")?;
    Ok(())
}

/// `None` when there is nothing to divide.
fn tokens_per_second(generated: &Generated) -> Option<f64> {
    let has_rate = generated.num_tokens > 0 && generated.decode_ms > 0.0;
    has_rate.then(|| generated.num_tokens as f64 / generated.decode_ms * 1e3)
}
