//! Lays out the quantize and export screen.

use std::path::PathBuf;
use std::sync::Arc;

use egui::{Align, TextEdit, Ui};
use foretrain_engine::session::{ModelReport, ModelSource};

use super::{measure, report, targets};
use crate::dialogs::PickKind;
use crate::state::{HeldChange, Live, Saved, Settings, ShipAction, ShipLive, ShipSaved, TrySaved};
use crate::views::{
    Answered, ViewCtx, ask_ui, empty_ui, model_card_ui, model_choice_ui, model_warning, newer_model_ui, panes_ui,
};
use crate::widgets::{PathField, card_ui, field_ui, hint_ui, path_field_ui};

/// Shows the screen.
pub fn ship_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut Live, ui: &mut Ui) {
    let mut state = (saved, live, None);
    panes_ui(
        ui,
        "ship",
        &mut state,
        |(saved, live, model), ui| {
            ui.heading("Quantize and export");
            if let Some(found) = model_choice_ui(ctx, &mut saved.model_path, live, ui) {
                see_model(ctx, &mut live.ship, &found);
                *model = live.ship.model.of(&saved.model_path).cloned();
            }
            if let Some(model) = &*model {
                model_card_ui(model, ui);
            }
            card_ui(ui, "Packages", |ui| packages_ui(ctx, saved, &mut live.ship, model.as_deref(), ui));
        },
        |(saved, live, model), ui| match model {
            Some(model) if model.source != ModelSource::Checkpoint => empty_ui(
                ui,
                "Exported already",
                "This folder is a package, and its weights have lost their full precision. Choose the run or checkpoint that it came from.",
            ),
            Some(model) => right_ui(ctx, saved, &mut live.ship, model, ui),
            None => empty_ui(
                ui,
                "No model yet",
                "Train a run, or choose a checkpoint at the left: what quantization costs it, and which hardware takes it, appears here.",
            ),
        },
    );
}

fn right_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut ShipLive, model: &Arc<ModelReport>, ui: &mut Ui) {
    if newer_model_ui(&live.model, ui) {
        live.model.take_newer();
        forget_results(ctx, live);
    }
    card_ui(ui, "What a precision costs", |ui| measure::measure_ui(ctx, &mut saved.ship, live, model, ui));
    exported_ui(ctx, &mut saved.trial, live, ui);
    let fits = live.fits(model, saved.ship.tables_of(&model.card));
    targets::targets_ui(ctx, live, model, &fits, ui);
    if let Some(action) = allowed(live, model, ui) {
        act(ctx, &saved.ship, live, model, action);
    }
    go_on(ctx, &saved.ship, live, model);
}

/// What may be done now: what was clicked, once the user was asked where the model's run diverged.
fn allowed(live: &mut ShipLive, model: &ModelReport, ui: &Ui) -> Option<ShipAction> {
    let warning = model_warning(model).filter(|_| live.accepted.as_ref() != Some(&model.folder));
    let Some(warning) = warning else {
        live.asked = None;
        return live.wanted.take();
    };
    if let Some(wanted) = live.wanted.take() {
        live.asked = Some(wanted);
    }
    let what = match live.asked.as_ref()? {
        ShipAction::Measure => "Quantize",
        ShipAction::Export(..) => "Export",
    };
    match ask_ui(ui.ctx(), what, &warning) {
        Answered::NotYet => None,
        Answered::Yes => {
            live.accepted = Some(model.folder.clone());
            live.asked.take()
        }
        Answered::No => {
            live.asked = None;
            None
        }
    }
}

fn act(ctx: &ViewCtx<'_>, saved: &ShipSaved, live: &mut ShipLive, model: &ModelReport, action: ShipAction) {
    match action {
        ShipAction::Measure => measure::measure(ctx, saved, live, model),
        ShipAction::Export(ids, stray_tables) => {
            live.failures.clear();
            live.cancelled.clear();
            live.stray_tables = stray_tables;
            live.queue.extend(ids);
        }
    }
}

