//! A package that was written, verified and run.

use egui::{RichText, Ui};
use foretrain_engine::session::ExportReport;

use super::measure::metric_text;
use crate::state::{Screen, TrySaved, TrySource};
use crate::theme::{font, palette, space};
use crate::views::{Action, ViewCtx};
use crate::widgets::{
    Icon, Severity, hint_ui, icon_button_ui, icon_text_button_ui, notice_ui, num_columns, number, stat_ui,
};

/// Least width of a figure.
const FIGURE_WIDTH: f32 = 150.0;

/// Shows it.
pub(super) fn report_ui(ctx: &ViewCtx<'_>, trial: &mut TrySaved, report: &ExportReport, ui: &mut Ui) {
    let done = match report.edge {
        Some(_) => "Written, read back, compared, and run by foretrain-edge.",
        None => "Written, read back and compared; its graph was computed and measured.",
    };
    notice_ui(ui, Severity::Good, done, |_| {});
    copied_ui(ui, "the package's folder", &report.package.display().to_string());
    // The trial runs packages by foretrain-edge.
    if report.edge.is_some() && icon_text_button_ui(ui, Icon::Play, "Try this package").clicked() {
        trial.source = TrySource::Package;
        trial.package = report.package.display().to_string();
        ctx.act(Action::Show(Screen::Try));
    }
    figures_ui(report, ui);
    ui.add_space(space::XS);
    files_ui(report, ui);
    hint_ui(ui, "Run it with");
    copied_ui(ui, "the command", &report.run_command);
    for note in report.notes.iter().chain(report.quality.notes.iter().filter(|note| !report.notes.contains(note))) {
        hint_ui(ui, note);
    }
}

/// Quality, pace and size.
fn figures_ui(report: &ExportReport, ui: &mut Ui) {
    let p = palette(ui);
    let quality = &report.quality;
    let total: u64 = report.files.iter().map(|(_, bytes)| bytes).sum();
    let (unit, of) = if quality.metric == "accuracy" { ("accuracy", "an image") } else { ("nats a token", "a token") };
    let (metric, measured) = match &report.edge {
        Some(edge) => (edge.metric, format!("{unit} by foretrain-edge, on {}", number::count(edge.num_examples))),
        None => (quality.after, format!("{unit} by its graph, on {}", number::count(quality.num_examples))),
    };
    let mut figures = vec![
        ("As trained", metric_text(&quality.metric, quality.before), format!("{unit}, f32")),
        ("In this package", metric_text(&quality.metric, metric), measured),
    ];
    if let Some(edge) = &report.edge {
        figures.push(("Pace here", number::milliseconds(edge.ms_per_example), format!("{of}, on this CPU")));
    }
    figures.push(("Size", number::bytes(total), format!("{} files", report.files.len())));
    let columns = num_columns(ui, FIGURE_WIDTH, figures.len());
    for row in figures.chunks(columns) {
        ui.columns(columns, |cells| {
            for (cell, (name, value, below)) in cells.iter_mut().zip(row) {
                stat_ui(cell, name, value, p.text_strong, below);
            }
        });
    }
}

fn files_ui(report: &ExportReport, ui: &mut Ui) {
    let p = palette(ui);
    egui::Grid::new("package-files").num_columns(2).spacing([space::LG, 2.0]).show(ui, |ui| {
        for (name, bytes) in &report.files {
            ui.label(RichText::new(name).monospace().size(font::SMALL).color(p.text));
            ui.label(RichText::new(number::bytes(*bytes)).size(font::SMALL).color(p.text_weak));
            ui.end_row();
        }
    });
}

/// A line to copy.
fn copied_ui(ui: &mut Ui, what: &str, text: &str) {
    let p = palette(ui);
    egui::Frame::new().fill(p.inset).corner_radius(6).inner_margin(6).show(ui, |ui| {
        ui.horizontal(|ui| {
            if icon_button_ui(ui, Icon::Copy, &format!("Copy {what}")).clicked() {
                ui.ctx().copy_text(text.to_owned());
            }
            ui.add(egui::Label::new(RichText::new(text).monospace().color(p.text)).wrap());
        });
    });
}
