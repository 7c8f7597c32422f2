//! The window around the screens: its keys, small sizes, and what it says of a run that was told something.

use egui::accesskit::Role;
use egui::{Key, Modifiers, Rect, Vec2};
use egui_kittest::kittest::Queryable;
use foretrain::plots::PlotKind;
use foretrain::state::Screen;
use foretrain::theme::ThemeChoice;
use foretrain_engine::device::Progress;
use foretrain_engine::session::{
    Blame, Command, EventKind, Failure, JobId, PlanReport, RunConfig, RunSnapshot, RunStatus, StopReason,
};

use crate::scene::{self, Window, click, commands, show, tell, training, unsaved};

#[test]
fn keys_do_not_reach_behind_a_dialog() {
    let mut harness = training(50);
    harness.key_press(Key::F1);
    harness.run();
    harness.get_by_label("Shortcuts");
    harness.key_press(Key::Space);
    for key in [Key::S, Key::Enter, Key::Num2] {
        harness.key_press_modifiers(Modifiers::COMMAND, key);
    }
    harness.run();
    assert_eq!(commands(&mut harness), []);
    assert_eq!(harness.state().saved().screen, Screen::Run);
    harness.key_press(Key::F1);
    harness.run();
    harness.key_press_modifiers(Modifiers::COMMAND, Key::S);
    harness.run();
    assert_eq!(commands(&mut harness), [Command::Save]);
}

#[test]
fn no_key_starts_a_run_behind_the_list_of_runs() {
    let mut harness = scene::window(ThemeChoice::Dark);
    harness.run();
    click(&mut harness, "Resume a run…");
    harness.key_press_modifiers(Modifiers::COMMAND, Key::Enter);
    harness.run_steps(3);
    assert_eq!(commands(&mut harness), []);
}

#[test]
fn space_is_for_the_run_in_view() {
    let mut harness = training(50);
    harness.state_mut().saved_mut().screen = Screen::Settings;
    harness.run();
    harness.key_press(Key::Space);
    harness.run();
    assert_eq!(commands(&mut harness), []);
}

#[test]
fn starting_by_key_shows_the_run() {
    let mut harness = scene::window(ThemeChoice::Dark);
    harness.state_mut().saved_mut().screen = Screen::Settings;
    harness.run();
    harness.key_press_modifiers(Modifiers::COMMAND, Key::Enter);
    harness.run_steps(3);
    let sent = commands(&mut harness);
    assert!(matches!(sent.as_slice(), [Command::Start(..)]), "expected Start, found {sent:?}");
    assert_eq!(harness.state().saved().screen, Screen::Run);
}

#[test]
fn on_the_trial_screen_control_enter_is_not_a_start() {
    let mut harness = scene::window(ThemeChoice::Dark);
    harness.state_mut().saved_mut().screen = Screen::Try;
    harness.run_steps(4);
    harness.key_press_modifiers(Modifiers::COMMAND, Key::Enter);
    harness.run_steps(3);
    assert!(!commands(&mut harness).iter().any(|command| matches!(command, Command::Start(..))));
    assert_eq!(harness.state().saved().screen, Screen::Try);
}

#[test]
fn the_scale_goes_by_keys_and_the_key_of_the_plots_leaves_it_alone() {
    let mut harness = scene::window(ThemeChoice::Dark);
    harness.run();
    let scale = |harness: &Window| (harness.state().saved().settings.ui_scale * 100.0).round();
    for (key, expected) in [
        (Key::Plus, 110.0),
        (Key::Equals, 125.0),
        (Key::Num0, 125.0),
        (Key::Minus, 110.0),
        (Key::Minus, 100.0),
        (Key::Minus, 90.0),
    ] {
        harness.key_press_modifiers(Modifiers::COMMAND, key);
        harness.run_steps(4);
        assert_eq!(scale(&harness), expected, "{key:?}");
        assert!((harness.ctx.zoom_factor() * 100.0 - expected).abs() < 0.01);
    }
}

#[track_caller]
fn check_inside(size: [f32; 2], what: &str, rect: Rect) {
    let window = Rect::from_min_size(egui::Pos2::ZERO, Vec2::from(size)).expand(0.5);
    assert!(window.contains_rect(rect), "{what} at {rect} is not inside the window of {size:?}");
}

/// The sizes of a laptop's screen, of the same at 150%, and the least that the window can have.
const SMALL: [[f32; 2]; 3] = [[1280.0, 720.0], [853.0, 480.0], [720.0, 480.0]];

#[test]
fn a_run_can_be_started_in_a_small_window() {
    for size in SMALL {
        let mut harness = scene::window_of(size, ThemeChoice::Dark);
        harness.run();
        check_inside(size, "Start training", harness.get_by_label("Start training").rect());
        click(&mut harness, "Start training");
        assert!(matches!(commands(&mut harness).as_slice(), [Command::Start(..)]));
    }
}

