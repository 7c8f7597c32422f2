//! What precisions cost, as measured: a table, and notes on each.

use egui::{Label, RichText, ScrollArea, Ui};
use foretrain_engine::quant::{MeasuredQuality, QualityChange};
use foretrain_engine::session::QuantizeReport;

use super::tables;
use crate::theme::{font, palette, space};
use crate::widgets::{BarRow, bar_row_ui, expander_ui, hint_ui, number, number_cell_ui, section_title_ui};

/// Width of the column of tensor names.
const NAME_WIDTH: f32 = 240.0;
/// Narrower than this, columns stand closer.
const ROOMY: f32 = 640.0;
/// Share of the loss as trained that a bar is at least as long for.
const LEAST_FULL_BAR: f64 = 0.01;
/// Costs below this are shown as none: nats.
const LEAST_SHOWN: f64 = 5e-5;

const ABOUT_OTHER: &str = "Measured before the settings above were changed. Measure again to see what they do";

/// What one precision costs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost<'a> {
    pub(super) report: &'a QuantizeReport,
    /// Measured with the settings that are chosen now.
    pub(super) is_current: bool,
}

/// Shows what was measured, most precise first; nothing where nothing was.
pub(super) fn costs_ui(costs: &[Cost<'_>], ui: &mut Ui) {
    if costs.is_empty() {
        return;
    }
    ui.add_space(space::XS);
    let gap = if ui.available_width() < ROOMY { space::SM } else { space::LG + 6.0 };
    ScrollArea::horizontal().id_salt("quantized").show(ui, |ui| table_ui(costs, gap, ui));
    for cost in costs {
        notes_ui(cost.report, ui);
    }
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

/// Columns that not all tables have.
#[derive(Debug, Clone, Copy)]
struct Columns {
    is_accuracy: bool,
    has_speeds: bool,
    has_methods: bool,
}

fn table_ui(costs: &[Cost<'_>], gap: f32, ui: &mut Ui) {
    let p = palette(ui);
    let Some(first) = costs.first().map(|cost| cost.report) else { return };
    let columns = Columns {
        is_accuracy: first.metric == "accuracy",
        has_speeds: costs.iter().any(|cost| !cost.report.speeds.is_empty()),
        // Where all rows have one way of rounding, and that is the chosen one, the titles below say it.
        has_methods: costs.iter().any(|cost| !cost.is_current || cost.report.method != first.method),
    };
    let Columns { is_accuracy, has_speeds, has_methods } = columns;
    let mut titles = vec!["Precision"];
    titles.extend(is_accuracy.then_some("Accuracy"));
    titles.extend([
        if is_accuracy { "Validation loss" } else { "Loss, nats" },
        "Weights",
        "Bits per weight",
        "Measured on",
    ]);
    titles.extend(has_speeds.then_some("Predicted tokens/s"));
    titles.extend(has_methods.then_some("Rounding"));
    // One more than there are: the last column of a grid has no right side.
    egui::Grid::new("quantized").num_columns(titles.len() + 1).spacing([gap, space::XS]).show(ui, |ui| {
        for title in titles {
            let text = RichText::new(title).size(font::SMALL).color(p.text_weak);
            match title {
                "Precision" | "Rounding" => ui.label(text),
                "Predicted tokens/s" => number_cell_ui(ui, text).on_hover_text(tables::ABOUT_SPEED),
                "Loss, nats" => number_cell_ui(ui, text).on_hover_text("Validation loss, nats a token"),
                _ => number_cell_ui(ui, text),
            };
        }
        ui.end_row();
        ui.label(RichText::new("as trained, f32").color(p.text_strong));
        if is_accuracy {
            number_cell_ui(ui, metric_text("accuracy", first.before));
        }
        number_cell_ui(ui, metric_text("loss", first.loss_before));
        number_cell_ui(ui, number::bytes(first.bytes_before));
        number_cell_ui(ui, "32");
        number_cell_ui(ui, measured_on(first));
        ui.end_row();
        for cost in costs {
            row_ui(cost, columns, ui);
            ui.end_row();
        }
    });
}

fn row_ui(cost: &Cost<'_>, columns: Columns, ui: &mut Ui) {
    let p = palette(ui);
    let report = cost.report;
    ui.label(RichText::new(report.scheme.label()).color(p.text_strong));
    let color = match change_of(report) {
        QualityChange::Kept => p.good,
        QualityChange::Little => p.warn,
        QualityChange::Lost => p.bad,
    };
    let judged = |text: String| RichText::new(text).color(color).strong();
    let loss = metric_text("loss", report.loss_after);
    if columns.is_accuracy {
        number_cell_ui(ui, judged(metric_text("accuracy", report.after)));
        number_cell_ui(ui, loss);
    } else {
        number_cell_ui(ui, judged(loss));
    }
    let factor = report.bytes_before as f64 / report.bytes_after.max(1) as f64;
    number_cell_ui(ui, number::bytes(report.bytes_after)).on_hover_text(format!("{factor:.1}x smaller than in f32"));
    number_cell_ui(ui, format!("{:.2}", report.bits_per_weight));
    number_cell_ui(ui, measured_on(report));
    if columns.has_speeds {
        speed_ui(report, ui);
    }
    if columns.has_methods {
        let (method, color) = if cost.is_current {
            (report.method.clone(), p.text)
        } else {
            (format!("{}: other settings", report.method), p.warn)
        };
        ui.add(Label::new(RichText::new(method).color(color)).extend()).on_hover_text(if cost.is_current {
            "As chosen above"
        } else {
            ABOUT_OTHER
        });
    }
}

/// What became of the quality, by the limits that the notes go by, too.
fn change_of(report: &QuantizeReport) -> QualityChange {
    let is_accuracy = report.metric == "accuracy";
    let quality = |metric, loss| MeasuredQuality { loss, accuracy: is_accuracy.then_some(metric) };
    quality(report.before, report.loss_before).change_to(quality(report.after, report.loss_after))
}

fn measured_on(report: &QuantizeReport) -> String {
    format!("{} {}", number::count(report.num_examples), report.example_unit())
}

/// How fast the targets can be with this precision at best, from the slowest to the fastest; each by itself when hovered.
fn speed_ui(report: &QuantizeReport, ui: &mut Ui) {
    let speeds = || report.speeds.iter().map(|speed| speed.most_tokens_per_second);
    let least = speeds().fold(f64::INFINITY, f64::min);
    let most = speeds().fold(0.0, f64::max);
    if report.speeds.is_empty() {
        ui.label("");
        return;
    }
    let of_each: Vec<String> = report
        .speeds
        .iter()
        .map(|speed| format!("{}: {}", speed.name, number::tokens_per_second(speed.most_tokens_per_second)))
        .collect();
    let range = if most <= number::FASTEST || least > number::FASTEST {
        let (least, most) = (number::tokens_per_second(least), number::tokens_per_second(most));
        if least == most { least } else { format!("{least} to {most}") }
    } else {
        format!("{} or more", number::tokens_per_second(least))
    };
    number_cell_ui(ui, range).on_hover_text(format!("Predicted, as fast as memory is:\n{}", of_each.join("\n")));
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

/// A bar per tensor, the longest for the tensor whose rounding alone costs most loss, and for a share of the loss where all
/// cost less; those that cost nothing have none.
fn sensitivities_ui(report: &QuantizeReport, ui: &mut Ui) {
    let p = palette(ui);
    let costs = || report.layers.iter().filter_map(|layer| Some((layer, layer.loss_increase?)));
    let most = costs().map(|(_, cost)| cost).fold(0.0, f64::max);
    let full = full_bar(most, report.loss_before);
    hint_ui(
        ui,
        &format!(
            "By how much the loss grows when this tensor alone is quantized, nats; a full bar is {}. Below zero it is noise, \
             or luck.",
            number::value(full)
        ),
    );
    for (layer, cost) in costs() {
        let value = if cost.abs() < LEAST_SHOWN { "0".to_owned() } else { format!("{cost:+.4}") };
        let row = BarRow {
            name: &layer.name,
            name_width: NAME_WIDTH,
            about: &format!("What {} costs, stored as {}", layer.name, layer.storage),
            share: (cost.max(0.0) / full) as f32,
            color: p.series[0],
            value: &value,
            value_width: BarRow::VALUE_WIDTH,
        };
        bar_row_ui(ui, row);
    }
}

/// The cost that fills a bar: noise does not.
fn full_bar(most: f64, loss: f64) -> f64 {
    most.max(LEAST_FULL_BAR * loss.abs()).max(LEAST_SHOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_fills_no_bar() {
        assert_eq!(full_bar(0.3, 2.0), 0.3);
        assert_eq!(full_bar(1e-5, 2.0), 0.02);
        assert_eq!(full_bar(0.0, 0.0), LEAST_SHOWN);
    }
}
