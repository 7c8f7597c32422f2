//! Asks what precisions cost, and shows how far that is.

use std::sync::Arc;

use egui::{DragValue, RichText, Ui};
use foretrain_engine::quant::{QuantScheme, StrayTables};
use foretrain_engine::session::{Command, ModelReport, QuantizeJob};

use super::costs::{Cost, costs_ui};
use super::rounding::rounding_ui;
use super::tables;
use crate::state::{MeasureSettings, Measured, ShipAction, ShipLive, ShipSaved};
use crate::theme::{font, palette, space};
use crate::views::{ViewCtx, job_ui};
use crate::widgets::{Icon, chip_ui, field_ui, hint_ui, icon_text_button_ui};

/// Shows what the chosen precisions cost this model.
pub(super) fn measure_ui(
    ctx: &ViewCtx<'_>,
    saved: &mut ShipSaved,
    live: &mut ShipLive,
    model: &Arc<ModelReport>,
    ui: &mut Ui,
) {
    hint_ui(ui, "Quantizes the checkpoint and measures it on the validation part, as trained and as stored.");
    let what = if model.card.is_language_model() { " sequences" } else { " images" };
    schemes_ui(saved, ui);
    rounding_ui(saved, model, what, ui);
    tables::fields_ui(&mut saved.tables, &model.card, saved.is_mixed, ui);
    hint_ui(ui, "Exports are rounded and stored the same way, each in its target's precision.");
    field_ui(ui, "Measured on", |ui| {
        ui.add(
            DragValue::new(&mut saved.max_examples).range(1..=1_000_000).speed(10.0).prefix("at most ").suffix(what),
        );
    });
    let can_measure = !live.is_measuring() && !saved.schemes.is_empty();
    ui.horizontal(|ui| {
        let button = ui.add_enabled_ui(can_measure, |ui| icon_text_button_ui(ui, Icon::Play, "Measure")).inner;
        if button.on_disabled_hover_text("Choose a precision, or wait for what is being measured").clicked() {
            live.wanted = Some(ShipAction::Measure);
        }
        cancel_all_ui(ctx, live, ui);
    });
    // With spacings of its own.
    ui.scope(|ui| progress_ui(ctx, live, ui));
    let now = settings(saved, model);
    let costs: Vec<Cost<'_>> = QuantScheme::ALL
        .into_iter()
        .filter_map(|scheme| {
            let (report, with) = live.measured.get(&scheme)?.answer()?;
            Some(Cost { report, is_current: with.is_alike(&now, scheme) })
        })
        .collect();
    costs_ui(&costs, ui);
}

/// The settings that are chosen.
fn settings(saved: &ShipSaved, model: &ModelReport) -> MeasureSettings {
    // Of several precisions, those that have no choice of tables go without.
    let options = saved.post_training(&model.card, StrayTables::LeaveOut);
    MeasureSettings { options, max_examples: saved.max_examples }
}

/// A way out while several are measured.
fn cancel_all_ui(ctx: &ViewCtx<'_>, live: &mut ShipLive, ui: &mut Ui) {
    let num_waiting = live.measured.values().filter(|measured| measured.query.is_waiting()).count();
    if num_waiting > 1 {
        let button = ui.button("Cancel all").on_hover_text("What is being measured, and what waits for it");
        if button.accessible_name("Cancel all measurements").clicked() {
            live.measured.values_mut().for_each(|measured| measured.cancel(ctx));
        }
    }
}

/// How far each question is: in full what the engine works on, in a line what waits for that; and what was given up.
fn progress_ui(ctx: &ViewCtx<'_>, live: &mut ShipLive, ui: &mut Ui) {
    let is_begun = |measured: &Measured| measured.query.is_waiting() && measured.query.progress().is_some();
    let mut has_first = live.measured.values().any(is_begun);
    let mut cancelled = Vec::new();
    ui.spacing_mut().item_spacing.y = space::XS;
    for (scheme, measured) in &mut live.measured {
        let name = format!("Measuring {}", scheme.label());
        let was_waiting = measured.query.is_waiting();
        // The first is as good as begun where the engine has not said so yet.
        let is_in_line = was_waiting && !is_begun(measured) && has_first;
        has_first |= was_waiting;
        if is_in_line {
            in_line_ui(ctx, &name, measured, ui);
        } else {
            job_ui(ctx, &name, &mut measured.query, ui);
            measured.is_cancelled |= was_waiting && !measured.query.is_waiting();
        }
        if measured.is_cancelled {
            cancelled.push(scheme.label());
        }
    }
    if !cancelled.is_empty() {
        hint_ui(ui, &format!("Cancelled, and not measured: {}", cancelled.join(", ")));
    }
}

/// A measurement that waits for another.
fn in_line_ui(ctx: &ViewCtx<'_>, name: &str, measured: &mut Measured, ui: &mut Ui) {
    let p = palette(ui);
    // As high as its small button.
    ui.spacing_mut().interact_size.y = 18.0;
    ui.horizontal(|ui| {
        ui.label(RichText::new(name).size(font::SMALL).color(p.text_weak));
        hint_ui(ui, "waits for the one before it");
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            if ui.small_button("Cancel").accessible_name(format!("Cancel: {name}")).clicked() {
                measured.cancel(ctx);
            }
        });
    });
}

fn schemes_ui(saved: &mut ShipSaved, ui: &mut Ui) {
    field_ui(ui, "Precisions", |ui| {
        ui.horizontal_wrapped(|ui| {
            ui.spacing_mut().item_spacing = egui::vec2(space::XS, space::XS);
            for scheme in QuantScheme::ALL.into_iter().filter(|scheme| *scheme != QuantScheme::F32) {
                let is_on = saved.schemes.contains(&scheme);
                if chip_ui(ui, scheme.label(), None, is_on).on_hover_text(about(scheme)).clicked() {
                    if is_on {
                        saved.schemes.remove(&scheme);
                    } else {
                        saved.schemes.insert(scheme);
                    }
                }
            }
        });
    });
}

fn about(scheme: QuantScheme) -> &'static str {
    match scheme {
        QuantScheme::F32 => "As trained",
        QuantScheme::F16 => "Half precision",
        QuantScheme::Bf16 => "bfloat16: half of the digits, all of the range",
        QuantScheme::Int8 => "8 bits, a scale per output row",
        QuantScheme::Int4 => "4 bits, a scale per 32 weights (Q4_0)",
        QuantScheme::Int4K => "4 bits, a scale and a minimum per 32 weights (Q4_K)",
        QuantScheme::Ternary => "-1, 0 and 1 in 2 bits (TQ2_0)",
        QuantScheme::TernaryBase3 => "-1, 0 and 1, five to a byte (TQ1_0): smaller, opens slower",
    }
}

/// Asks what the chosen precisions cost; what was measured of others is forgotten.
pub(super) fn measure(ctx: &ViewCtx<'_>, saved: &ShipSaved, live: &mut ShipLive, model: &ModelReport) {
    live.measured.retain(|scheme, _| saved.schemes.contains(scheme));
    let settings = settings(saved, model);
    let MeasureSettings { options, max_examples } = settings;
    for &scheme in &saved.schemes {
        let input = model.folder.clone();
        live.measured.entry(scheme).or_default().ask(ctx, settings, |job| {
            let job_of = QuantizeJob { input, scheme, output: None, data: None, max_examples, options, report: None };
            Command::Quantize(job, job_of)
        });
    }
}
