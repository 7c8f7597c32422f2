//! The window with a real engine behind it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;
use foretrain::app::App;
use foretrain::link::EngineLink;
use foretrain::state::{Catalog, CompareTab, RecipeEntry, Screen};
use foretrain_engine::models::ModelPreset;
use foretrain_engine::session::{Engine, RunStatus, StopReason};
use foretrain_tests::{DEADLINE, small_config, write_idx};

use crate::scene;

#[test]
fn a_click_trains_and_the_plots_hold_what_was_measured() {
    let folder = tempfile::tempdir().unwrap();
    let (data, runs) = (folder.path().join("data"), folder.path().join("runs"));
    std::fs::create_dir(&data).unwrap();
    write_idx(&data, 500, 100);
    let mut config = small_config(&data, &runs);
    config.tier = "balanced".to_owned();
    let recipe =
        RecipeEntry { name: "small".to_owned(), summary: "A small one.".to_owned(), model: ModelPreset::Mlp, config };
    let catalog = Catalog { recipes: vec![recipe], ..scene::catalog() };
    let (wake, woken) = channel();
    let engine = Engine::spawn(Arc::new(move || wake.send(()).unwrap_or_default()), folder.path().join("cache"));
    let engine = engine.unwrap();
    let mut harness = Harness::builder().with_size(scene::SIZE).build_eframe(move |creation| {
        let mut app = App::new(&creation.egui_ctx, None, EngineLink::new(engine), catalog);
        app.saved_mut().settings.runs_folder = runs.display().to_string();
        app
    });
    harness.run_steps(3);
    harness.get_by_label("Start training").click();

    let started = Instant::now();
    let ended = loop {
        harness.run_steps(1);
        let snapshot = harness.state().live().snapshot.clone();
        if let Some(run) = snapshot.filter(|run| matches!(run.status, RunStatus::Ended(_))) {
            break run;
        }
        assert!(started.elapsed() < DEADLINE, "the run does not end: {:?}", harness.state().live().start.failure());
        let _ = woken.recv_timeout(Duration::from_secs(1));
    };
    assert_eq!(ended.status, RunStatus::Ended(StopReason::Finished));
    harness.run_steps(3);
    let series = &harness.state().live().run.series;
    assert_eq!((series.len(), ended.history.len()), (120, 120));
    for ((x, y), row) in series.loss.iter().zip(ended.history.iter()) {
        assert_eq!((x, y), (row.step as f64, row.loss));
    }
    assert_eq!(series.validation_loss.len(), ended.validations.len());
    let last = ended.validations.last().unwrap();
    assert!(last.loss < 1.0 && last.accuracy.unwrap() > 0.8, "it learned: {last:?}");
    harness.get_by_label("Loss over steps");
    assert!(harness.query_all_by_label("Finished").count() >= 1);
}

#[test]
fn a_click_runs_an_arena_whose_stages_are_followed_and_whose_report_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (data, runs) = (folder.path().join("data"), folder.path().join("runs"));
    std::fs::create_dir(&data).unwrap();
    write_idx(&data, 500, 100);
    let mut config = small_config(&data, &runs);
    config.tier = "balanced".to_owned();
    config.num_steps = 60;
    let recipe =
        RecipeEntry { name: "small".to_owned(), summary: "A small one.".to_owned(), model: ModelPreset::Mlp, config };
    let catalog = Catalog { recipes: vec![recipe], ..scene::catalog() };
    let (wake, woken) = channel();
    let engine = Engine::spawn(Arc::new(move || wake.send(()).unwrap_or_default()), folder.path().join("cache"));
    let engine = engine.unwrap();
    let reports = runs.join("experiments");
    let mut harness = Harness::builder().with_size(scene::SIZE).build_eframe(move |creation| {
        let mut app = App::new(&creation.egui_ctx, None, EngineLink::new(engine), catalog);
        app.saved_mut().settings.runs_folder = runs.display().to_string();
        app.saved_mut().screen = Screen::Compare;
        app.saved_mut().compare.tab = CompareTab::Experiments;
        app
    });
    harness.run_steps(3);
    harness.get_by_label("Start the arena").click();

    let started = Instant::now();
    let (mut stages, mut last_share) = (BTreeSet::new(), 0.0);
    let report = loop {
        harness.run_steps(1);
        let live = &harness.state().live().experiments;
        stages.extend(live.track.current);
        let share = live.track.share().unwrap_or(last_share);
        assert!(share >= last_share - 1e-9, "it goes forward: from {last_share} to {share}");
        last_share = share;
        if let Some(report) = live.report.clone() {
            break report;
        }
        assert!(started.elapsed() < DEADLINE, "the arena does not end: {:?}", live.run.failure());
        let _ = woken.recv_timeout(Duration::from_secs(1));
    };
    // A stage may be over before a frame sees it, the last one cannot.
    let num_stages = harness.state().live().experiments.track.stages.len();
    assert!(stages.contains(&(num_stages - 1)) && stages.len() >= 3, "{stages:?} of {num_stages}");
    assert_eq!(report.rows.len(), 4);
    assert!(report.rows.iter().all(|row| row.loss.is_some_and(|loss| loss.mean.is_finite())));
    assert!(report.folder.starts_with(&reports) && report.folder.join("report.json").exists());
    harness.run_steps(3);
    harness.get_by_label_contains("Prediction saved");
    harness.get_by_label("Training loss over steps");
    // It is listed, too.
    let name = report.folder.file_name().unwrap().to_string_lossy().into_owned();
    while harness.query_by_label(&format!("Open report {name}")).is_none() {
        assert!(started.elapsed() < DEADLINE, "the report is not listed");
        let _ = woken.recv_timeout(Duration::from_secs(1));
        harness.run_steps(1);
    }
}
