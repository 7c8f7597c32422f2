//! A package on its way: written beside its place, read back, run by whoever wants to measure it; then it gets its name.

use std::path::Path;

use foretrain_edge::{EdgeError, Package, PackagedFile};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::config_json::{config_json, generation_config_json, tokenizer_config_json};
use super::format::{FormatInput, WeightsFormat, weights_format};
use super::package::{file_sizes, manifest, packaged_file, packaged_files, write_json};
use super::partial_folder::PartialFolder;
use super::read_back::{ReadBack, read_back};
use super::readme::{Readme, run_command, runtime_note};
use super::{Checkpoint, ExportError, Quality, TOKENIZER_FILE, TargetPreset, Written};
use crate::device::{Watch, atomic_file};
use crate::quant::{QuantizedWeights, TableChoice, TableReason, storage_notes};

const README_FILE: &str = "README.md";

/// What foretrain-edge makes of a package.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EdgeFigures {
    /// Accuracy (share of 1) or loss (nats per token) as foretrain-edge computes it from the package.
    #[serde(rename = "edge_metric")]
    pub metric: f64,
    /// Examples or tokens it was measured on.
    #[serde(rename = "edge_examples")]
    pub num_examples: u64,
    /// Milliseconds per image or token on this machine.
    #[serde(rename = "edge_ms")]
    pub ms_per_example: f64,
}

/// Everything that goes into a package.
#[derive(Debug)]
pub(super) struct PackageInput<'a> {
    pub checkpoint: &'a Checkpoint,
    pub target: &'a TargetPreset,
    pub weights: &'a QuantizedWeights,
    /// `tokenizer.json`: its bytes and what they say.
    pub tokenizer: Option<(Vec<u8>, Value)>,
    pub quality: Option<&'a Quality>,
}

/// What was written beside README and manifest.
#[derive(Debug)]
struct Contents {
    files: Vec<PackagedFile>,
    /// How embedding and head are stored.
    tables: Option<TableChoice>,
    /// What the user should know about the storage.
    notes: Vec<String>,
}

/// A package that was written and read back, and has no name yet: dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct PackageDraft<'a> {
    input: PackageInput<'a>,
    folder: PartialFolder,
    contents: Contents,
    read_back: ReadBack,
}

impl<'a> PackageDraft<'a> {
    /// Fills the folder, reads it back, compares and runs it.
    pub(super) fn new(input: PackageInput<'a>, folder: PartialFolder, watch: Watch<'_>) -> Result<Self, ExportError> {
        let contents = input.fill(folder.path(), watch)?;
        input.describe(&contents, None, folder.path())?;
        input.format().compare(&input.format_input(), folder.path(), watch)?;
        let read_back = read_back(input.checkpoint, input.weights, folder.path(), watch)?;
        Ok(Self { input, folder, contents, read_back })
    }

    /// The package, in the runtime that ships. Errors: [`ExportError::Runtime`].
    pub fn open(&self) -> Result<Package, ExportError> {
        Package::open(self.folder.path()).map_err(failed("opening the package in foretrain-edge"))
    }

    /// Gives the package its name. `edge`: what foretrain-edge made of it; goes into manifest and README.
    /// Errors: [`ExportError::Exists`] where somebody took the name meanwhile; files that cannot be written, or are not
    /// what the manifest says.
    pub fn publish(self, edge: Option<&EdgeFigures>, watch: Watch<'_>) -> Result<Written, ExportError> {
        if edge.is_some() {
            self.input.describe(&self.contents, edge, self.folder.path())?;
        }
        watch.step("verifying checksums", 0, None)?;
        self.open()?.verify_checksums().map_err(failed("verifying the package"))?;
        let Self { input, folder, contents, read_back } = self;
        let files = file_sizes(folder.path())?;
        let package = folder.publish()?;
        let weight_files = files.iter().filter(|(name, _)| input.format().holds(name));
        Ok(Written {
            run_command: run_command(&input.checkpoint.card, &package),
            package,
            weight_file_bytes: weight_files.map(|(_, size)| size).sum(),
            files,
            weight_bytes: input.weights.bytes(),
            bits_per_weight: input.weights.bits_per_weight(),
            tensor_errors: input.weights.tensor_errors(),
            notes: contents.notes.into_iter().chain([read_back.note(), runtime_note()]).collect(),
            read_back,
        })
    }
}

impl PackageInput<'_> {
    /// Writes all files but README and manifest.
    fn fill(&self, folder: &Path, watch: Watch<'_>) -> Result<Contents, ExportError> {
        let card = &self.checkpoint.card;
        let tokenizer = self.tokenizer.as_ref().map(|(_, parsed)| parsed);
        let tables = self.tables();
        let mut notes = storage_notes(self.weights);
        notes.extend(tables.iter().flat_map(TableChoice::notes));
        notes.extend(self.format().write(&self.format_input(), folder, watch)?);
        write_json(&folder.join("config.json"), &config_json(card, self.weights, tokenizer)?)?;
        if let Some((bytes, parsed)) = &self.tokenizer {
            atomic_file::write_bytes(&folder.join(TOKENIZER_FILE), bytes)?;
            write_json(&folder.join("tokenizer_config.json"), &tokenizer_config_json(card, Some(parsed)))?;
            write_json(&folder.join("generation_config.json"), &generation_config_json(Some(parsed)))?;
        }
        Ok(Contents { files: packaged_files(folder, watch)?, tables, notes })
    }

    /// Writes README and manifest, over those of before.
    fn describe(&self, contents: &Contents, edge: Option<&EdgeFigures>, folder: &Path) -> Result<(), ExportError> {
        let card = &self.checkpoint.card;
        let readme = Readme {
            card,
            target: self.target,
            weights: self.weights,
            weights_file: self.format().file_name(),
            quality: self.quality,
            edge,
            tables: contents.tables.as_ref(),
            notes: &contents.notes,
        };
        atomic_file::write_bytes(&folder.join(README_FILE), readme.text().as_bytes())?;
        let metrics = json!({
            "quality": self.quality,
            "foretrain_edge": edge.map(|edge| json!({
                "metric": card.metric(),
                "measured": edge.metric,
                "num_examples": edge.num_examples,
            })),
            "tables": contents.tables,
            "weight_bytes": self.weights.bytes(),
            "bits_per_weight": self.weights.bits_per_weight(),
            "tensor_errors": self.weights.tensor_errors(),
        });
        let mut files = vec![packaged_file(folder, README_FILE)?];
        files.extend(contents.files.iter().cloned());
        write_json(&folder.join("manifest.json"), &manifest(card, self.target, metrics, files))
    }

    fn format(&self) -> &'static dyn WeightsFormat {
        weights_format(&self.checkpoint.card, self.target)
    }

    /// How embedding and head are stored, as the caller chose or, without a measurement, by asking and by default.
    fn tables(&self) -> Option<TableChoice> {
        match self.quality {
            Some(quality) => quality.tables.clone(),
            None => TableChoice::of(self.weights, self.target.tables, (TableReason::Unmeasured, Vec::new())),
        }
    }

    fn format_input(&self) -> FormatInput<'_> {
        let tokenizer = self.tokenizer.as_ref().map(|(_, parsed)| parsed);
        FormatInput { weights: self.weights, card: &self.checkpoint.card, tokenizer }
    }
}

/// What the runtime said, as an error of the export.
fn failed(tried: &'static str) -> impl Fn(EdgeError) -> ExportError {
    move |error| ExportError::Runtime { tried, what: error.to_string() }
}
