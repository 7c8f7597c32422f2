//! The table of final figures.

use egui::{Color32, RichText, Ui};
use foretrain_engine::session::LoadedRun;
use jiff::tz::TimeZone;

use super::figures::{Figures, weights_name};
use crate::theme::{font, palette, space};
use crate::views::{RunIdentity, RunLabel};
use crate::widgets::{number, number_cell_ui, swatch_ui};

/// Columns of text, then those of numbers, which are aligned at the right.
const NAMES: [&str; 3] = ["Run", "Started", "Tier"];
const NUMBERS: [&str; 8] =
    ["Seed", "Parameters", "Steps", "Time in steps", "Validation loss", "Accuracy", "Backwards saved", "Time saved"];
/// Which weights loss and accuracy are of, where that is not the same for all runs.
const WEIGHTS: &str = "Weights";

/// A line of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct TableRow<'a> {
    pub(super) run: &'a LoadedRun,
    pub(super) label: &'a RunLabel,
    pub(super) color: Color32,
}

impl TableRow<'_> {
    /// Its name, as in the legends; hovered, with all that its recipe differs in.
    fn name_ui(&self, ui: &mut Ui) {
        let p = palette(ui);
        ui.horizontal(|ui| {
            swatch_ui(ui, self.color);
            let name = ui.label(RichText::new(&self.label.name).color(p.text_strong));
            let folder = self.run.folder.display();
            let hover = match self.label.differences.as_slice() {
                [] => folder.to_string(),
                differences => {
                    format!("Differs from others of this name in:\n{}\n\n{folder}", differences.join("\n"))
                }
            };
            name.on_hover_text(hover);
        });
    }
}

/// Shows a line per run; the best value of a column is set in the color of good news.
pub(super) fn table_ui(rows: &[TableRow<'_>], zone: &TimeZone, ui: &mut Ui) {
    let p = palette(ui);
    let figures: Vec<Figures> = rows.iter().map(|row| Figures::of(row.run)).collect();
    let best = |value: fn(&Figures) -> Option<f64>, sign: f64| {
        let all = figures.iter().filter_map(value).filter(|value| value.is_finite());
        // One run alone is not better than any other.
        all.max_by(|a, b| (sign * a).total_cmp(&(sign * b))).filter(|_| figures.len() > 1)
    };
    let best_loss = best(|run| run.validation_loss, -1.0);
    let best_accuracy = best(|run| run.validation_accuracy, 1.0);
    let best_backward = best(|run| run.backward_saved, 1.0);
    let best_time = best(|run| run.time_saved, 1.0);
    // Of runs in full precision alone there is nothing to tell apart.
    let has_quantized = figures.iter().any(|run| run.quantized.is_some());
    // One more than there are: the last column of a grid has no right side.
    let num_columns = NAMES.len() + NUMBERS.len() + usize::from(has_quantized) + 1;
    egui::ScrollArea::horizontal().id_salt("figures").show(ui, |ui| {
        egui::Grid::new("figures").num_columns(num_columns).spacing([space::MD, space::XS]).show(ui, |ui| {
            let title = |text: &str| RichText::new(text).size(font::SMALL).color(p.text_weak);
            for column in NAMES {
                ui.label(title(column));
            }
            if has_quantized {
                ui.label(title(WEIGHTS)).on_hover_text(
                    "Quantization-aware training ships quantized weights; loss and accuracy are of those, once the network \
                     computes with them alone",
                );
            }
            for column in NUMBERS {
                number_cell_ui(ui, title(column));
            }
            ui.end_row();
            for (row, run) in rows.iter().zip(&figures) {
                row.name_ui(ui);
                ui.label(RunIdentity::of_loaded(row.run).started(zone));
                ui.label(&run.tier);
                if has_quantized {
                    ui.label(run.validation_loss.map_or("—", |_| weights_name(run.quantized)));
                }
                number_cell_ui(ui, row.run.config.seed.to_string());
                number_cell_ui(ui, number::short_count(run.num_params as f64));
                number_cell_ui(ui, number::count(run.num_steps));
                number_cell_ui(ui, number::seconds(run.seconds));
                let mut cell = |value: Option<f64>, best: Option<f64>, show: fn(f64) -> String| {
                    let is_best = value.is_some() && value == best;
                    let text = RichText::new(value.map_or_else(|| "—".to_owned(), show));
                    number_cell_ui(ui, if is_best { text.color(p.good).strong() } else { text.color(p.text) });
                };
                cell(run.validation_loss, best_loss, number::value);
                cell(run.validation_accuracy, best_accuracy, |share| format!("{:.2}%", share * 100.0));
                cell(run.backward_saved, best_backward, number::percent);
                cell(run.time_saved, best_time, number::percent);
                ui.end_row();
            }
        });
    });
}
