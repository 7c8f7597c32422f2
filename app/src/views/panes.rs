//! The shape of most screens: choices at the left, what comes of them at the right.

use egui::{CentralPanel, Frame, Margin, Panel, ScrollArea, Ui};

use crate::theme::{palette, space};

/// Shows the two panes, each scrolling by itself; both get `state`.
pub fn panes_ui<S>(
    ui: &mut Ui,
    salt: &str,
    state: &mut S,
    left: impl FnOnce(&mut S, &mut Ui),
    right: impl FnOnce(&mut S, &mut Ui),
) {
    let p = palette(ui);
    // In a small window both get narrower; what comes of the choices keeps the larger part.
    let widest = (ui.available_width() * 0.45).clamp(240.0, 460.0);
    Panel::left(egui::Id::unique((salt, "choices")))
        .default_size(336.0)
        .size_range(widest.min(300.0)..=widest)
        .resizable(true)
        .frame(Frame::new().fill(p.panel))
        .show(ui, |ui| scroll_ui(ui, salt, |ui| left(state, ui)));
    CentralPanel::no_frame().frame(Frame::new().fill(p.base)).show(ui, |ui| scroll_ui(ui, salt, |ui| right(state, ui)));
}

fn scroll_ui(ui: &mut Ui, salt: &str, contents: impl FnOnce(&mut Ui)) {
    ScrollArea::vertical().id_salt(salt).auto_shrink(false).show(ui, |ui| {
        Frame::new().inner_margin(Margin::same(space::MD as i8)).show(ui, |ui| {
            ui.spacing_mut().item_spacing.y = space::SM;
            contents(ui);
        });
    });
}

/// In place of what is not there yet: what it will be, and how to get it.
pub fn empty_ui(ui: &mut Ui, title: &str, what_to_do: &str) {
    let p = palette(ui);
    ui.add_space(space::XL * 2.0);
    ui.vertical_centered(|ui| {
        ui.set_max_width(ui.available_width().min(520.0));
        ui.label(egui::RichText::new(title).size(crate::theme::font::METRIC).color(p.text_strong));
        ui.add_space(space::XS);
        ui.label(egui::RichText::new(what_to_do).color(p.text_weak));
    });
}
