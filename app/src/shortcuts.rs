//! Keys and what they do; the overlay and the keyboard read the same table.

use egui::{Context, InputState, Key, KeyboardShortcut, Modifiers};

use crate::state::Screen;

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "`SHORTCUTS` says what each does")]
pub enum Shortcut {
    Start,
    PauseOrResume,
    Save,
    ResetPlots,
    Enlarge,
    Reduce,
    /// Screen by number, from 0.
    Screen(usize),
    Help,
}

/// A line of the overlay.
#[derive(Debug, Clone, Copy)]
pub struct ShortcutInfo {
    /// Keys to show.
    pub keys: &'static str,
    /// What they do.
    pub does: &'static str,
}

/// All shortcuts, for the overlay. egui itself answers Ctrl+Q.
pub const SHORTCUTS: [ShortcutInfo; 14] = [
    ShortcutInfo { keys: "Ctrl+Enter", does: "Start the run that the form describes; not on Try it" },
    ShortcutInfo { keys: "Space", does: "On Run: pause the run, or go on" },
    ShortcutInfo { keys: "Ctrl+S", does: "Save a checkpoint now" },
    ShortcutInfo { keys: "Ctrl+1 … Ctrl+6", does: "Go to a screen" },
    ShortcutInfo { keys: "Ctrl+0", does: "Show all steps in the plots again" },
    ShortcutInfo { keys: "Ctrl+Plus, Ctrl+Minus", does: "Make everything larger or smaller" },
    ShortcutInfo { keys: "F1 or ?", does: "Open or close this list" },
    ShortcutInfo { keys: "Ctrl+Q", does: "Close the window, asking first while work goes on" },
    ShortcutInfo { keys: "Drag, Shift+wheel", does: "On a plot: move along the steps, in all plots" },
    ShortcutInfo { keys: "Ctrl+wheel", does: "On a plot: zoom steps in and out, in all plots; y fits what is in view" },
    ShortcutInfo { keys: "Right drag", does: "On a plot: zoom into a range of steps, in all plots" },
    ShortcutInfo { keys: "Drag the y axis", does: "On a plot: zoom y of this plot" },
    ShortcutInfo { keys: "Double click", does: "On a plot: show all steps again; on its y axis: fit y again" },
    ShortcutInfo { keys: "Double click", does: "On a panel's edge: fold it" },
];

const DIGITS: [Key; 7] = [Key::Num1, Key::Num2, Key::Num3, Key::Num4, Key::Num5, Key::Num6, Key::Num7];

/// Where the user is, which decides what keys act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The screen in view.
    pub screen: Screen,
    /// A dialog covers it: keys must not reach what lies behind.
    pub is_covered: bool,
}

/// Takes the shortcuts pressed in this frame out of the input; keys that mean nothing at `place` stay there. Plain
/// keys count only while no text field has the focus.
pub fn pressed(ctx: &Context, place: Place) -> Vec<Shortcut> {
    let is_typing = ctx.text_edit_focused();
    let has_focus = ctx.memory(|memory| memory.focused().is_some());
    ctx.input_mut(|input| {
        let mut found = everywhere(input, is_typing);
        if !place.is_covered {
            found.extend(uncovered(input, place.screen));
            // With the focus on a button, Space presses the button.
            if !has_focus && place.screen == Screen::Run && input.consume_key(Modifiers::NONE, Key::Space) {
                found.push(Shortcut::PauseOrResume);
            }
        }
        found
    })
}

fn with_control(input: &mut InputState, key: Key) -> bool {
    input.consume_shortcut(&KeyboardShortcut::new(Modifiers::COMMAND, key))
}

/// Keys that act behind a dialog, too.
fn everywhere(input: &mut InputState, is_typing: bool) -> Vec<Shortcut> {
    let mut found = Vec::new();
    // On many keyboards plus is Shift and the key of the equals sign.
    if with_control(input, Key::Plus) || with_control(input, Key::Equals) {
        found.push(Shortcut::Enlarge);
    }
    if with_control(input, Key::Minus) {
        found.push(Shortcut::Reduce);
    }
    let is_question = !is_typing
        && (input.consume_key(Modifiers::NONE, Key::Questionmark)
            || input.consume_key(Modifiers::SHIFT, Key::Questionmark));
    if is_question || input.consume_key(Modifiers::NONE, Key::F1) {
        found.push(Shortcut::Help);
    }
    found
}

/// Keys that act on a screen in view.
fn uncovered(input: &mut InputState, screen: Screen) -> Vec<Shortcut> {
    let mut found = Vec::new();
    // Try it asks its own question with this key.
    if screen != Screen::Try && with_control(input, Key::Enter) {
        found.push(Shortcut::Start);
    }
    for (key, shortcut) in [(Key::S, Shortcut::Save), (Key::Num0, Shortcut::ResetPlots)] {
        if with_control(input, key) {
            found.push(shortcut);
        }
    }
    let screens = DIGITS.into_iter().enumerate().filter(|(_, key)| with_control(input, *key));
    found.extend(screens.map(|(index, _)| Shortcut::Screen(index)));
    found
}
