//! Closing the window while work goes on.

use std::cell::Cell;

use egui::{Event, Key, Modifiers, ViewportCommand, ViewportEvent, ViewportId};
use egui_kittest::kittest::Queryable;
use foretrain::dialogs::Dialogs;
use foretrain::state::{Catalog, Settings};
use foretrain::theme::ThemeChoice;
use foretrain::views::ViewCtx;
use foretrain_engine::session::{Command, EventKind, JobId, RunStatus, StopReason};

use crate::scene::{self, Window, click, commands, show, tell, training, unsaved};

/// Asks the window to close, as the system's button does.
fn ask_to_close(harness: &mut Window) {
    let viewport = harness.input_mut().viewports.entry(ViewportId::ROOT).or_default();
    viewport.events.push(ViewportEvent::Close);
    harness.step();
}

/// True when the last frame asked for `command`.
fn asks_for(harness: &Window, command: &ViewportCommand) -> bool {
    harness.output().viewport_output.values().any(|viewport| viewport.commands.contains(command))
}

fn closes(harness: &Window) -> bool {
    asks_for(harness, &ViewportCommand::Close)
}

/// Clicks, and tells whether the frame of the click closes the window.
fn closes_by(harness: &mut Window, label: &str) -> bool {
    harness.get_by_label(label).click();
    harness.step();
    closes(harness)
}

/// A run that is asked to save and end, because the window is to close.
fn closing(step: u64) -> Window {
    let mut harness = training(step);
    ask_to_close(&mut harness);
    assert!(asks_for(&harness, &ViewportCommand::CancelClose));
    harness.run_steps(3);
    harness.get_by_label("A run is going on");
    click(&mut harness, "Stop, save and close");
    assert_eq!(commands(&mut harness), [Command::Stop]);
    harness
}

#[test]
fn closing_during_a_run_asks_saves_and_then_closes() {
    for end in [StopReason::User, StopReason::Finished, StopReason::Diverged] {
        let mut harness = closing(50);
        assert!(!closes(&harness), "the run has not ended yet");
        show(&mut harness, scene::snapshot(51, RunStatus::Ended(end)));
        harness.step();
        assert!(closes(&harness));
    }
}

#[test]
fn closing_can_be_taken_back() {
    let mut harness = training(50);
    ask_to_close(&mut harness);
    harness.run_steps(3);
    click(&mut harness, "Keep training");
    assert!(harness.query_by_label("A run is going on").is_none());
    assert_eq!(commands(&mut harness), []);
}

#[test]
fn a_run_that_fails_while_the_window_closes_keeps_it_open() {
    let full = "saving a checkpoint: 2 GiB needed, 0 B free".to_owned();
    for end in [StopReason::Failed(full.clone()), StopReason::Crashed("index out of bounds".to_owned())] {
        let mut harness = closing(900);
        show(&mut harness, scene::snapshot(901, RunStatus::Ended(end)));
        harness.step();
        assert!(!closes(&harness), "nobody would learn of it");
        harness.run_steps(3);
        harness.get_by_label("The run ended without saving");
        harness.get_by_label("The last checkpoint is step 800.");
        ask_to_close(&mut harness);
        assert!(asks_for(&harness, &ViewportCommand::CancelClose));
        assert!(closes_by(&mut harness, "Close anyway"));
    }
    let mut harness = closing(900);
    show(&mut harness, scene::snapshot(901, RunStatus::Ended(StopReason::Failed(full))));
    harness.run_steps(3);
    assert!(!closes_by(&mut harness, "Keep open"));
    harness.run();
    assert!(harness.query_by_label("The run ended without saving").is_none());
}

#[test]
fn what_the_engine_says_of_the_end_counts_like_what_it_shows() {
    let mut harness = closing(900);
    tell(&mut harness, JobId(1), EventKind::Ended(StopReason::Failed("disk full".to_owned())));
    show(&mut harness, scene::snapshot(901, RunStatus::Ended(StopReason::User)));
    harness.step();
    assert!(!closes(&harness));
}

