//! Checkpoints as an export sees them: card, weights, tokenizer.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use safetensors::Dtype;

use super::{ExportError, ModelCard, WeightsReader, refuse_unfinished};
use crate::device::Watch;
use crate::models::{Network, Params, TensorSpec, nearest};

/// File that is written last: without it a checkpoint does not count.
pub const COMPLETE_MARKER: &str = "COMPLETE";
/// Weights of a checkpoint, f32.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// What names the file of each tensor, where weights are in several.
pub const SHARD_INDEX_FILE: &str = "model.safetensors.index.json";
/// Tokenizer of a language model's checkpoint.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// A complete checkpoint, in memory.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Where it was read from.
    pub folder: PathBuf,
    /// What it is.
    pub card: ModelCard,
    /// Weights and buffers, f32, on the CPU, exactly those that the card's network names.
    pub weights: Params,
    /// The tokenizer's file, for language models.
    pub tokenizer_json: Option<PathBuf>,
}

/// Reads a checkpoint folder; see [`resolve_checkpoint`] for run folders.
///
/// Errors: [`ExportError::NotACheckpoint`] without its marker or its tokenizer; [`ExportError::WeightFile`] when a tensor
/// is missing, has another shape or type than the card's network says, is not finite, or belongs to no part of it.
pub fn read_checkpoint(folder: &Path) -> Result<Checkpoint, ExportError> {
    read_checkpoint_watched(folder, crate::unwatched!())
}

/// [`read_checkpoint`] with progress and cancel.
pub fn read_checkpoint_watched(folder: &Path, watch: Watch<'_>) -> Result<Checkpoint, ExportError> {
    if !folder.join(COMPLETE_MARKER).is_file() {
        return Err(ExportError::NotACheckpoint {
            expected: format!("a file {COMPLETE_MARKER} (it is written last)"),
            found: describe(folder),
            path: folder.to_owned(),
        });
    }
    let card = ModelCard::read(folder)?;
    let network = Network::new(&card.model)?;
    let weights = read_weights(&folder.join(WEIGHTS_FILE), &network, watch)?;
    let tokenizer = folder.join(TOKENIZER_FILE);
    if card.is_language_model() && !tokenizer.is_file() {
        return Err(ExportError::NotACheckpoint {
            expected: format!("a file {TOKENIZER_FILE} (its model reads text)"),
            found: "none".to_owned(),
            path: folder.to_owned(),
        });
    }
    let tokenizer_json = tokenizer.is_file().then_some(tokenizer);
    Ok(Checkpoint { folder: folder.to_owned(), card, weights, tokenizer_json })
}

/// The checkpoint that a path names: a checkpoint folder itself; for a run folder the one that the text file
/// `checkpoints/best` names when that is complete, else the complete `checkpoints/step-NNNNNNNN` with the highest number.
/// Errors: [`ExportError::NotACheckpoint`], [`ExportError::Read`].
pub fn resolve_checkpoint(path: &Path) -> Result<PathBuf, ExportError> {
    refuse_unfinished(path)?;
    let is_complete = |folder: &Path| folder.join(COMPLETE_MARKER).is_file();
    if is_complete(path) {
        return Ok(path.to_owned());
    }
    let checkpoints = path.join("checkpoints");
    let best = std::fs::read_to_string(checkpoints.join("best")).unwrap_or_default();
    // A plain name only: the file must not lead out of the run.
    if best.starts_with("step-") && !best.contains(['/', '\\']) && is_complete(&checkpoints.join(&best)) {
        return Ok(checkpoints.join(best));
    }
    let mut newest: Option<(u64, PathBuf)> = None;
    if checkpoints.is_dir() {
        let listing = std::fs::read_dir(&checkpoints).map_err(|source| ExportError::read(&checkpoints, source))?;
        for entry in listing {
            let folder = entry.map_err(|source| ExportError::read(&checkpoints, source))?.path();
            let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(step) = name.strip_prefix("step-").and_then(|digits| digits.parse::<u64>().ok()) else {
                continue;
            };
            if is_complete(&folder) && newest.as_ref().is_none_or(|(best_step, _)| step > *best_step) {
                newest = Some((step, folder));
            }
        }
    }
    if let Some((_, folder)) = newest {
        return Ok(folder);
    }
    // What cannot be looked into is not what it lacks.
    match path.metadata().and_then(|metadata| if metadata.is_dir() { path.read_dir().map(drop) } else { Ok(()) }) {
        Err(source) if !matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Err(ExportError::read(path, source));
        }
        Ok(()) | Err(_) => {}
    }
    Err(ExportError::NotACheckpoint {
        expected: format!("a file {COMPLETE_MARKER} here, or in a folder checkpoints/step-…"),
        found: describe(path),
        path: path.to_owned(),
    })
}

/// Reads the tensors of `network` from an f32 safetensors file.
fn read_weights(path: &Path, network: &Network, watch: Watch<'_>) -> Result<Params, ExportError> {
    let mut reader = WeightsReader::open(path)?;
    let specs = network.specs();
    let mut weights = Params::default();
    for (done, spec) in specs.iter().enumerate() {
        watch.step("reading weights", done as u64, Some(specs.len() as u64))?;
        let expected = || format!("tensor {:?} F32 {:?}", spec.name, spec.shape);
        match reader.info(&spec.name) {
            None => return Err(reader.missing(expected(), spec, &specs)),
            Some(info) if info.dtype == Dtype::F32 && info.shape == spec.shape => {}
            Some(info) => {
                let found = format!("{:?} {:?}", info.dtype, info.shape);
                return Err(reader.wrong(expected(), found));
            }
        }
        let tensor = reader.read_tensor(&spec.name)?;
        check_finite(&reader, spec, &tensor)?;
        weights.insert(&spec.name, tensor);
    }
    let names = reader.names();
    if let Some(stranger) = names.iter().find(|name| weights.find(name).is_none()) {
        return Err(reader.wrong(
            format!("the {} tensors of this model", specs.len()),
            match nearest(stranger, specs.iter().map(|spec| spec.name.as_str())) {
                Some(near) => {
                    format!("{}, among them {stranger:?}, which it does not have; the nearest is {near:?}", names.len())
                }
                None => format!("{}, among them {stranger:?}", names.len()),
            },
        ));
    }
    Ok(weights)
}

/// Errors: [`ExportError::WeightFile`] naming the tensor, an f32 one of the file, and the first number that is none.
pub(super) fn check_finite(reader: &WeightsReader, spec: &TensorSpec, tensor: &Tensor) -> Result<(), ExportError> {
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    let Some((index, bad)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) else { return Ok(()) };
    let found = format!("{bad} at index {index}, as a training that diverged leaves it");
    Err(reader.wrong(format!("finite numbers in tensor {:?}", spec.name), found))
}

fn describe(folder: &Path) -> String {
    if folder.is_dir() {
        "a folder without it".to_owned()
    } else if folder.exists() {
        "a file".to_owned()
    } else {
        "nothing there".to_owned()
    }
}
