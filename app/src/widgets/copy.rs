//! Copying, acknowledged.

use std::time::Duration;

use egui::Ui;

use super::{Icon, icon_button_ui};

/// Seconds that a copy is acknowledged for.
const SHOWN_SECONDS: f64 = 2.0;

/// A button that copies `text`, and says for a moment that it did. `name` says what it copies: "Copy the command".
pub fn copy_button_ui(ui: &mut Ui, name: &str, text: &str) {
    let id = ui.scope_id().with(("copied", name));
    let now = ui.input(|input| input.time);
    let copied = ui.data(|data| data.get_temp::<f64>(id));
    let is_fresh = copied.is_some_and(|copied| now - copied < SHOWN_SECONDS);
    let (icon, shown) = if is_fresh { (Icon::Check, "Copied") } else { (Icon::Copy, name) };
    if icon_button_ui(ui, icon, shown).clicked() {
        ui.ctx().copy_text(text.to_owned());
        ui.data_mut(|data| data.insert_temp(id, now));
    }
    if is_fresh {
        ui.ctx().request_repaint_after(Duration::from_secs_f64(SHOWN_SECONDS));
    }
}