/// Sees what came of the last export, and begins the next one that waits.
fn go_on(ctx: &ViewCtx<'_>, saved: &ShipSaved, live: &mut ShipLive, model: &ModelReport) {
    if live.export.is_waiting() {
        return;
    }
    let fit_of = |id: &str| model.targets.iter().find(|fit| fit.target.id == id);
    if std::mem::take(&mut live.is_exporting) {
        let made =
            live.export.answer().filter(|made| live.packages.last().is_none_or(|last| last.package != made.package));
        if let Some(failure) = live.export.failure() {
            // The last one's stays in the card of its target.
            if !live.queue.is_empty() {
                let name = fit_of(&live.target).map_or_else(|| live.target.clone(), |fit| fit.target.name.clone());
                live.failures.push((name, failure.message.clone()));
            }
        } else if let Some(made) = made {
            live.packages.push(made.clone());
        } else if !live.queue.is_empty() {
            // It was cancelled; those that wait were not.
            let name = fit_of(&live.target).map_or_else(|| live.target.clone(), |fit| fit.target.name.clone());
            live.cancelled.push(name);
        }
    }
    if let Some(fit) = live.queue.pop_front().and_then(|id| fit_of(&id)) {
        let folder = packages_folder(ctx.settings, &saved.folder);
        let options = saved.post_training(&model.card, live.stray_tables);
        targets::export(ctx, (&folder, options), live, model, fit);
    }
}

/// The packages made. The last one is brought into view once: the button that asked for it is further down.
fn exported_ui(ctx: &ViewCtx<'_>, trial: &mut TrySaved, live: &mut ShipLive, ui: &mut Ui) {
    if live.packages.is_empty() && live.failures.is_empty() && live.cancelled.is_empty() {
        return;
    }
    let card = ui.scope(|ui| card_ui(ui, "Exported", |ui| report::packages_ui(ctx, trial, live, ui))).response;
    if let Some(last) = live.packages.last().map(|last| &last.package).filter(|last| **last != live.reported) {
        live.reported = last.clone();
        card.scroll_to_me(Some(Align::Min));
    }
}

/// Answers about another model do not belong beside this one; a newer checkpoint of the same run waits to be taken.
fn see_model(ctx: &ViewCtx<'_>, live: &mut ShipLive, found: &Arc<ModelReport>) {
    let has_results = live.has_results();
    match live.model.see(found, has_results) {
        HeldChange::Kept => {}
        HeldChange::Replaced => {
            forget_results(ctx, live);
            live.name.clear();
        }
    }
}

/// Forgets what was measured and exported; an export under way goes on.
fn forget_results(ctx: &ViewCtx<'_>, live: &mut ShipLive) {
    live.measured.values_mut().for_each(|measured| measured.cancel(ctx));
    live.measured.clear();
    live.packages.clear();
    live.failures.clear();
    live.cancelled.clear();
    if !live.export.is_waiting() {
        live.export.clear();
    }
}

/// Where packages go: the folder named, else the one beside the runs.
fn packages_folder(settings: &Settings, folder: &str) -> PathBuf {
    let folder = folder.trim();
    if folder.is_empty() { settings.runs_folder_path().with_file_name("packages") } else { PathBuf::from(folder) }
}

fn packages_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut ShipLive, model: Option<&ModelReport>, ui: &mut Ui) {
    let default = packages_folder(ctx.settings, "").display().to_string();
    field_ui(ui, "Folder", |ui| {
        let field = PathField {
            salt: "packages-folder",
            what: "the folder for packages",
            kind: PickKind::Folder,
            hint: &default,
        };
        path_field_ui(ui, ctx.dialogs, field, &mut saved.ship.folder);
    });
    let proposed = model.map_or_else(|| "package".to_owned(), targets::proposed_name);
    field_ui(ui, "Name", |ui| {
        let field = TextEdit::singleline(&mut live.name).hint_text(proposed.clone()).desired_width(f32::INFINITY);
        ui.add(field).accessible_name("Name of the package");
    });
    let name = targets::package_name(&live.name, &proposed);
    hint_ui(
        ui,
        &format!(
            "Each export makes a new folder here: {name}-, then the target; where that exists, the same with -2, -3 \
             and so on. None is ever written over."
        ),
    );
}
