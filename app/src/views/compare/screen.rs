//! Lays out the comparison.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use egui::{Color32, Id, Ui};
use foretrain_engine::session::{Command, LoadedRun};
use jiff::tz::TimeZone;

use super::figures::shipped_scheme;
use super::list::{color_of, list_ui};
use super::table::{TableRow, table_ui};
use super::tabs::tabs_ui;
use super::toolbar::toolbar_ui;
use crate::plots::{CompareSeries, Curve, CurveStyle, PlotAnswer, PlotView, Readout, Series, plot_card_ui};
use crate::state::{CompareAxis, CompareLive, CompareSaved, CompareTab, Live, OpenedRun, Saved};
use crate::theme::{Palette, palette};
use crate::views::experiments::experiments_ui;
use crate::views::{RunIdentity, RunLabel, ViewCtx, empty_ui, job_ui, keep_runs_fresh, panes_ui, run_labels};
use crate::widgets::{card_ui, hint_ui};

/// A run read back, with its color, its curves and a name that no other has.
struct Shown<'a> {
    run: &'a Arc<LoadedRun>,
    label: RunLabel,
    /// Its name in plots of validation figures: with what its weights are quantized to, where those ship.
    validated_name: String,
    color: Color32,
    series: &'a CompareSeries,
}

impl Shown<'_> {
    fn row(&self) -> TableRow<'_> {
        TableRow { run: self.run, label: &self.label, color: self.color }
    }
}

/// Shows the screen.
pub fn compare_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut Live, ui: &mut Ui) {
    match saved.compare.tab {
        CompareTab::Runs => runs_ui(ctx, saved, live, ui),
        CompareTab::Experiments => experiments_ui(ctx, saved, live, ui),
    }
}

fn runs_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut Live, ui: &mut Ui) {
    keep_runs_fresh(ctx, live);
    open_chosen(ctx, &saved.compare, live);
    panes_ui(
        ui,
        "compare",
        &mut (saved, live),
        |(saved, live), ui| {
            tabs_ui(&mut saved.compare.tab, ui);
            list_ui(ctx, &mut saved.compare, live, ui);
        },
        |(saved, live), ui| comparison_ui(ctx, saved, &mut live.compare, ui),
    );
}

/// Asks for the runs chosen and not asked for yet, and lets go of the others.
fn open_chosen(ctx: &ViewCtx<'_>, saved: &CompareSaved, live: &mut Live) {
    let Some(runs) = live.runs.answer() else { return };
    let opened = &mut live.compare.opened;
    opened.retain(|folder, _| saved.runs.contains(folder));
    // Only runs of this folder: others may be gone.
    for run in runs.iter().filter(|run| run.problem.is_none() && saved.runs.contains(&run.folder)) {
        let entry = opened.entry(run.folder.clone()).or_default();
        if !entry.is_asked {
            entry.is_asked = true;
            entry.loaded.ask(ctx, |job| Command::OpenRun(job, run.folder.clone()));
        }
    }
    for OpenedRun { loaded, series, .. } in opened.values_mut() {
        let Some(run) = loaded.answer() else { continue };
        let (axis, smoothing) = (saved.axis, saved.smoothing);
        let is_current = series.as_ref().is_some_and(|(a, s, _)| *a == axis && s.to_bits() == smoothing.to_bits());
        if !is_current {
            *series = Some((axis, smoothing, CompareSeries::of(&run.history, &run.validations, axis, smoothing)));
        }
    }
}

fn comparison_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut CompareLive, ui: &mut Ui) {
    let pane = ui.clip_rect();
    reading_ui(ctx, &mut saved.compare, live, ui);
    if live.opened.is_empty() {
        empty_ui(
            ui,
            "Nothing chosen",
            "Choose runs at the left: their curves are laid over each other, their figures side by side.",
        );
        return;
    }
    toolbar_ui(ctx, saved, live, pane, ui);
    let shown = shown_of(&saved.compare, &live.opened, &ctx.zone, palette(ui));
    if shown.is_empty() {
        return;
    }
    card_ui(ui, "Final figures", |ui| {
        let rows: Vec<TableRow<'_>> = shown.iter().map(Shown::row).collect();
        table_ui(&rows, &ctx.zone, ui);
        hint_ui(
            ui,
            "Loss and accuracy are those of the last validation, of the weights that ship. Time saved is against vanilla steps as each run measured them; — was not measured.",
        );
    });
    // A range of another axis, or one chosen for other curves, would show nothing.
    let folders: Vec<PathBuf> = shown.iter().map(|shown| shown.run.folder.clone()).collect();
    let now = Some((saved.compare.axis, folders));
    let is_reset = std::mem::take(&mut live.reset_plots) || live.shown != now;
    live.shown = now;
    let view = PlotView { cursor: live.cursor, reset: is_reset, ..view_of(saved.compare.axis, &shown) };
    let plots = overlays(saved.plots.is_log, saved.compare.smoothing > 0.0);
    let answers: Vec<PlotAnswer> = plots.iter().filter_map(|plot| plot.show(view, &shown, ui)).collect();
    live.in_view = answers.first().map(|answer| answer.range);
    let hovered = answers.iter().find_map(|answer| answer.hovered);
    if hovered != live.cursor {
        live.cursor = hovered;
        ui.ctx().request_repaint();
    }
}

