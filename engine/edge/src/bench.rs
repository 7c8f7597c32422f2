//! How fast a language model runs here, and how much of what the machine can do that is.
#![forbid(unsafe_code)]

use std::path::Path;
use std::time::Instant;

use crate::EdgeError;
use crate::gguf::GgufFile;
use crate::kernels;
use crate::models::{LanguageModel, TextConfig};
use crate::package::{Package, refuse_unfinished};
use crate::runtime::{Output, panels, with_threads};
use crate::weights::Weights;

/// Bytes of one task of that.
const BANDWIDTH_TASK_BYTES: usize = 1 << 20;
/// Readings of all of them, of which the fastest counts: it was disturbed least.
const BANDWIDTH_ROUNDS: usize = 4;

/// Tokens of a prompt that nobody named, and tokens after it.
const USUAL_PROMPT: usize = 512;
const USUAL_NEW: usize = 64;

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BenchOptions {
    /// Threads, at least 1.
    pub num_threads: usize,
    /// Tokens of the prompt, read at once; 0 leaves this out, `None` takes 512 or as many as the model has positions.
    pub prompt_tokens: Option<usize>,
    /// Tokens one at a time from an empty cache; 0 leaves this out, `None` takes 64 or as many as the model has positions.
    pub new_tokens: Option<usize>,
    /// Bytes that are allocated and read to measure the memory's rate: more than caches hold.
    pub read_bytes: usize,
}

/// A number of tokens and what they took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Tokens.
    pub num_tokens: usize,
    /// Wall time.
    pub seconds: f64,
    /// Time on processors, of all threads; `None` where the system does not say.
    pub cpu_seconds: Option<f64>,
}

impl Pace {
    /// Tokens per second of wall time.
    #[must_use]
    pub fn tokens_per_second(&self) -> f64 {
        self.num_tokens as f64 / self.seconds
    }
}

/// What [`bench`] measured.
#[derive(Debug, Clone, PartialEq)]
pub struct BenchReport {
    /// The set of kernels that ran.
    pub kernels: &'static str,
    /// Threads.
    pub num_threads: usize,
    /// Longest sequence of the model, in tokens.
    pub max_positions: usize,
    /// Which of prompt and decode were cut to so many tokens, because nobody named a number.
    pub cut: Vec<&'static str>,
    /// From opening the file to the first new token's logits after a prompt of one token, seconds.
    pub first_token_seconds: f64,
    /// Reading a prompt.
    pub prompt: Option<Pace>,
    /// One token at a time.
    pub decode: Option<Pace>,
    /// Bytes of weights that one new token reads, besides its row of the embedding.
    pub bytes_per_token: usize,
    /// Bytes of keys and values after decoding.
    pub cache_bytes: usize,
    /// Bytes per second that the same threads read from memory at best, before and after.
    pub bandwidth: f64,
    /// Bytes per second of processor time that they read on average; `None` where the system does not say.
    pub cpu_bandwidth: Option<f64>,
}

impl BenchReport {
    /// Bytes of weights per second while decoding.
    #[must_use]
    pub fn decode_rate(&self) -> Option<f64> {
        self.decode.map(|pace| pace.tokens_per_second() * self.bytes_per_token as f64)
    }

    /// Bytes of weights per second of processor time while decoding. Against [`BenchReport::cpu_bandwidth`] it tells, on a
    /// machine that others use, what wall time does not.
    #[must_use]
    pub fn cpu_decode_rate(&self) -> Option<f64> {
        let pace = self.decode?;
        Some(pace.num_tokens as f64 / pace.cpu_seconds? * self.bytes_per_token as f64)
    }
}

/// Measures the language model at `path`: a package's folder, or a GGUF file of a GPT-2, Llama or BitNet.
///
/// Errors: as [`Package::open`]; [`EdgeError::Unfinished`]; [`EdgeError::Input`] for an image model, or more tokens than the model has positions.
pub fn bench(path: &Path, options: BenchOptions) -> Result<BenchReport, EdgeError> {
    refuse_unfinished(path)?;
    with_threads(options.num_threads, || {
        let start = Instant::now();
        if path.is_dir() {
            let package = Package::open(path)?;
            bench_model(package.language_model()?.network(), start, options)
        } else {
            let file = GgufFile::open(path)?;
            let (config, architecture) = TextConfig::from_gguf(&file, path)?;
            let weights = Weights::from_gguf(&file, path, architecture)?;
            bench_model(&LanguageModel::load(&config, &weights)?, start, options)
        }
    })
}

