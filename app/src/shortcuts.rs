//! Keys and what they do; the overlay and the keyboard read the same table.

use egui::{Context, Key, KeyboardShortcut, Modifiers};

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "`SHORTCUTS` says what each does")]
pub enum Shortcut {
    Start,
    PauseOrResume,
    Save,
    ResetPlots,
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

/// All shortcuts, for the overlay.
pub const SHORTCUTS: [ShortcutInfo; 10] = [
    ShortcutInfo { keys: "Ctrl+Enter", does: "Start the run that the form describes" },
    ShortcutInfo { keys: "Space", does: "Pause the run, or go on" },
    ShortcutInfo { keys: "Ctrl+S", does: "Save a checkpoint now" },
    ShortcutInfo { keys: "Ctrl+1 … Ctrl+6", does: "Go to a screen" },
    ShortcutInfo { keys: "Ctrl+0", does: "Show all steps in the plots again" },
    ShortcutInfo { keys: "F1 or ?", does: "Open or close this list" },
    ShortcutInfo { keys: "Drag", does: "On a plot: move along the steps" },
    ShortcutInfo { keys: "Ctrl+wheel", does: "On a plot: zoom in and out" },
    ShortcutInfo { keys: "Right drag", does: "On a plot: zoom into a range" },
    ShortcutInfo { keys: "Double click", does: "On a plot: show all steps again" },
];

const DIGITS: [Key; 7] = [Key::Num1, Key::Num2, Key::Num3, Key::Num4, Key::Num5, Key::Num6, Key::Num7];

/// Takes the shortcuts pressed in this frame out of the input. Plain keys count only while no text
/// field has the focus.
pub fn pressed(ctx: &Context) -> Vec<Shortcut> {
    let is_typing = ctx.text_edit_focused();
    let has_focus = ctx.memory(|memory| memory.focused().is_some());
    ctx.input_mut(|input| {
        let mut found = Vec::new();
        let mut with_control = |input: &mut egui::InputState, key, shortcut| {
            if input.consume_shortcut(&KeyboardShortcut::new(Modifiers::COMMAND, key)) {
                found.push(shortcut);
            }
        };
        with_control(input, Key::Enter, Shortcut::Start);
        with_control(input, Key::S, Shortcut::Save);
        with_control(input, Key::Num0, Shortcut::ResetPlots);
        for (index, key) in DIGITS.into_iter().enumerate() {
            with_control(input, key, Shortcut::Screen(index));
        }
        if input.consume_key(Modifiers::NONE, Key::F1) {
            found.push(Shortcut::Help);
        }
        if !is_typing {
            if input.consume_key(Modifiers::NONE, Key::Questionmark)
                || input.consume_key(Modifiers::SHIFT, Key::Questionmark)
            {
                found.push(Shortcut::Help);
            }
            // With the focus on a button, Space presses the button.
            if !has_focus && input.consume_key(Modifiers::NONE, Key::Space) {
                found.push(Shortcut::PauseOrResume);
            }
        }
        found
    })
}
