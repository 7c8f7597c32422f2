//! Surfaces.

use egui::{CornerRadius, Frame, Margin, RichText, Stroke, Ui};

use crate::theme::{font, palette, radius, space};

/// A titled card as wide as there is room. What is inside keeps its own width and is not spread to the card's.
pub fn card_ui<R>(ui: &mut Ui, title: &str, contents: impl FnOnce(&mut Ui) -> R) -> R {
    let p = palette(ui);
    Frame::new()
        .fill(p.card)
        .stroke(Stroke::new(1.0, p.border))
        .corner_radius(CornerRadius::same(radius::CARD))
        .inner_margin(Margin::same(space::MD as i8))
        .show(ui, |ui| {
            ui.set_min_width(ui.available_width());
            // Columns justify: they would stretch buttons and spread the words of a line.
            ui.vertical(|ui| {
                if !title.is_empty() {
                    section_title_ui(ui, title);
                    ui.add_space(space::XS);
                }
                contents(ui)
            })
            .inner
        })
        .inner
}

/// How many cards of at least `least_width` fit side by side, `most` at most and 1 at least.
#[must_use]
pub fn num_columns(ui: &Ui, least_width: f32, most: usize) -> usize {
    let gap = ui.spacing().item_spacing.x;
    (((ui.available_width() + gap) / (least_width + gap)) as usize).clamp(1, most.max(1))
}

/// The small heading of a card or a group.
pub fn section_title_ui(ui: &mut Ui, title: &str) {
    let p = palette(ui);
    let response = ui.label(RichText::new(title).size(font::BODY).color(p.text_strong).strong());
    ui.ctx().accesskit_node_builder(response.id, |node| node.set_role(egui::accesskit::Role::Heading));
}

/// Something to open when one wants to know more; its state is remembered under `title`.
pub fn expander_ui(ui: &mut Ui, title: &str, contents: impl FnOnce(&mut Ui)) {
    let p = palette(ui);
    let text = RichText::new(title).size(font::SMALL + 0.5).color(p.text_weak);
    egui::CollapsingHeader::new(text).id_salt(title).show_unindented(ui, |ui| {
        ui.add_space(2.0);
        contents(ui);
    });
}
