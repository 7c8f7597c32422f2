//! What the plots hold is what the run measured.

use egui_kittest::kittest::Queryable;
use foretrain::plots::{PlotKind, csv_of, curves_of};
use foretrain::theme::{DARK, ThemeChoice};
use foretrain_engine::hybrid::Phase;
use foretrain_engine::session::{JobId, RunStatus};

use crate::scene;

#[test]
fn plots_read_the_run() {
    let run = scene::snapshot(700, RunStatus::Training);
    let harness = scene::window_with(run.clone(), ThemeChoice::Dark);
    let series = &harness.state().live().run.series;
    assert_eq!(series.len(), 700);
    for (index, (x, y)) in series.loss.iter().enumerate() {
        let row = run.history.get(index).unwrap();
        assert_eq!((x, y), (row.step as f64, row.loss));
    }
    let num_forecast = run.history.iter().filter(|row| row.forecast.is_some()).count();
    assert_eq!(series.forecast.len(), num_forecast);
    assert_eq!(series.validation_loss.len(), run.validations.len());
    let num_predict = run.history.iter().filter(|row| row.phase == Phase::Predict).count();
    assert_eq!(series.phases.counts(0.0, 1e9)[2] as usize, num_predict);
}

#[test]
fn new_steps_are_added_to_the_plots() {
    let mut harness = scene::window_with(scene::snapshot(300, RunStatus::Training), ThemeChoice::Dark);
    harness.state_mut().show_snapshot(scene::snapshot(301, RunStatus::Training).into());
    harness.run();
    assert_eq!(harness.state().live().run.series.loss.last().unwrap().0, 301.0);
}

#[test]
fn the_loss_table_keeps_forecasts_in_their_own_column() {
    let harness = scene::window_with(scene::snapshot(300, RunStatus::Training), ThemeChoice::Dark);
    let series = &harness.state().live().run.series;
    let table = csv_of(&curves_of(PlotKind::Loss, series, &DARK, false));
    let mut lines = table.lines();
    assert_eq!(lines.next(), Some("step,measured,forecast,forecast_low,forecast_high,validation"));
    let first: Vec<&str> = lines.next().unwrap().split(',').collect();
    assert_eq!((first[0], first[2]), ("1", ""), "no forecast in warmup");
    assert_eq!(lines.count(), 299);
}

/// First and last step in view.
fn in_view(harness: &scene::Window) -> (f64, f64) {
    harness.state().live().run.in_view.expect("plots are shown")
}

#[test]
fn another_run_is_shown_whole() {
    let mut harness = scene::window_with(scene::snapshot(300, RunStatus::Training), ThemeChoice::Dark);
    harness.get_by_label("Loss over steps").hover();
    harness.run_steps(2);
    harness.event(egui::Event::Zoom(4.0));
    harness.run_steps(2);
    let (from, to) = in_view(&harness);
    assert!(to - from < 150.0, "zoomed to {from}..{to}");
    scene::show(&mut harness, scene::snapshot(301, RunStatus::Training));
    harness.run_steps(2);
    let (from, to) = in_view(&harness);
    assert!(to - from < 150.0, "a new step leaves the zoom alone, found {from}..{to}");
    let mut other = scene::snapshot(200, RunStatus::Training);
    other.job = JobId(2);
    scene::show(&mut harness, other);
    harness.run_steps(3);
    let (from, to) = in_view(&harness);
    assert!(from.abs() < 1.0 && (200.0..220.0).contains(&to), "expected all of the new run, found {from}..{to}");
}

#[test]
fn the_phases_stay_in_view_without_the_loss() {
    let mut harness = scene::window_with(scene::snapshot(300, RunStatus::Training), ThemeChoice::Dark);
    harness.state_mut().saved_mut().plots.shown.remove(&PlotKind::Loss);
    harness.run();
    harness.get_by_label("Phases over steps");
    assert!(in_view(&harness).1 > 300.0);
}

#[test]
fn samples_are_named() {
    let harness = scene::window_with(scene::snapshot(300, RunStatus::Training), ThemeChoice::Dark);
    assert!(harness.get_all_by_label("Sample of 3, predicted 3").count() >= 1);
    assert!(harness.get_all_by_label("Sample of 5, predicted 0").count() >= 1);
}