fn bench_model(model: &LanguageModel, start: Instant, options: BenchOptions) -> Result<BenchReport, EdgeError> {
    let BenchOptions { num_threads, read_bytes, .. } = options;
    let max_positions = model.max_positions();
    // Each starts from an empty cache, so that each may fill all positions.
    let prompt_tokens = fitting("--prompt", options.prompt_tokens, USUAL_PROMPT, max_positions)?;
    let new_tokens = fitting("--tokens", options.new_tokens, USUAL_NEW, max_positions)?;
    let cuts = [
        ("prompt", options.prompt_tokens, prompt_tokens, USUAL_PROMPT),
        ("decode", options.new_tokens, new_tokens, USUAL_NEW),
    ];
    let cut = cuts.into_iter().filter(|(_, named, taken, usual)| named.is_none() && taken < usual);
    let token = |number: usize| u32::try_from(number * 7919 % model.vocab_size().max(1)).unwrap_or_default();
    let last_logits = |hidden: Vec<f32>| model.logits(&hidden[hidden.len().saturating_sub(model.width())..]);
    last_logits(model.forward(&[token(1)], &mut model.empty_cache())?)?;
    let first_token_seconds = start.elapsed().as_secs_f64();
    let before = Readings::take(read_bytes);
    let mut cache = model.empty_cache();
    let decode = pace(new_tokens, || {
        for number in 0..new_tokens {
            last_logits(model.forward(&[token(number)], &mut cache)?)?;
        }
        Ok(())
    })?;
    let readings = before.and(&Readings::take(if new_tokens > 0 { read_bytes } else { 0 }));
    let tokens: Vec<u32> = (0..prompt_tokens).map(token).collect();
    let prompt = pace(prompt_tokens, || {
        last_logits(model.forward(&tokens, &mut model.empty_cache())?)?;
        Ok(())
    })?;
    Ok(BenchReport {
        kernels: kernels::active().name,
        num_threads,
        max_positions,
        cut: cut.map(|(name, ..)| name).collect(),
        first_token_seconds,
        prompt,
        decode,
        bytes_per_token: model.bytes_per_token(),
        cache_bytes: cache.num_bytes(),
        bandwidth: readings.best,
        cpu_bandwidth: readings
            .cpu_seconds
            .filter(|&seconds| seconds > 0.0)
            .map(|seconds| readings.num_bytes as f64 / seconds),
    })
}

/// As many tokens as `option` was given as, else as is usual, cut to what fits.
///
/// Errors: [`EdgeError::Input`] for a given number that does not fit.
fn fitting(option: &str, given: Option<usize>, usual: usize, most: usize) -> Result<usize, EdgeError> {
    match given {
        Some(given) if given > most => {
            let expected = format!("at most {most} tokens, the model's positions");
            Err(EdgeError::input(&format!("measuring with {option} {given}"), expected, given.to_string()))
        }
        Some(given) => Ok(given),
        None => Ok(usual.min(most)),
    }
}

/// What `work` on `num_tokens` tokens takes; `None` for none.
fn pace(num_tokens: usize, work: impl FnOnce() -> Result<(), EdgeError>) -> Result<Option<Pace>, EdgeError> {
    if num_tokens == 0 {
        return Ok(None);
    }
    let (start, cpu_start) = (Instant::now(), cpu_seconds());
    work()?;
    let seconds = start.elapsed().as_secs_f64();
    // Of what is too short for the system's clock nothing is known.
    let cpu_seconds = cpu_seconds().zip(cpu_start).map(|(now, start)| now - start).filter(|&seconds| seconds > 0.0);
    Ok(Some(Pace { num_tokens, seconds, cpu_seconds }))
}

/// Readings of memory by the current threads.
struct Readings {
    /// Bytes per second of the fastest.
    best: f64,
    /// Bytes of all, and the processor time that they took.
    num_bytes: usize,
    cpu_seconds: Option<f64>,
}

impl Readings {
    /// Reads `num_bytes` of memory a few times.
    fn take(num_bytes: usize) -> Self {
        let num_tasks = num_bytes.div_ceil(BANDWIDTH_TASK_BYTES);
        // Written once, so that each page is there.
        let bytes = vec![0x5a_u8; num_tasks * BANDWIDTH_TASK_BYTES];
        let mut sums = vec![0.0; num_tasks];
        let cpu_start = cpu_seconds();
        let rounds = (0..BANDWIDTH_ROUNDS).map(|_| {
            let start = Instant::now();
            panels(
                &mut [Output { values: &mut sums, width: num_tasks, panel_width: 1, num_runs: 1 }],
                |_, mut panel| {
                    let first = panel.columns().start * BANDWIDTH_TASK_BYTES;
                    let part = bytes.get(first..first + BANDWIDTH_TASK_BYTES).unwrap_or_default();
                    panel.row_mut(0).fill((kernels::active().read_all)(part) as f32);
                },
            );
            start.elapsed().as_secs_f64()
        });
        Self {
            best: bytes.len() as f64 / rounds.fold(f64::INFINITY, f64::min),
            num_bytes: BANDWIDTH_ROUNDS * bytes.len(),
            cpu_seconds: cpu_seconds().zip(cpu_start).map(|(now, start)| now - start),
        }
    }

    fn and(&self, other: &Self) -> Self {
        Self {
            best: self.best.max(other.best),
            num_bytes: self.num_bytes + other.num_bytes,
            cpu_seconds: self.cpu_seconds.zip(other.cpu_seconds).map(|(a, b)| a + b),
        }
    }
}

/// Time on processors so far, of all threads of this process; `None` where the system does not say.
/// Source: Documentation/scheduler/sched-stats.rst of Linux.
fn cpu_seconds() -> Option<f64> {
    let threads = std::fs::read_dir("/proc/self/task").ok()?;
    let nanoseconds = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    Some(nanoseconds.sum::<f64>() / 1e9)
}
