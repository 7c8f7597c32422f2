//! Trying a model: packages are written to the cache and run by foretrain-edge, so that what one
//! tries is what one ships.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use foretrain_edge::{GenerateOptions, Package};
use sha2::{Digest, Sha256};

use super::describe::{is_package, package_scheme};
use super::{Answer, AnswerOutput, InferInput, InferJob, SessionError};
use crate::device::Watch;
use crate::device::atomic_file::WriteError;
use crate::export::{self, ExportError, ExportTarget, TargetPreset};
use crate::quant::QuantScheme;

/// One answer per precision; a package answers in its own.
pub(super) fn answer(job: &InferJob, cache: &Path, watch: Watch<'_>) -> Result<Vec<Answer>, SessionError> {
    export::refuse_unfinished(&job.input)?;
    if is_package(&job.input) {
        let package = Package::open(&job.input)?;
        let scheme = package_scheme(&package, &job.input)?;
        return Ok(vec![answer_of(&package, scheme, &job.prompt, watch)?]);
    }
    let checkpoint = export::resolve_checkpoint(&job.input)?;
    let answer_in = |&scheme| {
        let package = Package::open(&package_of(&checkpoint, scheme, cache, watch)?)?;
        answer_of(&package, scheme, &job.prompt, watch)
    };
    job.schemes.iter().map(answer_in).collect()
}

/// The package folder that runs what `input` is: `input` itself, or for a checkpoint or run one in full precision, which
/// is written to `cache` once.
///
/// Errors: an unfinished export; what is neither; those of writing a package.
pub fn package_to_run(input: &Path, cache: &Path, watch: Watch<'_>) -> Result<PathBuf, SessionError> {
    export::refuse_unfinished(input)?;
    if is_package(input) {
        return Ok(input.to_owned());
    }
    let checkpoint = export::resolve_checkpoint(input).map_err(|error| match error {
        ExportError::NotACheckpoint { found, path, .. } => ExportError::NotACheckpoint {
            expected: "a package with its manifest.json, a checkpoint or a run".to_owned(),
            found,
            path,
        },
        other => other,
    })?;
    package_of(&checkpoint, QuantScheme::F32, cache, watch)
}

fn answer_of(
    package: &Package,
    scheme: QuantScheme,
    prompt: &InferInput,
    watch: Watch<'_>,
) -> Result<Answer, SessionError> {
    let (output, latency_ms) = match prompt {
        InferInput::Image { pixels } => {
            // The first run touches the weights' pages; the others say what the next image costs.
            let classes = package.classify(pixels)?;
            (AnswerOutput::Classes(classes), median_ms(|| Ok(package.classify(pixels).map(drop)?))?)
        }
        InferInput::Prompt { text, max_tokens, temperature, seed } => {
            let options = GenerateOptions {
                max_tokens: *max_tokens,
                temperature: *temperature,
                seed: *seed,
                ..GenerateOptions::default()
            };
            let generated = package.generate(text, &options, &mut |_| watch.check().is_ok())?;
            watch.check()?;
            let latency_ms = generated.decode_ms / generated.num_tokens.max(1) as f64;
            (AnswerOutput::Text(generated.text), latency_ms)
        }
    };
    Ok(Answer { scheme, output, latency_ms, weight_bytes: package.weight_bytes() })
}

/// Runs of an image that its latency is the median of, and after how long there are no more.
const TIMED_RUNS: (usize, Duration) = (7, Duration::from_millis(100));

/// The median time of a few runs: a single one says more about what else the machine was doing.
fn median_ms(run: impl Fn() -> Result<(), SessionError>) -> Result<f64, SessionError> {
    let began = Instant::now();
    let mut times_ms = Vec::new();
    while times_ms.is_empty() || (times_ms.len() < TIMED_RUNS.0 && began.elapsed() < TIMED_RUNS.1) {
        let started = Instant::now();
        run()?;
        times_ms.push(started.elapsed().as_secs_f64() * 1e3);
    }
    times_ms.sort_by(f64::total_cmp);
    Ok(times_ms[times_ms.len() / 2])
}

/// The cached package of a checkpoint in a precision, written when it is not there yet.
fn package_of(checkpoint: &Path, scheme: QuantScheme, cache: &Path, watch: Watch<'_>) -> Result<PathBuf, SessionError> {
    let folder = cache.join("trials").join(fingerprint(checkpoint)).join(scheme.label());
    if folder.join("manifest.json").exists() {
        return Ok(folder);
    }
    let parent = folder.parent().unwrap_or(cache);
    std::fs::create_dir_all(parent).map_err(|source| WriteError::new("creating", parent, source))?;
    let loaded = export::read_checkpoint_watched(checkpoint, watch)?;
    // Figures belong into packages that are shipped; this one is for a look.
    TargetPreset::for_scheme(scheme).write(&loaded, &folder, None, watch)?;
    Ok(folder)
}

/// Names a checkpoint by its place and the time and size of its weights.
fn fingerprint(checkpoint: &Path) -> String {
    let mut hasher = Sha256::new();
    hasher.update(checkpoint.as_os_str().as_encoded_bytes());
    if let Ok(metadata) = checkpoint.join("model.safetensors").metadata() {
        hasher.update(metadata.len().to_le_bytes());
        if let Ok(modified) = metadata.modified().map(|time| time.duration_since(std::time::UNIX_EPOCH)) {
            hasher.update(modified.map_or(0, |since| since.as_nanos()).to_le_bytes());
        }
    }
    hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
