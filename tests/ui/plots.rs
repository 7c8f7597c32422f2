//! What the plots hold is what the run measured.

use egui_kittest::kittest::Queryable;
use foretrain::plots::{PlotKind, csv_of, curves_of};
use foretrain::theme::{DARK, ThemeChoice};
use foretrain_engine::hybrid::Phase;
use foretrain_engine::session::chart::{Chart, Panel, Scale, Source, Theme, render_svg};
use foretrain_engine::session::{Blame, ChartFormat, ChartJob, Command, EventKind, Failure, JobId, RunStatus};

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
    assert_eq!(
        lines.next(),
        Some(
            "step,measured,forecast,forecast_90_low,forecast_90_high,forecast_2_sigma_low,forecast_2_sigma_high,validation"
        )
    );
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

const SAVE_PLOTS: &str = "Save the chosen plots as PNG and SVG";

/// Clicks on the button that saves the plots; returns what was asked of the engine.
fn asked_chart(harness: &mut scene::Window) -> (JobId, ChartJob) {
    scene::click(harness, SAVE_PLOTS);
    let asked = scene::commands(harness).into_iter().find_map(|command| match command {
        Command::DrawChart(job, chart) => Some((job, *chart)),
        _ => None,
    });
    asked.expect("a chart is asked for")
}

/// Titles and series of a chart's panels.
fn contents(chart: &Chart) -> Vec<(String, Vec<String>)> {
    let panels = chart.panels.iter().filter_map(|panel| match panel {
        Panel::Curves(panel) => Some(panel),
        Panel::Bars(_) => None,
    });
    panels
        .map(|panel| (panel.title.clone(), panel.series.iter().map(|series| series.label.clone()).collect()))
        .collect()
}

#[test]
fn all_chosen_plots_are_saved_whatever_is_in_view() {
    // So small that most plots are scrolled away.
    let mut harness = scene::window_of([720.0, 480.0], ThemeChoice::Light);
    scene::show(&mut harness, scene::snapshot(900, RunStatus::Training));
    harness.state_mut().saved_mut().plots.shown = PlotKind::ALL.into_iter().collect();
    harness.run();
    let (_, job) = asked_chart(&mut harness);
    let found = contents(&job.chart);
    let titles: Vec<_> = found.iter().map(|(title, _)| title.as_str()).collect();
    assert_eq!(titles, PlotKind::ALL.map(PlotKind::title));
    assert_eq!(found[0].1, ["Measured", "Smoothed", "Forecast ± 2 σ (not calibrated)", "Forecast", "Validation"]);
    assert_eq!(
        (job.theme, job.formats.as_slice()),
        (Theme::Light, &[ChartFormat::Png { scale: 2.0 }, ChartFormat::Svg][..])
    );
    assert!(job.output.ends_with("plots/plots"), "{:?}", job.output);
    assert!(job.chart.subtitle.contains("steps 0 to 900 of 1200"), "{}", job.chart.subtitle);
    let svg = render_svg(&job.chart, job.theme).unwrap();
    assert!(svg.contains("Throughput") && !svg.contains("No data"), "every plot of this run has values");
}

#[test]
fn saved_plots_hold_what_was_measured_and_tell_what_was_forecast() {
    let run = scene::snapshot(700, RunStatus::Training);
    let mut harness = scene::window_with(run.clone(), ThemeChoice::Dark);
    harness.state_mut().saved_mut().plots.smoothing = 0.0;
    harness.run();
    let (_, job) = asked_chart(&mut harness);
    assert_eq!(job.theme, Theme::Dark);
    let Some(Panel::Curves(loss)) = job.chart.panels.first() else { panic!("the loss") };
    let [measured, band, forecast, validation] = loss.series.as_slice() else { panic!("{:?}", contents(&job.chart)) };
    let points = |series: &foretrain_engine::session::chart::Series| -> Vec<(f64, f64)> {
        series.pieces.iter().flat_map(|piece| piece.x.iter().copied().zip(piece.y.iter().copied())).collect()
    };
    let rows: Vec<_> = run.history.iter().map(|row| (row.step as f64, f64::from(row.loss))).collect();
    assert_eq!(points(measured), rows);
    assert_eq!(points(validation).len(), run.validations.len());
    let predicted = run.history.iter().filter(|row| row.forecast.is_some()).count();
    assert_eq!(points(forecast).len(), predicted);
    assert_eq!(band.pieces.iter().map(|piece| piece.low.len()).sum::<usize>(), predicted);
    let sources = [measured, band, forecast, validation].map(|series| series.source);
    assert_eq!(sources, [Source::Measured, Source::Predicted, Source::Predicted, Source::Measured]);
    // All steps have their phase, and none another's.
    let mut lengths = std::collections::BTreeMap::new();
    for range in &job.chart.x_ranges {
        *lengths.entry(range.label.as_str()).or_insert(0.0) += range.to - range.from;
    }
    for (phase, label) in
        [(Phase::Warmup, "Warmup"), (Phase::Full, "Full"), (Phase::Predict, "Predict"), (Phase::Correct, "Correct")]
    {
        let steps = run.history.iter().filter(|row| row.phase == phase).count();
        assert_eq!(lengths.get(label).copied(), Some(steps as f64), "{label}");
    }
}