#[test]
fn a_run_can_be_watched_in_a_small_window() {
    for size in SMALL {
        let mut harness = scene::window_of(size, ThemeChoice::Light);
        show(&mut harness, scene::snapshot(900, RunStatus::Training));
        harness.run();
        check_inside(size, "the loss", harness.get_by_label("Loss over steps").rect());
        check_inside(size, "the phases", harness.get_by_label("Phases over steps").rect());
        for kind in PlotKind::ALL {
            let chip = harness.get_by_role_and_label(Role::CheckBox, kind.title());
            check_inside(size, kind.title(), chip.rect());
        }
        for label in
            ["Log scale", "Show all steps (Ctrl+0)", "Save the chosen plots as PNG and SVG", "Stop", "Pause", "Save"]
        {
            check_inside(size, label, harness.get_by_label(label).rect());
        }
    }
}

#[test]
fn what_a_small_window_folds_can_be_opened_and_is_open_in_a_large_one() {
    let mut harness = scene::window_of([720.0, 480.0], ThemeChoice::Dark);
    harness.run();
    assert!(harness.query_by_label("Run name").is_none(), "the recipe is folded");
    click(&mut harness, "Show the recipe");
    assert!(harness.query_all_by_label("Run name").count() >= 1);
    click(&mut harness, "Show events and samples");
    harness.get_by_label("Nothing happened yet.");
    harness.set_size(scene::SIZE.into());
    harness.run();
    assert!(harness.query_by_label("Show savings and gauges").is_none());
    harness.set_size(Vec2::new(720.0, 480.0));
    harness.run();
    harness.get_by_label("Show the recipe");
}

#[test]
fn a_legend_is_not_cut() {
    let harness = scene::window_with(scene::snapshot(900, RunStatus::Training), ThemeChoice::Dark);
    let right = |label: &str| harness.get_by_label(label).rect().right();
    assert!(right("Oscillation") + 30.0 < right("Save divergence as CSV"), "name and value");
    for label in ["Measured", "Smoothed", "Forecast"] {
        assert!(right(label) + 30.0 < right("Save loss as CSV"), "{label}");
    }
}

#[test]
fn a_start_that_fails_is_told_with_the_recipe_folded() {
    for size in [scene::SIZE, [720.0, 480.0]] {
        let mut harness = scene::window_of(size, ThemeChoice::Dark);
        harness.state_mut().saved_mut().is_recipe_hidden = true;
        harness.run();
        click(&mut harness, "Start training");
        let Some(Command::Start(job, _)) = commands(&mut harness).pop() else { panic!("no Start") };
        let failure =
            Failure { message: "reading the dataset: no such file".to_owned(), plan: None, blame: Blame::Work };
        tell(&mut harness, job, EventKind::Rejected(failure));
        harness.run();
        let message = harness.get_by_label("reading the dataset: no such file");
        check_inside(size, "the message", message.rect());
        click(&mut harness, "Dismiss");
        assert!(harness.query_by_label_contains("no such file").is_none());
    }
}

#[test]
fn a_start_shows_how_far_it_is_and_can_be_cancelled() {
    let mut harness = scene::window(ThemeChoice::Dark);
    harness.run();
    click(&mut harness, "Start training");
    let Some(Command::Start(job, _)) = commands(&mut harness).pop() else { panic!("no Start") };
    let mut run = scene::snapshot(0, RunStatus::Preparing { what: "loading the dataset".to_owned() });
    (run.job, run.folder, run.gauges) = (job, None, None);
    show(&mut harness, run.clone());
    harness.run();
    assert!(harness.query_all_by_label("loading the dataset").count() >= 1);
    let progress = Progress { what: "reading train images".to_owned(), done: 500, total: Some(2_000) };
    tell(&mut harness, job, EventKind::Progress(progress));
    harness.run();
    harness.get_by_label("reading train images");
    harness.get_by_label("Progress of the start");
    harness.get_by_label("Cancel the start").click();
    harness.run();
    assert_eq!(commands(&mut harness), [Command::Stop]);
    harness.get_by_label("Cancel the start").click();
    harness.run();
    assert_eq!(commands(&mut harness), [], "it is asked once");
    show(&mut harness, RunSnapshot { status: RunStatus::Ended(StopReason::User), ..run });
    tell(&mut harness, job, EventKind::Cancelled);
    harness.run();
    harness.get_by_label("This run ended before its first step.");
}

