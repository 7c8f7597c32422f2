//! Quantization and export, with the figures that only a dataset can give.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use foretrain_edge::Package;

use super::shrinking::{Detail, Shrinking, Shrunk};
use super::worker::Shelf;
use super::{
    EdgeFigures, ExportJob, ExportReport, Naming, QuantizeJob, QuantizeReport, SessionError, onnx_shipping,
    quality_report, reports, target_speed,
};
use crate::data::{self, BatchConfig, BatchSource, Dataset, DatasetSpec, Example, SplitPart};
use crate::device::Watch;
use crate::evaluation::{BeforeLast, Evaluation, evaluate};
use crate::export::{
    self, Blocker, Checkpoint, ExportError, ExportTarget, ModelCard, PackageFormat, Preprocessing, Quality,
    TargetPreset,
};
use crate::import;
use crate::models::{DataShape, Network, Params};
use crate::quant::{self, Container, MeasuredQuality, PostTraining, QuantScheme, QuantizedWeights};

/// Most validation images that an export is measured on: in full precision, quantized, and as the package runs.
pub(super) const EXPORT_IMAGES: usize = 2_000;
/// Most validation tokens that an export is measured on, and operations that one measurement may take: two for each weight
/// and token, so that 100 million weights still see all tokens, and a billion 2,000.
const EXPORT_TOKENS: u64 = 16_384;
const EXPORT_OPERATIONS: u64 = 4_000_000_000_000;
/// Images per evaluation batch, and most sequences.
pub(super) const BATCH_SIZE: usize = 64;
/// Most tokens of a sequence to measure on.
const MAX_WINDOW: usize = 1024;
/// Most logits at once: 256 MiB of them.
const MAX_LOGITS: usize = 1 << 26;

/// Parameters of a network whose every layer is measured by itself when it is calibrated anyway.
const MAX_QUICK_PARAMS: u64 = 5_000_000;

/// Quantizes a checkpoint and measures before and after; writes the file when the job names one.
pub(super) fn quantize(job: &QuantizeJob, shelf: &Shelf, watch: Watch<'_>) -> Result<QuantizeReport, SessionError> {
    // The cheap checks come before the computing.
    if let Some(output) = &job.output {
        export::check_new_file(output)?;
    }
    if let Some(folder) = &job.report {
        reports::refuse_taken(folder)?;
    }
    job.options.check()?;
    let checkpoint = import::read_model(&job.input, &shelf.cache, watch)?;
    let network = Network::new(&checkpoint.card.model)?;
    let (options, left_out) = fitting_options(&job.options, &network, job.scheme, Container::Safetensors)?;
    if let Some(output) = &job.output {
        export::check_room(output, export::least_quantized_bytes(&checkpoint, &network, job.scheme, options.tables)?)?;
    }
    let dataset = fitting_dataset(&checkpoint, job.data.as_ref(), shelf, watch)?;
    let is_quick = job.options.is_calibrated() && checkpoint.card.num_params <= MAX_QUICK_PARAMS;
    let detail = if job.report.is_some() || is_quick { Detail::EveryLayer } else { Detail::Brief };
    let mut shrunk = Shrinking {
        checkpoint: &checkpoint,
        network: &network,
        dataset: &dataset,
        scheme: job.scheme,
        container: Container::Safetensors,
        options: &options,
        detail,
        max_examples: job.max_examples,
    }
    .run(watch)?;
    shrunk.notes.extend(left_out);
    let mut report = quality(&checkpoint, &shrunk, (&network, &dataset, job.max_examples), watch)?;
    if let Some(output) = &job.output {
        export::write_quantized(&shrunk.weights, &checkpoint, output, watch)?;
        report.output = Some(output.clone());
    }
    if let Some(folder) = &job.report {
        report.report = Some(folder.clone());
        quality_report::write(&report, &checkpoint.card, folder)?;
    }
    Ok(report)
}

