//! Hardware targets, as their preset files give them.

use serde::{Deserialize, Serialize};

use super::{ExportError, ModelCard, onnx};
use crate::quant::{QuantScheme, Tables};

/// Container of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PackageFormat {
    /// One safetensors file.
    Safetensors,
    /// GGUF, for language models; image models fall back to safetensors.
    Gguf,
    /// Safetensors that transformers loads: GPT-2 and Llama in floats, Llama in ternary as its BitNet integration has it.
    Transformers,
    /// ONNX, for image models.
    Onnx,
}

impl PackageFormat {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Safetensors, Self::Gguf, Self::Transformers, Self::Onnx];

    /// The name to show and to type.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Gguf => "gguf",
            Self::Transformers => "transformers",
            Self::Onnx => "onnx",
        }
    }

    /// The format called `label`.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.label() == label)
    }
}

/// What image models get on a target instead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageChoice {
    /// How weights are stored.
    pub scheme: QuantScheme,
    /// In which container.
    pub format: PackageFormat,
    /// Why.
    pub why: String,
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
    /// Bytes a second that it reads at best: what generating text waits for.
    pub memory_bandwidth: u64,
    /// Why this scheme and container.
    pub why: String,
    /// How token embedding and head of language models are stored; what is not named is chosen by measuring where the scheme
    /// is ternary, and is as the scheme says elsewhere.
    #[serde(default)]
    pub tables: Tables,
    /// What image models get instead; `None` when it is the same.
    #[serde(default)]
    pub images: Option<ImageChoice>,
}

/// The registry: file name and content, in the order in which to offer them. A new target is a file and a line here.
const PRESETS: [(&str, &str); 7] = [
    ("gpu-high.ron", include_str!("../../../presets/targets/gpu-high.ron")),
    ("gpu-mid.ron", include_str!("../../../presets/targets/gpu-mid.ron")),
    ("gpu-low.ron", include_str!("../../../presets/targets/gpu-low.ron")),
    ("cpu-x86-64.ron", include_str!("../../../presets/targets/cpu-x86-64.ron")),
    ("cpu-arm64.ron", include_str!("../../../presets/targets/cpu-arm64.ron")),
    ("mobile.ron", include_str!("../../../presets/targets/mobile.ron")),
    ("edge-board.ron", include_str!("../../../presets/targets/edge-board.ron")),
];

impl TargetPreset {
    /// Reads a preset in RON. Errors: [`ExportError::Preset`] with line, column and the key at fault.
    pub fn parse(text: &str, file: &str) -> Result<Self, ExportError> {
        let wrong = |what: String| ExportError::Preset { what, path: file.into() };
        let preset: Self = ron::from_str(text).map_err(|cause| wrong(cause.to_string()))?;
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if preset.id.is_empty() || !preset.id.chars().all(is_plain) {
            return Err(wrong(format!("id: expected lower-case letters, digits and dashes, found {:?}", preset.id)));
        }
        if preset.memory_bytes == 0 {
            return Err(wrong("memory_bytes: expected at least 1, found 0".to_owned()));
        }
        if preset.memory_bandwidth == 0 {
            return Err(wrong("memory_bandwidth: expected at least 1, found 0".to_owned()));
        }
        Ok(preset)
    }

    /// All built-in targets, in the order in which to offer them. Errors: [`ExportError::Preset`].
    pub fn all() -> Result<Vec<Self>, ExportError> {
        PRESETS.iter().map(|(file, text)| Self::parse(text, file)).collect()
    }

    /// The built-in target called `id`. Errors: [`ExportError::UnknownTarget`], which lists those there are.
    pub fn find(id: &str) -> Result<Self, ExportError> {
        let all = Self::all()?;
        let known = all.iter().map(|target| target.id.as_str()).collect::<Vec<_>>().join(", ");
        let found = all.into_iter().find(|target| target.id == id);
        found.ok_or_else(|| ExportError::UnknownTarget { id: id.to_owned(), known })
    }

    /// The same machine with what a model like `card`'s gets there.
    #[must_use]
    pub fn for_model(self, card: &ModelCard) -> Self {
        match self.images {
            Some(ImageChoice { scheme, format, why }) if !card.is_language_model() => {
                Self { scheme, format, why, images: None, ..self }
            }
            Some(_) | None => Self { images: None, ..self },
        }
    }

    /// The same machine with what a model like `card`'s gets there, but for the scheme and the format that somebody asked
    /// for. A scheme that ONNX lacks, asked for by itself, goes into the container that has it.
    #[must_use]
    pub fn asked(self, card: &ModelCard, scheme: Option<QuantScheme>, format: Option<PackageFormat>) -> Self {
        let chosen = self.clone().for_model(card);
        let is_lacking = scheme.is_some_and(|scheme| !onnx::holds(scheme)) && format.is_none();
        let own =
            if chosen.format == PackageFormat::Onnx && is_lacking { Self { images: None, ..self } } else { chosen };
        let in_format = match format {
            Some(format) => own.with_format(format),
            None => own,
        };
        match scheme {
            Some(scheme) => in_format.with_scheme(scheme),
            None => in_format,
        }
    }

