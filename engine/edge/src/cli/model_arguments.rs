//! What subcommands for language models share.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use foretrain_edge::{Activations, CacheFormat, EdgeError, GenerateOptions, Model};

/// Which language model, and how it runs.
#[derive(Debug, Args)]
pub(super) struct ModelArguments {
    /// Folder of a language package (the one that holds manifest.json).
    #[arg(long, value_name = "DIR", required_unless_present = "gguf", conflicts_with = "gguf")]
    package: Option<PathBuf>,
    /// GGUF file of a GPT-2, Llama or BitNet model; its tokenizer is the tokenizer.json beside it, else its own vocabulary.
    #[arg(long, value_name = "FILE")]
    gguf: Option<PathBuf>,
    /// Threads; 0 takes one per core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// How keys and values are kept between tokens; auto: f16 where inputs are rounded to 8 bits anyway, else f32.
    #[arg(long, value_enum, default_value_t = Kept::Auto)]
    kv_cache: Kept,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kept {
    Auto,
    F32,
    F16,
    Int8,
}

impl ModelArguments {
    pub(super) fn open(&self) -> Result<Model, EdgeError> {
        self.open_with(Activations::default())
    }

    pub(super) fn open_with(&self, activations: Activations) -> Result<Model, EdgeError> {
        // One of them is there by the argument parser's rules.
        let path = self.package.as_ref().or(self.gguf.as_ref()).cloned().unwrap_or_default();
        let format = match self.kv_cache {
            Kept::Auto => CacheFormat::Auto,
            Kept::F32 => CacheFormat::F32,
            Kept::F16 => CacheFormat::F16,
            Kept::Int8 => CacheFormat::Int8,
        };
        Ok(Model::open_with(&path, activations)?.with_cache_format(format))
    }

    pub(super) fn num_threads(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            threads => threads,
        }
    }
}

/// How tokens are chosen.
#[derive(Debug, Args)]
pub(super) struct SamplingArguments {
    /// Randomness: 0 always takes the likeliest token.
    #[arg(long, default_value_t = 0.8)]
    temperature: f32,
    /// Consider only this many of the likeliest tokens; 0 considers all.
    #[arg(long, default_value_t = 40)]
    top_k: usize,
    /// Consider only the likeliest tokens that together have this probability; 1 considers all.
    #[arg(long, default_value_t = 1.0)]
    top_p: f32,
    /// Consider only tokens at least this many times as likely as the likeliest; 0 considers all.
    #[arg(long, default_value_t = 0.0)]
    min_p: f32,
    /// Make the last 64 tokens less likely: 1 changes nothing, 1.1 is usual.
    #[arg(long, default_value_t = 1.0)]
    repeat_penalty: f32,
    /// End before this text would come; may be given several times.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// The same seed gives the same text.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl SamplingArguments {
    pub(super) fn options(&self, max_tokens: usize) -> GenerateOptions {
        GenerateOptions {
            max_tokens,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            seed: self.seed,
            stop: self.stop.clone(),
            ..GenerateOptions::default()
        }
    }
}
