//! The plots over steps, all on one x axis.

use std::sync::Arc;

use egui::{CursorIcon, Id, RichText, ScrollArea, Sense, Ui, WidgetInfo, vec2};
use foretrain_engine::hybrid::{ForecastBias, HybridEvent, Recovery};
use foretrain_engine::session::{LogEntry, LogKind, RunSnapshot, RunStatus, StopReason};

use super::log::last_checkpoint;
use super::starting::starting_ui;
use super::toolbar::toolbar_ui;
use crate::plots::{
    PlotAnswer, PlotKind, PlotView, Readout, RunSeries, StripView, curves_of, export_csv, phase_strip_room_ui,
    phase_strip_ui, plot_card_ui,
};
use crate::state::{Live, RunLive, Saved};
use crate::theme::{font, palette, space};
use crate::views::ViewCtx;
use crate::widgets::{Icon, Severity, icon_button_ui, notice_ui, number};

/// Two columns of small plots from this width on: a legend of three curves fits into one line of each.
const TWO_COLUMNS: f32 = 740.0;
/// Height of the strip of phases.
const STRIP: f32 = 18.0;
/// What a plot's card takes beside the plot: two lines of legend, in a narrow one three.
const CARD_REST: f32 = 86.0;

/// Shows the toolbar, the strip of phases and the plots.
pub fn charts_ui(ctx: &ViewCtx<'_>, run: &Arc<RunSnapshot>, saved: &mut Saved, live: &mut Live, ui: &mut Ui) {
    toolbar_ui(ctx, run, saved, &mut live.run, ui);
    ui.add_space(space::XS);
    let strip = phase_strip_room_ui(ui, STRIP);
    note_ui(run, live, ui);
    if live.start.is_waiting() && ctx.active_run().is_none() {
        // The run that starts has nothing to show yet; below is the one before it.
        starting_ui(ctx, live, ui);
    }
    let room = ui.available_height();
    let view = ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
        if live.run.series.is_empty() {
            waiting_ui(ctx, run, live, ui);
            None
        } else {
            plots_ui(run, saved, &mut live.run, room, ui)
        }
    });
    live.run.in_view = view.inner.map(|strip| strip.range);
    let whole = StripView { range: (0.0, x_end(&live.run)), pixels: None, cursor: live.run.cursor };
    phase_strip_ui(ui, strip, &live.run.series.phases, view.inner.unwrap_or(whole));
}

/// In place of the plots, before the first step.
fn waiting_ui(ctx: &ViewCtx<'_>, run: &RunSnapshot, live: &mut Live, ui: &mut Ui) {
    let text = match &run.status {
        RunStatus::Preparing { .. } => return starting_ui(ctx, live, ui),
        RunStatus::Training | RunStatus::Validating | RunStatus::Paused | RunStatus::Unsaved { .. } => "First steps…",
        RunStatus::Ended(_) => "This run ended before its first step.",
    };
    ui.add_space(space::XL);
    ui.vertical_centered(|ui| ui.label(RichText::new(text).color(palette(ui).text_weak)));
}

/// True when the guard's last answer left the weights as they were.
fn kept_its_weights(log: &[LogEntry]) -> bool {
    let answer = log.iter().rev().find_map(|entry| match &entry.kind {
        LogKind::Hybrid(HybridEvent::Diverged { recovery, .. }) => Some(*recovery),
        _ => None,
    });
    answer == Some(Recovery::End)
}

/// The x axis ends a little after the last step.
fn x_end(live: &RunLive) -> f64 {
    (live.series.last_step().max(1.0) * 1.02).ceil()
}

/// How an export went, what keeps the run from ending, and how it ended when that was not the user's wish.
fn note_ui(run: &RunSnapshot, live: &mut Live, ui: &mut Ui) {
    export_note_ui(&mut live.run, ui);
    drawn_note_ui(&mut live.run, ui);
    let shown_already = live.start.failure().map(|failure| failure.message.as_str());
    match &run.status {
        RunStatus::Unsaved { why } => unsaved_ui(run, why, ui),
        RunStatus::Ended(StopReason::Diverged) if kept_its_weights(&run.log) => note_of(
            ui,
            "The run diverged and was ended; there is no snapshot, so that its weights are as its last step left them. Begin \
             in another folder, at a lower learning rate.",
        ),
        RunStatus::Ended(StopReason::Diverged) => note_of(
            ui,
            "The run diverged and was ended with its last good weights. Try a lower learning rate, or the conservative \
             tier.",
        ),
        RunStatus::Ended(StopReason::Failed(message)) if shown_already != Some(message.as_str()) => {
            note_of(ui, message);
        }
        RunStatus::Ended(StopReason::Crashed(message)) if run.disk.is_some() => note_of(
            ui,
            &format!("The engine crashed: {message}. Its last whole step is on disk: start it again to go on."),
        ),
        RunStatus::Ended(StopReason::Crashed(message)) => note_of(
            ui,
            &format!("The engine crashed: {message}. The run can go on from its last checkpoint: Resume a run."),
        ),
        RunStatus::Ended(StopReason::Finished | StopReason::User | StopReason::Failed(_))
        | RunStatus::Preparing { .. }
        | RunStatus::Training
        | RunStatus::Validating
        | RunStatus::Paused => {}
    }
}

