//! A path to type, or to pick in the system's dialog.

use egui::{Response, TextEdit, Ui};

use super::{Icon, icon_button_ui};
use crate::dialogs::{Dialogs, PickKind};
use crate::theme::{size, space};

/// A path field; `salt` ties a picked path to the field that asked for it.
#[derive(Debug, Clone, Copy)]
pub struct PathField<'a> {
    /// Tells fields apart.
    pub salt: &'a str,
    /// What to pick, for the dialog's title and the button's name.
    pub what: &'a str,
    /// What the dialog offers.
    pub kind: PickKind,
    /// Shown while it is empty.
    pub hint: &'a str,
}

/// A text field and a folder button, which opens a dialog outside the frame.
pub fn path_field_ui(ui: &mut Ui, dialogs: &Dialogs, field: PathField<'_>, path: &mut String) -> Response {
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = space::XS;
        let width = ui.available_width() - size::CONTROL - space::XS;
        let mut response = ui.add(
            TextEdit::singleline(path)
                .hint_text(field.hint.to_owned())
                .desired_width(width - 8.0)
                .min_size(egui::vec2(width, size::CONTROL))
                .align(egui::Align2::LEFT_CENTER),
        );
        if let Some(picked) = dialogs.take(field.salt) {
            *path = picked.display().to_string();
            response.mark_changed();
        }
        let name = format!("Choose {}…", field.what);
        if icon_button_ui(ui, Icon::Folder, &name).clicked() {
            dialogs.open(ui.ctx(), field.salt, field.what, field.kind);
        }
        response
    })
    .inner
}
