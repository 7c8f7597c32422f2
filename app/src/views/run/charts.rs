//! The plots over steps, all on one x axis.

use egui::{CursorIcon, Id, RichText, ScrollArea, Sense, Slider, Ui, WidgetInfo, vec2};
use foretrain_engine::session::{RunSnapshot, RunStatus, StopReason};

use crate::plots::{
    PlotAnswer, PlotKind, PlotView, Readout, curves_of, export_csv, export_png, phase_strip_ui, plot_card_ui,
};
use crate::state::{Live, RunLive, Saved};
use crate::theme::{Palette, font, palette, phase_color, phase_label, space};
use crate::views::ViewCtx;
use crate::widgets::{Icon, Severity, chip_ui, icon_button_ui, notice_ui, swatch_ui};

/// Two columns of small plots from this width on.
const TWO_COLUMNS: f32 = 620.0;

/// Shows the toolbar and the plots.
pub fn charts_ui(ctx: &ViewCtx<'_>, run: &RunSnapshot, saved: &mut Saved, live: &mut Live, ui: &mut Ui) {
    let area = ui.max_rect();
    toolbar_ui(run, saved, live, area, ui);
    ui.add_space(space::XS);
    note_ui(run, live, ui);
    ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
        if live.run.series.is_empty() {
            waiting_ui(ctx, run, ui);
        } else {
            plots_ui(run, saved, &mut live.run, ui);
        }
    });
}

fn waiting_ui(ctx: &ViewCtx<'_>, run: &RunSnapshot, ui: &mut Ui) {
    let p = palette(ui);
    ui.add_space(space::XL);
    ui.vertical_centered(|ui| {
        if ctx.active_run().is_some() {
            let what = match &run.status {
                RunStatus::Preparing { what } => what.as_str(),
                RunStatus::Training | RunStatus::Validating | RunStatus::Paused | RunStatus::Ended(_) => "first steps",
            };
            ui.label(RichText::new(what).color(p.text_weak));
        } else {
            ui.label(RichText::new("This run ended before its first step.").color(p.text_weak));
        }
    });
}

fn toolbar_ui(run: &RunSnapshot, saved: &mut Saved, live: &mut Live, area: egui::Rect, ui: &mut Ui) {
    let p = palette(ui);
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing = vec2(space::XS, space::XS);
        for kind in PlotKind::ALL {
            let is_on = saved.plots.shown.contains(&kind);
            if chip_ui(ui, kind.title(), None, is_on).on_hover_text(kind.about()).clicked() {
                if is_on {
                    saved.plots.shown.remove(&kind);
                } else {
                    saved.plots.shown.insert(kind);
                }
            }
        }
    });
    ui.add_space(space::XS);
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = space::SM;
        let label = ui.label(RichText::new("Smoothing").color(p.text_weak));
        ui.spacing_mut().slider_width = 110.0;
        // Squeezed towards 1, where a step of the slider should change little.
        let mut position = smoothing_position(saved.plots.smoothing);
        let slider = Slider::new(&mut position, 0.0..=1.0).show_value(false);
        let slider = ui.add(slider).labelled_by(label.id);
        let text = if saved.plots.smoothing == 0.0 {
            "off".to_owned()
        } else {
            format!("over about {:.0} steps", 1.0 / (1.0 - saved.plots.smoothing))
        };
        if slider.on_hover_text(&text).changed() {
            saved.plots.smoothing = smoothing_at(position);
        }
        ui.label(RichText::new(text).size(font::SMALL).color(p.text_weak));
        ui.add_space(space::SM);
        ui.checkbox(&mut saved.plots.is_log, "Log scale").on_hover_text("Loss on a logarithmic axis");
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            ui.spacing_mut().item_spacing.x = 2.0;
            if icon_button_ui(ui, Icon::Reset, "Show all steps (Ctrl+0)").clicked() {
                live.run.reset_plots = true;
            }
            ui.add_enabled_ui(run.folder.is_some(), |ui| {
                if icon_button_ui(ui, Icon::Image, "Save a picture of the plots").clicked()
                    && let Some(folder) = &run.folder
                {
                    live.run.export = Some(export_png(ui.ctx(), &folder.join("plots"), area));
                }
            });
            ui.add_space(space::SM);
            phase_key_ui(p, ui);
        });
    });
}

fn phase_key_ui(p: &Palette, ui: &mut Ui) {
    use foretrain_engine::hybrid::Phase;
    if ui.available_width() < 260.0 {
        return;
    }
    ui.spacing_mut().item_spacing.x = 5.0;
    for phase in [Phase::Correct, Phase::Predict, Phase::Full, Phase::Warmup] {
        ui.label(RichText::new(phase_label(phase)).size(font::SMALL).color(p.text_weak));
        swatch_ui(ui, phase_color(p, phase));
        ui.add_space(3.0);
    }
}

