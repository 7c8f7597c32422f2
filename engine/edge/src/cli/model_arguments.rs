//! What subcommands for language models share.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use foretrain_edge::{Activations, CacheFormat, EdgeError, GenerateOptions, Model};

/// Threads that any machine takes; more than four per core are of no use on a larger one.
const ALWAYS_THREADS: usize = 64;

/// Which language model.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct ModelPath {
    /// Folder of a language package (the one that holds manifest.json).
    #[arg(long, value_name = "DIR")]
    package: Option<PathBuf>,
    /// GGUF file of a GPT-2, Llama or BitNet model; its tokenizer is the tokenizer.json beside it, else its own vocabulary.
    #[arg(long, value_name = "FILE")]
    gguf: Option<PathBuf>,
}

impl ModelPath {
    pub(super) fn get(&self) -> PathBuf {
        // One of them is there by the argument parser's rules.
        self.package.as_ref().or(self.gguf.as_ref()).cloned().unwrap_or_default()
    }
}

/// How many threads compute.
#[derive(Debug, Args)]
pub(super) struct ThreadArguments {
    /// Threads; 0 takes one per core.
    #[arg(long, default_value_t = 0, value_parser = parse_threads)]
    threads: usize,
}

impl ThreadArguments {
    pub(super) fn get(&self) -> usize {
        if self.threads == 0 { num_cores() } else { self.threads }
    }
}

fn num_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn parse_threads(text: &str) -> Result<usize, String> {
    let most = ALWAYS_THREADS.max(4 * num_cores());
    let threads = text.parse().ok().filter(|threads| *threads <= most);
    threads.ok_or_else(|| format!("expected 1 to {most} threads on this machine, or 0 for one per core"))
}

/// Which language model, and how it runs.
#[derive(Debug, Args)]
pub(super) struct ModelArguments {
    #[command(flatten)]
    path: ModelPath,
    #[command(flatten)]
    threads: ThreadArguments,
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
        let format = match self.kv_cache {
            Kept::Auto => CacheFormat::Auto,
            Kept::F32 => CacheFormat::F32,
            Kept::F16 => CacheFormat::F16,
            Kept::Int8 => CacheFormat::Int8,
        };
        Ok(Model::open_with(&self.path.get(), activations)?.with_cache_format(format))
    }

    pub(super) fn num_threads(&self) -> usize {
        self.threads.get()
    }
}

/// How tokens are chosen.
#[derive(Debug, Args)]
pub(super) struct SamplingArguments {
    /// Randomness: 0 always takes the likeliest token.
    #[arg(long, default_value_t = 0.8, allow_negative_numbers = true, value_parser = parse_at_least_zero)]
    temperature: f32,
    /// Consider only this many of the likeliest tokens; 0 considers all.
    #[arg(long, default_value_t = 40)]
    top_k: usize,
    /// Consider only the likeliest tokens that together have this probability; 1 considers all.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true, value_parser = parse_probability_above_zero)]
    top_p: f32,
    /// Consider only tokens at least this many times as likely as the likeliest; 0 considers all.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true, value_parser = parse_probability)]
    min_p: f32,
    /// Make the last 64 tokens less likely: 1 changes nothing, 1.1 is usual.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true, value_parser = parse_above_zero)]
    repeat_penalty: f32,
    /// End before this text would come; may be given several times.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
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

/// A number that `is_right`, or what was expected.
fn parse(text: &str, expected: &str, is_right: impl FnOnce(f32) -> bool) -> Result<f32, String> {
    let number = text.parse().ok().filter(|number: &f32| number.is_finite() && is_right(*number));
    number.ok_or_else(|| format!("expected {expected}"))
}

fn parse_at_least_zero(text: &str) -> Result<f32, String> {
    parse(text, "a number of at least 0", |number| number >= 0.0)
}

fn parse_above_zero(text: &str) -> Result<f32, String> {
    parse(text, "a number above 0", |number| number > 0.0)
}

fn parse_probability(text: &str) -> Result<f32, String> {
    parse(text, "a number from 0 to 1", |number| (0.0..=1.0).contains(&number))
}

fn parse_probability_above_zero(text: &str) -> Result<f32, String> {
    parse(text, "a number above 0 and at most 1", |number| number > 0.0 && number <= 1.0)
}
