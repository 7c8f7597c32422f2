//! The runs to choose from.

use std::path::PathBuf;
use std::sync::Arc;

use egui::text::LayoutJob;
use egui::{Color32, Galley, Response, Sense, Stroke, Ui, WidgetInfo, vec2};
use foretrain_engine::session::RunSummary;

use super::figures::shipped_scheme;
use crate::state::{CompareSaved, Live};
use crate::theme::{Palette, font, palette, radius, space};
use crate::views::{RunIdentity, ViewCtx, job_ui, run_state};
use crate::widgets::{Icon, Severity, hint_ui, icon_button_ui, notice_ui, number};

/// Height of a run's row without the lines that say where it comes from.
const ROW: f32 = 66.0;
/// Most of these lines.
const ORIGIN_LINES: usize = 3;
/// Where the texts of a row begin and end, from its sides.
const TEXT_LEFT: f32 = 30.0;
const TEXT_RIGHT: f32 = 10.0;

/// The color of a run: by its place among those chosen.
pub(super) fn color_of(p: &Palette, saved: &CompareSaved, folder: &PathBuf) -> Option<Color32> {
    let index = saved.runs.iter().position(|chosen| chosen == folder)?;
    p.series.get(index % p.series.len()).copied()
}

/// Shows all runs of the folder.
pub(super) fn list_ui(ctx: &ViewCtx<'_>, saved: &mut CompareSaved, live: &mut Live, ui: &mut Ui) {
    ui.horizontal(|ui| {
        ui.heading("Runs");
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            if icon_button_ui(ui, Icon::Refresh, "Read the runs again").clicked() {
                live.runs_seen = None;
                live.compare.opened.clear();
            }
            if !saved.runs.is_empty() && ui.button("Choose none").clicked() {
                saved.runs.clear();
            }
        });
    });
    hint_ui(ui, &ctx.settings.runs_folder_path().display().to_string());
    // Reading them again while they are shown need not move what is below.
    if live.runs.answer().is_none() || live.runs.failure().is_some() {
        job_ui(ctx, "Reading the runs", &mut live.runs, ui);
    }
    let runs = live.runs.answer().map_or(&[][..], Vec::as_slice);
    if runs.is_empty() && !live.runs.is_waiting() {
        notice_ui(
            ui,
            Severity::Info,
            "No run here yet. Train one on the Run screen, or choose another folder in Settings.",
            |_| {},
        );
    }
    for run in runs {
        if let Some(problem) = &run.problem {
            unreadable_ui(run, problem, ui);
            continue;
        }
        let color = color_of(palette(ui), saved, &run.folder);
        if run_row_ui(run, live, color, ui).clicked() && !saved.runs.remove(&run.folder) {
            saved.runs.insert(run.folder.clone());
        }
    }
}

/// What a row shows.
struct Row<'a> {
    name: &'a str,
    state: (&'static str, Color32),
    about: String,
    figures: String,
    /// Of the name, and of the figures.
    inks: (Color32, Color32),
}

/// A run to choose: what it is and what it came to, its color when chosen.
fn run_row_ui(run: &RunSummary, live: &Live, color: Option<Color32>, ui: &mut Ui) -> Response {
    let p = palette(ui);
    let origin = origin_of(run, live);
    let lines = origin_lines(ui, p, &origin);
    let height = if origin.is_empty() { ROW } else { ROW + lines.size().y + 4.0 };
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), height), Sense::click());
    let is_on = color.is_some();
    let name = live.label_of(run);
    response
        .widget_info(|| WidgetInfo::selected(egui::accesskit::Role::CheckBox, true, is_on, format!("Compare {name}")));
    if !ui.is_rect_visible(rect) {
        return response;
    }
    let fill = if is_on || response.hovered() { p.card } else { p.panel };
    let border = match (response.has_focus(), color) {
        (true, _) => p.accent,
        (false, Some(color)) => color,
        (false, None) => p.border,
    };
    let painter = ui.painter().with_clip_rect(rect.intersect(ui.clip_rect()));
    painter.rect(rect, f32::from(radius::CARD), fill, Stroke::new(1.0, border), egui::StrokeKind::Inside);
    let dot = rect.left_top() + vec2(16.0, 17.0);
    match color {
        Some(color) => painter.circle_filled(dot, 5.5, color),
        None => painter.circle_stroke(dot, 5.0, Stroke::new(1.2, p.text_weak)),
    };
    let about = format!("{} · {} · {}", run.dataset, run.model, run.tier);
    let inks = (p.text_strong, p.text);
    let figures = figures_of(run);
    let hover = format!("{name}\n{origin}\n\n{}", run.folder.display());
    let row = Row { name: &run.name, state: run_state(run, p), about, figures, inks };
    paint_row(&painter, p, rect, &row);
    painter.galley(rect.left_top() + vec2(TEXT_LEFT, 62.0), lines, p.text_weak);
    response.on_hover_text(hover)
}

