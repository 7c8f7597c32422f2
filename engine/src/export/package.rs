//! Packages for targets: what fits where, in which storage, and what a package on disk is.

use std::path::{Path, PathBuf};

use foretrain_edge::{FORMAT_VERSION, Manifest, PackagedFile};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::draft::{PackageDraft, PackageInput};
use super::format::weights_format;
use super::partial_folder::PartialFolder;
use super::{Blocker, Checkpoint, ExportError, ModelCard, PackageFormat, ReadBack, TargetPreset, onnx};
use crate::device::{Watch, atomic_file};
use crate::models::{ModelConfig, Network};
use crate::quant::{
    Container, PostTraining, QuantScheme, QuantizedWeights, TableChoice, TableType, TensorPlan, has_table_choice,
    plan_with_tables, quantize_planned, tables_of,
};

/// Room kept for the small files of a package, bytes.
pub(super) const SMALL_FILES_BYTES: u64 = 1 << 20;

/// What quantization did to the validation metric, measured by the caller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// "accuracy" (share of 1, higher is better) or "loss" (nats per token, lower is better).
    pub metric: String,
    /// Metric of the checkpoint as trained.
    pub before: f64,
    /// Metric of the weights as stored.
    pub after: f64,
    /// Validation loss as trained, nats.
    pub loss_before: f64,
    /// Validation loss as stored, nats.
    pub loss_after: f64,
    /// Images or tokens it was measured on.
    pub num_examples: u64,
    /// How weights found their codes: rounding, calibration, equalization, sparsity, budget.
    pub method: String,
    /// How token embedding and head were chosen; in a manifest it stands beside this.
    #[serde(skip)]
    pub tables: Option<TableChoice>,
}

/// A package on disk, verified.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// The folder.
    pub package: PathBuf,
    /// Files with their sizes in bytes, manifest included.
    pub files: Vec<(String, u64)>,
    /// Size of the weight file, or of all of them, bytes.
    pub weight_file_bytes: u64,
    /// Bytes of all tensors, scales included.
    pub weight_bytes: u64,
    /// Bits per weight over everything.
    pub bits_per_weight: f64,
    /// Relative L2 error of each tensor that is not stored as trained.
    pub tensor_errors: Vec<(String, f64)>,
    /// How far the shipped runtime's answers are from the trainer's on the same weights.
    pub read_back: ReadBack,
    /// The command that runs it.
    pub run_command: String,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// A hardware target that models can be packaged for.
pub trait ExportTarget {
    /// Why this model cannot go there, shown beside the disabled button; empty when it can.
    fn blockers(&self, model: &ModelCard) -> Vec<Blocker>;

    /// Size of the weight file for this model before anything is computed, bytes; it takes most of a package.
    /// Errors: a model config that builds no network.
    fn predicted_bytes(&self, model: &ModelCard) -> Result<u64, ExportError>;

    /// Writes the package into the new folder `output`, reads it back, compares it and runs it.
    ///
    /// `quality`: what the caller measured on [`quantize_for_target`]'s weights; goes into manifest and README.
    /// Errors: any [`ExportError`]; whatever happens, `output` is a whole verified package or does not exist.
    fn write(
        &self,
        checkpoint: &Checkpoint,
        output: &Path,
        quality: Option<&Quality>,
        watch: Watch<'_>,
    ) -> Result<Written, ExportError>;

    /// [`Self::write`] with weights that were quantized already, tensor by tensor as the caller chose, for the container
    /// of [`container`]; `output` comes to be when the draft is published. Errors: as there.
    fn draft<'a>(
        &'a self,
        checkpoint: &'a Checkpoint,
        weights: &'a QuantizedWeights,
        output: &Path,
        quality: Option<&'a Quality>,
        watch: Watch<'_>,
    ) -> Result<PackageDraft<'a>, ExportError>;
}

/// The container that `target` wants the weights of this model in.
#[must_use]
pub fn container(card: &ModelCard, target: &TargetPreset) -> Container {
    weights_format(card, target).container()
}

