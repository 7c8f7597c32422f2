//! Quantizes and measures, before and after.

use std::sync::Arc;

use egui::{DragValue, RichText, ScrollArea, Ui};
use foretrain_engine::quant::{PostTraining, QuantScheme};
use foretrain_engine::session::{Command, ModelReport, QuantizeJob, QuantizeReport};

use crate::state::{Query, ShipAction, ShipLive, ShipSaved};
use crate::theme::{font, palette, space};
use crate::views::{ViewCtx, job_ui};
use crate::widgets::{
    BarRow, Icon, bar_row_ui, expander_ui, field_ui, hint_ui, icon_text_button_ui, number, section_title_ui,
};

/// Width of the column of tensor names.
const NAME_WIDTH: f32 = 240.0;

/// Shows what int8 and ternary cost this model.
pub(super) fn measure_ui(
    ctx: &ViewCtx<'_>,
    saved: &mut ShipSaved,
    live: &mut ShipLive,
    model: &Arc<ModelReport>,
    ui: &mut Ui,
) {
    hint_ui(ui, "Quantizes the checkpoint and measures it on the validation part, as trained and as stored.");
    field_ui(ui, "On at most", |ui| {
        let what = if model.card.is_language_model() { " sequences" } else { " images" };
        ui.add(DragValue::new(&mut saved.max_examples).range(1..=1_000_000).speed(10.0).suffix(what));
    });
    let is_busy = live.int8.is_waiting() || live.ternary.is_waiting();
    let button = ui.add_enabled_ui(!is_busy, |ui| icon_text_button_ui(ui, Icon::Play, "Measure int8 and ternary"));
    if button.inner.clicked() {
        live.wanted = Some(ShipAction::Measure);
    }
    job_ui(ctx, "Measuring int8", &mut live.int8, ui);
    job_ui(ctx, "Measuring ternary", &mut live.ternary, ui);
    let reports: Vec<&QuantizeReport> = [&live.int8, &live.ternary].into_iter().filter_map(answer).collect();
    if reports.is_empty() {
        return;
    }
    ui.add_space(space::XS);
    ScrollArea::horizontal().id_salt("quantized").show(ui, |ui| table_ui(&reports, ui));
    for report in reports {
        notes_ui(report, ui);
    }
}

/// Asks what both precisions cost.
pub(super) fn measure(ctx: &ViewCtx<'_>, max_examples: usize, live: &mut ShipLive, model: &ModelReport) {
    for (query, scheme) in [(&mut live.int8, QuantScheme::Int8), (&mut live.ternary, QuantScheme::Ternary)] {
        let input = model.folder.clone();
        let options = PostTraining::default();
        query.ask(ctx, |job| {
            let job_of = QuantizeJob { input, scheme, output: None, data: None, max_examples, options, report: None };
            Command::Quantize(job, job_of)
        });
    }
}

/// What there is to say about one precision.
fn notes_ui(report: &QuantizeReport, ui: &mut Ui) {
    let label = report.scheme.label();
    ui.add_space(space::XS);
    section_title_ui(ui, label);
    for note in &report.notes {
        hint_ui(ui, note);
    }
    expander_ui(ui, &format!("Error of each tensor, {label}"), |ui| errors_ui(report, ui));
}

fn answer(query: &Query<Box<QuantizeReport>>) -> Option<&QuantizeReport> {
    query.answer().map(|report| &**report)
}

/// A metric as people read it.
pub(super) fn metric_text(metric: &str, value: f64) -> String {
    if metric == "accuracy" { format!("{:.2}%", value * 100.0) } else { format!("{value:.4}") }
}

fn table_ui(reports: &[&QuantizeReport], ui: &mut Ui) {
    let p = palette(ui);
    egui::Grid::new("quantized").num_columns(6).spacing([space::LG + 6.0, space::XS]).show(ui, |ui| {
        let metric = reports.first().map_or("metric", |report| report.metric.as_str());
        let metric_title = if metric == "accuracy" { "Accuracy" } else { "Loss, nats a token" };
        for title in ["Precision", metric_title, "Validation loss", "Weights", "Bits per weight", "Measured on"] {
            ui.label(RichText::new(title).size(font::SMALL).color(p.text_weak));
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
            ui.end_row();
        }
    });
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