    /// The same machine with its weights in `format`, as somebody asked.
    #[must_use]
    pub fn with_format(self, format: PackageFormat) -> Self {
        if format == self.format {
            return self;
        }
        let why = format!("in {}, as asked; this target's own choice is {}", format.label(), self.format.label());
        Self { format, why, ..self }
    }

    /// The same machine with its weights stored by `scheme`, as somebody asked.
    #[must_use]
    pub fn with_scheme(self, scheme: QuantScheme) -> Self {
        if scheme == self.scheme {
            return self;
        }
        let why =
            format!("stored as {}, as asked; this target's own choice is {}", scheme.label(), self.scheme.label());
        Self { scheme, why, ..self }
    }

    /// The same machine with embedding and head as somebody asked, where they did.
    #[must_use]
    pub fn with_tables(self, asked: Tables) -> Self {
        let Tables { embedding, head } = self.tables;
        Self { tables: Tables { embedding: asked.embedding.or(embedding), head: asked.head.or(head) }, ..self }
    }

    /// A package in safetensors for a scheme alone, such as a comparison of precisions needs.
    #[must_use]
    pub fn for_scheme(scheme: QuantScheme) -> Self {
        Self {
            id: format!("this-machine-{}", scheme.label()),
            name: format!("This machine, {}", scheme.label()),
            examples: "the machine it was made on".to_owned(),
            scheme,
            format: PackageFormat::Safetensors,
            memory_bytes: u64::MAX,
            memory_bandwidth: u64::MAX,
            images: None,
            tables: Tables::default(),
            why: "to compare precisions through the runtime that ships".to_owned(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn built_in_targets_parse_and_are_named_after_their_files() {
        let all = TargetPreset::all().unwrap();
        for (preset, (file, _)) in all.iter().zip(PRESETS) {
            assert_eq!(format!("{}.ron", preset.id), file);
            assert_eq!(TargetPreset::find(&preset.id).unwrap(), *preset);
        }
        let unknown = TargetPreset::find("toaster").unwrap_err().to_string();
        assert!(unknown.contains("toaster") && unknown.contains("edge-board"), "{unknown}");
    }

    #[test]
    fn another_scheme_changes_nothing_else_of_a_target() {
        let target = TargetPreset::find("cpu-x86-64").unwrap();
        let asked = target.clone().with_scheme(QuantScheme::Int4);
        assert_eq!(
            (asked.scheme, asked.format, asked.memory_bytes),
            (QuantScheme::Int4, target.format, target.memory_bytes)
        );
        assert!(asked.why.contains("int4") && asked.why.contains(target.scheme.label()), "{}", asked.why);
        assert_eq!(target.clone().with_scheme(target.scheme), target);
    }

    #[test]
    fn image_models_get_a_targets_choice_for_them() {
        let root = tempfile::tempdir().unwrap();
        let mobile = TargetPreset::find("mobile").unwrap();
        let text = crate::export::test_model::tiny_llama(root.path()).card;
        let kept = mobile.clone().for_model(&text);
        assert_eq!((kept.scheme, kept.format, &kept.why), (mobile.scheme, PackageFormat::Gguf, &mobile.why));
        let image = crate::export::test_model::tiny_resnet().card;
        let chosen = mobile.for_model(&image);
        assert_eq!((chosen.scheme, chosen.format), (QuantScheme::Int8, PackageFormat::Onnx));
        assert_eq!(chosen.clone().for_model(&text), chosen, "a choice is made once");
        let mobile = TargetPreset::find("mobile").unwrap();
        for (scheme, format, expected) in [
            (None, None, (QuantScheme::Int8, PackageFormat::Onnx)),
            (Some(QuantScheme::F32), None, (QuantScheme::F32, PackageFormat::Onnx)),
            (Some(QuantScheme::Int4), None, (QuantScheme::Int4, PackageFormat::Gguf)),
            (None, Some(PackageFormat::Safetensors), (QuantScheme::Int8, PackageFormat::Safetensors)),
            (Some(QuantScheme::Int4), Some(PackageFormat::Onnx), (QuantScheme::Int4, PackageFormat::Onnx)),
        ] {
            let asked = mobile.clone().asked(&image, scheme, format);
            assert_eq!((asked.scheme, asked.format), expected, "{scheme:?} {format:?}");
        }
        let asked = chosen.with_format(PackageFormat::Safetensors);
        assert!(asked.why.contains("safetensors, as asked") && asked.why.contains("onnx"), "{}", asked.why);
    }

    #[test]
    fn a_bad_preset_names_its_key() {
        let good = PRESETS[0].1;
        for (from, to, key) in [
            ("memory_bytes: 25", "memory: 25", "memory"),
            ("Bf16", "Bf17", "Bf17"),
            ("\"gpu-high\"", "\"../up\"", "id"),
            ("25_769_803_776", "0", "memory_bytes"),
            ("1_008_000_000_000", "0", "memory_bandwidth"),
        ] {
            let error = TargetPreset::parse(&good.replace(from, to), "gpu-high.ron").unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("gpu-high.ron"), "{error}");
        }
    }
}
