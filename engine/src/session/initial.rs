//! The weights that a run begins with when it does not draw them: those of a checkpoint.

use std::path::Path;

use super::SessionError;
use super::checkpoint;
use super::preparing::Prepared;
use crate::data::Dataset;
use crate::device::Watch;
use crate::export::{self, Checkpoint, ExportError, ModelCard};
use crate::models::{Network, Params};

/// Weights and buffers of the checkpoint at `path`, or of the best one of the run there, for the run that is prepared.
///
/// Of a checkpoint of quantization-aware training they are the full-precision weights behind the quantized ones, since
/// those are what goes on learning.
/// Errors: no complete checkpoint; a model other than the run's, by its first differing tensor; another tokenizer.
pub(super) fn initial_weights(path: &Path, prepared: &Prepared, watch: Watch<'_>) -> Result<Params, SessionError> {
    let checkpoint = export::read_checkpoint_watched(&export::resolve_checkpoint(path)?, watch)?;
    check_model(&checkpoint.card, &prepared.network)?;
    check_tokenizer(&checkpoint, &prepared.dataset)?;
    match checkpoint.card.trained_for {
        Some(_) => Ok(checkpoint::load(&checkpoint.folder)?.0.weights()),
        None => Ok(checkpoint.weights),
    }
}

fn check_model(card: &ModelCard, network: &Network) -> Result<(), SessionError> {
    if card.model == *network.config() {
        return Ok(());
    }
    let (ours, theirs) = (network.specs(), Network::new(&card.model)?.specs());
    let shape_of = |specs: &[crate::models::TensorSpec], name: &str| {
        let found = specs.iter().find(|spec| spec.name == name);
        found.map_or_else(|| "no such tensor".to_owned(), |spec| format!("{:?}", spec.shape))
    };
    let mut names = ours.iter().chain(&theirs).map(|spec| spec.name.as_str());
    let differing = names.find(|name| shape_of(&ours, name) != shape_of(&theirs, name));
    let what = match differing {
        Some(name) => format!(
            "beginning with the weights of {:?}: tensor {name:?} is {} in this run's model, {} in the checkpoint's. Choose \
             the model and the dataset that it was trained with",
            card.name,
            shape_of(&ours, name),
            shape_of(&theirs, name)
        ),
        None => format!(
            "beginning with the weights of {:?}: its tensors fit, but its model differs in a setting that no tensor shows \
             (activation, heads, positions). Choose the model that it was trained with",
            card.name
        ),
    };
    Err(SessionError::Recipe { what })
}

/// A model reads tokens by number: with another tokenizer the numbers would mean something else.
fn check_tokenizer(checkpoint: &Checkpoint, dataset: &Dataset) -> Result<(), SessionError> {
    let (Some(path), Dataset::Text(text)) = (&checkpoint.tokenizer_json, dataset) else { return Ok(()) };
    let theirs = std::fs::read_to_string(path).map_err(|source| ExportError::read(path, source))?;
    let theirs: Option<serde_json::Value> = serde_json::from_str(&theirs).ok();
    let ours = text.tokenizer.to_string(false).ok().and_then(|ours| serde_json::from_str(&ours).ok());
    if theirs.is_some() && theirs == ours {
        return Ok(());
    }
    let what = format!(
        "beginning with the weights of {:?}: this run's tokenizer is another one than the checkpoint's. Choose {} as the \
         tokenizer",
        checkpoint.card.name,
        path.display()
    );
    Err(SessionError::Recipe { what })
}