fn note_of(ui: &mut Ui, message: &str) {
    notice_ui(ui, Severity::Error, message, |_| {});
    ui.add_space(space::SM);
}

fn export_note_ui(live: &mut RunLive, ui: &mut Ui) {
    let mut is_dismissed = false;
    match live.export.as_ref().and_then(|slot| slot.result()) {
        Some(Ok(path)) => notice_ui(ui, Severity::Good, &format!("Saved {}", path.display()), |ui| {
            ui.horizontal(|ui| {
                if ui.small_button("Copy path").clicked() {
                    ui.ctx().copy_text(path.display().to_string());
                }
                is_dismissed = ui.small_button("Dismiss").clicked();
            });
        }),
        Some(Err(message)) => notice_ui(ui, Severity::Error, message, |ui| {
            is_dismissed = ui.small_button("Dismiss").clicked();
        }),
        None => {}
    }
    if is_dismissed {
        live.export = None;
    }
}

/// Where the picture of all plots is, or why there is none.
fn drawn_note_ui(live: &mut RunLive, ui: &mut Ui) {
    let is_dismissed = if let Some(failure) = live.drawn.failure() {
        notice_ui(ui, Severity::Error, &failure.message, |ui| ui.small_button("Dismiss").clicked())
    } else if let Some(paths) = live.drawn.answer() {
        let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        notice_ui(ui, Severity::Good, &format!("Saved {}", paths.join(" and ")), |ui| {
            ui.horizontal(|ui| {
                if ui.small_button("Copy paths").clicked() {
                    ui.ctx().copy_text(paths.join("\n"));
                }
                ui.small_button("Dismiss").clicked()
            })
            .inner
        })
    } else {
        false
    };
    if is_dismissed {
        live.drawn.clear();
    }
}

/// The run is done, and its end is not on disk.
fn unsaved_ui(run: &RunSnapshot, why: &str, ui: &mut Ui) {
    let last = last_checkpoint(run);
    let message = format!(
        "The end of this run could not be saved: {why}. Save tries again; Stop gives up what came after the last \
         checkpoint ({last})."
    );
    note_of(ui, &message);
}

/// Shows the plots; returns what the strip of phases shows with them, when there are any.
fn plots_ui(
    run: &Arc<RunSnapshot>,
    saved: &mut Saved,
    live: &mut RunLive,
    room: f32,
    ui: &mut Ui,
) -> Option<StripView> {
    let view = PlotView {
        link: Id::unique("run-plots"),
        x_name: "steps",
        x_end: x_end(live),
        cursor: live.cursor,
        reset: std::mem::take(&mut live.reset_plots),
    };
    let heights = Heights { loss: (room - CARD_REST).clamp(96.0, 260.0), small: 128.0 };
    let mut strip: Option<StripView> = None;
    let mut hovered = None;
    let mut show = |kind: PlotKind, saved: &mut Saved, live: &mut RunLive, ui: &mut Ui| {
        let answer = plot_ui(kind, run, view, heights.of(kind, saved), saved, live, ui);
        hovered = hovered.or(answer.hovered);
        // Loss is as wide as the strip; the others may be half as wide, with the same steps in view.
        let pixels = (kind == PlotKind::Loss).then_some(answer.pixels);
        strip = strip.or(Some(StripView { range: answer.range, pixels, cursor: view.cursor }));
    };
    let shown: Vec<PlotKind> = PlotKind::ALL.into_iter().filter(|kind| saved.plots.shown.contains(kind)).collect();
    let (large, small): (Vec<_>, Vec<_>) = shown.into_iter().partition(|kind| *kind == PlotKind::Loss);
    ui.spacing_mut().item_spacing.y = 2.0;
    for kind in large {
        show(kind, saved, live, ui);
        grip_ui(&[kind], heights, saved, ui);
    }
    let columns = if ui.available_width() >= TWO_COLUMNS { 2 } else { 1 };
    for row in small.chunks(columns) {
        ui.columns(columns, |cells| {
            for (cell, kind) in cells.iter_mut().zip(row) {
                show(*kind, saved, live, cell);
            }
        });
        grip_ui(row, heights, saved, ui);
    }
    if strip.is_none() {
        ui.label("No plot is chosen. Choose some above.");
    }
    if hovered != live.cursor {
        live.cursor = hovered;
        // The others show the cursor and its values in the next frame.
        ui.ctx().request_repaint();
    }
    strip
}