/// The range of y that a chart's panel asks for.
fn y_range(chart: &Chart, title: &str) -> Option<(f64, f64)> {
    chart.panels.iter().find_map(|panel| match panel {
        Panel::Curves(panel) if panel.title == title => panel.y.range,
        Panel::Curves(_) | Panel::Bars(_) => None,
    })
}

/// Drags a thing from its middle to its lower end.
fn drag_down(harness: &mut scene::Window, label: &str) {
    let rect = harness.get_by_label(label).rect();
    let button = |pos, pressed| egui::Event::PointerButton {
        pos,
        button: egui::PointerButton::Primary,
        pressed,
        modifiers: egui::Modifiers::NONE,
    };
    let (from, to) = (rect.center(), rect.center_bottom());
    for event in [egui::Event::PointerMoved(from), button(from, true), egui::Event::PointerMoved(to), button(to, false)]
    {
        harness.event(event);
        harness.run_steps(2);
    }
}

#[test]
fn saved_plots_keep_zoom_and_scale() {
    let mut harness = scene::window_with(scene::snapshot(300, RunStatus::Training), ThemeChoice::Dark);
    harness.state_mut().saved_mut().plots.is_log = true;
    harness.get_by_label("Loss over steps").hover();
    harness.run_steps(2);
    harness.event(egui::Event::Zoom(4.0));
    harness.run_steps(2);
    let (from, to) = in_view(&harness);
    let (first, fitted) = asked_chart(&mut harness);
    scene::tell(&mut harness, first, EventKind::ChartDrawn(Vec::new()));
    drag_down(&mut harness, "Scale of loss");
    harness.state_mut().live_mut().run.drawn.clear();
    let (_, job) = asked_chart(&mut harness);
    assert_eq!((y_range(&fitted.chart, "Loss"), y_range(&job.chart, "Correction")), (None, None));
    let (low, high) = y_range(&job.chart, "Loss").expect("y is the user's");
    assert!(0.0 < low && low < high && high < 10.0, "losses, not their logarithms: {low} to {high}");
    for panel in &job.chart.panels {
        let Panel::Curves(panel) = panel else { panic!("curves") };
        let (low, high) = panel.x.range.unwrap();
        assert!((low - from.max(0.0)).abs() < 1.0 && (high - to.min(300.0)).abs() < 1.0, "{low}..{high}");
        let expected = if panel.title == "Loss" { Scale::Log } else { Scale::Linear };
        assert_eq!(panel.y.scale, expected, "{}", panel.title);
    }
}

#[test]
fn a_long_run_is_saved_from_a_bounded_number_of_points() {
    let mut harness = scene::window_with(scene::snapshot(60_000, RunStatus::Training), ThemeChoice::Dark);
    let (_, job) = asked_chart(&mut harness);
    assert!(job.chart.x_ranges.len() <= 4 * 1200, "{}", job.chart.x_ranges.len());
    let Some(Panel::Curves(loss)) = job.chart.panels.first() else { panic!("the loss") };
    let longest = loss.series.iter().map(|series| series.pieces.iter().map(|piece| piece.x.len()).sum::<usize>()).max();
    assert!(longest.unwrap() <= 4 * 4 * 1200, "{longest:?}");
}

#[test]
fn where_the_plots_were_saved_is_told_and_why_they_were_not() {
    let mut harness = scene::window_with(scene::snapshot(300, RunStatus::Training), ThemeChoice::Dark);
    let (job, _) = asked_chart(&mut harness);
    let paths = ["/runs/a/plots/plots.png", "/runs/a/plots/plots.svg"];
    scene::tell(&mut harness, job, EventKind::ChartDrawn(paths.map(Into::into).to_vec()));
    harness.run_steps(2);
    harness.get_by_label(&format!("Saved {} and {}", paths[0], paths[1]));
    scene::click(&mut harness, "Dismiss");
    assert!(harness.query_by_label_contains("Saved /runs").is_none());

    let (job, _) = asked_chart(&mut harness);
    let failure = Failure { message: "writing: the disk is full".to_owned(), plan: None, blame: Blame::Work };
    scene::tell(&mut harness, job, EventKind::Rejected(failure));
    harness.run_steps(2);
    harness.get_by_label("writing: the disk is full");
}