/// The weights as `target` will store them: measure `.dequantized()` to know what the package is worth.
/// Errors: as [`quantize_planned`].
pub fn quantize_for_target(
    checkpoint: &Checkpoint,
    target: &TargetPreset,
    watch: Watch<'_>,
) -> Result<QuantizedWeights, ExportError> {
    let planned = (target.scheme, container(&checkpoint.card, target), planned(&checkpoint.card, target)?);
    Ok(quantize_planned(&checkpoint.weights, planned, &PostTraining::default(), watch)?)
}

/// How each tensor of this model is stored for `target` when nothing is measured.
/// Errors: a model config that builds no network.
pub fn planned(card: &ModelCard, target: &TargetPreset) -> Result<Vec<TensorPlan>, ExportError> {
    let specs = Network::new(&card.model)?.specs();
    Ok(plan_with_tables(&specs, target.scheme, container(card, target), target.tables))
}

/// Size of the weight file with embedding and head in their smallest and in their largest type, bytes; `None` where no
/// measurement chooses them. Errors: a model config that builds no network.
pub fn predicted_range(card: &ModelCard, target: &TargetPreset) -> Result<Option<(u64, u64)>, ExportError> {
    let plans = planned(card, target)?;
    let are_asked = tables_of(&plans).all(|(table, _)| target.tables.of(table).is_some());
    let has_choice = has_table_choice(&plans, target.scheme, container(card, target));
    if target.format == PackageFormat::Onnx || are_asked || !has_choice {
        return Ok(None);
    }
    let bytes = |table| target.clone().with_tables_or(table).predicted_bytes(card);
    Ok(Some((bytes(TableType::Int3K)?, bytes(TableType::F16)?)))
}

/// Size of the weight file at least: what measuring may choose counts as what it may come to at best.
/// Errors: a model config that builds no network.
pub fn least_bytes(card: &ModelCard, target: &TargetPreset) -> Result<u64, ExportError> {
    match predicted_range(card, target)? {
        Some((least, _)) => Ok(least),
        None => target.predicted_bytes(card),
    }
}

/// [`ExportTarget::predicted_bytes`] of a preset.
pub fn predicted_bytes(card: &ModelCard, target: &TargetPreset) -> Result<u64, ExportError> {
    target.predicted_bytes(card)
}

/// [`ExportTarget::blockers`] of a preset.
#[must_use]
pub fn blockers(card: &ModelCard, target: &TargetPreset) -> Vec<Blocker> {
    target.blockers(card)
}

/// [`ExportTarget::write`] of a preset.
pub fn export_package(
    checkpoint: &Checkpoint,
    target: &TargetPreset,
    output: &Path,
    quality: Option<&Quality>,
    watch: Watch<'_>,
) -> Result<Written, ExportError> {
    target.write(checkpoint, output, quality, watch)
}

impl ExportTarget for TargetPreset {
    fn blockers(&self, model: &ModelCard) -> Vec<Blocker> {
        if self.format == PackageFormat::Onnx {
            let blockers = onnx::blockers(model, self);
            if !blockers.is_empty() {
                return blockers;
            }
        }
        if let Some(blocker) = no_form(self, model) {
            return vec![blocker];
        }
        match least_bytes(model, self) {
            Err(error) => {
                let remedy = "Train a model from a preset".to_owned();
                vec![Blocker { what: error.to_string(), remedy }]
            }
            Ok(bytes) if bytes > self.memory_bytes => vec![too_large(bytes, self, model)],
            Ok(_) => Vec::new(),
        }
    }

    fn predicted_bytes(&self, model: &ModelCard) -> Result<u64, ExportError> {
        if self.format == PackageFormat::Onnx {
            return onnx::predicted_bytes(model, self.scheme);
        }
        Ok(weights_format(model, self).predicted_bytes(&planned(model, self)?, model))
    }