/// How reading goes. A run whose error was dismissed, or whose reading was cancelled, is no longer chosen.
fn reading_ui(ctx: &ViewCtx<'_>, saved: &mut CompareSaved, live: &mut CompareLive, ui: &mut Ui) {
    live.opened.retain(|folder, run| {
        job_ui(ctx, &format!("Reading {}", name_of(folder)), &mut run.loaded, ui);
        let loaded = &run.loaded;
        let is_given_up = loaded.answer().is_none() && loaded.failure().is_none() && !loaded.is_waiting();
        if is_given_up {
            saved.runs.remove(folder);
        }
        !is_given_up
    });
}

fn name_of(folder: &Path) -> String {
    folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// The runs that have been read.
fn shown_of<'a>(
    saved: &CompareSaved,
    opened: &'a BTreeMap<PathBuf, OpenedRun>,
    zone: &TimeZone,
    p: &Palette,
) -> Vec<Shown<'a>> {
    let mut shown: Vec<Shown<'a>> = opened
        .iter()
        .filter_map(|(folder, opened)| {
            let color = color_of(p, saved, folder)?;
            let (_, _, series) = opened.series.as_ref()?;
            let run = opened.loaded.answer()?;
            Some(Shown { run, label: RunLabel::default(), validated_name: String::new(), color, series })
        })
        .collect();
    let identities: Vec<RunIdentity<'_>> = shown.iter().map(|shown| RunIdentity::of_loaded(shown.run)).collect();
    for (shown, label) in shown.iter_mut().zip(run_labels(&identities, zone)) {
        let scheme = shown.run.validations.last().and_then(shipped_scheme);
        shown.validated_name = match scheme {
            Some(scheme) => format!("{}, {}", label.name, scheme.label()),
            None => label.name.clone(),
        };
        shown.label = label;
    }
    shown
}

/// What all plots share: one x axis, long enough for every run.
fn view_of(axis: CompareAxis, shown: &[Shown<'_>]) -> PlotView {
    let (link, x_name) = match axis {
        CompareAxis::Steps => ("compare-steps", "steps"),
        CompareAxis::Seconds => ("compare-seconds", "seconds"),
    };
    let ends = shown.iter().filter_map(|shown| shown.series.loss.last());
    let x_end = ends.fold(1.0, |end: f64, (x, _)| end.max(x)) * 1.02;
    PlotView { link: Id::unique(link), x_name, x_end, cursor: None, reset: false }
}

/// One plot with a curve per run.
struct Overlay {
    title: &'static str,
    unit: &'static str,
    about: &'static str,
    height: f32,
    is_log: bool,
    /// Its values are of weights that may be quantized.
    is_validated: bool,
    series: fn(&CompareSeries) -> &Series,
}

const ABOUT_VALIDATION: &str = "Loss on the validation part: of quantized weights, where a run trains for those and computes \
                                with them alone by then, else of full precision.";
const ABOUT_ACCURACY: &str = "Share of right answers on the validation part: of quantized weights, where a run trains for \
                              those and computes with them alone by then, else of full precision.";

fn overlays(is_log: bool, is_smoothed: bool) -> [Overlay; 4] {
    [
        Overlay {
            title: "Training loss",
            unit: if is_smoothed { "nats, smoothed" } else { "nats" },
            about: "Loss of each batch before its update.",
            height: 230.0,
            is_log,
            is_validated: false,
            series: |series| &series.loss,
        },
        Overlay {
            title: "Validation loss",
            unit: "nats",
            about: ABOUT_VALIDATION,
            height: 200.0,
            is_log,
            is_validated: true,
            series: |series| &series.validation_loss,
        },
        Overlay {
            title: "Validation accuracy",
            unit: "share",
            about: ABOUT_ACCURACY,
            height: 180.0,
            is_log: false,
            is_validated: true,
            series: |series| &series.validation_accuracy,
        },
        Overlay {
            title: "Throughput",
            unit: if is_smoothed { "examples or tokens a second, smoothed" } else { "examples or tokens a second" },
            about: "Pace of the steps, batch preparation included.",
            height: 160.0,
            is_log: false,
            is_validated: false,
            series: |series| &series.throughput,
        },
    ]
}

impl Overlay {
    /// Shows it, unless no run has such values.
    fn show(&self, view: PlotView, shown: &[Shown<'_>], ui: &mut Ui) -> Option<PlotAnswer> {
        let curves: Vec<Curve<'_>> = shown
            .iter()
            .filter(|shown| !(self.series)(shown.series).is_empty())
            .map(|shown| {
                let series = (self.series)(shown.series);
                let name = if self.is_validated { &shown.validated_name } else { &shown.label.name };
                // A line through one point is none.
                let style = if series.len() == 1 { CurveStyle::Marks } else { CurveStyle::Solid };
                let curve = Curve::new(name, shown.color, style, series);
                // Runs have their values at different x.
                Curve { reach: f64::INFINITY, ..curve }
            })
            .collect();
        if curves.is_empty() {
            return None;
        }
        let Self { title, unit, about, height, is_log, .. } = *self;
        Some(plot_card_ui(ui, view, Readout { title, unit, about, limit: None, is_log, height }, &curves, |_| {}))
    }
}
