//! Packages for hardware targets, and the check that reads each back.
//!
//! A target is a preset (scheme, container, memory); what needs code is a container, hence one writer per container.
//! ONNX holds more than weights: it has a room of its own, [`onnx`].
//!
//! Invariants: nothing is ever written over; a package is whole and verified under its own name or
//! not there at all; a hostile checkpoint makes an error that names file, expectation and finding.

mod blocker;
mod card;
mod checkpoint;
mod config_json;
mod document_end;
mod draft;
mod error;
mod format;
mod gguf_format;
mod gguf_metadata;
mod gguf_tokenizer;
mod header_fault;
mod leftovers;
pub mod onnx;
mod package;
mod partial_file;
mod partial_folder;
mod read_back;
mod readme;
mod safetensors_format;
mod stored;
mod stored_size;
mod target;
mod weights_file;

#[cfg(test)]
pub(crate) mod test_model;

pub use blocker::Blocker;
pub use card::{CardRecipe, ModelCard, Preprocessing};
pub use checkpoint::{
    COMPLETE_MARKER, Checkpoint, SHARD_INDEX_FILE, TOKENIZER_FILE, WEIGHTS_FILE, read_checkpoint,
    read_checkpoint_watched, resolve_checkpoint,
};
pub use draft::{EdgeFigures, PackageDraft};
pub use error::ExportError;
pub use leftovers::refuse_unfinished;
pub use package::{
    ExportTarget, Quality, Written, blockers, container, export_package, least_bytes, planned, predicted_bytes,
    predicted_range, quantize_for_target,
};
pub use partial_file::check_new_file;
pub use partial_folder::check_room;
pub use read_back::{IntegerReadBack, ReadBack};
pub use safetensors_format::{least_quantized_bytes, write_quantized};
pub use stored::{PackageRecord, QuantizedFile};
pub use stored_size::StoredSize;
pub use target::{ImageChoice, PackageFormat, TargetPreset};
pub(crate) use weights_file::{WeightEntry, write_safetensors};
pub use weights_file::{WeightsReader, read_params, write_params};