    fn write(
        &self,
        checkpoint: &Checkpoint,
        output: &Path,
        quality: Option<&Quality>,
        watch: Watch<'_>,
    ) -> Result<Written, ExportError> {
        let blockers = self.blockers(&checkpoint.card);
        if !blockers.is_empty() {
            return Err(ExportError::Blocked(blockers));
        }
        if self.format == PackageFormat::Onnx {
            return write_onnx(checkpoint, self, output, quality, watch);
        }
        let tokenizer = read_tokenizer(checkpoint)?;
        // The cheap checks come before the computing.
        let weight_bytes = self.fitting(self.predicted_bytes(&checkpoint.card)?, &checkpoint.card)?;
        let folder = PartialFolder::create(output, needed_bytes(weight_bytes, &tokenizer))?;
        let weights = quantize_for_target(checkpoint, self, watch)?;
        let input = PackageInput { checkpoint, target: self, weights: &weights, tokenizer, quality };
        PackageDraft::new(input, folder, watch)?.publish(None, watch)
    }

    fn draft<'a>(
        &'a self,
        checkpoint: &'a Checkpoint,
        weights: &'a QuantizedWeights,
        output: &Path,
        quality: Option<&'a Quality>,
        watch: Watch<'_>,
    ) -> Result<PackageDraft<'a>, ExportError> {
        let tokenizer = read_tokenizer(checkpoint)?;
        let plans: Vec<TensorPlan> = weights.tensors().iter().map(|tensor| tensor.plan.clone()).collect();
        let weight_bytes = weights_format(&checkpoint.card, self).predicted_bytes(&plans, &checkpoint.card);
        let weight_bytes = self.fitting(weight_bytes, &checkpoint.card)?;
        let folder = PartialFolder::create(output, needed_bytes(weight_bytes, &tokenizer))?;
        PackageDraft::new(PackageInput { checkpoint, target: self, weights, tokenizer, quality }, folder, watch)
    }
}

impl TargetPreset {
    /// `weight_bytes`, when the machine has room for them. Errors: [`ExportError::Blocked`].
    fn fitting(&self, weight_bytes: u64, card: &ModelCard) -> Result<u64, ExportError> {
        if weight_bytes > self.memory_bytes {
            return Err(ExportError::Blocked(vec![too_large(weight_bytes, self, card)]));
        }
        Ok(weight_bytes)
    }

    /// The same machine with `table` where nothing else was asked.
    fn with_tables_or(self, table: TableType) -> Self {
        Self { tables: self.tables.or(table), ..self }
    }
}

/// An ONNX package without images to calibrate on: of floats, that is.
fn write_onnx(
    checkpoint: &Checkpoint,
    target: &TargetPreset,
    output: &Path,
    quality: Option<&Quality>,
    watch: Watch<'_>,
) -> Result<Written, ExportError> {
    if target.scheme != QuantScheme::F32 {
        return Err(ExportError::Runtime {
            tried: "writing an ONNX package",
            what: format!("{} needs images to calibrate on; f32 needs none", target.scheme.label()),
        });
    }
    let model = onnx::OnnxModel::new(checkpoint, watch)?;
    onnx::write_onnx_package(checkpoint, target, &model, output, quality, watch)
}

/// Room that a package needs, bytes.
fn needed_bytes(weight_bytes: u64, tokenizer: &Option<(Vec<u8>, Value)>) -> u64 {
    weight_bytes + tokenizer.as_ref().map_or(0, |(bytes, _)| bytes.len() as u64) + SMALL_FILES_BYTES
}

/// The manifest of a package that holds `files`.
pub(super) fn manifest(card: &ModelCard, target: &TargetPreset, metrics: Value, files: Vec<PackagedFile>) -> Manifest {
    Manifest {
        format_version: FORMAT_VERSION,
        name: card.name.clone(),
        target: target.id.clone(),
        scheme: target.scheme.label().to_owned(),
        files,
        metrics,
        provenance: json!(card),
    }
}

/// The files in `folder` as a manifest lists them.
pub(super) fn packaged_files(folder: &Path, watch: Watch<'_>) -> Result<Vec<PackagedFile>, ExportError> {
    let mut files = Vec::new();
    for (name, _) in file_sizes(folder)? {
        watch.check()?;
        files.push(packaged_file(folder, &name)?);
    }
    Ok(files)
}