/// Heights of plots that the user did not change.
#[derive(Debug, Clone, Copy)]
struct Heights {
    /// Of the loss: whole in view, as far as the window allows.
    loss: f32,
    /// Of all others.
    small: f32,
}

impl Heights {
    fn of(self, kind: PlotKind, saved: &Saved) -> f32 {
        let default = if kind == PlotKind::Loss { self.loss } else { self.small };
        saved.plots.heights.get(&kind).copied().unwrap_or(default)
    }
}

fn plot_ui(
    kind: PlotKind,
    run: &Arc<RunSnapshot>,
    view: PlotView,
    height: f32,
    saved: &Saved,
    live: &mut RunLive,
    ui: &mut Ui,
) -> PlotAnswer {
    let p = palette(ui);
    let is_smoothed = kind == PlotKind::Loss && saved.plots.smoothing > 0.0;
    let about = Readout {
        title: kind.title(),
        unit: kind.unit(),
        about: kind.about(),
        limit: kind.limit(),
        is_log: kind == PlotKind::Loss && saved.plots.is_log,
        height,
    };
    let mut is_export_asked = false;
    let curves = curves_of(kind, &live.series, p, is_smoothed);
    let answer = plot_card_ui(ui, view, about, &curves, |ui| {
        ui.add_enabled_ui(run.folder.is_some(), |ui| {
            let name = format!("Save {} as CSV", kind.title().to_lowercase());
            is_export_asked = icon_button_ui(ui, Icon::Table, &name).clicked();
        });
        if kind == PlotKind::Correction {
            corrections_ui(&live.series, ui);
        }
    });
    match answer.y_zoom {
        Some(zoom) => live.y_zooms.insert(kind, zoom),
        None => live.y_zooms.remove(&kind),
    };
    if is_export_asked && let Some(folder) = &run.folder {
        live.export = Some(export_csv(ui.ctx(), &folder.join("plots"), kind, run));
    }
    answer
}

/// What corrections did in all, and what they took.
fn corrections_ui(series: &RunSeries, ui: &mut Ui) {
    let (Some(reduction), Some(time)) = (series.error_reduction(), series.correction_time()) else { return };
    let text = format!("error −{}, {} of time", number::percent(reduction), number::percent(time));
    let text = text.replace("−-", "+");
    ui.label(RichText::new(text).size(font::SMALL).color(palette(ui).text)).on_hover_text(format!(
        "Sum of the forecasts' errors after all corrections against before them; and the share of the time in steps \
         that Correct steps took.\n{}",
        series.bias.map_or("Too few corrections yet to tell whether forecasts lean to one side.".to_owned(), leaning),
    ));
}

/// Whether forecasts lean to one side, in words.
fn leaning(bias: ForecastBias) -> String {
    let ForecastBias { count, mean, std_error } = bias;
    let (mean, std_error) = (f64::from(mean), f64::from(std_error));
    let measured = format!("({} ± {}, standard error)", number::percent(mean.exp_m1()), number::percent(std_error));
    if mean.abs() <= 2.0 * std_error {
        return format!(
            "In the last {count}, losses lay neither above nor below their forecast on the whole {measured}."
        );
    }
    let side = if mean > 0.0 { "higher" } else { "lower" };
    format!("In the last {count}, losses came out {side} than forecast {measured}.")
}

/// A handle under a row of plots that changes their height.
fn grip_ui(kinds: &[PlotKind], heights: Heights, saved: &mut Saved, ui: &mut Ui) {
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), 8.0), Sense::drag());
    let response = response.on_hover_and_drag_cursor(CursorIcon::ResizeVertical);
    let title = kinds.first().map_or("", |kind| kind.title());
    response.widget_info(|| WidgetInfo::labeled(egui::accesskit::Role::Splitter, true, format!("Height of {title}")));
    if response.hovered() || response.dragged() {
        let line = egui::Stroke::new(2.0, palette(ui).border_strong);
        let middle = rect.center();
        ui.painter().hline(middle.x - 24.0..=middle.x + 24.0, middle.y, line);
    }
    if response.dragged() {
        let by = response.drag_delta().y;
        for kind in kinds {
            let height = (heights.of(*kind, saved) + by).clamp(70.0, 900.0);
            saved.plots.heights.insert(*kind, height);
        }
    }
}
