//! Texts are for people: no word of the program's own types.

use egui_kittest::kittest::NodeT;
use foretrain::state::Screen;
use foretrain::theme::ThemeChoice;
use foretrain_engine::session::{RunStatus, StopReason};

use crate::scene::{self, Window};

/// How Rust shows types to programmers.
const DEBUG_WORDS: [&str; 9] =
    ["Some(", "None", "Ended(", "Failed(", "Preparing {", "Unsaved {", "LossSpike", "BackToFull", "NotFinite"];

/// Every text in the window, by the names and values that a screen reader gets.
fn texts(harness: &Window) -> Vec<String> {
    let nodes = harness.root().children_recursive();
    let of = |node: egui_kittest::Node<'_>| [node.accesskit_node().label(), node.accesskit_node().value()];
    nodes.flat_map(of).flatten().collect()
}

#[test]
fn no_screen_shows_a_programmer_s_words() {
    let failed = || StopReason::Failed("the disk is full".to_owned());
    let statuses = [
        RunStatus::Preparing { what: "loading the dataset".to_owned() },
        RunStatus::Training,
        RunStatus::Unsaved { why: "the disk is full".to_owned() },
        RunStatus::Ended(StopReason::Diverged),
        RunStatus::Ended(failed()),
        RunStatus::Ended(StopReason::Crashed("index out of bounds".to_owned())),
    ];
    for status in statuses {
        for screen in [Screen::Run, Screen::Settings] {
            let mut harness = scene::window(ThemeChoice::Dark);
            harness.state_mut().saved_mut().screen = screen;
            scene::show(&mut harness, scene::snapshot(640, status.clone()));
            harness.run_steps(4);
            for text in texts(&harness) {
                let found = DEBUG_WORDS.iter().find(|word| text.contains(*word));
                assert_eq!(found, None, "{text}");
            }
        }
    }
}
