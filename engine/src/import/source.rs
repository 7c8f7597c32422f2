//! What a path holds.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::ImportError;
use super::hugging_face::CONFIG_FILE;
use crate::export::{self, SHARD_INDEX_FILE, WEIGHTS_FILE};

/// The weights of a package in GGUF.
pub(super) const GGUF_FILE: &str = "model.gguf";

/// A model by where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A checkpoint of ours.
    Checkpoint(PathBuf),
    /// A folder with `config.json` and safetensors.
    HuggingFace(PathBuf),
    /// A GGUF file; a `tokenizer.json` beside it counts before its own vocabulary.
    Gguf(PathBuf),
}

/// What `path` is.
/// Errors: [`ImportError::NotAModel`] for weights in a form that we do not read; what
/// [`export::resolve_checkpoint`] says of everything else.
pub(super) fn recognize(path: &Path) -> Result<Source, ImportError> {
    export::refuse_unfinished(path)?;
    if path.is_file() {
        if starts_with_gguf(path) {
            return Ok(Source::Gguf(path.to_owned()));
        }
        return Err(ImportError::NotAModel {
            expected: "a GGUF file, or a folder".to_owned(),
            found: "a file of another kind".to_owned(),
            hint: "Of a safetensors file, name the folder that it lies in with its config.json; a file of `foretrain \
                   quantize` holds rounded weights, which `foretrain validate` measures",
            path: path.to_owned(),
        });
    }
    let checkpoint = export::resolve_checkpoint(path);
    if let Ok(folder) = checkpoint {
        return Ok(Source::Checkpoint(folder));
    }
    let has = |name: &str| path.join(name).is_file();
    if has(CONFIG_FILE) && (has(WEIGHTS_FILE) || has(SHARD_INDEX_FILE)) {
        return Ok(Source::HuggingFace(path.to_owned()));
    }
    if has(GGUF_FILE) {
        return Ok(Source::Gguf(path.join(GGUF_FILE)));
    }
    if has("pytorch_model.bin") || has("pytorch_model.bin.index.json") {
        return Err(ImportError::NotAModel {
            expected: format!("{WEIGHTS_FILE} beside {CONFIG_FILE}"),
            found: "weights as a pickle (pytorch_model.bin), which can run code when read".to_owned(),
            hint: "Save the model with safe_serialization=True",
            path: path.to_owned(),
        });
    }
    Ok(checkpoint.map(Source::Checkpoint)?)
}

/// True for a file that is called safetensors, or begins like one: with the length of a header in JSON.
pub(super) fn is_safetensors(path: &Path) -> bool {
    let mut start = [0_u8; 9];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start));
    path.is_file()
        && (path.extension().is_some_and(|ending| ending == "safetensors") || read.is_ok() && start[8] == b'{')
}

fn starts_with_gguf(path: &Path) -> bool {
    let mut magic = [0_u8; 4];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && magic == *b"GGUF"
}
