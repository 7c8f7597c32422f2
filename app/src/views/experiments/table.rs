//! The contenders' final figures: as a table, and side by side as bars.

use egui::{RichText, Ui};
use foretrain_engine::experiment::Estimate;

use crate::plots::{ContenderRow, Figure, FigureTable, ShownReport};
use crate::theme::{font, palette, space};
use crate::widgets::{BarRow, bar_row_ui, card_ui, hint_ui, num_columns, number, swatch_ui};

/// Least width of a card of bars.
const BARS: f32 = 300.0;
/// Width of the contenders' names beside bars.
const NAMES: f32 = 120.0;
/// Width of the figures beside them.
const VALUES: f32 = 76.0;

/// A figure with its 95% interval, where there are seeds for one.
fn in_words(figure: Figure, show: fn(f64) -> String) -> String {
    match figure {
        Some(Estimate { mean, interval: Some((low, high)), .. }) => {
            format!("{} ({} to {})", show(mean), show(low), show(high))
        }
        Some(Estimate { mean, .. }) => show(mean),
        None => "—".to_owned(),
    }
}

/// A column of the table.
struct Column {
    title: &'static str,
    about: &'static str,
    figure: fn(&ContenderRow) -> Figure,
    show: fn(f64) -> String,
}

const COLUMNS: [Column; 5] = [
    Column {
        title: "Held-out loss",
        about: "Nats, on the test part; on the validation part where there is no test part",
        figure: |row| row.loss,
        show: number::value,
    },
    Column {
        title: "Accuracy",
        about: "Share of right answers on the same part",
        figure: |row| row.accuracy,
        show: two_decimals,
    },
    Column {
        title: "Training time",
        about: "Seconds in steps; measuring on held-out data is left out",
        figure: |row| row.seconds,
        show: number::seconds,
    },
    Column {
        title: "Cost",
        about: "Passes as a share of the recipe's steps, all full: forward a third, backward two thirds",
        figure: |row| row.cost,
        show: number::percent,
    },
    Column {
        title: "Example-backwards",
        about: "Examples that got a backward pass, as a share of those of the recipe's steps, all full",
        figure: |row| row.backwards,
        show: number::percent,
    },
];

fn two_decimals(share: f64) -> String {
    format!("{:.2}%", 100.0 * share)
}

/// Shows a line for each contender.
pub(super) fn table_ui(shown: &ShownReport, ui: &mut Ui) {
    let p = palette(ui);
    egui::ScrollArea::horizontal().id_salt("contenders").show(ui, |ui| {
        egui::Grid::new("contenders").num_columns(COLUMNS.len() + 2).spacing([space::LG, space::XS]).show(ui, |ui| {
            let head = |text: &str| RichText::new(text).size(font::SMALL).color(p.text_weak);
            ui.label(head("Contender"));
            for column in &COLUMNS {
                ui.label(head(column.title)).on_hover_text(column.about);
            }
            ui.label(head("Divergences"));
            ui.end_row();
            for (index, row) in shown.rows.iter().enumerate() {
                ui.horizontal(|ui| {
                    swatch_ui(ui, p.series[index % p.series.len()]);
                    ui.label(RichText::new(&row.name).color(p.text_strong)).on_hover_text(&row.what);
                });
                for column in &COLUMNS {
                    ui.label(in_words((column.figure)(row), column.show));
                }
                ui.label(number::count(row.num_divergences as u64));
                ui.end_row();
            }
        });
    });
    let seeds = match shown.num_seeds {
        1 => "One seed.".to_owned(),
        count => format!("Means over {count} seeds, with the 95% interval of the mean."),
    };
    hint_ui(
        ui,
        &format!("{seeds} Times were taken in one process in which contenders take turns. — was not measured."),
    );
}

/// Shows figures as they are.
pub(super) fn figures_ui(table: &FigureTable, ui: &mut Ui) {
    let p = palette(ui);
    egui::ScrollArea::horizontal().id_salt("settings").show(ui, |ui| {
        egui::Grid::new("settings").num_columns(table.head.len()).spacing([space::LG, space::XS]).show(ui, |ui| {
            for name in &table.head {
                ui.label(RichText::new(*name).size(font::SMALL).color(p.text_weak));
            }
            ui.end_row();
            for line in &table.lines {
                for cell in line {
                    ui.label(cell);
                }
                ui.end_row();
            }
        });
    });
    if table.lines.iter().flatten().any(|cell| cell == "—") {
        hint_ui(ui, "— could not be measured: there was no step of that kind to measure it by.");
    }
}

/// Shows loss, time and cost as bars, as many side by side as fit.
pub(super) fn bars_ui(shown: &ShownReport, ui: &mut Ui) {
    let [loss, _, seconds, cost, _] = &COLUMNS;
    let cards = [loss, seconds, cost];
    for cards in cards.chunks(num_columns(ui, BARS, cards.len())) {
        ui.columns(cards.len(), |cells| {
            for (cell, column) in cells.iter_mut().zip(cards) {
                card_ui(cell, column.title, |ui| column_ui(shown, column, ui)).on_hover_text(column.about);
            }
        });
    }
}

fn column_ui(shown: &ShownReport, column: &Column, ui: &mut Ui) -> egui::Response {
    let p = palette(ui);
    let mean = |row: &ContenderRow| (column.figure)(row).map(|figure| figure.mean);
    let most = shown.rows.iter().filter_map(mean).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    ui.scope(|ui| {
        for (index, row) in shown.rows.iter().enumerate() {
            let value = mean(row).map_or_else(|| "—".to_owned(), column.show);
            let bar = BarRow {
                name: &row.name,
                name_width: NAMES,
                about: &format!("{} of {}", column.title, row.name),
                share: (mean(row).unwrap_or(0.0) / most) as f32,
                color: p.series[index % p.series.len()],
                value: &value,
                value_width: VALUES,
            };
            bar_row_ui(ui, bar);
        }
    })
    .response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_their_interval_where_there_is_one() {
        let one = Estimate { mean: 0.5, std: None, interval: None, count: 1 };
        assert_eq!(in_words(Some(one), number::percent), "50.0%");
        let three = Estimate { interval: Some((0.4, 0.6)), count: 3, ..one };
        assert_eq!(in_words(Some(three), number::percent), "50.0% (40.0% to 60.0%)");
        assert_eq!(in_words(None, number::percent), "—");
    }
}
