//! A question under way: how far it is, how to end it, and why it failed.

use egui::{RichText, Ui};

use super::ViewCtx;
use crate::state::Query;
use crate::theme::{font, palette, space};
use crate::widgets::{Severity, meter_ui, notice_ui};

/// Shows progress with a button to cancel while `query` waits, then its failure, if any.
/// `name` says what is being done: "Inspecting".
pub fn job_ui<T>(ctx: &ViewCtx<'_>, name: &str, query: &mut Query<T>, ui: &mut Ui) {
    if query.is_waiting() {
        waiting_ui(ctx, name, query, ui);
    }
    let mut is_dismissed = false;
    if let Some(failure) = query.failure() {
        notice_ui(ui, Severity::Error, &failure.message, |ui| is_dismissed = ui.small_button("Dismiss").clicked());
    }
    if is_dismissed {
        query.dismiss();
    }
}

fn waiting_ui<T>(ctx: &ViewCtx<'_>, name: &str, query: &mut Query<T>, ui: &mut Ui) {
    let p = palette(ui);
    let (what, share) = match query.progress() {
        Some(progress) => {
            let total = progress.total.filter(|total| *total > 0);
            (progress.what.clone(), total.map(|total| progress.done as f32 / total as f32))
        }
        None if ctx.is_busy => ("the engine is busy; this waits for it".to_owned(), None),
        None => ("waiting for the engine".to_owned(), None),
    };
    ui.horizontal(|ui| {
        ui.label(RichText::new(name).color(p.text_strong));
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            if ui.button("Cancel").accessible_name(format!("Cancel: {name}")).clicked() {
                query.cancel(ctx);
            }
            ui.spinner();
        });
    });
    meter_ui(ui, &format!("{name}, done"), share.unwrap_or(0.0), p.accent, None);
    ui.label(RichText::new(what).size(font::SMALL).color(p.text_weak));
    ui.add_space(space::XS);
}
