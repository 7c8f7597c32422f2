//! Panels that fold to a strip with their name, which opens them again. A window that is too small for a panel folds
//! it, unless the user opens it there.

use std::f32::consts::FRAC_PI_2;

use egui::epaint::TextShape;
use egui::{Align2, Color32, FontId, Frame, Panel, Sense, Ui, WidgetInfo};

use crate::theme::{font, palette};

/// Thickness of the strip.
const STRIP: f32 = 26.0;

/// The edge of the window at which a panel lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    Left,
    Right,
    Bottom,
}

/// How a panel stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fold {
    /// The window is too small for it.
    pub(super) is_cramped: bool,
    /// The user folded it; this is saved.
    pub(super) is_hidden: bool,
    /// The user opened it in a window that is too small for it.
    pub(super) is_opened: bool,
}

impl Fold {
    pub(super) fn is_open(self) -> bool {
        if self.is_cramped { self.is_opened } else { !self.is_hidden }
    }

    /// After the user left it open.
    fn opened(self) -> Self {
        if self.is_cramped {
            Self { is_opened: true, ..self }
        } else {
            Self { is_hidden: false, is_opened: false, ..self }
        }
    }

    /// After the user left it folded.
    fn folded(self) -> Self {
        if self.is_cramped {
            Self { is_opened: false, ..self }
        } else {
            Self { is_hidden: true, is_opened: false, ..self }
        }
    }
}

/// Shows `panel` with `contents`, or the strip in its place; `name` says what it holds: "the recipe".
/// Returns how the user left it.
pub(super) fn fold_ui(
    ui: &mut Ui,
    (edge, name): (Edge, &'static str),
    fold: Fold,
    panel: Panel,
    contents: impl FnOnce(&mut Ui),
) -> Fold {
    let strip = match edge {
        Edge::Left => Panel::left(("strip", name)),
        Edge::Right => Panel::right(("strip", name)),
        Edge::Bottom => Panel::bottom(("strip", name)),
    };
    let strip = strip.exact_size(STRIP).resizable(true).frame(Frame::new().fill(palette(ui).panel));
    let (mut is_open, mut is_clicked) = (fold.is_open(), false);
    Panel::show_switched(ui, &mut is_open, strip, panel, |ui, is_open| {
        if is_open {
            contents(ui);
        } else {
            is_clicked = strip_ui(ui, edge, name);
        }
    });
    if is_open || is_clicked { fold.opened() } else { fold.folded() }
}

/// Fills the strip; true when it was clicked.
fn strip_ui(ui: &mut Ui, edge: Edge, name: &str) -> bool {
    let p = palette(ui);
    let (rect, response) = ui.allocate_exact_size(ui.available_size(), Sense::click());
    let title = format!("Show {name}");
    response.widget_info(|| WidgetInfo::labeled(egui::accesskit::Role::Button, true, &title));
    if ui.is_rect_visible(rect) {
        let is_active = response.hovered() || response.has_focus();
        if is_active {
            ui.painter().rect_filled(rect, 0.0, p.control_hover);
        }
        let color = if is_active { p.text_strong } else { p.text_weak };
        let galley =
            ui.painter().layout_no_wrap(title.clone(), FontId::proportional(font::SMALL), Color32::PLACEHOLDER);
        let corner = rect.center() - galley.size() / 2.0;
        let text = TextShape::new(corner, galley, color);
        ui.painter().add(match edge {
            // Reads upwards.
            Edge::Left | Edge::Right => text.with_angle_and_anchor(-FRAC_PI_2, Align2::CENTER_CENTER),
            Edge::Bottom => text,
        });
    }
    response.clicked()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_window_folds_a_panel_and_leaves_what_is_saved_alone() {
        let small = Fold { is_cramped: true, is_hidden: false, is_opened: false };
        assert!(!small.is_open());
        assert!(small.opened().is_open());
        assert!(!small.opened().folded().is_open());
        let large = Fold { is_cramped: false, ..small.folded() };
        assert!(large.is_open(), "what was folded for want of room opens in a large window");
        assert!(!large.folded().is_open());
    }
}
