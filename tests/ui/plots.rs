//! What the plots hold is what the run measured.

use foretrain::plots::{PlotKind, csv_of, curves_of};
use foretrain::theme::{DARK, ThemeChoice};
use foretrain_engine::hybrid::Phase;
use foretrain_engine::session::RunStatus;

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
