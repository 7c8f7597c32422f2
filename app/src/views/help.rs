//! The overlay with the shortcuts.

use egui::{Context, Id, Modal, RichText, ScrollArea};

use crate::shortcuts::SHORTCUTS;
use crate::theme::{palette, space};

/// Width of the list.
const WIDTH: f32 = 520.0;
/// What the dialog holds beside the list, and room around it.
const REST: f32 = 160.0;

/// Shows it while open.
pub fn help_ui(is_open: &mut bool, ctx: &Context) {
    if !*is_open {
        return;
    }
    let modal = Modal::new(Id::unique("help")).show(ctx, |ui| {
        let p = palette(ui);
        ui.set_width(WIDTH);
        ui.heading("Shortcuts");
        ui.add_space(space::SM);
        let height = (ui.ctx().content_rect().height() - REST).max(80.0);
        ScrollArea::vertical().max_height(height).min_scrolled_height(height).show(ui, |ui| {
            egui::Grid::new("shortcuts").num_columns(2).spacing([space::LG, space::SM]).show(ui, |ui| {
                for shortcut in &SHORTCUTS {
                    ui.label(RichText::new(shortcut.keys).monospace().color(p.text_strong));
                    ui.label(shortcut.does);
                    ui.end_row();
                }
            });
        });
        ui.add_space(space::MD);
        ui.button("Close").clicked()
    });
    if modal.inner || modal.should_close() {
        *is_open = false;
    }
}
