//! What the engine does before the first step, with a way out.

use egui::{RichText, Ui};
use foretrain_engine::device::Progress;
use foretrain_engine::session::RunStatus;

use super::control;
use crate::state::Live;
use crate::theme::{font, palette, space};
use crate::views::ViewCtx;
use crate::widgets::meter_ui;

/// Shows how far a start is.
pub fn starting_ui(ctx: &ViewCtx<'_>, live: &mut Live, ui: &mut Ui) {
    let p = palette(ui);
    ui.add_space(space::XL);
    ui.vertical_centered(|ui| {
        ui.set_max_width(ui.available_width().min(420.0));
        ui.label(RichText::new("Starting").size(font::METRIC).color(p.text_strong));
        ui.add_space(space::XS);
        ui.label(RichText::new(what(ctx, live)).color(p.text_weak));
        ui.add_space(space::SM);
        if let Some((done, total)) = loaded(ctx, live) {
            meter_ui(ui, "Progress of the start", done as f32 / total as f32, p.accent, None);
            ui.add_space(space::SM);
        }
        let is_stopping = live.run.asked.is_stopping();
        let text = if is_stopping { "Cancelling…" } else { "Cancel" };
        let cancel = ui.add_enabled(!is_stopping, egui::Button::new(text)).accessible_name("Cancel the start");
        if cancel.clicked() {
            control::stop(ctx, live);
        }
    });
}

/// How far the loading of the data is: what the engine does after it has no measure.
fn loading<'a>(ctx: &ViewCtx<'_>, live: &'a Live) -> Option<&'a Progress> {
    let is_loaded = ctx.active_run().is_some_and(|run| run.folder.is_some());
    live.start.progress().filter(|_| !is_loaded)
}

/// Units loaded, and how many there are.
fn loaded(ctx: &ViewCtx<'_>, live: &Live) -> Option<(u64, u64)> {
    let progress = loading(ctx, live)?;
    Some((progress.done, progress.total.filter(|total| *total > 0)?))
}

/// The finest that is known of what the engine does.
fn what(ctx: &ViewCtx<'_>, live: &Live) -> String {
    match (loading(ctx, live), ctx.active_run().map(|run| &run.status)) {
        (Some(progress), _) => progress.what.clone(),
        (None, Some(RunStatus::Preparing { what })) => what.clone(),
        (None, _) => "waiting for the engine".to_owned(),
    }
}
