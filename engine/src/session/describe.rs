//! What a checkpoint is, and what each target makes of it: read from its card alone.

use std::path::Path;

use super::{ModelReport, SessionError, TargetFit};
use crate::export::{self, ModelCard, TargetPreset};

/// Describes the checkpoint that `input` names; see [`export::resolve_checkpoint`].
/// Errors: no complete checkpoint there, or a card that cannot be read.
pub(super) fn describe(input: &Path) -> Result<ModelReport, SessionError> {
    let checkpoint = export::resolve_checkpoint(input)?;
    let card = ModelCard::read(&checkpoint)?;
    let targets = TargetPreset::all()?
        .into_iter()
        .map(|target| {
            let predicted_bytes = export::predicted_bytes(&card, &target)?;
            let blockers = export::blockers(&card, &target);
            Ok(TargetFit { target, predicted_bytes, blockers })
        })
        .collect::<Result<_, SessionError>>()?;
    Ok(ModelReport { input: input.to_owned(), checkpoint, card, targets })
}
