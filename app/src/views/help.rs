//! The overlay with the shortcuts.

use egui::{Context, Id, Modal, RichText};

use crate::shortcuts::SHORTCUTS;
use crate::theme::{font, palette, space};

/// Shows it while open.
pub fn help_ui(is_open: &mut bool, ctx: &Context) {
    if !*is_open {
        return;
    }
    let modal = Modal::new(Id::unique("help")).show(ctx, |ui| {
        let p = palette(ui);
        ui.set_width(430.0);
        ui.heading("Shortcuts");
        ui.add_space(space::SM);
        egui::Grid::new("shortcuts").num_columns(2).spacing([space::LG, space::SM]).show(ui, |ui| {
            for shortcut in &SHORTCUTS {
                ui.label(RichText::new(shortcut.keys).monospace().color(p.text_strong));
                ui.label(shortcut.does);
                ui.end_row();
            }
        });
        ui.add_space(space::MD);
        ui.label(RichText::new("Double-click a panel's edge to fold it.").size(font::SMALL).color(p.text_weak));
        ui.add_space(space::XS);
        ui.button("Close").clicked()
    });
    if modal.inner || modal.should_close() {
        *is_open = false;
    }
}