/// Writes a package, reads it back, and runs it through foretrain-edge.
pub(super) fn export(job: &ExportJob, shelf: &Shelf, watch: Watch<'_>) -> Result<ExportReport, SessionError> {
    // The cheap checks come before the computing.
    let output = free_place(&job.output, job.naming)?;
    let target = TargetPreset::find(&job.target)?;
    job.options.check()?;
    let checkpoint = import::read_model(&job.input, &shelf.cache, watch)?;
    let network = Network::new(&checkpoint.card.model)?;
    let target = target.asked(&checkpoint.card, job.scheme, job.format);
    let container = export::container(&checkpoint.card, &target);
    let (options, left_out) = fitting_options(&job.options, &network, target.scheme, container)?;
    let target = target.with_tables(options.tables);
    if job.format == Some(PackageFormat::Gguf) && !checkpoint.card.is_language_model() {
        // A target that prefers GGUF falls back for image models; somebody who asks for it means it.
        let what = format!("GGUF holds language models, this {} reads images", checkpoint.card.family());
        let remedy = "Choose safetensors or onnx".to_owned();
        return Err(ExportError::Blocked(vec![Blocker { what, remedy }]).into());
    }
    let blockers = target.blockers(&checkpoint.card);
    if !blockers.is_empty() {
        return Err(ExportError::Blocked(blockers).into());
    }
    export::check_room(&output, export::least_bytes(&checkpoint.card, &target)?)?;
    let dataset = fitting_dataset(&checkpoint, job.data.as_ref(), shelf, watch)?;
    if target.format == PackageFormat::Onnx {
        let mut report = onnx_shipping::export(&checkpoint, &target, &options, &output, &dataset, watch)?;
        report.quality.notes.extend(left_out);
        return Ok(report);
    }
    // The same examples for all measurements, so that a difference is the package's own.
    let max_examples = match checkpoint.card.model.data_shape() {
        DataShape::Images { .. } => EXPORT_IMAGES,
        DataShape::Text { .. } => num_windows(&checkpoint.card),
    };
    let mut shrunk = Shrinking {
        checkpoint: &checkpoint,
        network: &network,
        dataset: &dataset,
        scheme: target.scheme,
        container,
        options: &options,
        detail: Detail::Brief,
        max_examples,
    }
    .run(watch)?;
    shrunk.notes.extend(left_out);
    let quality = quality(&checkpoint, &shrunk, (&network, &dataset, max_examples), watch)?;
    let stored = Quality::from(&quality);
    let draft = target.draft(&checkpoint, &shrunk.weights, &output, Some(&stored), watch)?;
    let edge = measure_on_edge(&draft.open()?, &checkpoint.card, &dataset, max_examples, watch)?;
    let written = draft.publish(Some(&edge), watch)?;
    Ok(ExportReport {
        target: target.id,
        package: written.package,
        files: written.files,
        quality,
        edge: Some(edge),
        run_command: written.run_command,
        notes: written.notes,
    })
}

/// What of `options` there is for one way to store `network`, and a note on each that was left out.
fn fitting_options(
    options: &PostTraining,
    network: &Network,
    scheme: QuantScheme,
    container: Container,
) -> Result<(PostTraining, Vec<String>), SessionError> {
    Ok(options.fitting(&quant::plan(&network.specs(), scheme, container), scheme, container)?)
}

impl From<&QuantizeReport> for Quality {
    fn from(report: &QuantizeReport) -> Self {
        Self {
            metric: report.metric.clone(),
            before: report.before,
            after: report.after,
            loss_before: report.loss_before,
            loss_after: report.loss_after,
            num_examples: report.num_examples,
            method: report.method.clone(),
            tables: report.tables.clone(),
        }
    }
}

