//! The trained model, as other programs read it.

use std::path::Path;

use super::OffloadedModel;
use crate::data::Dataset;
use crate::device::atomic_file::{self, WriteError};
use crate::device::{Watch, free_disk_bytes};
use crate::export::{TOKENIZER_FILE, WEIGHTS_FILE, WeightEntry, write_safetensors};
use crate::models::hf_config;
use crate::offload::{OffloadTrainer, Precision};
use crate::session::run_folder::write_json;
use crate::session::{RunConfig, SessionError};

/// Folder of the trained model, in the layout of transformers.
const MODEL_FOLDER: &str = "model";

/// Disk space that a model leaves free.
const SPARE_BYTES: u64 = 64 << 20;

/// Writes the weights as a folder of transformers, one tensor at a time, where the disk has room for them.
pub(super) fn write_model(
    trainer: &OffloadTrainer,
    config: &RunConfig,
    dataset: &Dataset,
    folder: &Path,
    watch: Watch<'_>,
) -> Result<OffloadedModel, SessionError> {
    let tensors = trainer.tensors();
    let needed_bytes = tensors.iter().map(|tensor| tensor.num_bytes as u64).sum::<u64>().saturating_add(SPARE_BYTES);
    // A file system that does not tell will refuse the write.
    let free_bytes = free_disk_bytes(folder).unwrap_or(u64::MAX);
    if free_bytes < needed_bytes {
        return Ok(OffloadedModel::NoRoom { needed_bytes, free_bytes });
    }
    let model = folder.join(MODEL_FOLDER);
    std::fs::create_dir_all(&model).map_err(|source| WriteError::new("creating", &model, source))?;
    let entries: Vec<WeightEntry> = tensors
        .into_iter()
        .map(|tensor| WeightEntry {
            name: tensor.name,
            dtype: match trainer.precision() {
                Precision::Compact => safetensors::Dtype::BF16,
                Precision::Full => safetensors::Dtype::F32,
            },
            shape: tensor.shape,
            num_bytes: tensor.num_bytes,
        })
        .collect();
    let metadata = [("format".to_owned(), "pt".to_owned())].into_iter().collect();
    let mut failure = None;
    let bytes_of = |name: &str| match trainer.tensor_bytes(name) {
        Ok(bytes) => Ok(bytes),
        Err(error) => {
            failure = Some(error);
            // The writer finds the length wrong and ends.
            Ok(Vec::new())
        }
    };
    let written = write_safetensors(&model.join(WEIGHTS_FILE), &entries, &metadata, watch, bytes_of);
    if let Some(error) = failure {
        return Err(error.into());
    }
    written?;
    let mut json = hf_config::to_json(&config.model)?;
    json["torch_dtype"] = match trainer.precision() {
        Precision::Compact => "bfloat16".into(),
        Precision::Full => "float32".into(),
    };
    write_json(&model.join("config.json"), &json)?;
    if let Dataset::Text(text) = dataset {
        let tokenizer = text.tokenizer.to_string(true).map_err(|error| SessionError::Recipe {
            what: format!("the tokenizer cannot be saved: {error}. Choose another tokenizer"),
        })?;
        atomic_file::write_bytes(&model.join(TOKENIZER_FILE), tokenizer.as_bytes())?;
    }
    Ok(OffloadedModel::Written(model))
}
