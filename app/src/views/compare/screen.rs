//! Lays out the comparison.

use std::path::PathBuf;
use std::sync::Arc;

use egui::{Color32, Id, RichText, Sense, Stroke, Ui, WidgetInfo, vec2};
use foretrain_engine::session::{Command, LoadedRun, RunSummary};

use super::figures::{curves_csv, figures_csv};
use super::table::table_ui;
use crate::plots::{CompareSeries, Curve, CurveStyle, PlotView, Readout, export_table, plot_card_ui};
use crate::state::{CompareAxis, CompareLive, CompareSaved, Live, OpenedRun, Saved};
use crate::theme::{Palette, font, palette, radius, space};
use crate::views::{ViewCtx, empty_ui, job_ui, keep_runs_fresh, panes_ui, run_state};
use crate::widgets::{Icon, Severity, card_ui, hint_ui, icon_button_ui, icon_text_button_ui, notice_ui, number};

/// A run read back, with its color and curves.
struct Shown<'a> {
    run: Arc<LoadedRun>,
    color: Color32,
    series: &'a CompareSeries,
}

/// Shows the screen.
pub fn compare_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut Live, ui: &mut Ui) {
    keep_runs_fresh(ctx, live);
    open_chosen(ctx, saved, live);
    panes_ui(
        ui,
        "compare",
        &mut (saved, live),
        |(saved, live), ui| list_ui(ctx, &mut saved.compare, live, ui),
        |(saved, live), ui| comparison_ui(ctx, saved, &mut live.compare, ui),
    );
}

/// Asks for the runs chosen and not read yet, and lets go of the others.
fn open_chosen(ctx: &ViewCtx<'_>, saved: &Saved, live: &mut Live) {
    let Some(runs) = live.runs.answer() else { return };
    let opened = &mut live.compare.opened;
    opened.retain(|folder, _| saved.compare.runs.contains(folder));
    // Only runs of this folder: others may be gone.
    for run in runs.iter().filter(|run| saved.compare.runs.contains(&run.folder)) {
        let entry = opened.entry(run.folder.clone()).or_default();
        let loaded = &mut entry.loaded;
        if loaded.answer().is_none() && loaded.failure().is_none() && !loaded.is_waiting() {
            loaded.ask(ctx, |job| Command::OpenRun(job, run.folder.clone()));
        }
    }
    for OpenedRun { loaded, series } in opened.values_mut() {
        let Some(run) = loaded.answer() else { continue };
        let (axis, smoothing) = (saved.compare.axis, saved.plots.smoothing);
        let is_current = series.as_ref().is_some_and(|(a, s, _)| *a == axis && s.to_bits() == smoothing.to_bits());
        if !is_current {
            *series = Some((axis, smoothing, CompareSeries::of(&run.history, &run.validations, axis, smoothing)));
        }
    }
}

/// The color of a run: by its place among those chosen.
fn color_of(p: &Palette, saved: &CompareSaved, folder: &PathBuf) -> Option<Color32> {
    let index = saved.runs.iter().position(|chosen| chosen == folder)?;
    p.series.get(index % p.series.len()).copied()
}

fn list_ui(ctx: &ViewCtx<'_>, saved: &mut CompareSaved, live: &mut Live, ui: &mut Ui) {
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
        let color = color_of(palette(ui), saved, &run.folder);
        if run_row_ui(run, color, ui).clicked() && !saved.runs.remove(&run.folder) {
            saved.runs.insert(run.folder.clone());
        }
    }
}

