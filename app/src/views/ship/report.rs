//! Packages that were written, verified and run.

use egui::{RichText, Ui};
use foretrain_engine::session::ExportReport;

use super::costs::metric_text;
use crate::open_folder::{Opening, open_folder};
use crate::state::{Screen, ShipLive, TrySaved, TrySource};
use crate::theme::{font, palette, space};
use crate::views::{Action, ViewCtx};
use crate::widgets::{
    Icon, Severity, copy_button_ui, hint_ui, icon_button_ui, icon_text_button_ui, notice_ui, num_columns, number,
    number_cell_ui, stat_ui,
};

/// Least width of a figure.
const FIGURE_WIDTH: f32 = 150.0;

/// Shows the last package, a table of all where there are several, and what kept others from being made.
pub(super) fn packages_ui(ctx: &ViewCtx<'_>, trial: &mut TrySaved, live: &mut ShipLive, ui: &mut Ui) {
    for (target, why) in &live.failures {
        notice_ui(ui, Severity::Error, &format!("{target}: {why}"), |_| {});
    }
    if !live.cancelled.is_empty() {
        let names = live.cancelled.join(", ");
        notice_ui(ui, Severity::Warning, &format!("Cancelled, and not exported: {names}"), |_| {});
    }
    if live.packages.len() > 1 {
        table_ui(live, ui);
        ui.add_space(space::SM);
    }
    let ShipLive { packages, opened_folder, .. } = live;
    if let Some(last) = packages.last() {
        report_ui(ctx, trial, last, opened_folder, ui);
    }
}

/// A line for each package.
fn table_ui(live: &mut ShipLive, ui: &mut Ui) {
    let p = palette(ui);
    let ShipLive { packages, opened_folder, .. } = live;
    egui::ScrollArea::horizontal().id_salt("packages").show(ui, |ui| {
        egui::Grid::new("packages").num_columns(6).spacing([space::LG, space::XS]).show(ui, |ui| {
            let title = |text: &str| RichText::new(text).size(font::SMALL).color(p.text_weak);
            for text in ["Target", "Precision"] {
                ui.label(title(text));
            }
            for text in ["In this package", "Size", "Pace here"] {
                number_cell_ui(ui, title(text));
            }
            ui.end_row();
            for package in packages.iter() {
                ui.label(RichText::new(&package.target).color(p.text_strong));
                ui.label(package.quality.scheme.label());
                number_cell_ui(ui, metric_text(&package.quality.metric, measured(package)));
                number_cell_ui(ui, number::bytes(package.files.iter().map(|(_, bytes)| bytes).sum()));
                number_cell_ui(
                    ui,
                    package.edge.map_or_else(String::new, |edge| number::milliseconds(edge.ms_per_example)),
                );
                ui.horizontal(|ui| {
                    let of = &package.target;
                    if icon_button_ui(ui, Icon::Folder, &format!("Open the folder of {of}")).clicked() {
                        *opened_folder = Some(open_folder(ui.ctx(), &package.package));
                    }
                    copy_button_ui(ui, &format!("Copy the command for {of}"), &package.run_command);
                });
                ui.end_row();
            }
        });
    });
}

fn report_ui(
    ctx: &ViewCtx<'_>,
    trial: &mut TrySaved,
    report: &ExportReport,
    opened_folder: &mut Option<Opening>,
    ui: &mut Ui,
) {
    let done = match report.edge {
        Some(_) => "Written, read back, compared, and run by foretrain-edge.",
        None => "Written, read back and compared; its graph was computed and measured.",
    };
    notice_ui(ui, Severity::Good, done, |_| {});
    copied_ui(ui, "the package's folder", &report.package.display().to_string());
    ui.horizontal(|ui| {
        // The trial runs packages by foretrain-edge.
        if report.edge.is_some() && icon_text_button_ui(ui, Icon::Play, "Try this package").clicked() {
            trial.source = TrySource::Package;
            trial.package = report.package.display().to_string();
            ctx.act(Action::Show(Screen::Try));
        }
        if icon_text_button_ui(ui, Icon::Folder, "Open folder").clicked() {
            *opened_folder = Some(open_folder(ui.ctx(), &report.package));
        }
    });
    if let Some(why) = opened_folder.as_ref().and_then(|opening| opening.failure().map(str::to_owned))
        && notice_ui(ui, Severity::Warning, &why, |ui| ui.small_button("Dismiss").clicked())
    {
        *opened_folder = None;
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

/// The metric of a package: as foretrain-edge runs it, or as the graph of an ONNX file answers.
fn measured(report: &ExportReport) -> f64 {
    report.edge.map_or(report.quality.after, |edge| edge.metric)
}

/// Quality, pace and size.
fn figures_ui(report: &ExportReport, ui: &mut Ui) {
    let p = palette(ui);
    let quality = &report.quality;
    let total: u64 = report.files.iter().map(|(_, bytes)| bytes).sum();
    let (unit, of) = if quality.metric == "accuracy" { ("accuracy", "an image") } else { ("nats a token", "a token") };
    let of_package = match &report.edge {
        Some(edge) => format!("{unit} by foretrain-edge, on {}", number::count(edge.num_examples)),
        None => format!("{unit} by its graph, on {}", number::count(quality.num_examples)),
    };
    let mut figures = vec![
        ("As trained", metric_text(&quality.metric, quality.before), format!("{unit}, f32")),
        ("In this package", metric_text(&quality.metric, measured(report)), of_package),
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
    // A column more than there are: the last one of a grid has no right side.
    egui::Grid::new("package-files").num_columns(3).spacing([space::LG, 2.0]).show(ui, |ui| {
        for (name, bytes) in &report.files {
            ui.label(RichText::new(name).monospace().size(font::SMALL).color(p.text));
            number_cell_ui(ui, RichText::new(number::bytes(*bytes)).size(font::SMALL).color(p.text_weak));
            ui.end_row();
        }
    });
}

/// A line to copy.
fn copied_ui(ui: &mut Ui, what: &str, text: &str) {
    let p = palette(ui);
    egui::Frame::new().fill(p.inset).corner_radius(6).inner_margin(6).show(ui, |ui| {
        ui.horizontal(|ui| {
            copy_button_ui(ui, &format!("Copy {what}"), text);
            ui.add(egui::Label::new(RichText::new(text).monospace().color(p.text)).wrap());
        });
    });
}
