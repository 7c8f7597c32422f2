//! `README.md` of a package with an ONNX file.

use std::fmt::Write;
use std::path::Path;

use super::{ONNX_FILE, OnnxModel};
use crate::export::readme::{quoted, write_model_limits, write_provenance, write_quality};
use crate::export::{ModelCard, Quality, TargetPreset};
use crate::models::DataShape;
use crate::quant::QuantScheme;

/// What it takes to run the script.
const INSTALL: &str = "pip install onnxruntime numpy pillow";

/// The command that tries a package in `folder`.
pub(super) fn run_command(folder: &Path) -> String {
    format!("{INSTALL} && python3 {} PICTURE.png", quoted(&folder.join("run.py").to_string_lossy()))
}

/// What the text is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct OnnxReadme<'a> {
    pub card: &'a ModelCard,
    pub target: &'a TargetPreset,
    pub model: &'a OnnxModel,
    pub quality: Option<&'a Quality>,
    /// Sentences about the storage, without their full stops.
    pub notes: &'a [String],
}

impl OnnxReadme<'_> {
    /// The text, in Markdown.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let Self { card, target, model, .. } = *self;
        writeln!(out, "# {}\n", card.name)?;
        writeln!(
            out,
            "A {} with {}, trained on {} and stored as {} in ONNX for: {} ({}).\n",
            card.family(),
            card.size_label(),
            card.dataset_name,
            model.scheme().label(),
            target.name,
            target.examples
        )?;
        self.write_use(out)?;
        write_quality(out, card, model.size(), self.quality)?;
        if self.quality.is_some() {
            writeln!(out, "\"In this package\" is what the graph in `{ONNX_FILE}` answers, computed step by step.\n")?;
        }
        writeln!(out, "## Storage\n\n{}.\n", target.why)?;
        for note in self.notes {
            writeln!(out, "- {note}.")?;
        }
        write_provenance(out, card)?;
        write_model_limits(out, card)?;
        if model.scheme() == QuantScheme::Int8 {
            writeln!(out, "- Numbers between layers that are larger than any that the calibration saw are cut off.")?;
        }
        writeln!(out, "\n## Files\n\nSizes and SHA-256 of every file are in `manifest.json`.")
    }

    fn write_use(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "## Run it\n\nIn this folder:\n\n```sh\n{INSTALL}\npython3 run.py PICTURE.png\n```\n")?;
        let (channels, height, width) = match self.card.model.data_shape() {
            DataShape::Images { channels, height, width, .. } => (channels, height, width),
            DataShape::Text { .. } => (0, 0, 0),
        };
        writeln!(
            out,
            "Or in a program of your own:\n\n```python\nimport json\nimport numpy as np\nimport onnxruntime\n\n\
             session = onnxruntime.InferenceSession(\"{ONNX_FILE}\", providers=[\"CPUExecutionProvider\"])\n\
             classes = json.loads(session.get_modelmeta().custom_metadata_map[\"classes\"])\n\
             images = np.zeros((1, {channels}, {height}, {width}), dtype=np.float32)  # pixels / 255\n\
             logits = session.run([\"logits\"], {{\"images\": images}})[0]\n\
             print([classes[number] for number in logits.argmax(axis=1)])\n```\n"
        )?;
        writeln!(
            out,
            "Input `images`: 32-bit floats, (batch, {channels}, {height}, {width}), {}, pixels divided by 255; the graph \
             normalizes them. Output `logits`: (batch, classes). Class names, mean and deviation are in the file's \
             metadata, too. foretrain-edge does not run ONNX; packages in safetensors it does (`--format safetensors`).\n",
            if channels == 1 { "gray" } else { "red, green, blue" }
        )
    }
}
