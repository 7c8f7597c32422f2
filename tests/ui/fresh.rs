//! What others changed is seen, and what the keyboard goes to is in view.

use egui::{Event, Key};
use egui_kittest::kittest::{NodeT, Queryable};
use foretrain::state::Screen;
use foretrain::theme::ThemeChoice;
use foretrain_engine::models::ModelPreset;
use foretrain_engine::session::{Command, EventKind};

use crate::scene::Window;
use crate::screens::{IMAGES, summary, tell, window_on, window_with_model};

/// True when the window asks for the runs.
fn asks_for_runs(harness: &mut Window) -> bool {
    let pending = harness.state_mut().take_pending();
    let Some(job) = pending.iter().rev().find_map(|command| match command {
        Command::ListRuns(job, _) => Some(*job),
        _ => None,
    }) else {
        return false;
    };
    tell(harness, job, EventKind::Runs(vec![summary("first")]));
    true
}

#[test]
fn runs_are_read_again_when_a_screen_is_entered_and_when_the_window_gets_the_focus() {
    let mut harness = window_on(Screen::Ship, ThemeChoice::Dark);
    // What the screen before had asked is answered first.
    while asks_for_runs(&mut harness) {}
    assert!(!asks_for_runs(&mut harness), "nothing happened");
    harness.event(Event::WindowFocused(true));
    harness.run_steps(3);
    assert!(asks_for_runs(&mut harness), "the window was left, and others may have trained meanwhile");
    harness.state_mut().saved_mut().screen = Screen::Settings;
    harness.run_steps(3);
    harness.state_mut().saved_mut().screen = Screen::Ship;
    harness.run_steps(3);
    assert!(asks_for_runs(&mut harness), "the screen is entered again");
    harness.run_steps(3);
    assert!(!asks_for_runs(&mut harness), "once");
}

#[test]
fn tab_scrolls_to_what_it_reaches() {
    let mut harness = window_with_model(Screen::Ship, ModelPreset::MnistCnn, IMAGES);
    let height = 420.0;
    harness.set_size(egui::vec2(1000.0, height));
    harness.run_steps(6);
    let top = |harness: &Window| harness.get_by_label("Export for CPU").rect().top();
    assert!(top(&harness) > height, "the button is below the fold");
    let mut num_presses = 0;
    while !harness.get_by_label("Export for CPU").accesskit_node().is_focused() {
        num_presses += 1;
        assert!(num_presses < 100, "the keyboard reaches the button");
        harness.key_press(Key::Tab);
        harness.run_steps(8);
    }
    let rect = harness.get_by_label("Export for CPU").rect();
    assert!(rect.top() >= 0.0 && rect.bottom() <= height, "{rect} is not in view");
}