/// What a checkpoint was measured to be worth.
#[derive(Debug, Clone)]
pub struct Validated {
    /// The checkpoint's.
    pub card: ModelCard,
    /// What the dataset calls itself.
    pub dataset_name: String,
    /// The figures.
    pub measured: Evaluation,
    /// Tokens per sequence that a language model was measured with.
    pub sequence_length: Option<usize>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Loss and accuracy on a part of a dataset of a checkpoint, or of whatever else holds weights, as they are stored.
pub fn validate(
    input: &Path,
    data: Option<&DatasetSpec>,
    part: SplitPart,
    cache: &Path,
    watch: Watch<'_>,
) -> Result<Validated, SessionError> {
    let checkpoint = import::read_stored_model(input, cache, watch)?;
    let dataset = fitting_dataset(&checkpoint, data, &Shelf::new(cache.to_owned()), watch)?;
    let network = Network::new(&checkpoint.card.model)?;
    let batches = batches(&checkpoint.card, &dataset)?;
    let measured = evaluate(&network, &checkpoint.weights, batches.evaluation_batches(part, usize::MAX), watch)?;
    let card = checkpoint.card;
    Ok(Validated {
        sequence_length: card.is_language_model().then(|| window_len(&card)),
        notes: length_note(&card).into_iter().collect(),
        dataset_name: dataset.name().to_owned(),
        measured,
        card,
    })
}

/// `output`, or by `naming` the first free name after it.
fn free_place(output: &Path, naming: Naming) -> Result<PathBuf, SessionError> {
    // A dangling link is taken, too.
    let is_taken = |path: &Path| path.symlink_metadata().is_ok();
    match naming {
        Naming::Exact if is_taken(output) => Err(ExportError::Exists { path: output.to_owned() }.into()),
        Naming::Exact => Ok(output.to_owned()),
        Naming::NextFree => {
            let numbered = |number: u32| {
                let mut name = output.file_name().unwrap_or_default().to_owned();
                name.push(format!("-{number}"));
                output.with_file_name(name)
            };
            let candidates = std::iter::once(output.to_owned()).chain((2..=u32::MAX).map(numbered));
            candidates
                .into_iter()
                .find(|path| !is_taken(path))
                .ok_or_else(|| ExportError::Exists { path: output.to_owned() }.into())
        }
    }
}

/// The dataset to measure on, through the model's own tokenizer or normalization; refused when the model cannot read
/// it.
fn fitting_dataset(
    checkpoint: &Checkpoint,
    data: Option<&DatasetSpec>,
    shelf: &Shelf,
    watch: Watch<'_>,
) -> Result<Arc<Dataset>, SessionError> {
    let card = &checkpoint.card;
    if data.is_none() && card.tier == ModelCard::IMPORTED {
        let what = "this model does not say what it learned from; name a dataset to measure it on (--data)".to_owned();
        return Err(SessionError::Recipe { what });
    }
    let spec = data.unwrap_or(&card.data);
    let dataset = match &checkpoint.tokenizer_json {
        Some(tokenizer) => shelf.dataset(&spec.with_tokenizer(tokenizer), watch)?,
        None => shelf.dataset(spec, watch)?,
    };
    let misfit = |wanted: String, found: String| SessionError::Recipe {
        what: format!(
            "the model reads {wanted}, {} has {found}; choose the dataset that it was trained on ({})",
            dataset.name(),
            card.dataset_name
        ),
    };
    let (wanted, found) = (card.model.data_shape(), dataset.shape());
    if !wanted.takes(found) {
        return Err(misfit(wanted.to_string(), found.to_string()));
    }
    if let (Dataset::Text(text), Some(tokenizer)) = (&*dataset, &checkpoint.tokenizer_json)
        && !data::has_vocabulary_of(text, tokenizer, watch)?
    {
        return Err(misfit("tokens of its own tokenizer".to_owned(), "a vocabulary of its own".to_owned()));
    }
    match (&*dataset, &card.preprocessing) {
        (Dataset::Images(images), Preprocessing::Images { mean, std, classes }) => {
            if images.classes != *classes {
                return Err(misfit(format!("the classes {}", classes.join(", ")), images.classes.join(", ")));
            }
            if images.mean == *mean && images.std == *std {
                return Ok(dataset);
            }
            Ok(Arc::new(dataset.with_normalization(mean, std)?))
        }
        (Dataset::Images(_) | Dataset::Text(_), _) => Ok(dataset),
    }
}

/// Tokens per window: as many as the model was trained on or, where it does not say, as it has positions; at most
/// [`MAX_WINDOW`].
fn window_len(card: &ModelCard) -> usize {
    card.sequence_length.or(card.model.max_positions()).unwrap_or(1).clamp(1, MAX_WINDOW)
}

/// What to know about [`window_len`] where the model does not say what it was trained on: positions that were never
/// trained cost loss.
fn length_note(card: &ModelCard) -> Option<String> {
    let is_unknown = card.is_language_model() && card.sequence_length.is_none();
    is_unknown.then(|| {
        format!(
            "Measured in sequences of {} tokens, as many as it has positions, at most {MAX_WINDOW}: the model does not say \
             how long those were that it was trained on",
            window_len(card)
        )
    })
}

/// Sequences that an export of a language model is measured on.
fn num_windows(card: &ModelCard) -> usize {
    let num_tokens = (EXPORT_OPERATIONS / card.num_params.saturating_mul(2).max(1)).min(EXPORT_TOKENS);
    usize::try_from(num_tokens).unwrap_or(1).div_ceil(window_len(card)).max(1)
}

pub(super) fn batches(card: &ModelCard, dataset: &Arc<Dataset>) -> Result<BatchSource, SessionError> {
    let batch_size = match card.model.data_shape() {
        DataShape::Images { .. } => BATCH_SIZE,
        DataShape::Text { vocab_size } => {
            (MAX_LOGITS / window_len(card).saturating_mul(vocab_size).max(1)).clamp(1, BATCH_SIZE)
        }
    };
    let config = BatchConfig {
        batch_size,
        sequence_length: window_len(card),
        augmentation: data::Augmentation::default(),
        seed: 0,
        device: candle_core::Device::Cpu,
    };
    Ok(BatchSource::new(Arc::clone(dataset), config)?)
}

pub(super) fn measure(
    card: &ModelCard,
    network: &Network,
    params: &Params,
    dataset: &Arc<Dataset>,
    max_examples: usize,
    watch: Watch<'_>,
) -> Result<Evaluation, SessionError> {
    let batches = batches(card, dataset)?;
    Ok(evaluate(network, params, batches.evaluation_batches(SplitPart::Validation, max_examples), watch)?)
}

/// [`measure`] of quantized weights. Those of a language model are unpacked block by block: all of them at once take as
/// much memory again as the checkpoint. What lies between the blocks of an image model may be the larger part.
pub(super) fn measure_quantized(
    card: &ModelCard,
    network: &Network,
    weights: &QuantizedWeights,
    dataset: &Arc<Dataset>,
    max_examples: usize,
    watch: Watch<'_>,
) -> Result<Evaluation, SessionError> {
    if !card.is_language_model() {
        return measure(card, network, &weights.dequantized()?, dataset, max_examples, watch);
    }
    let read = before_last(card, network, weights, dataset, max_examples, watch)?;
    read.evaluate(network, |block| Ok::<_, SessionError>(weights.dequantized_for(block)?), watch)
}

/// What the last block of a language model with these weights reads of the validation part.
pub(super) fn before_last(
    card: &ModelCard,
    network: &Network,
    weights: &QuantizedWeights,
    dataset: &Arc<Dataset>,
    max_examples: usize,
    watch: Watch<'_>,
) -> Result<BeforeLast, SessionError> {
    let batches = batches(card, dataset)?;
    let batches = batches.evaluation_batches(SplitPart::Validation, max_examples);
    BeforeLast::new(network, |block| Ok(weights.dequantized_for(block)?), batches, watch)
}

/// The report of a quantization, measured before and after on at most so many examples.
fn quality(
    Checkpoint { card, weights, .. }: &Checkpoint,
    shrunk: &Shrunk,
    (network, dataset, max_examples): (&Network, &Arc<Dataset>, usize),
    watch: Watch<'_>,
) -> Result<QuantizeReport, SessionError> {
    let quantized = &shrunk.weights;
    let before = measure(card, network, weights, dataset, max_examples, watch)?;
    let after = match shrunk.measured {
        Some(measured) => measured,
        None => measure_quantized(card, network, quantized, dataset, max_examples, watch)?,
    };
    let measured = |evaluation: &Evaluation| MeasuredQuality { loss: evaluation.loss, accuracy: evaluation.accuracy };
    let mut notes = quant::quality_notes(quantized, shrunk.sparsity, measured(&before), measured(&after));
    notes.extend(shrunk.notes.iter().cloned());
    notes.extend(length_note(card));
    Ok(QuantizeReport {
        scheme: quantized.scheme(),
        metric: before.metric().0.to_owned(),
        before: before.metric().1,
        after: after.metric().1,
        loss_before: before.loss,
        loss_after: after.loss,
        num_examples: after.num_examples,
        bytes_before: weights.iter().map(|(_, tensor)| tensor.elem_count() as u64 * 4).sum(),
        bytes_after: quantized.bytes(),
        bits_per_weight: quantized.bits_per_weight(),
        tensor_errors: quantized.tensor_errors(),
        method: shrunk.method.clone(),
        layers: shrunk.layers.clone(),
        speeds: target_speed::predict(card, quantized)?,
        tables: shrunk.tables.clone(),
        notes,
        output: None,
        report: None,
    })
}

/// Runs the package on the examples that [`measure`] looks at.
fn measure_on_edge(
    package: &Package,
    card: &ModelCard,
    dataset: &Arc<Dataset>,
    max_examples: usize,
    watch: Watch<'_>,
) -> Result<EdgeFigures, SessionError> {
    let batches = batches(card, dataset)?;
    let num_shown = batches.num_examples(SplitPart::Validation).min(max_examples) as u64;
    let started = Instant::now();
    let mut total = 0.0;
    let mut num_examples = 0_u64;
    for (done, example) in (0..).zip(batches.evaluation_examples(SplitPart::Validation, max_examples)) {
        watch.step("running the package", done, Some(num_shown))?;
        match example {
            Example::Image { pixels, label } => {
                let logits = package.logits(pixels)?;
                let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(class, _)| class as u32);
                total += f64::from(u8::from(best == Some(label)));
                num_examples += 1;
            }
            Example::Text(tokens) => {
                let losses = package.token_losses(tokens)?;
                total += losses.iter().map(|&loss| f64::from(loss)).sum::<f64>();
                num_examples += losses.len() as u64;
            }
        }
    }
    let count = num_examples.max(1) as f64;
    let ms_per_example = started.elapsed().as_secs_f64() * 1e3 / count;
    Ok(EdgeFigures { metric: total / count, num_examples, ms_per_example })
}
