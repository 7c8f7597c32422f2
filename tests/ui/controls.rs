//! Clicks and keys become commands.

use egui::{Key, Modifiers};
use egui_kittest::kittest::Queryable;
use foretrain::theme::ThemeChoice;
use foretrain_engine::memory::{MemoryPlan, MemorySettings, Remedy};
use foretrain_engine::models::ops::Kept;
use foretrain_engine::optim::{StatePlace, StatePrecision};
use foretrain_engine::session::{
    Blame, Command, Event, EventKind, Failure, JobId, PlanReport, RunStatus, RunSummary, StopReason,
};

use crate::scene::{self, Window, commands};

#[test]
fn one_click_starts_the_default_recipe() {
    let mut harness = scene::window(ThemeChoice::Dark);
    harness.run();
    harness.get_by_label("Start training").click();
    harness.run_steps(2);
    let sent = commands(&mut harness);
    let [Command::Start(_, config)] = sent.as_slice() else { panic!("expected one Start, found {sent:?}") };
    assert_eq!(**config, scene::config());
}

#[test]
fn what_is_changed_in_the_form_is_what_starts() {
    let mut harness = scene::window(ThemeChoice::Light);
    harness.run();
    harness.get_by_label("Muon").click();
    harness.run();
    harness.key_press_modifiers(Modifiers::COMMAND, Key::Enter);
    harness.run_steps(2);
    let sent = commands(&mut harness);
    let [Command::Start(_, config)] = sent.as_slice() else { panic!("expected one Start, found {sent:?}") };
    assert_eq!(config.optimizer.kind, foretrain_engine::optim::OptimizerKind::Muon);
}

#[test]
fn a_run_can_be_paused_saved_and_stopped() {
    let mut harness = scene::window_with(scene::snapshot(700, RunStatus::Training), ThemeChoice::Dark);
    for label in ["Pause", "Save", "Stop"] {
        harness.get_by_label(label).click();
        harness.run();
    }
    assert_eq!(commands(&mut harness), [Command::Pause, Command::Save, Command::Stop]);
}

#[test]
fn space_pauses_and_goes_on() {
    let mut harness = scene::window_with(scene::snapshot(50, RunStatus::Training), ThemeChoice::Dark);
    harness.key_press(Key::Space);
    harness.run();
    harness.state_mut().show_snapshot(scene::snapshot(50, RunStatus::Paused).into());
    harness.run();
    harness.key_press(Key::Space);
    harness.run();
    harness.get_by_label("Resume").click();
    harness.run();
    assert_eq!(commands(&mut harness), [Command::Pause, Command::Resume, Command::Resume]);
}

#[test]
fn a_second_run_cannot_start_while_one_goes_on() {
    let mut harness = scene::window_with(scene::snapshot(50, RunStatus::Training), ThemeChoice::Dark);
    harness.get_by_label("Start training").click();
    harness.key_press_modifiers(Modifiers::COMMAND, Key::Enter);
    harness.run();
    assert_eq!(commands(&mut harness), []);
}

#[test]
fn a_refusal_appears_beside_the_button() {
    let mut harness = scene::window(ThemeChoice::Dark);
    harness.run();
    harness.get_by_label("Start training").click();
    harness.run_steps(2);
    let Some(Command::Start(job, _)) = commands(&mut harness).pop() else { panic!("no Start") };
    let failure =
        Failure { message: "The run needs 40 GiB, the budget is 18 GiB".to_owned(), plan: None, blame: Blame::Work };
    harness.state_mut().apply_event(&Event { job: JobId(job.0 + 99), kind: EventKind::Rejected(failure.clone()) });
    harness.run_steps(2);
    assert!(harness.query_by_label_contains("40 GiB").is_none(), "an answer to another question is ignored");
    harness.state_mut().apply_event(&Event { job, kind: EventKind::Rejected(failure) });
    harness.run();
    harness.get_by_label_contains("40 GiB");
}

#[test]
fn the_plan_is_asked_once_the_form_rests() {
    let mut harness = scene::window(ThemeChoice::Dark);
    harness.run_steps(8);
    let asked: Vec<Command> = harness.state_mut().take_pending();
    let plans: Vec<_> = asked.iter().filter(|command| matches!(command, Command::Plan(..))).collect();
    let [Command::Plan(job, _)] = plans.as_slice() else { panic!("expected one Plan, found {asked:?}") };
    let report = PlanReport {
        num_params: 105_866,
        plan: scene::plan(),
        full_step_ms: Some(41.0),
        remedy_step_ms: None,
        vanilla_seconds: Some(49.2),
        warnings: vec!["The last batch of an epoch is smaller".to_owned()],
    };
    harness.state_mut().apply_event(&Event { job: *job, kind: EventKind::Planned(Box::new(report)) });
    harness.run();
    harness.get_by_label("105,866");
    harness.get_by_label("about 49 s");
    harness.get_by_label_contains("last batch of an epoch");
    harness.run_steps(8);
    let again = harness.state_mut().take_pending();
    assert!(!again.iter().any(|command| matches!(command, Command::Plan(..))), "asked again without a change");
}

