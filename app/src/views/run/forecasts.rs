//! How well the forecasts' intervals hold what they say.

use egui::{Ui, Vec2b};
use egui_plot::{Line, LineStyle, MarkerShape, Plot, PlotPoints, Points};

use crate::plots::Reliability;
use crate::theme::palette;
use crate::widgets::{hint_ui, number};

/// Height of the plot.
const HEIGHT: f32 = 132.0;

/// Shows the share of losses found inside intervals over the share that they state.
pub(super) fn forecasts_ui(reliability: &Reliability, ui: &mut Ui) {
    let p = palette(ui);
    let Some(held) = reliability.held_at_90() else {
        hint_ui(ui, "No calibrated interval has come true often enough yet.");
        return;
    };
    let count = number::count(reliability.count() as u64);
    let text = format!("Intervals for 90% held {} of {count} losses.", number::percent(held));
    hint_ui(ui, &text);
    let found: Vec<[f64; 2]> = reliability.curve().iter().map(|point| [point.nominal, point.observed]).collect();
    let shown = Plot::new("reliability")
        .height(HEIGHT)
        .include_x(0.0)
        .include_x(1.0)
        .include_y(0.0)
        .include_y(1.0)
        .allow_drag(false)
        .allow_zoom(false)
        .allow_scroll(false)
        .allow_boxed_zoom(false)
        .allow_double_click_reset(false)
        .show_grid(Vec2b::TRUE)
        .grid_color(p.grid)
        .show_background(false)
        .show_x(false)
        .show_y(false)
        .label_formatter(|_| None)
        .show(ui, |plot| {
            let diagonal = PlotPoints::new(vec![[0.0, 0.0], [1.0, 1.0]]);
            let dashes = LineStyle::dashed_dense();
            plot.line(Line::new("As stated", diagonal).color(p.text_weak).width(1.0).style(dashes));
            plot.line(Line::new("Found", PlotPoints::new(found.clone())).color(p.measured).width(1.6));
            let marks = Points::new("Found", PlotPoints::new(found)).color(p.measured).radius(2.4);
            plot.points(marks.shape(MarkerShape::Circle));
        });
    ui.ctx().accesskit_node_builder(shown.response.id, |node| {
        node.set_label("Share of losses inside intervals over the share stated");
    });
    hint_ui(ui, "Found over stated. On the dashed line intervals hold what they say; below it they are too narrow.");
}
