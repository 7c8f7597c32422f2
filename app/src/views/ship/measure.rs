//! Quantizes and measures, before and after.

use std::sync::Arc;

use egui::{DragValue, RichText, ScrollArea, Ui};
use foretrain_engine::quant::{QuantScheme, StrayTables};
use foretrain_engine::session::{Command, ModelReport, QuantizeJob, QuantizeReport};

use super::rounding::rounding_ui;
use super::tables;
use crate::state::{ShipAction, ShipLive, ShipSaved};
use crate::theme::{font, palette, space};
use crate::views::{ViewCtx, job_ui};
use crate::widgets::{
    BarRow, Icon, bar_row_ui, chip_ui, expander_ui, field_ui, hint_ui, icon_text_button_ui, number, section_title_ui,
};

/// Width of the column of tensor names.
const NAME_WIDTH: f32 = 240.0;

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
    let button = ui.add_enabled_ui(can_measure, |ui| icon_text_button_ui(ui, Icon::Play, "Measure")).inner;
    if button.on_disabled_hover_text("Choose a precision, or wait for what is being measured").clicked() {
        live.wanted = Some(ShipAction::Measure);
    }
    for (scheme, query) in &mut live.measured {
        job_ui(ctx, &format!("Measuring {}", scheme.label()), query, ui);
    }
    let reports: Vec<&QuantizeReport> = answers(live).collect();
    if reports.is_empty() {
        return;
    }
    ui.add_space(space::XS);
    ScrollArea::horizontal().id_salt("quantized").show(ui, |ui| table_ui(&reports, ui));
    for report in reports {
        notes_ui(report, ui);
    }
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
        QuantScheme::TernaryBase3 => "-1, 0 and 1, five to a byte (TQ1_0): smaller, slower to unpack",
    }
}

/// Asks what the chosen precisions cost; what was measured of others is forgotten.
pub(super) fn measure(ctx: &ViewCtx<'_>, saved: &ShipSaved, live: &mut ShipLive, model: &ModelReport) {
    live.measured.retain(|scheme, _| saved.schemes.contains(scheme));
    // Of several precisions, those that have no choice of tables go without.
    let (options, max_examples) = (saved.post_training(&model.card, StrayTables::LeaveOut), saved.max_examples);
    for &scheme in &saved.schemes {
        let input = model.folder.clone();
        live.measured.entry(scheme).or_default().ask(ctx, |job| {
            let job_of = QuantizeJob { input, scheme, output: None, data: None, max_examples, options, report: None };
            Command::Quantize(job, job_of)
        });
    }
}

/// What was measured, most precise first.
fn answers(live: &ShipLive) -> impl Iterator<Item = &QuantizeReport> {
    QuantScheme::ALL.iter().filter_map(|scheme| live.measured.get(scheme)?.answer().map(|report| &**report))
}

/// What there is to say about one precision.
fn notes_ui(report: &QuantizeReport, ui: &mut Ui) {
    let label = report.scheme.label();
    ui.add_space(space::XS);
    section_title_ui(ui, &format!("{label}, {}", report.method));
    for note in &report.notes {
        hint_ui(ui, note);
    }
    if let Some(choice) = &report.tables {
        tables::tried_ui(choice, label, ui);
    }
    expander_ui(ui, &format!("Error of each tensor, {label}"), |ui| errors_ui(report, ui));
    if report.layers.iter().any(|layer| layer.loss_increase.is_some()) {
        expander_ui(ui, &format!("What each tensor costs, {label}"), |ui| sensitivities_ui(report, ui));
    }
}

/// A metric as people read it.
pub(super) fn metric_text(metric: &str, value: f64) -> String {
    if metric == "accuracy" { format!("{:.2}%", value * 100.0) } else { format!("{value:.4}") }
}

