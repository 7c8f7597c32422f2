//! What is plotted, and how: above the plots.

use std::sync::Arc;

use egui::{Align, FontId, Galley, Layout, Rect, Sense, Ui, Vec2, pos2, vec2};
use foretrain_engine::hybrid::Phase;
use foretrain_engine::session::chart::Theme;
use foretrain_engine::session::{ChartFormat, ChartJob, Command, Naming, RunSnapshot};

use crate::plots::{ChartView, PlotKind, run_chart};
use crate::state::{PlotsSaved, RunLive, Saved};
use crate::theme::{font, palette, phase_color, phase_label, space};
use crate::views::ViewCtx;
use crate::widgets::{Icon, chip_ui, icon_button_ui, smoothing_ui};

/// Where everything but the plots' names fits into one line, the buttons stand at its right end.
const ONE_LINE: f32 = 690.0;
/// Height of a chip.
const CHIP: f32 = 22.0;
/// Side of the square with a phase's color.
const SWATCH: f32 = 10.0;

/// Shows it.
pub(super) fn toolbar_ui(ctx: &ViewCtx<'_>, run: &RunSnapshot, saved: &mut Saved, live: &mut RunLive, ui: &mut Ui) {
    plots_ui(&mut saved.plots, ui);
    ui.add_space(space::XS);
    if ui.available_width() >= ONE_LINE {
        ui.horizontal(|ui| {
            ui.spacing_mut().item_spacing.x = space::SM;
            curves_ui(&mut saved.plots, ui);
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                buttons_ui(ctx, run, &saved.plots, live, ui);
                phase_key_ui(ui);
            });
        });
    } else {
        ui.horizontal_wrapped(|ui| {
            ui.spacing_mut().item_spacing = vec2(space::SM, space::XS);
            // Lines break between controls, not inside their texts.
            ui.style_mut().wrap_mode = Some(egui::TextWrapMode::Extend);
            curves_ui(&mut saved.plots, ui);
            buttons_ui(ctx, run, &saved.plots, live, ui);
            phase_key_ui(ui);
        });
    }
}

/// Which plots to show.
fn plots_ui(saved: &mut PlotsSaved, ui: &mut Ui) {
    ui.scope(|ui| {
        ui.spacing_mut().item_spacing = vec2(space::XS, space::XS);
        // Lines as high as what stands in them.
        ui.spacing_mut().interact_size.y = CHIP;
        ui.horizontal_wrapped(|ui| {
            for kind in PlotKind::ALL {
                plot_chip_ui(kind, saved, ui);
            }
        });
    });
}

fn plot_chip_ui(kind: PlotKind, saved: &mut PlotsSaved, ui: &mut Ui) {
    let is_on = saved.shown.contains(&kind);
    if chip_ui(ui, kind.title(), None, is_on).on_hover_text(kind.about()).clicked() {
        if is_on {
            saved.shown.remove(&kind);
        } else {
            saved.shown.insert(kind);
        }
    }
}

fn curves_ui(saved: &mut PlotsSaved, ui: &mut Ui) {
    smoothing_ui(ui, &mut saved.smoothing);
    ui.checkbox(&mut saved.is_log, "Log scale").on_hover_text("Loss on a logarithmic axis");
}

fn buttons_ui(ctx: &ViewCtx<'_>, run: &RunSnapshot, plots: &PlotsSaved, live: &mut RunLive, ui: &mut Ui) {
    if icon_button_ui(ui, Icon::Reset, "Show all steps (Ctrl+0)").clicked() {
        live.reset_plots = true;
    }
    // Before it has a folder there is nothing to draw.
    let Some(folder) = &run.folder else { return };
    let can_save = !plots.shown.is_empty() && !live.series.is_empty() && !live.drawn.is_waiting();
    let name = "Save the chosen plots as PNG and SVG";
    if ui.add_enabled_ui(can_save, |ui| icon_button_ui(ui, Icon::Image, name)).inner.clicked() {
        let steps = live.in_view.unwrap_or((0.0, live.series.last_step()));
        let view = ChartView { steps, y_zooms: &live.y_zooms };
        let job = ChartJob {
            chart: run_chart(run, &live.series, plots, view),
            theme: if palette(ui).is_dark { Theme::Dark } else { Theme::Light },
            formats: vec![ChartFormat::Png { scale: 2.0 }, ChartFormat::Svg],
            output: folder.join("plots").join("plots"),
            naming: Naming::NextFree,
        };
        live.drawn.clear();
        live.drawn.ask(ctx, |id| Command::DrawChart(id, Box::new(job)));
    }
}

/// Which color is which phase, from the first to the last, in one piece, which no line break can part.
fn phase_key_ui(ui: &mut Ui) {
    let names = [Phase::Warmup, Phase::Full, Phase::Predict, Phase::Correct].map(|phase| (phase, name_of(phase, ui)));
    let width: f32 = names.iter().map(|(_, name)| SWATCH + space::XS + name.size().x).sum();
    let gaps = space::SM * (names.len() - 1) as f32;
    ui.allocate_ui_with_layout(vec2(width + gaps, CHIP), Layout::left_to_right(Align::Center), |ui| {
        ui.spacing_mut().item_spacing.x = space::SM;
        for (phase, name) in names {
            phase_entry_ui(phase, name, ui);
        }
    });
}

fn name_of(phase: Phase, ui: &Ui) -> Arc<Galley> {
    let (font, color) = (FontId::proportional(font::SMALL), palette(ui).text_weak);
    ui.painter().layout_no_wrap(phase_label(phase).to_owned(), font, color)
}

/// A swatch and its name.
fn phase_entry_ui(phase: Phase, galley: Arc<Galley>, ui: &mut Ui) {
    let p = palette(ui);
    let name = phase_label(phase);
    let size = vec2(SWATCH + space::XS + galley.size().x, galley.size().y.max(SWATCH));
    let (rect, response) = ui.allocate_exact_size(size, Sense::hover());
    response.widget_info(|| egui::WidgetInfo::labeled(egui::accesskit::Role::Label, true, name));
    let swatch = Rect::from_center_size(pos2(rect.left() + SWATCH / 2.0, rect.center().y), Vec2::splat(SWATCH));
    ui.painter().rect_filled(swatch, 2.0, phase_color(p, phase));
    let corner = pos2(swatch.right() + space::XS, rect.center().y - galley.size().y / 2.0);
    ui.painter().galley(corner, galley, p.text_weak);
}
