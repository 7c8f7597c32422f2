//! What a model on disk is, and what each target makes of it: read from its card, not from its weights.

use std::path::Path;

use foretrain_edge::{EdgeError, Package};

use super::run_folder::read_lines;
use super::runs::guard_end;
use super::{GuardEnd, LogEntry, ModelReport, ModelSource, SessionError, TargetFit, target_speed};
use crate::export::{self, ModelCard, TargetPreset};
use crate::quant::{self, QuantScheme, StrayTables, Tables};

/// Describes the package, checkpoint or run in `input`; of a run, as [`export::resolve_checkpoint`] chooses.
/// Errors: neither there, or a card that cannot be read.
pub(super) fn describe(input: &Path) -> Result<ModelReport, SessionError> {
    export::refuse_unfinished(input)?;
    if is_package(input) { describe_package(input) } else { describe_checkpoint(input) }
}

/// True for a folder that export wrote.
pub(super) fn is_package(folder: &Path) -> bool {
    folder.join("manifest.json").is_file()
}

/// The precision that a package was exported in. Errors: one that this version does not know.
pub(super) fn package_scheme(package: &Package, folder: &Path) -> Result<QuantScheme, SessionError> {
    let label = &package.manifest().scheme;
    QuantScheme::from_label(label).ok_or_else(|| {
        let known = QuantScheme::ALL.map(QuantScheme::label).join(", ");
        manifest_error(folder, format!("a scheme of {known}"), format!("{label:?}"))
    })
}

fn describe_package(folder: &Path) -> Result<ModelReport, SessionError> {
    // Opened as a whole, so that a damaged package is refused here and not at the first question.
    let package = Package::open(folder)?;
    let source = ModelSource::Package(package_scheme(&package, folder)?);
    let card = serde_json::from_value(package.manifest().provenance.clone())
        .map_err(|error| manifest_error(folder, "a model card as provenance".to_owned(), error.to_string()))?;
    Ok(ModelReport {
        input: folder.to_owned(),
        folder: folder.to_owned(),
        source,
        card,
        guard_end: None,
        targets: Vec::new(),
    })
}

fn manifest_error(folder: &Path, expected: String, found: String) -> SessionError {
    EdgeError::Format { path: folder.join("manifest.json"), expected, found }.into()
}

fn describe_checkpoint(input: &Path) -> Result<ModelReport, SessionError> {
    let folder = export::resolve_checkpoint(input)?;
    let card = ModelCard::read(&folder)?;
    let targets = TargetPreset::all()?
        .into_iter()
        .map(|target| fit_target(&card, target.for_model(&card), Tables::default()))
        .collect::<Result<_, SessionError>>()?;
    let guard_end = guard_end_of(&folder);
    Ok(ModelReport { input: input.to_owned(), folder, source: ModelSource::Checkpoint, card, guard_end, targets })
}

/// `target` as it would take a model, with token embedding and head stored as `tables` says where it has a choice of them.
/// Worked out from shapes alone. Errors: a model config that builds no network; tables that this model lacks.
pub fn fit_target(card: &ModelCard, target: TargetPreset, tables: Tables) -> Result<TargetFit, SessionError> {
    let plans = export::planned(card, &target)?;
    let (tables, _) = tables.fitting(StrayTables::LeaveOut, &plans, target.scheme, export::container(card, &target))?;
    let target = target.with_tables(tables);
    let plans = export::planned(card, &target)?;
    let fallback = quant::fallback_note(plans.iter(), target.scheme, export::container(card, &target));
    let plans: Vec<_> = plans.iter().collect();
    let most_tokens_per_second = target_speed::most_tokens_per_second(card, &plans, &target);
    Ok(TargetFit {
        predicted_bytes: export::predicted_bytes(card, &target)?,
        predicted_range: export::predicted_range(card, &target)?,
        most_tokens_per_second,
        fallback,
        blockers: export::blockers(card, &target),
        target,
    })
}

/// What the guard saw, when it ended the run of the checkpoint in `folder`; `None`, too, for one that was copied
/// out of its run.
fn guard_end_of(folder: &Path) -> Option<GuardEnd> {
    let checkpoints = folder.parent().filter(|parent| parent.ends_with("checkpoints"))?;
    let log = read_lines::<LogEntry>(&checkpoints.parent()?.join("events.jsonl")).ok()?;
    guard_end(&log.rows)
}
