//! Lays out the run screen.

use egui::{CentralPanel, Frame, Margin, Panel, Ui};

use super::{charts, header, log, recipe, resume, samples, side};
use crate::plots::RunSeries;
use crate::state::{Live, Saved};
use crate::theme::{palette, space};
use crate::views::ViewCtx;

/// Shows the screen.
pub fn run_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut Live, ui: &mut Ui) {
    read_history(ctx, saved, live);
    recipe::plan_when_settled(ctx, saved, live, ui);
    let p = palette(ui);
    let panel = |margin: Margin| Frame::new().fill(p.panel).inner_margin(margin);
    let edge = space::MD as i8;

    Panel::top("run-header")
        .resizable(false)
        .frame(panel(Margin::symmetric(space::LG as i8, 8)))
        .show(ui, |ui| header::header_ui(ctx, saved, live, ui));

    let mut is_recipe_open = !saved.is_recipe_hidden;
    Panel::left("run-recipe")
        .default_size(336.0)
        .size_range(300.0..=460.0)
        .resizable(true)
        .frame(panel(Margin::ZERO))
        .show_collapsible(ui, &mut is_recipe_open, |ui| recipe::recipe_ui(ctx, saved, live, ui));
    saved.is_recipe_hidden = !is_recipe_open;

    let mut is_side_open = !saved.is_side_hidden;
    Panel::right("run-side")
        .default_size(268.0)
        .size_range(232.0..=400.0)
        .resizable(true)
        .frame(panel(Margin::ZERO))
        .show_collapsible(ui, &mut is_side_open, |ui| side::side_ui(ctx, live, ui));
    saved.is_side_hidden = !is_side_open;

    let mut is_log_open = !saved.is_log_hidden;
    Panel::bottom("run-log")
        .default_size(220.0)
        .size_range(120.0..=520.0)
        .resizable(true)
        .frame(panel(Margin::symmetric(edge, 8)))
        .show_collapsible(ui, &mut is_log_open, |ui| {
            let width = ui.available_width();
            ui.take_available_height();
            Panel::right("run-samples")
                .default_size((width * 0.42).max(240.0))
                .size_range(220.0..=(width - 260.0).max(240.0))
                .resizable(true)
                .frame(Frame::new().inner_margin(Margin { left: edge, right: 0, top: 0, bottom: 0 }))
                .show(ui, |ui| samples::samples_ui(ctx, live, ui));
            CentralPanel::no_frame()
                .frame(Frame::new().inner_margin(Margin { left: 0, right: edge, top: 0, bottom: 0 }))
                .show(ui, |ui| log::log_ui(ctx, live, ui));
        });
    saved.is_log_hidden = !is_log_open;

    CentralPanel::no_frame().frame(Frame::new().fill(p.base).inner_margin(Margin::same(edge))).show(
        ui,
        |ui| match &ctx.snapshot {
            Some(run) => charts::charts_ui(ctx, run, saved, live, ui),
            None => resume::welcome_ui(ctx, saved, live, ui),
        },
    );
    resume::resume_dialog_ui(ctx, live, ui.ctx());
}

/// Brings the curves up to date, reading only what is new.
fn read_history(ctx: &ViewCtx<'_>, saved: &Saved, live: &mut Live) {
    match &ctx.snapshot {
        Some(run) => live.run.series.update(
            crate::plots::SeriesKey::Job(run.job),
            &run.history,
            &run.validations,
            saved.plots.smoothing,
        ),
        None => {
            if !live.run.series.is_empty() {
                live.run.series = RunSeries::default();
            }
        }
    }
}