#[test]
fn settings_that_make_a_run_fit_are_taken_over_by_a_button() {
    let mut harness = scene::window(ThemeChoice::Dark);
    harness.run_steps(8);
    let planned = |harness: &mut Window| {
        let asked = harness.state_mut().take_pending();
        asked.into_iter().find_map(|command| match command {
            Command::Plan(job, config) => Some((job, config)),
            _ => None,
        })
    };
    let (job, before) = planned(&mut harness).expect("a plan is asked for");
    let settings = MemorySettings {
        num_micro_batches: 4,
        kept: Kept::Activations,
        states: StatePrecision::EightBit,
        state_place: StatePlace::WithWeights,
    };
    let what = "micro-batches of 64 (4 parts), 8-bit optimizer states: 80.0 MiB, another result".to_owned();
    let plan = MemoryPlan {
        budget_bytes: 100 << 20,
        remedies: vec![
            Remedy { settings: Some(settings), ..Remedy::in_words(what) },
            Remedy::in_words("batches of 64: 90.0 MiB"),
        ],
        ..scene::plan()
    };
    let report = PlanReport {
        num_params: 105_866,
        plan,
        full_step_ms: None,
        remedy_step_ms: None,
        vanilla_seconds: None,
        warnings: Vec::new(),
    };
    harness.state_mut().apply_event(&Event { job, kind: EventKind::Planned(Box::new(report)) });
    harness.run();
    harness.get_by_label_contains("batches of 64: 90.0 MiB");
    harness.get_by_label("Use these settings").scroll_to_me();
    harness.run();
    harness.get_by_label("Use these settings").click();
    harness.run_steps(2);
    let draft = harness.state().saved().draft.as_ref().unwrap().config.clone();
    assert_eq!((draft.num_micro_batches, draft.optimizer.states), (4, StatePrecision::EightBit));
    assert!(harness.query_by_label("Use these settings").is_none(), "the plan is of the form before");
    harness.run_steps(8);
    let (_, after) = planned(&mut harness).expect("the changed form is planned again");
    let mut expected = (*before).clone();
    expected.take_memory_settings(settings);
    assert_eq!(*after, expected, "nothing else changed");
}

#[test]
fn stopped_runs_can_go_on() {
    let mut harness = scene::window(ThemeChoice::Dark);
    harness.run();
    harness.get_by_label("Resume a run…").click();
    harness.run_steps(2);
    let asked = harness.state_mut().take_pending();
    let Some(Command::ListRuns(job, folder)) = asked.last() else { panic!("expected ListRuns, found {asked:?}") };
    assert_eq!(folder.to_str(), Some("/runs"));
    let summary = |name: &str, is_resumable| RunSummary {
        folder: format!("/runs/{name}").into(),
        name: name.to_owned(),
        dataset: "glyphs".to_owned(),
        model: "CNN, 0.11M parameters".to_owned(),
        tier: "balanced".to_owned(),
        step: 400,
        num_steps: 1200,
        validation_loss: Some(0.2),
        validation_accuracy: None,
        last_validation: None,
        ended: if is_resumable { None } else { Some(StopReason::Finished) },
        started_unix_ms: None,
        config: None,
        guard_end: None,
        num_divergences: 0,
        is_running: false,
        is_resumable,
        problem: None,
    };
    let broken = RunSummary { problem: Some("config.ron is cut off".to_owned()), ..summary("broken", false) };
    let runs = vec![summary("killed", true), summary("finished", false), broken];
    harness.state_mut().apply_event(&Event { job: *job, kind: EventKind::Runs(runs) });
    harness.run();
    harness.get_by_label("broken cannot be read: config.ron is cut off");
    harness.get_all_by_label("Resume killed").last().unwrap().click();
    harness.run_steps(2);
    assert!(harness.query_by_label("Resume finished").is_none());
    assert!(harness.query_by_label("Resume broken").is_none());
    let sent = commands(&mut harness);
    let [Command::ResumeRun(_, folder)] = sent.as_slice() else { panic!("expected ResumeRun, found {sent:?}") };
    assert_eq!(folder.to_str(), Some("/runs/killed"));
}

#[test]
fn every_screen_opens_by_key_and_names_its_controls() {
    let mut harness = scene::window_with(scene::snapshot(700, RunStatus::Training), ThemeChoice::Light);
    for key in [Key::Num1, Key::Num2, Key::Num3, Key::Num4, Key::Num5, Key::Num6] {
        harness.key_press_modifiers(Modifiers::COMMAND, key);
        // The harness itself fails on a control without an accessible name.
        // Not `run`: a screen that waits for an answer shows a spinner.
        harness.run_steps(6);
    }
    harness.key_press(Key::F1);
    harness.run();
    harness.get_by_label("Shortcuts");
}
