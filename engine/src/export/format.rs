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

    /// Name of the weight file within the package; of large models, one container has several, see [`Self::holds`].
    fn file_name(&self) -> &'static str;

    /// True for the name of a file that holds weights in this container.
    fn holds(&self, file: &str) -> bool {
        file == self.file_name()
    }

    /// Size of the weights' files before anything is computed, bytes.
    fn predicted_bytes(&self, plans: &[TensorPlan], card: &ModelCard) -> u64;

    /// Writes the weights into `folder`; returns what the user should know.
    fn write(&self, input: &FormatInput<'_>, folder: &Path, watch: Watch<'_>) -> Result<Vec<String>, ExportError>;

    /// Reads the weights in `folder` and compares every tensor, byte by byte, with what was meant.
    /// Errors: [`ExportError::ReadBack`] naming the first difference.
    fn compare(&self, input: &FormatInput<'_>, folder: &Path, watch: Watch<'_>) -> Result<(), ExportError>;
}

/// The container of `target` for this model: image models have no GGUF form. ONNX is no container for quantized weights
/// but a graph, with a writer of its own, and does not ask.
pub(super) fn weights_format(card: &ModelCard, target: &TargetPreset) -> &'static dyn WeightsFormat {
    match target.format {
        PackageFormat::Gguf if card.is_language_model() => &GgufFormat,
        PackageFormat::Gguf | PackageFormat::Safetensors | PackageFormat::Onnx => &SafetensorsFormat::OURS,
        PackageFormat::Transformers => &SafetensorsFormat::TRANSFORMERS,
    }
}
