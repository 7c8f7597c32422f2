//! `run`: continue a prompt.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use foretrain_edge::{Finish, Generated, with_threads};
use serde_json::json;

use super::model_arguments::{ModelArguments, SamplingArguments};
use super::report::warn;

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  foretrain-edge run --package packages/shakespeare-cpu --prompt \"ROMEO:\" --seed 7
  foretrain-edge run --gguf model.gguf --prompt \"Q: Why?\\nA:\" --stop \"Q:\" --prompt-cache why.cache")]
pub(super) struct RunArguments {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    sampling: SamplingArguments,
    /// Text to continue.
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// Most new tokens.
    #[arg(long, default_value_t = 128)]
    max_tokens: usize,
    /// File that remembers what was read: a prompt that starts like the last one is read from where it differs. Made when
    /// it is not there; one of another model or a damaged one is refused.
    #[arg(long, value_name = "FILE")]
    prompt_cache: Option<PathBuf>,
    /// Print one JSON object on one line instead of text.
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(arguments: &RunArguments, out: &mut impl Write) -> anyhow::Result<()> {
    with_threads(arguments.model.num_threads(), || continue_prompt(arguments, out))
}

fn continue_prompt(arguments: &RunArguments, out: &mut impl Write) -> anyhow::Result<()> {
    let RunArguments { prompt, prompt_cache, .. } = arguments;
    if let Some(folder) = prompt_cache.as_deref().and_then(Path::parent)
        && !folder.as_os_str().is_empty()
        && !folder.is_dir()
    {
        bail!("--prompt-cache: expected a file in a folder that is there, found none called {}", folder.display());
    }
    let model = arguments.model.open()?;
    let options = arguments.sampling.options(arguments.max_tokens);
    let mut context = model.context();
    if let Some(path) = prompt_cache.as_ref().filter(|path| path.exists()) {
        context.load(path)?;
    }
    let tokens = model.prompt_tokens(prompt)?;
    let (unknown, passed_over) = (model.unknown(prompt)?, model.num_passed_over(tokens.len()));
    if !unknown.is_empty() {
        warn(format_args!("--prompt: {unknown}"));
    }
    if passed_over > 0 {
        let (num_tokens, most) = (tokens.len(), model.max_positions());
        warn(format_args!(
            "--prompt: {num_tokens} tokens, and the model has {most} positions: the first {passed_over} are not read"
        ));
    }
    let mut written = Ok(());
    if !arguments.json {
        write!(out, "{prompt}")?;
        out.flush()?;
    }
    let generated = context.generate(tokens, &options, &mut |piece| {
        if !arguments.json {
            written = write!(out, "{piece}").and_then(|()| out.flush());
        }
        written.is_ok()
    })?;
    written?;
    if let Some(path) = prompt_cache {
        context.save(path)?;
    }
    let Generated { text, num_tokens, prompt_tokens, cached_tokens, finish, prompt_ms, decode_ms } = &generated;
    if arguments.json {
        let finish = match finish {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::Cancelled => "cancelled",
        };
        let answer = json!({
            "prompt": prompt, "text": text, "num_tokens": num_tokens, "prompt_tokens": prompt_tokens,
            "cached_tokens": cached_tokens, "finish": finish, "prompt_ms": prompt_ms, "decode_ms": decode_ms,
            "tokens_per_second": tokens_per_second(&generated), "passed_over_tokens": passed_over,
            "unknown_characters": unknown.num_characters, "first_unknown": unknown.first,
        });
        writeln!(out, "{answer}")?;
        return Ok(());
    }
    writeln!(out, "\n")?;
    write!(out, "[prompt {prompt_ms:.1} ms")?;
    if *cached_tokens > 0 {
        write!(out, ", {cached_tokens} of its {prompt_tokens} tokens from the cache")?;
    }
    write!(out, "; {num_tokens} tokens in {decode_ms:.1} ms")?;
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
