//! Containers of a package's weights.
//!
//! Targets differ in scheme, container and memory, which their preset files say; only a container needs code.
//! Hence one writer per container here, and no file per target: seven files would differ in their names alone.

use std::path::Path;

use super::gguf_format::GgufFormat;
use super::safetensors_format::SafetensorsFormat;
use super::{ExportError, ModelCard, PackageFormat, TargetPreset};
use crate::device::Watch;
use crate::quant::{Container, QuantizedWeights, TensorPlan};

/// What goes into a weight file.
#[derive(Debug, Clone, Copy)]
pub(super) struct FormatInput<'a> {
    /// The tensors, planned for the same container.
    pub weights: &'a QuantizedWeights,
    /// The model.
    pub card: &'a ModelCard,
    /// The parsed `tokenizer.json` of a language model.
    pub tokenizer: Option<&'a serde_json::Value>,
}

/// One container.
pub(super) trait WeightsFormat: std::fmt::Debug {
    /// What a tensor may look like in it.
    fn container(&self) -> Container;

    /// Name of the weight file within the package.
    fn file_name(&self) -> &'static str;

    /// Size of the weight file before anything is computed, bytes.
    fn predicted_bytes(&self, plans: &[TensorPlan], card: &ModelCard) -> u64;

    /// Writes the weight file; returns what the user should know.
    fn write(&self, input: &FormatInput<'_>, path: &Path, watch: Watch<'_>) -> Result<Vec<String>, ExportError>;

    /// Reads the file at `path` and compares every tensor, byte by byte, with what was meant.
    /// Errors: [`ExportError::ReadBack`] naming the first difference.
    fn compare(&self, input: &FormatInput<'_>, path: &Path, watch: Watch<'_>) -> Result<(), ExportError>;
}

/// The container of `target` for this model: image models have no GGUF form.
pub(super) fn weights_format(card: &ModelCard, target: &TargetPreset) -> &'static dyn WeightsFormat {
    match target.format {
        PackageFormat::Gguf if card.is_language_model() => &GgufFormat,
        PackageFormat::Gguf | PackageFormat::Safetensors => &SafetensorsFormat,
    }
}