/// A run that cannot be chosen, and why.
fn unreadable_ui(run: &RunSummary, problem: &str, ui: &mut Ui) {
    let p = palette(ui);
    let folder = run.folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let name = if run.name.is_empty() { folder.as_str() } else { run.name.as_str() };
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), ROW), Sense::hover());
    response.widget_info(|| {
        WidgetInfo::labeled(egui::accesskit::Role::Label, false, format!("Cannot compare {name}: {problem}"))
    });
    if ui.is_rect_visible(rect) {
        let painter = ui.painter().with_clip_rect(rect.intersect(ui.clip_rect()));
        let border = Stroke::new(1.0, p.border);
        painter.rect(rect, f32::from(radius::CARD), p.panel, border, egui::StrokeKind::Inside);
        let about = problem.lines().next().unwrap_or_default().to_owned();
        let inks = (p.text_weak, p.text_weak);
        paint_row(&painter, p, rect, &Row { name, state: run_state(run, p), about, figures: String::new(), inks });
    }
    response.on_hover_text(format!("{problem}\n\n{}", run.folder.display()));
}

/// Step, loss and accuracy, as far as there are such, and what the weights are quantized to that these are of.
fn figures_of(run: &RunSummary) -> String {
    let mut figures = format!("step {} of {}", number::count(run.step), number::count(run.num_steps));
    if let Some(loss) = run.validation_loss {
        figures += &format!(" · loss {}", number::value(loss));
    }
    if let Some(accuracy) = run.validation_accuracy {
        figures += &format!(" · {:.2}%", accuracy * 100.0);
    }
    if let Some(scheme) = run.last_validation.as_ref().and_then(shipped_scheme) {
        figures += &format!(" · {}", scheme.label());
    }
    figures
}

/// When it began, and in what its recipe differs from those of the same name.
fn origin_of(run: &RunSummary, live: &Live) -> String {
    let started = RunIdentity::of_summary(run).started(&live.machine.zone);
    let differences = live.run_labels.get(&run.folder).map_or(&[][..], |label| &label.differences);
    let parts = std::iter::once(started).filter(|started| !started.is_empty()).chain(differences.iter().cloned());
    parts.collect::<Vec<_>>().join(" · ")
}

/// The same in as many lines as it takes; what is beyond the last is in the tooltip.
fn origin_lines(ui: &Ui, p: &Palette, origin: &str) -> Arc<Galley> {
    let width = ui.available_width() - TEXT_LEFT - TEXT_RIGHT;
    let font = egui::FontId::proportional(font::SMALL);
    let mut job = LayoutJob::simple(origin.to_owned(), font, p.text_weak, width.max(40.0));
    job.wrap.max_rows = ORIGIN_LINES;
    ui.painter().layout_job(job)
}

fn paint_row(painter: &egui::Painter, p: &Palette, rect: egui::Rect, row: &Row<'_>) {
    let small = egui::FontId::proportional(font::SMALL);
    let (state, state_color) = row.state;
    let corner = rect.right_top() + vec2(-10.0, 10.0);
    let state = painter.text(corner, egui::Align2::RIGHT_TOP, state, small.clone(), state_color);
    let names = painter.with_clip_rect(rect.with_max_x(state.left() - space::XS).intersect(painter.clip_rect()));
    let at = |y: f32| rect.left_top() + vec2(TEXT_LEFT, y);
    let (name_ink, figures_ink) = row.inks;
    names.text(at(8.0), egui::Align2::LEFT_TOP, row.name, egui::FontId::proportional(font::BODY), name_ink);
    painter.text(at(28.0), egui::Align2::LEFT_TOP, &row.about, small.clone(), p.text_weak);
    painter.text(at(45.0), egui::Align2::LEFT_TOP, &row.figures, small, figures_ink);
}