/// Slider position of a smoothing weight: the number of steps it reaches back, on a log scale up to 1000.
fn smoothing_position(smoothing: f32) -> f32 {
    ((1.0 / (1.0 - smoothing.clamp(0.0, 0.999))).log10() / 3.0).clamp(0.0, 1.0)
}

fn smoothing_at(position: f32) -> f32 {
    if position < 0.01 { 0.0 } else { 1.0 - 10f32.powf(-3.0 * position) }
}

/// How an export went, and how the run ended when that was not the user's wish.
fn note_ui(run: &RunSnapshot, live: &mut Live, ui: &mut Ui) {
    let mut is_dismissed = false;
    match live.run.export.as_ref().and_then(|slot| slot.result()) {
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
        live.run.export = None;
    }
    let RunStatus::Ended(reason) = &run.status else { return };
    match reason {
        StopReason::Finished | StopReason::User => return,
        StopReason::Diverged => notice_ui(
            ui,
            Severity::Error,
            "The run diverged and was ended with its last good weights. Try a lower learning rate, or the conservative tier.",
            |_| {},
        ),
        StopReason::Failed(message) => notice_ui(ui, Severity::Error, message, |_| {}),
        StopReason::Crashed(message) => notice_ui(
            ui,
            Severity::Error,
            &format!("The engine crashed: {message}. The run can go on from its last checkpoint: Resume a run."),
            |_| {},
        ),
    }
    ui.add_space(space::SM);
}

fn plots_ui(run: &RunSnapshot, saved: &mut Saved, live: &mut RunLive, ui: &mut Ui) {
    let x_end = (live.series.last_step().max(1.0) * 1.02).ceil();
    let view = PlotView {
        link: Id::unique("run-plots"),
        x_name: "steps",
        x_end,
        cursor: live.cursor,
        reset: std::mem::take(&mut live.reset_plots),
    };
    let mut hovered = None;
    let mut show = |kind: PlotKind, saved: &mut Saved, live: &mut RunLive, ui: &mut Ui| -> PlotAnswer {
        let answer = plot_ui(kind, run, view, saved, live, ui);
        hovered = hovered.or(answer.hovered);
        answer
    };
    let shown: Vec<PlotKind> = PlotKind::ALL.into_iter().filter(|kind| saved.plots.shown.contains(kind)).collect();
    let (large, small): (Vec<_>, Vec<_>) = shown.into_iter().partition(|kind| *kind == PlotKind::Loss);
    ui.spacing_mut().item_spacing.y = 2.0;
    for kind in large {
        let answer = show(kind, saved, live, ui);
        ui.add_space(2.0);
        phase_strip_ui(ui, &live.series.phases, answer.range, answer.pixels, 18.0, view.cursor);
        grip_ui(&[kind], saved, ui);
    }
    let columns = if ui.available_width() >= TWO_COLUMNS { 2 } else { 1 };
    for row in small.chunks(columns) {
        ui.columns(columns, |cells| {
            for (cell, kind) in cells.iter_mut().zip(row) {
                show(*kind, saved, live, cell);
            }
        });
        grip_ui(row, saved, ui);
    }
    if small.is_empty() && !saved.plots.shown.contains(&PlotKind::Loss) {
        ui.label("No plot is chosen. Choose some above.");
    }
    if hovered != live.cursor {
        live.cursor = hovered;
        // The others show the cursor and its values in the next frame.
        ui.ctx().request_repaint();
    }
}

fn height_of(kind: PlotKind, saved: &Saved) -> f32 {
    let default = if kind == PlotKind::Loss { 260.0 } else { 128.0 };
    saved.plots.heights.get(&kind).copied().unwrap_or(default)
}

fn plot_ui(
    kind: PlotKind,
    run: &RunSnapshot,
    view: PlotView,
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
        height: height_of(kind, saved),
    };
    let mut is_export_asked = false;
    let curves = curves_of(kind, &live.series, p, is_smoothed);
    let answer = plot_card_ui(ui, view, about, &curves, |ui| {
        ui.add_enabled_ui(run.folder.is_some(), |ui| {
            let name = format!("Save {} as CSV", kind.title().to_lowercase());
            is_export_asked = icon_button_ui(ui, Icon::Table, &name).clicked();
        });
    });
    if is_export_asked && let Some(folder) = &run.folder {
        live.export = Some(export_csv(ui.ctx(), &folder.join("plots"), kind, &live.series));
    }
    answer
}

/// A handle under a row of plots that changes their height.
fn grip_ui(kinds: &[PlotKind], saved: &mut Saved, ui: &mut Ui) {
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
            let height = (height_of(*kind, saved) + by).clamp(70.0, 900.0);
            saved.plots.heights.insert(*kind, height);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slider_and_smoothing_agree() {
        for smoothing in [0.0, 0.5, 0.9, 0.99, 0.999] {
            let back = smoothing_at(smoothing_position(smoothing));
            assert!((back - smoothing).abs() < 1e-3, "{smoothing} became {back}");
        }
    }
}
