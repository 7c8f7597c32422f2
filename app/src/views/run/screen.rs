//! Lays out the run screen.

use egui::{CentralPanel, Frame, Margin, Panel, RichText, Ui, Vec2};

use super::fold::{Edge, Fold, fold_ui};
use super::{charts, header, log, recipe, resume, samples, side};
use crate::plots::{RunSeries, SeriesKey};
use crate::state::{Live, Saved};
use crate::theme::{palette, space};
use crate::views::ViewCtx;

/// Windows narrower than this fold the recipe, unless the user opens it.
const RECIPE_ROOM: f32 = 850.0;
/// Windows narrower than this fold the gauges.
const SIDE_ROOM: f32 = 1100.0;
/// Windows lower than this fold the log.
const LOG_ROOM: f32 = 600.0;
/// A log narrower than this has no room for samples beside it: they take turns.
const SAMPLES_ROOM: f32 = 520.0;

/// Shows the screen.
pub fn run_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut Live, ui: &mut Ui) {
    read_history(ctx, saved, live);
    recipe::plan_when_settled(ctx, saved, live, ui);
    let p = palette(ui);
    let window = ui.ctx().content_rect().size();
    let recipe = recipe_fold(saved, live, window);
    Panel::top("run-header")
        .resizable(false)
        .frame(Frame::new().fill(p.panel).inner_margin(Margin::symmetric(space::LG as i8, 8)))
        .show(ui, |ui| {
            header::header_ui(ctx, saved, live, recipe, ui);
            if !recipe.is_open() {
                // With the form folded, so is the place beside its button.
                recipe::failure_ui(live, ui);
            }
        });
    recipe_panel_ui(ctx, saved, live, recipe, ui);
    side_panel_ui(ctx, saved, live, window, ui);
    log_panel_ui(ctx, saved, live, window, ui);
    CentralPanel::no_frame().frame(Frame::new().fill(p.base).inner_margin(Margin::same(space::MD as i8))).show(
        ui,
        |ui| match &ctx.snapshot {
            Some(run) => charts::charts_ui(ctx, run, saved, live, ui),
            None => resume::welcome_ui(ctx, saved, live, ui),
        },
    );
    resume::resume_dialog_ui(ctx, live, ui.ctx());
    resume::ask_resume_ui(ctx, live, ui.ctx());
}

fn recipe_fold(saved: &Saved, live: &Live, window: Vec2) -> Fold {
    Fold { is_cramped: window.x < RECIPE_ROOM, is_hidden: saved.is_recipe_hidden, is_opened: live.run.opened.recipe }
}

fn recipe_panel_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut Live, fold: Fold, ui: &mut Ui) {
    // The plots keep the larger part, as far as the form can be read.
    let widest = (ui.available_width() * 0.4).clamp(336.0, 460.0);
    let panel = Panel::left("run-recipe")
        .default_size(336.0)
        .size_range(300.0..=widest)
        .resizable(true)
        .frame(Frame::new().fill(palette(ui).panel));
    let left = fold_ui(ui, (Edge::Left, "the recipe"), fold, panel, |ui| recipe::recipe_ui(ctx, saved, live, ui));
    (saved.is_recipe_hidden, live.run.opened.recipe) = (left.is_hidden, left.is_opened);
}

fn side_panel_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut Live, window: Vec2, ui: &mut Ui) {
    let fold =
        Fold { is_cramped: window.x < SIDE_ROOM, is_hidden: saved.is_side_hidden, is_opened: live.run.opened.side };
    let panel = Panel::right("run-side")
        .default_size(268.0)
        .size_range(232.0..=400.0)
        .resizable(true)
        .frame(Frame::new().fill(palette(ui).panel));
    let left = fold_ui(ui, (Edge::Right, "savings and gauges"), fold, panel, |ui| side::side_ui(ctx, live, ui));
    (saved.is_side_hidden, live.run.opened.side) = (left.is_hidden, left.is_opened);
}

fn log_panel_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut Live, window: Vec2, ui: &mut Ui) {
    let fold = Fold { is_cramped: window.y < LOG_ROOM, is_hidden: saved.is_log_hidden, is_opened: live.run.opened.log };
    let panel = Panel::bottom("run-log")
        .default_size(220.0)
        .size_range(120.0..=520.0)
        .resizable(true)
        .frame(Frame::new().fill(palette(ui).panel).inner_margin(Margin::symmetric(space::MD as i8, 8)));
    let left = fold_ui(ui, (Edge::Bottom, "events and samples"), fold, panel, |ui| log_and_samples_ui(ctx, live, ui));
    (saved.is_log_hidden, live.run.opened.log) = (left.is_hidden, left.is_opened);
}

fn log_and_samples_ui(ctx: &ViewCtx<'_>, live: &mut Live, ui: &mut Ui) {
    let edge = space::MD as i8;
    let width = ui.available_width();
    ui.take_available_height();
    let head = if width < SAMPLES_ROOM { Head::Switch } else { Head::Title };
    if head == Head::Switch && live.run.is_samples_open {
        return samples::samples_ui(ctx, live, head, ui);
    }
    if head == Head::Title {
        Panel::right("run-samples")
            .default_size((width * 0.42).max(240.0))
            .size_range(220.0..=(width - 260.0).max(240.0))
            .resizable(true)
            .frame(Frame::new().inner_margin(Margin { left: edge, right: 0, top: 0, bottom: 0 }))
            .show(ui, |ui| samples::samples_ui(ctx, live, head, ui));
    }
    CentralPanel::no_frame()
        .frame(Frame::new().inner_margin(Margin { left: 0, right: edge, top: 0, bottom: 0 }))
        .show(ui, |ui| log::log_ui(ctx, live, head, ui));
}

/// What stands above the log and above the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// Its name: they stand side by side.
    Title,
    /// A choice between the two, which take turns.
    Switch,
}

impl Head {
    /// Shows it; `name` is what is in view.
    pub(super) fn show(self, name: &str, is_samples_open: &mut bool, ui: &mut Ui) {
        match self {
            Self::Title => {
                ui.label(RichText::new(name).strong().color(palette(ui).text_strong));
            }
            Self::Switch => {
                ui.selectable_value(is_samples_open, false, "Events");
                ui.selectable_value(is_samples_open, true, "Samples");
            }
        }
    }
}

/// Brings the curves up to date, reading only what is new. Another run is shown whole: where the plots of the one
/// before were zoomed to means nothing to it.
fn read_history(ctx: &ViewCtx<'_>, saved: &Saved, live: &mut Live) {
    match &ctx.snapshot {
        Some(run) => {
            let key = SeriesKey::Job(run.job);
            let is_other = live.run.series.key().is_some_and(|known| *known != key);
            live.run.series.update(key, &run.history, &run.validations, saved.plots.smoothing);
            if is_other {
                live.run.reset_plots = true;
                live.run.cursor = None;
                live.run.is_next_form = false;
            }
        }
        None => {
            if !live.run.series.is_empty() {
                live.run.series = RunSeries::default();
            }
        }
    }
}
