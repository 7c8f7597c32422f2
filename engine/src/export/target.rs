//! Hardware targets, as their preset files give them.

use serde::{Deserialize, Serialize};

use crate::quant::QuantScheme;

/// Container of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PackageFormat {
    /// One safetensors file.
    Safetensors,
    /// GGUF, for language models; image models fall back to safetensors.
    Gguf,
}

/// A hardware target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetPreset {
    /// Name to type: "cpu-x86-64".
    pub id: String,
    /// Name to show: "CPU, x86-64".
    pub name: String,
    /// Machines that it stands for.
    pub examples: String,
    /// How weights are stored.
    pub scheme: QuantScheme,
    /// In which container.
    pub format: PackageFormat,
    /// Memory such a machine has for a model, bytes.
    pub memory_bytes: u64,
    /// Why this scheme and container.
    pub why: String,
}