/// File `name` in `folder` as a manifest lists it.
pub(super) fn packaged_file(folder: &Path, name: &str) -> Result<PackagedFile, ExportError> {
    let path = folder.join(name);
    let bytes = path.metadata().map_err(|source| ExportError::read(&path, source))?.len();
    Ok(PackagedFile { name: name.to_owned(), bytes, sha256: sha256_of(&path)? })
}

fn read_tokenizer(checkpoint: &Checkpoint) -> Result<Option<(Vec<u8>, Value)>, ExportError> {
    let Some(path) = &checkpoint.tokenizer_json else { return Ok(None) };
    let bytes = std::fs::read(path).map_err(|source| ExportError::read(path, source))?;
    let parsed = serde_json::from_slice(&bytes).map_err(|source| ExportError::Json {
        what: "the tokenizer",
        source,
        path: path.clone(),
    })?;
    Ok(Some((bytes, parsed)))
}

/// What transformers has no form for, where it is to load the package.
fn no_form(target: &TargetPreset, card: &ModelCard) -> Option<Blocker> {
    if target.format != PackageFormat::Transformers {
        return None;
    }
    let is_ternary = target.scheme == QuantScheme::Ternary;
    let blocker = |what: String, remedy: &str| Some(Blocker { what, remedy: remedy.to_owned() });
    match &card.model {
        ModelConfig::Mlp(_) | ModelConfig::Cnn(_) | ModelConfig::ResNet(_) => {
            blocker(format!("transformers has no {} of this form", card.family()), "Choose the format safetensors")
        }
        ModelConfig::Gpt2(_) if is_ternary => {
            let what = "transformers' BitNet takes linear layers, and GPT-2 has none".to_owned();
            blocker(what, "Choose f32, bf16 or f16, or the format gguf")
        }
        ModelConfig::Gpt2(_) | ModelConfig::Llama(_) if target.scheme.is_float() || is_ternary => None,
        ModelConfig::Gpt2(_) | ModelConfig::Llama(_) => blocker(
            format!("transformers loads no {} of this form", target.scheme.label()),
            "Choose f32, bf16, f16 or ternary, or the format gguf",
        ),
    }
}

fn too_large(bytes: u64, target: &TargetPreset, card: &ModelCard) -> Blocker {
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    let what = format!(
        "The weights take {:.1} GB, {} has {:.1} GB for a model",
        gigabytes(bytes),
        target.name,
        gigabytes(target.memory_bytes)
    );
    let ternary = TargetPreset { scheme: QuantScheme::Ternary, ..target.clone() }.with_tables_or(TableType::Int3K);
    let fits_ternary = ternary.predicted_bytes(card).is_ok_and(|bytes| bytes <= target.memory_bytes);
    let remedy = if fits_ternary && target.scheme != QuantScheme::Ternary {
        "Choose a ternary target, or a smaller model"
    } else {
        "Choose a target with more memory, or a smaller model"
    };
    Blocker { what, remedy: remedy.to_owned() }
}

/// Writes `value`, indented.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), ExportError> {
    Ok(atomic_file::write(path, |file| Ok(serde_json::to_writer_pretty(file, value)?))?)
}

/// Plain files of a folder with their sizes in bytes, by name.
pub(super) fn file_sizes(folder: &Path) -> Result<Vec<(String, u64)>, ExportError> {
    let failed = |source| ExportError::read(folder, source);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        files.push((entry.file_name().to_string_lossy().into_owned(), entry.metadata().map_err(failed)?.len()));
    }
    files.sort();
    Ok(files)
}

fn sha256_of(path: &Path) -> Result<String, ExportError> {
    use sha2::{Digest, Sha256};
    use std::io::Read;
    let failed = |source| ExportError::read(path, source);
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0_u8; 1 << 20];
    loop {
        let count = file.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hasher.update(&buffer[..count]);
    }
}
