//! How the comparison is shown, and its files.

use std::sync::Arc;

use egui::{Align, Layout, Rect, RichText, Ui};
use foretrain_engine::session::LoadedRun;

use super::figures::{curves_csv, figures_csv};
use crate::plots::{export_png, export_table};
use crate::state::{CompareAxis, CompareLive, Saved};
use crate::theme::{palette, space};
use crate::views::ViewCtx;
use crate::widgets::{Icon, Severity, icon_button_ui, icon_text_button_ui, notice_ui, smoothing_ui};

/// From this width on, everything is in one line.
const ONE_LINE: f32 = 980.0;

/// Shows it; `pane` is what a picture is taken of.
pub(super) fn toolbar_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut CompareLive, pane: Rect, ui: &mut Ui) {
    if ui.available_width() >= ONE_LINE {
        ui.horizontal(|ui| {
            axes_ui(saved, ui);
            ui.add_space(space::SM);
            smoothing_ui(ui, &mut saved.compare.smoothing);
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| files_ui(ctx, live, pane, ui));
        });
    } else {
        ui.horizontal_wrapped(|ui| {
            axes_ui(saved, ui);
            smoothing_ui(ui, &mut saved.compare.smoothing);
        });
        ui.horizontal_wrapped(|ui| files_ui(ctx, live, pane, ui));
    }
    note_ui(live, ui);
}

fn axes_ui(saved: &mut Saved, ui: &mut Ui) {
    let p = palette(ui);
    ui.label(RichText::new("Over").color(p.text_weak));
    for (axis, text) in [(CompareAxis::Steps, "Steps"), (CompareAxis::Seconds, "Seconds in steps")] {
        ui.selectable_value(&mut saved.compare.axis, axis, text);
    }
    ui.add_space(space::SM);
    ui.checkbox(&mut saved.plots.is_log, "Log scale").on_hover_text("Losses on a logarithmic axis");
}

fn files_ui(ctx: &ViewCtx<'_>, live: &mut CompareLive, pane: Rect, ui: &mut Ui) {
    let folder = ctx.settings.runs_folder_path();
    let runs: Vec<Arc<LoadedRun>> = live.opened.values().filter_map(|run| run.loaded.answer().cloned()).collect();
    if icon_button_ui(ui, Icon::Reset, "Show everything again").clicked() {
        live.reset_plots = true;
    }
    if icon_button_ui(ui, Icon::Image, "Save a picture of the comparison as it is seen").clicked() {
        live.export = Some(export_png(ui.ctx(), &folder, pane));
    }
    if icon_text_button_ui(ui, Icon::Table, "Curves as CSV").clicked() {
        let runs = runs.clone();
        live.export = Some(export_table(ui.ctx(), &folder, "comparison-curves", move || curves_csv(&runs)));
    }
    if icon_text_button_ui(ui, Icon::Table, "Figures as CSV").clicked() {
        let zone = ctx.zone.clone();
        live.export = Some(export_table(ui.ctx(), &folder, "comparison", move || figures_csv(&runs, &zone)));
    }
}

/// What became of the last file.
fn note_ui(live: &mut CompareLive, ui: &mut Ui) {
    let Some(result) = live.export.as_ref().and_then(|slot| slot.result()) else { return };
    let (severity, message) = match result {
        Ok(path) => (Severity::Good, format!("Saved {}", path.display())),
        Err(message) => (Severity::Error, message.clone()),
    };
    if notice_ui(ui, severity, &message, |ui| ui.small_button("Dismiss").clicked()) {
        live.export = None;
    }
}
