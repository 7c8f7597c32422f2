//! A report: what it says, figures, curves, and under which conditions they were measured.

use egui::{Label, RichText, Ui};

use super::curves::curves_ui;
use super::table::{bars_ui, figures_ui, table_ui};
use crate::open_folder::open_folder;
use crate::plots::{ContenderRow, ShownReport};
use crate::state::{ExperimentsLive, Saved};
use crate::theme::{font, palette, space};
use crate::widgets::{Icon, Severity, card_ui, expander_ui, hint_ui, icon_text_button_ui, notice_ui, number};

/// Shows it.
pub(super) fn report_ui(shown: &ShownReport, saved: &mut Saved, live: &mut ExperimentsLive, ui: &mut Ui) {
    let p = palette(ui);
    ui.add(Label::new(RichText::new(&shown.title).size(font::HEADING).color(p.text_strong)).wrap());
    buttons_ui(shown, live, ui);
    card_ui(ui, "What it says", |ui| verdict_ui(shown, ui));
    if !shown.rows.is_empty() {
        card_ui(ui, "Contenders", |ui| table_ui(shown, ui));
    }
    if let Some(table) = &shown.table {
        card_ui(ui, table.title, |ui| figures_ui(table, ui));
    }
    if shown.curves.is_empty() {
        hint_ui(ui, "Its figures and charts are in README.md in the report's folder.");
    } else {
        curves_ui(&shown.folder.display().to_string(), &shown.curves, &mut saved.experiments, live, ui);
        hint_ui(ui, "Curves of the first seed.");
    }
    if !shown.rows.is_empty() {
        bars_ui(shown, ui);
    }
    card_ui(ui, "", |ui| {
        if !shown.rows.is_empty() {
            expander_ui(ui, "How each contender was tuned", |ui| tuning_ui(shown, ui));
        }
        expander_ui(ui, "Conditions, and the command that measures it again", |ui| conditions_ui(shown, ui));
    });
}

fn buttons_ui(shown: &ShownReport, live: &mut ExperimentsLive, ui: &mut Ui) {
    ui.horizontal_wrapped(|ui| {
        let folder = shown.folder.display().to_string();
        if icon_text_button_ui(ui, Icon::Folder, "Open folder").on_hover_text(&folder).clicked() {
            live.opened_folder = Some(open_folder(ui.ctx(), &shown.folder));
        }
        if icon_text_button_ui(ui, Icon::Copy, "Copy command").on_hover_text(&shown.command).clicked() {
            ui.ctx().copy_text(shown.command.clone());
        }
        if icon_text_button_ui(ui, Icon::Copy, "Copy path").on_hover_text(&folder).clicked() {
            ui.ctx().copy_text(folder);
        }
    });
    let failure = live.opened_folder.as_ref().filter(|opening| opening.folder == shown.folder);
    if let Some(why) = failure.and_then(|opening| opening.failure().map(str::to_owned))
        && notice_ui(ui, Severity::Warning, &why, |ui| ui.small_button("Dismiss").clicked())
    {
        live.opened_folder = None;
    }
}

fn verdict_ui(shown: &ShownReport, ui: &mut Ui) {
    let p = palette(ui);
    for sentence in &shown.verdict {
        ui.add(Label::new(RichText::new(sentence).color(p.text_strong)).wrap());
    }
    if shown.rows.first().is_some_and(ContenderRow::predicted_nothing) {
        ui.add_space(space::XS);
        let message = "Nothing was predicted: the hybrid's gate stayed shut, so that it did what vanilla does. What its time \
                       differs by is the machine's.";
        notice_ui(ui, Severity::Info, message, |_| {});
    }
    if shown.num_seeds == 1 {
        ui.add_space(space::XS);
        let message = "One seed has no interval: differences may be chance. Take three seeds or more before you rely \
                       on them.";
        notice_ui(ui, Severity::Warning, message, |_| {});
    }
}

fn tuning_ui(shown: &ShownReport, ui: &mut Ui) {
    let p = palette(ui);
    hint_ui(
        ui,
        "Each contender got the best of its grid by validation loss, with a seed that the comparison does not use.",
    );
    for row in &shown.rows {
        ui.add_space(space::XS);
        ui.label(RichText::new(&row.name).strong().color(p.text_strong));
        for (index, (setting, loss)) in row.tuning.tried.iter().enumerate() {
            let is_best = index == row.tuning.best;
            let loss = loss.map_or_else(|| "diverged".to_owned(), number::value);
            let taken = if is_best { "; taken" } else { "" };
            let color = if is_best { p.text_strong } else { p.text_weak };
            let line = format!("{setting}: {loss}{taken}");
            ui.add(Label::new(RichText::new(line).size(font::SMALL + 0.5).color(color)).wrap());
        }
        if row.tuning.is_at_edge {
            hint_ui(ui, "The best rate is at the end of the grid: a wider one might find a better one.");
        }
    }
}

fn conditions_ui(shown: &ShownReport, ui: &mut Ui) {
    let p = palette(ui);
    for (name, text) in &shown.conditions {
        ui.horizontal_wrapped(|ui| {
            ui.label(RichText::new(*name).size(font::SMALL + 0.5).color(p.text_weak));
            ui.label(RichText::new(text).size(font::SMALL + 0.5));
        });
    }
    ui.add(Label::new(RichText::new(&shown.command).monospace().size(font::SMALL)).wrap());
}