/// A run to choose: its figures in three lines, its color when chosen.
fn run_row_ui(run: &RunSummary, color: Option<Color32>, ui: &mut Ui) -> egui::Response {
    let p = palette(ui);
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), 66.0), Sense::click());
    let is_on = color.is_some();
    response.widget_info(|| {
        WidgetInfo::selected(egui::accesskit::Role::CheckBox, true, is_on, format!("Compare {}", run.name))
    });
    if !ui.is_rect_visible(rect) {
        return response;
    }
    let fill = if is_on || response.hovered() { p.card } else { p.panel };
    let border = match (response.has_focus(), color) {
        (true, _) => p.accent,
        (false, Some(color)) => color,
        (false, None) => p.border,
    };
    let painter = ui.painter().with_clip_rect(rect);
    painter.rect(rect, f32::from(radius::CARD), fill, Stroke::new(1.0, border), egui::StrokeKind::Inside);
    let dot = rect.left_top() + vec2(16.0, 17.0);
    match color {
        Some(color) => painter.circle_filled(dot, 5.5, color),
        None => painter.circle_stroke(dot, 5.0, Stroke::new(1.2, p.text_weak)),
    };
    let (state, state_color) = run_state(run, p);
    let small = egui::FontId::proportional(font::SMALL);
    let state =
        painter.text(rect.right_top() + vec2(-10.0, 10.0), egui::Align2::RIGHT_TOP, state, small.clone(), state_color);
    let mut names = painter.clone();
    names.set_clip_rect(rect.with_max_x(state.left() - space::XS));
    let at = |y: f32| rect.left_top() + vec2(30.0, y);
    let body = egui::FontId::proportional(font::BODY);
    names.text(at(8.0), egui::Align2::LEFT_TOP, &run.name, body, p.text_strong);
    let about = format!("{} · {} · {}", run.dataset, run.model, run.tier);
    painter.text(at(28.0), egui::Align2::LEFT_TOP, about, small.clone(), p.text_weak);
    let mut figures = format!("step {} of {}", number::count(run.step), number::count(run.num_steps));
    if let Some(loss) = run.validation_loss {
        figures += &format!(" · loss {}", number::value(loss));
    }
    if let Some(accuracy) = run.validation_accuracy {
        figures += &format!(" · {:.2}%", accuracy * 100.0);
    }
    painter.text(at(45.0), egui::Align2::LEFT_TOP, figures, small, p.text);
    response.on_hover_text(run.folder.display().to_string())
}

fn comparison_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut CompareLive, ui: &mut Ui) {
    let p = palette(ui);
    if live.opened.is_empty() {
        empty_ui(
            ui,
            "Nothing chosen",
            "Choose runs at the left: their curves are laid over each other, their figures side by side.",
        );
        return;
    }
    for (folder, run) in &mut live.opened {
        let name = folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        job_ui(ctx, &format!("Reading {name}"), &mut run.loaded, ui);
    }
    toolbar_ui(ctx, saved, live, ui);
    let shown: Vec<Shown<'_>> = live
        .opened
        .iter()
        .filter_map(|(folder, opened)| {
            let color = color_of(p, &saved.compare, folder)?;
            let series = opened.series.as_ref().map(|(_, _, series)| series)?;
            Some(Shown { run: opened.loaded.answer()?.clone(), color, series })
        })
        .collect();
    if shown.is_empty() {
        return;
    }
    card_ui(ui, "Final figures", |ui| {
        let rows: Vec<_> = shown.iter().map(|shown| (Arc::clone(&shown.run), shown.color)).collect();
        table_ui(&rows, ui);
        hint_ui(
            ui,
            "Loss and accuracy are those of the last validation. Time saved is against the vanilla steps measured at each run's start; — was not measured.",
        );
    });
    let axis = saved.compare.axis;
    let x_end =
        shown.iter().filter_map(|shown| shown.series.loss.last()).fold(1.0, |end: f64, (x, _)| end.max(x)) * 1.02;
    let view = PlotView {
        link: Id::unique(("compare-plots", axis == CompareAxis::Steps)),
        x_name: if axis == CompareAxis::Steps { "steps" } else { "seconds" },
        x_end,
        cursor: live.cursor,
        reset: std::mem::take(&mut live.reset_plots),
    };
    let is_log = saved.plots.is_log;
    let plots = [
        Overlay {
            title: "Training loss",
            unit: "nats, smoothed",
            about: "Loss of each batch before its update, smoothed.",
            height: 230.0,
            is_log,
            style: CurveStyle::Solid,
            series: |series| &series.loss,
        },
        Overlay {
            title: "Validation loss",
            unit: "nats",
            about: "Loss on the validation part.",
            height: 200.0,
            is_log,
            style: CurveStyle::Solid,
            series: |series| &series.validation_loss,
        },
        Overlay {
            title: "Validation accuracy",
            unit: "share",
            about: "Share of right answers on the validation part.",
            height: 180.0,
            is_log: false,
            style: CurveStyle::Solid,
            series: |series| &series.validation_accuracy,
        },
        Overlay {
            title: "Throughput",
            unit: "examples or tokens a second, smoothed",
            about: "Pace of the steps, batch preparation included.",
            height: 160.0,
            is_log: false,
            style: CurveStyle::Solid,
            series: |series| &series.throughput,
        },
    ];
    let hovered = plots.iter().filter_map(|plot| plot.show(view, &shown, ui)).reduce(|first, _| first);
    if hovered != live.cursor {
        live.cursor = hovered;
        ui.ctx().request_repaint();
    }
}

