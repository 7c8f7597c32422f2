//! The table of final figures.

use egui::{Color32, RichText, Ui};
use foretrain_engine::session::LoadedRun;
use jiff::tz::TimeZone;

use super::figures::Figures;
use crate::theme::{font, palette, space};
use crate::views::{RunIdentity, RunLabel};
use crate::widgets::{number, swatch_ui};

const COLUMNS: [&str; 11] = [
    "Run",
    "Started",
    "Tier",
    "Seed",
    "Parameters",
    "Steps",
    "Time in steps",
    "Validation loss",
    "Accuracy",
    "Backwards saved",
    "Time saved",
];

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
    egui::ScrollArea::horizontal().id_salt("figures").show(ui, |ui| {
        egui::Grid::new("figures").num_columns(COLUMNS.len()).spacing([space::LG, space::XS]).show(ui, |ui| {
            for column in COLUMNS {
                ui.label(RichText::new(column).size(font::SMALL).color(p.text_weak));
            }
            ui.end_row();
            for (row, run) in rows.iter().zip(&figures) {
                row.name_ui(ui);
                ui.label(RunIdentity::of_loaded(row.run).started(zone));
                ui.label(&run.tier);
                ui.label(row.run.config.seed.to_string());
                ui.label(number::short_count(run.num_params as f64));
                ui.label(number::count(run.num_steps));
                ui.label(number::seconds(run.seconds));
                let mut cell = |value: Option<f64>, best: Option<f64>, show: fn(f64) -> String| {
                    let is_best = value.is_some() && value == best;
                    let text = RichText::new(value.map_or_else(|| "—".to_owned(), show));
                    ui.label(if is_best { text.color(p.good).strong() } else { text.color(p.text) });
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
