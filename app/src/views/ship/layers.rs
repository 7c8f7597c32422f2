//! What quantization did to each calibrated layer: how much of its outputs is lost, and what that costs.

use egui::{RichText, ScrollArea, Ui};
use foretrain_engine::quant::LayerFigures;
use foretrain_engine::session::QuantizeReport;

use crate::theme::{font, palette, space};
use crate::widgets::{BarRow, bar_row_ui, hint_ui, number};

/// Width of the column of tensor names.
const NAME_WIDTH: f32 = 240.0;
/// Loss that a layer may cost by itself before it stands out, nats.
const NOTABLE_LOSS: f64 = 0.002;

/// Bars for what each layer costs, then a table.
pub(super) fn layers_ui(report: &QuantizeReport, ui: &mut Ui) {
    costs_ui(report, ui);
    hint_ui(
        ui,
        "Shares of the layer's outputs over the calibration set: lost with each weight rounded alone, and as stored.",
    );
    ScrollArea::horizontal().id_salt(("layers", report.scheme.label())).show(ui, |ui| table_ui(report, ui));
}

/// What the loss gains when one tensor alone is quantized; nothing where it was not measured.
fn costs_ui(report: &QuantizeReport, ui: &mut Ui) {
    let p = palette(ui);
    let costs: Vec<(&LayerFigures, f64)> =
        report.layers.iter().filter_map(|layer| Some((layer, layer.loss_increase?))).collect();
    if costs.is_empty() {
        return;
    }
    hint_ui(ui, "What the loss gains when one tensor alone is quantized, nats, on a part of the training set.");
    let most = costs.iter().map(|(_, loss)| *loss).fold(NOTABLE_LOSS, f64::max);
    for (layer, loss) in costs {
        let row = BarRow {
            name: &layer.name,
            name_width: NAME_WIDTH,
            about: &format!("Loss that {} costs", layer.name),
            share: (loss / most).clamp(0.0, 1.0) as f32,
            color: if loss > NOTABLE_LOSS { p.warn } else { p.series[1] },
            value: &format!("{loss:+.4}"),
            value_width: BarRow::VALUE_WIDTH,
        };
        bar_row_ui(ui, row);
    }
}

fn table_ui(report: &QuantizeReport, ui: &mut Ui) {
    let p = palette(ui);
    let salt = format!("layers-{}", report.scheme.label());
    egui::Grid::new(salt).num_columns(5).spacing([space::LG, 2.0]).show(ui, |ui| {
        for title in ["Layer", "Stored as", "Size", "Rounded alone", "As stored"] {
            ui.label(RichText::new(title).size(font::SMALL).color(p.text_weak));
        }
        ui.end_row();
        for layer in report.layers.iter().filter(|layer| layer.output_error.is_some()) {
            let small = |text: &str| RichText::new(text).size(font::SMALL).color(p.text);
            let percent = |share: Option<f64>| share.map_or_else(String::new, |share| format!("{:.2}%", share * 100.0));
            ui.label(small(&layer.name));
            ui.label(small(&layer.storage));
            ui.label(small(&number::bytes(layer.bytes)));
            ui.label(small(&percent(layer.nearest_output_error)));
            ui.label(small(&percent(layer.output_error)).strong());
            ui.end_row();
        }
    });
}