#[test]
fn a_save_that_fails_while_the_window_closes_can_be_tried_again() {
    let mut harness = closing(900);
    show(&mut harness, unsaved(900));
    harness.run_steps(3);
    harness.get_by_label("The run could not be saved");
    harness.get_by_label("The last checkpoint is step 800.");
    click(&mut harness, "Try again");
    assert_eq!(commands(&mut harness), [Command::Save]);
    assert!(!closes(&harness));
    click(&mut harness, "Keep open");
    assert!(harness.query_all_by_label("Not saved").count() >= 1, "the run still waits");
    ask_to_close(&mut harness);
    harness.run_steps(3);
    click(&mut harness, "Stop, save and close");
    assert!(!commands(&mut harness).contains(&Command::Stop), "that would give up what the run holds");
    assert!(closes_by(&mut harness, "Close anyway"));
}

#[test]
fn nobody_must_wait_for_an_end_that_does_not_come() {
    let text = "Close without saving (last checkpoint: step 800)";
    let mut harness = closing(900);
    assert!(harness.query_by_label(text).is_none());
    harness.run_steps(44);
    assert!(closes_by(&mut harness, text));
}

#[test]
fn a_start_that_waits_is_asked_about_once() {
    let mut harness = scene::window(ThemeChoice::Dark);
    harness.run();
    click(&mut harness, "Start training");
    let Some(Command::Start(job, _)) = commands(&mut harness).pop() else { panic!("no Start") };
    ask_to_close(&mut harness);
    for _ in 0..4 {
        harness.step();
        assert!(!closes(&harness) && !asks_for(&harness, &ViewportCommand::CancelClose));
        harness.get_by_label("A run is going on");
    }
    click(&mut harness, "Stop, save and close");
    assert_eq!(commands(&mut harness), [Command::Stop]);
    tell(&mut harness, job, EventKind::Cancelled);
    harness.step();
    assert!(closes(&harness));
}

/// Pretends that an export is under way.
fn export(harness: &mut Window) -> JobId {
    let (catalog, settings, dialogs) = (Catalog::default(), Settings::default(), Dialogs::default());
    let next_job = Cell::new(1_000);
    let ctx = ViewCtx::new(&catalog, &settings, &dialogs, &next_job);
    // Which command it was does not matter to the window: this one takes the least to make.
    harness.state_mut().live_mut().ship.export.ask(&ctx, |job| Command::Describe(job, "/runs/first".into()))
}

#[test]
fn closing_during_an_export_asks_cancels_it_and_waits_for_that() {
    let mut harness = scene::window(ThemeChoice::Light);
    harness.run();
    let job = export(&mut harness);
    ask_to_close(&mut harness);
    assert!(asks_for(&harness, &ViewportCommand::CancelClose));
    harness.run_steps(3);
    harness.get_by_label("An export is going on");
    harness.state_mut().take_pending();
    click(&mut harness, "Cancel it and close");
    assert!(harness.state_mut().take_pending().contains(&Command::Cancel(job)));
    assert!(!closes(&harness), "it may be in the middle of a file");
    tell(&mut harness, job, EventKind::Cancelled);
    harness.step();
    assert!(closes(&harness));
}

#[test]
fn closing_names_everything_that_it_would_end() {
    let mut harness = training(50);
    let job = export(&mut harness);
    ask_to_close(&mut harness);
    harness.run_steps(3);
    harness.get_by_label("A run is going on");
    harness.get_by_label("Closing cancels an export; nothing half done is left.");
    click(&mut harness, "Stop, save and close");
    tell(&mut harness, job, EventKind::Cancelled);
    harness.run_steps(2);
    assert!(!closes(&harness), "the run goes on saving");
    show(&mut harness, scene::snapshot(51, RunStatus::Ended(StopReason::User)));
    harness.step();
    assert!(closes(&harness));
}

#[test]
fn control_q_closes_the_window() {
    let mut harness = scene::window(ThemeChoice::Dark);
    harness.run();
    let (key, modifiers) = (Key::Q, Modifiers::COMMAND);
    harness.event(Event::Key { key, physical_key: None, pressed: true, repeat: false, modifiers });
    harness.step();
    assert!(closes(&harness));
}
