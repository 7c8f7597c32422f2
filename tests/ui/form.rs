//! The form beside a run: it shows what is trained, and takes it over afterwards.

use egui_kittest::kittest::Queryable;
use foretrain::theme::ThemeChoice;
use foretrain_engine::quant::{QatConfig, QuantScheme};
use foretrain_engine::session::{Command, JobId, RunSnapshot, RunStatus, StopReason};

use crate::scene::{self, Window, click, commands, show};

/// A run that was resumed: of another recipe than the form's.
fn resumed(status: RunStatus) -> RunSnapshot {
    let mut run = scene::snapshot(300, status);
    let mut config = scene::config();
    (config.name, config.batch_size, config.seed) = ("an older one".to_owned(), 64, 99);
    // As the engine notes it.
    (config.num_threads, config.runs_folder) = (2, std::path::PathBuf::new());
    run.config = config.into();
    run
}

/// The value beside the name of a field, as it stands in the window.
#[track_caller]
fn check_value(harness: &Window, name: &str, value: &str) {
    let label = harness.query_all_by_label(name).next().expect("the field is shown").rect();
    let is_beside = |found: &egui_kittest::Node<'_>| (found.rect().center().y - label.center().y).abs() < 6.0;
    assert!(harness.query_all_by_label(value).any(|found| is_beside(&found)), "{name} is not {value}");
}

#[test]
fn the_form_shows_the_recipe_of_the_run_that_goes_on() {
    let mut harness = scene::window(ThemeChoice::Dark);
    harness.run();
    harness.get_by_label("Muon");
    show(&mut harness, resumed(RunStatus::Training));
    harness.run();
    check_value(&harness, "Run name", "an older one");
    check_value(&harness, "Batch size", "64");
    check_value(&harness, "Seed", "99");
    check_value(&harness, "Model", "mnist-cnn");
    assert!(harness.query_by_label("Undo changes").is_none() && harness.query_by_label("Muon").is_none(), "read-only");
    assert_eq!(harness.state().saved().draft.as_ref().unwrap().config.batch_size, 256, "the form itself is kept");
}

#[test]
fn the_next_run_can_be_prepared_while_one_goes_on_and_another_run_is_shown_first() {
    let mut harness = scene::window_with(resumed(RunStatus::Training), ThemeChoice::Light);
    click(&mut harness, "Next run");
    harness.get_by_label("Muon");
    show(&mut harness, RunSnapshot { job: JobId(2), ..resumed(RunStatus::Training) });
    harness.run();
    check_value(&harness, "Batch size", "64");
}

#[test]
fn the_recipe_of_a_run_that_ended_can_be_taken_over_and_given_back() {
    let mut harness = scene::window_with(resumed(RunStatus::Ended(StopReason::User)), ThemeChoice::Dark);
    harness.state_mut().saved_mut().draft.as_mut().unwrap().config.num_steps = 777;
    harness.run();
    click(&mut harness, "Take its recipe");
    assert!(harness.query_by_label("Take its recipe").is_none(), "it is that now");
    click(&mut harness, "Start training");
    let sent = commands(&mut harness);
    let [Command::Start(_, config)] = sent.as_slice() else { panic!("expected Start, found {sent:?}") };
    assert_eq!((config.batch_size, config.seed, config.num_steps), (64, 99, 1200));
    assert_eq!(config.runs_folder.to_str(), Some("/runs"), "the settings stay the user's");
}

#[test]
fn changes_that_a_run_s_recipe_replaced_can_be_had_back() {
    let mut harness = scene::window_with(resumed(RunStatus::Ended(StopReason::User)), ThemeChoice::Dark);
    harness.state_mut().saved_mut().draft.as_mut().unwrap().config.num_steps = 777;
    harness.run();
    click(&mut harness, "Take its recipe");
    harness.get_by_label("Your changes to glyphs were replaced by the recipe of the run.");
    click(&mut harness, "Undo");
    assert_eq!(harness.state().saved().draft.as_ref().unwrap().config.num_steps, 777);
}

#[test]
fn quantization_aware_training_is_chosen_in_the_form_and_sent_with_the_run() {
    let mut harness = scene::window(ThemeChoice::Dark);
    harness.run();
    let qat = |harness: &Window| harness.state().saved().draft.as_ref().unwrap().config.qat;
    assert!(qat(&harness).is_none() && harness.query_by_label("Switch after").is_none());
    harness.get_by_label("Ternary").scroll_to_me();
    harness.run();
    click(&mut harness, "Ternary");
    assert_eq!(qat(&harness), Some(QatConfig::new(QuantScheme::Ternary)));
    click(&mut harness, "Int8");
    assert_eq!(qat(&harness), Some(QatConfig::new(QuantScheme::Int8)), "numbers that nobody chose are the scheme's");
    let draft = harness.state_mut().saved_mut().draft.as_mut().unwrap();
    draft.config.qat = Some(QatConfig { start_fraction: 0.5, ramp_fraction: 0.6, ..QatConfig::new(QuantScheme::Int8) });
    harness.run();
    // A ramp ends with the run at the latest.
    assert_eq!(qat(&harness).unwrap().ramp_fraction, 0.5);
    click(&mut harness, "Ternary");
    click(&mut harness, "Start training");
    let sent = commands(&mut harness);
    let [Command::Start(_, config)] = sent.as_slice() else { panic!("expected Start, found {sent:?}") };
    let expected = QatConfig { start_fraction: 0.5, ramp_fraction: 0.5, ..QatConfig::new(QuantScheme::Ternary) };
    assert_eq!(config.qat, Some(expected), "another scheme keeps numbers that were chosen");
    click(&mut harness, "Full precision");
    assert!(qat(&harness).is_none());
}

#[test]
fn a_run_that_began_with_a_checkpoint_says_so_and_the_next_need_not() {
    let mut harness = scene::window(ThemeChoice::Dark);
    harness.state_mut().saved_mut().draft.as_mut().unwrap().config.start_from = Some("/runs/teacher".into());
    harness.run();
    harness.get_by_label("Begin with");
    harness.get_by_label("/runs/teacher");
    click(&mut harness, "Draw weights");
    assert!(harness.state().saved().draft.as_ref().unwrap().config.start_from.is_none());
    assert!(harness.query_by_label("Begin with").is_none());
}

#[test]
fn a_run_of_the_form_s_own_recipe_offers_nothing() {
    let harness = scene::window_with(scene::snapshot(300, RunStatus::Ended(StopReason::Finished)), ThemeChoice::Dark);
    assert!(harness.query_by_label("Take its recipe").is_none());
}
