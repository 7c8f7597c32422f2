//! Keeps what has the keyboard's focus in view. One place for all screens: whatever scrolls, scrolls along.

use egui::accesskit::{Action, ActionRequest, TreeId};
use egui::{Context, Event, Id, Key, Plugin, RawInput};

/// Frames that pass until a widget has the focus that a key gives it.
const PATIENCE: u8 = 3;

/// Scrolls to a widget that got the focus by a key and is not all in view. What was clicked is under the pointer already,
/// and stays there.
#[derive(Debug, Default)]
pub struct FollowFocus {
    focused: Option<Id>,
    /// Frames left in which a change of focus is the doing of a key.
    frames_left: u8,
}

impl Plugin for FollowFocus {
    fn debug_name(&self) -> &'static str {
        "follow focus"
    }

    fn input_hook(&mut self, ctx: &Context, input: &mut RawInput) {
        let focused = ctx.memory(|memory| memory.focused());
        let is_new = focused != std::mem::replace(&mut self.focused, focused);
        if let Some(id) = focused.filter(|_| is_new && self.frames_left > 0)
            && is_hidden(ctx, id)
        {
            // As a screen reader asks for it: the scroll areas around the widget hear of it while they lay it out.
            input.events.push(Event::AccessKitActionRequest(ActionRequest {
                action: Action::ScrollIntoView,
                target_tree: TreeId::ROOT,
                target_node: id.accesskit_id(),
                data: None,
            }));
        }
        let is_move = |event: &Event| match event {
            Event::Key { key, pressed: true, .. } => {
                matches!(key, Key::Tab | Key::ArrowUp | Key::ArrowDown | Key::ArrowLeft | Key::ArrowRight)
            }
            _ => false,
        };
        self.frames_left = if input.events.iter().any(is_move) { PATIENCE } else { self.frames_left.saturating_sub(1) };
    }
}

/// True when a part of the widget was cut off in the last frame.
fn is_hidden(ctx: &Context, id: Id) -> bool {
    ctx.read_response(id).is_some_and(|response| !response.interact_rect.expand(1.0).contains_rect(response.rect))
}
