//! Training loss of all contenders over steps, time or cost.

use egui::{Id, RichText, Ui};

use crate::plots::{Curve, CurveStyle, PlotView, RaceCurve, Readout, plot_card_ui};
use crate::state::{ExperimentsLive, ExperimentsSaved, RaceAxis};
use crate::theme::palette;

/// Height of the plot.
const HEIGHT: f32 = 260.0;

/// Shows `curves`; `key` names whose they are.
pub(super) fn curves_ui(
    key: &str,
    curves: &[RaceCurve],
    saved: &mut ExperimentsSaved,
    live: &mut ExperimentsLive,
    ui: &mut Ui,
) {
    let p = palette(ui);
    ui.horizontal_wrapped(|ui| {
        ui.label(RichText::new("Over").color(p.text_weak));
        for (axis, text, about) in [
            (RaceAxis::Steps, "Steps", "Optimizer steps"),
            (RaceAxis::Seconds, "Time", "Seconds of training; measuring on held-out data is left out"),
            (RaceAxis::Cost, "Cost", "Passes in full steps of the recipe: forward a third, backward two thirds"),
        ] {
            ui.selectable_value(&mut saved.axis, axis, text).on_hover_text(about);
        }
        ui.checkbox(&mut saved.is_log, "Log scale").on_hover_text("Loss on a logarithmic axis");
    });
    let axis = saved.axis;
    let x_name = match axis {
        RaceAxis::Steps => "steps",
        RaceAxis::Seconds => "seconds",
        RaceAxis::Cost => "cost in full steps",
    };
    let end = curves.iter().filter_map(|curve| curve.over(axis).last()).fold(1.0, |end: f64, (x, _)| end.max(x));
    let key = format!("{key} over {x_name}");
    // A range of other curves would show nothing of these.
    let is_reset = live.shown_curves != key;
    let view = PlotView { link: Id::unique("race"), x_name, x_end: end * 1.02, cursor: live.cursor, reset: is_reset };
    live.shown_curves = key;
    let color = |curve: &RaceCurve| p.series[curve.color % p.series.len()];
    let drawn: Vec<Curve<'_>> = curves
        .iter()
        .map(|curve| Curve {
            // Contenders have their points at different x.
            reach: f64::INFINITY,
            ..Curve::new(&curve.name, color(curve), CurveStyle::Solid, curve.over(axis))
        })
        .collect();
    let readout = Readout {
        title: "Training loss",
        unit: "nats",
        about: "Loss of the batches before their updates: each point is the mean over a hundredth of the training.",
        limit: None,
        is_log: saved.is_log,
        height: HEIGHT,
    };
    let answer = plot_card_ui(ui, view, readout, &drawn, |_| {});
    if answer.hovered != live.cursor {
        live.cursor = answer.hovered;
        ui.ctx().request_repaint();
    }
}