#[test]
fn what_was_asked_of_a_run_is_shown_until_it_is_done() {
    let mut harness = training(700);
    for (label, waiting) in [("Pause", "Pausing…"), ("Save", "Saving…"), ("Stop", "Stopping…")] {
        harness.get_by_label(label).click();
        harness.run();
        harness.get_by_label(waiting).click();
        harness.run();
    }
    assert_eq!(commands(&mut harness), [Command::Pause, Command::Save, Command::Stop], "each once");
    show(&mut harness, scene::snapshot(800, RunStatus::Paused));
    harness.run();
    harness.get_by_label("Resume");
    harness.get_by_label("Save");
    harness.get_by_label("Stopping…");
    show(&mut harness, unsaved(800));
    harness.run();
    harness.get_by_label("Stop");
}

/// The recipes that plans were asked for.
fn planned(harness: &mut Window) -> Vec<(JobId, RunConfig)> {
    let plan = |command| if let Command::Plan(job, config) = command { Some((job, *config)) } else { None };
    harness.state_mut().take_pending().into_iter().filter_map(plan).collect()
}

fn set_batch_size(harness: &mut Window, batch_size: usize) {
    harness.state_mut().saved_mut().draft.as_mut().unwrap().config.batch_size = batch_size;
}

/// The job of the one plan that is asked for once the form rests, which must be about `batch_size`.
#[track_caller]
fn only_plan(harness: &mut Window, batch_size: usize) -> JobId {
    harness.run_steps(8);
    let asked = planned(harness);
    let [(job, config)] = asked.as_slice() else { panic!("expected one plan, found {}", asked.len()) };
    assert_eq!(config.batch_size, batch_size);
    *job
}

#[test]
fn the_needs_of_another_recipe_are_planned_during_a_run() {
    let report = EventKind::Planned(Box::new(PlanReport {
        num_params: 105_866,
        plan: scene::plan(),
        full_step_ms: None,
        remedy_step_ms: None,
        vanilla_seconds: None,
        warnings: Vec::new(),
    }));
    let mut harness = training(50);
    click(&mut harness, "Next run");
    harness.run_steps(8);
    harness.state_mut().take_pending();
    set_batch_size(&mut harness, 128);
    let job = only_plan(&mut harness, 128);
    tell(&mut harness, job, report.clone());
    harness.run();
    harness.get_by_label_contains("Times are measured when the run has ended");
    harness.state_mut().saved_mut().draft.as_mut().unwrap().config.name = "another name".to_owned();
    harness.run_steps(8);
    assert!(planned(&mut harness).is_empty(), "a name costs nothing");
    set_batch_size(&mut harness, 64);
    harness.run_steps(2);
    harness.get_by_label_contains("Of the form before its last change");
    let job = only_plan(&mut harness, 64);
    tell(&mut harness, job, report);
    show(&mut harness, scene::snapshot(51, RunStatus::Ended(StopReason::User)));
    // Now a step can be measured.
    only_plan(&mut harness, 64);
}

#[test]
fn changes_that_a_preset_replaced_can_be_had_back() {
    let mut harness = scene::window(ThemeChoice::Dark);
    harness.state_mut().saved_mut().draft.as_mut().unwrap().config.batch_size = 99;
    harness.run();
    let batch_size = |harness: &Window| harness.state().saved().draft.as_ref().unwrap().config.batch_size;
    click(&mut harness, "Undo changes");
    assert_eq!(batch_size(&harness), 256);
    click(&mut harness, "Undo");
    assert_eq!(batch_size(&harness), 99);
    assert!(harness.query_by_label("Undo").is_none());
}

#[test]
fn the_memory_of_the_window_is_shown_apart_from_that_of_the_run() {
    let run = scene::snapshot(50, RunStatus::Training);
    let mut harness = scene::window_with(run.clone(), ThemeChoice::Dark);
    harness.get_by_label("214 MiB of 18.0 GiB");
    harness.get_by_label("64.0 MiB");
    harness.get_by_label("150 MiB");
    harness.get_by_label("Before it: program, window").hover();
    harness.run_steps(20);
    assert!(harness.query_all_by_label_contains("No part of the estimate.").count() >= 1);
    show(&mut harness, RunSnapshot { memory_before_bytes: None, ..run });
    harness.run_steps(4);
    assert!(harness.query_by_label("150 MiB").is_none(), "what was not measured has no figure");
    harness.get_by_label_contains("The bar holds the window, too, which the estimate leaves out.");
}

#[test]
fn gauges_that_were_not_read_show_no_figure() {
    let mut run = scene::snapshot(50, RunStatus::Training);
    let reading = run.gauges.take();
    let mut harness = scene::window_with(run, ThemeChoice::Dark);
    assert!(harness.query_by_label("93.0%").is_none());
    let ended = scene::snapshot(50, RunStatus::Ended(StopReason::User));
    show(&mut harness, RunSnapshot { gauges: reading, ..ended });
    harness.run();
    harness.get_by_label("93.0%");
    harness.get_by_label("As measured at the end of the run.");
}