/// One plot with a curve per run.
struct Overlay {
    title: &'static str,
    unit: &'static str,
    about: &'static str,
    height: f32,
    is_log: bool,
    style: CurveStyle,
    series: fn(&CompareSeries) -> &crate::plots::Series,
}

impl Overlay {
    /// Shows it, unless no run has such values. Returns x under the pointer.
    fn show(&self, view: PlotView, shown: &[Shown<'_>], ui: &mut Ui) -> Option<f64> {
        let curves: Vec<Curve<'_>> = shown
            .iter()
            .filter(|shown| !(self.series)(shown.series).is_empty())
            .map(|shown| {
                let curve = Curve::new(&shown.run.config.name, shown.color, self.style, (self.series)(shown.series));
                // Runs have their values at different x.
                Curve { reach: f64::INFINITY, ..curve }
            })
            .collect();
        if curves.is_empty() {
            return None;
        }
        let Self { title, unit, about, height, is_log, .. } = *self;
        plot_card_ui(ui, view, Readout { title, unit, about, limit: None, is_log, height }, &curves, |_| {}).hovered
    }
}

fn toolbar_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut CompareLive, ui: &mut Ui) {
    let p = palette(ui);
    let runs: Vec<Arc<LoadedRun>> = live.opened.values().filter_map(|run| run.loaded.answer().cloned()).collect();
    ui.horizontal(|ui| {
        let label = ui.label(RichText::new("Over").color(p.text_weak));
        for (axis, text) in [(CompareAxis::Steps, "Steps"), (CompareAxis::Seconds, "Seconds in steps")] {
            ui.selectable_value(&mut saved.compare.axis, axis, text).labelled_by(label.id);
        }
        ui.add_space(space::SM);
        ui.checkbox(&mut saved.plots.is_log, "Log scale").on_hover_text("Losses on a logarithmic axis");
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            if icon_button_ui(ui, Icon::Reset, "Show everything again").clicked() {
                live.reset_plots = true;
            }
            let folder = ctx.settings.runs_folder_path();
            if icon_text_button_ui(ui, Icon::Table, "Curves as CSV").clicked() {
                let runs = runs.clone();
                live.export = Some(export_table(ui.ctx(), &folder, "comparison-curves", move || curves_csv(&runs)));
            }
            if icon_text_button_ui(ui, Icon::Table, "Figures as CSV").clicked() {
                live.export = Some(export_table(ui.ctx(), &folder, "comparison", move || figures_csv(&runs)));
            }
        });
    });
    match live.export.as_ref().and_then(|slot| slot.result()) {
        Some(Ok(path)) => notice_ui(ui, Severity::Good, &format!("Saved {}", path.display()), |_| {}),
        Some(Err(message)) => notice_ui(ui, Severity::Error, message, |_| {}),
        None => {}
    }
}
