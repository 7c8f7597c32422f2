//! Lays out the quantize and export screen.

use std::path::PathBuf;
use std::sync::Arc;

use egui::{TextEdit, Ui};
use foretrain_engine::session::{ModelReport, ModelSource};

use super::{measure, report, targets};
use crate::dialogs::PickKind;
use crate::state::{Live, Saved, Settings, ShipLive};
use crate::views::{ViewCtx, empty_ui, job_ui, model_choice_ui, panes_ui};
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
            *model = model_choice_ui(ctx, &mut saved.model_path, live, ui);
            if let Some(model) = &*model {
                forget_others(&mut live.ship, ctx, model);
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
    card_ui(ui, "What a precision costs", |ui| measure::measure_ui(ctx, &mut saved.ship, live, model, ui));
    if live.export.is_waiting() || live.export.failure().is_some() {
        card_ui(ui, "Export", |ui| {
            job_ui(ctx, &format!("Exporting for {}", live.target), &mut live.export, ui);
        });
    }
    if let Some(exported) = live.export.answer() {
        card_ui(ui, "Exported", |ui| report::report_ui(ctx, &mut saved.trial, exported, ui));
    }
    targets::targets_ui(ctx, &packages_folder(ctx.settings, &saved.ship.folder), live, model, ui);
}

/// Answers about another checkpoint do not belong beside this one.
fn forget_others(live: &mut ShipLive, ctx: &ViewCtx<'_>, model: &ModelReport) {
    if live.of != model.folder {
        live.of.clone_from(&model.folder);
        for query in [&mut live.int8, &mut live.ternary] {
            query.cancel(ctx);
            query.clear();
        }
        if !live.export.is_waiting() {
            live.export.clear();
        }
        live.name.clear();
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
    field_ui(ui, "Name", |ui| {
        let hint = model.map_or_else(|| "package".to_owned(), targets::proposed_name);
        ui.add(TextEdit::singleline(&mut live.name).hint_text(hint).desired_width(f32::INFINITY));
    });
    hint_ui(
        ui,
        "Each export makes a new folder here, named after the model and the target; none is ever written over.",
    );
}