fn table_ui(reports: &[&QuantizeReport], ui: &mut Ui) {
    let p = palette(ui);
    let has_speeds = reports.iter().any(|report| !report.speeds.is_empty());
    egui::Grid::new("quantized").num_columns(7).spacing([space::LG + 6.0, space::XS]).show(ui, |ui| {
        let metric = reports.first().map_or("metric", |report| report.metric.as_str());
        let metric_title = if metric == "accuracy" { "Accuracy" } else { "Loss, nats a token" };
        for title in ["Precision", metric_title, "Validation loss", "Weights", "Bits per weight", "Measured on"] {
            ui.label(RichText::new(title).size(font::SMALL).color(p.text_weak));
        }
        if has_speeds {
            let title = RichText::new("Predicted tokens/s, at most").size(font::SMALL).color(p.text_weak);
            ui.label(title).on_hover_text(tables::ABOUT_SPEED);
        }
        ui.end_row();
        if let Some(report) = reports.first() {
            ui.label(RichText::new("as trained, f32").color(p.text_strong));
            ui.label(metric_text(metric, report.before));
            ui.label(number::value(report.loss_before));
            ui.label(number::bytes(report.bytes_before));
            ui.label("32");
            ui.label(number::count(report.num_examples));
            ui.end_row();
        }
        for report in reports {
            ui.label(RichText::new(report.scheme.label()).color(p.text_strong));
            let lost = if metric == "accuracy" { report.before - report.after } else { report.after - report.before };
            let share = if metric == "accuracy" { lost } else { lost / report.before.abs().max(1e-9) };
            let color = if share > 0.05 || !share.is_finite() {
                p.bad
            } else if share > 0.01 {
                p.warn
            } else {
                p.good
            };
            ui.label(RichText::new(metric_text(metric, report.after)).color(color).strong());
            ui.label(number::value(report.loss_after));
            let factor = report.bytes_before as f64 / report.bytes_after.max(1) as f64;
            ui.label(format!("{} ({factor:.1}x smaller)", number::bytes(report.bytes_after)));
            ui.label(format!("{:.2}", report.bits_per_weight));
            ui.label(number::count(report.num_examples));
            speed_ui(report, ui);
            ui.end_row();
        }
    });
}

/// How fast the targets can be with this precision at best, from the slowest to the fastest; each by itself when hovered.
fn speed_ui(report: &QuantizeReport, ui: &mut Ui) {
    let speeds = || report.speeds.iter().map(|speed| speed.most_tokens_per_second);
    let least = speeds().fold(f64::INFINITY, f64::min);
    let most = speeds().fold(0.0, f64::max);
    if report.speeds.is_empty() {
        return;
    }
    let of_each: Vec<String> = report
        .speeds
        .iter()
        .map(|speed| format!("{}: {}", speed.name, number::three_digits(speed.most_tokens_per_second)))
        .collect();
    let range = format!("{} to {}", number::three_digits(least), number::three_digits(most));
    ui.label(range).on_hover_text(format!("Predicted, at most:\n{}", of_each.join("\n")));
}

/// A bar per tensor, the longest for the largest error.
fn errors_ui(report: &QuantizeReport, ui: &mut Ui) {
    let p = palette(ui);
    let most = report.tensor_errors.iter().map(|(_, error)| *error).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    hint_ui(ui, "Distance between stored and trained weights, as a share of the tensor's own length (L2).");
    for (name, error) in &report.tensor_errors {
        let row = BarRow {
            name,
            name_width: NAME_WIDTH,
            about: &format!("Error of {name}"),
            share: (error / most) as f32,
            color: p.series[1],
            value: &format!("{:.2}%", error * 100.0),
            value_width: BarRow::VALUE_WIDTH,
        };
        bar_row_ui(ui, row);
    }
}

/// A bar per tensor, the longest for the tensor whose rounding alone costs most loss; those that cost nothing have none.
fn sensitivities_ui(report: &QuantizeReport, ui: &mut Ui) {
    let p = palette(ui);
    let costs = || report.layers.iter().filter_map(|layer| Some((layer, layer.loss_increase?)));
    let most = costs().map(|(_, cost)| cost).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    hint_ui(
        ui,
        "By how much the loss grows when this tensor alone is quantized, nats. Below zero it is noise, or luck.",
    );
    for (layer, cost) in costs() {
        let row = BarRow {
            name: &layer.name,
            name_width: NAME_WIDTH,
            about: &format!("What {} costs, stored as {}", layer.name, layer.storage),
            share: (cost.max(0.0) / most) as f32,
            color: p.series[0],
            value: &format!("{cost:+.4}"),
            value_width: BarRow::VALUE_WIDTH,
        };
        bar_row_ui(ui, row);
    }
}
