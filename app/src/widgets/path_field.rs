//! A path to type, or to pick in the system's dialog.

use egui::{Response, TextEdit, Ui};

use super::{Icon, hint_ui, icon_button_ui};
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

/// A text field with a button for each kind of dialog; a dialog opens outside the frame. Says below the field when
/// this system has no dialogs.
pub fn path_field_ui(ui: &mut Ui, dialogs: &Dialogs, field: PathField<'_>, path: &mut String) -> Response {
    ui.vertical(|ui| {
        let response = row_ui(ui, dialogs, field, path);
        if response.changed() {
            dialogs.settle(field.salt);
        }
        if dialogs.is_silent(field.salt) {
            hint_ui(ui, "No file dialog answered here; type the path.");
        }
        response
    })
    .inner
}

fn row_ui(ui: &mut Ui, dialogs: &Dialogs, field: PathField<'_>, path: &mut String) -> Response {
    let buttons = buttons_of(field.kind);
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = space::XS;
        let width = ui.available_width() - (size::CONTROL + space::XS) * buttons.len() as f32;
        let mut response = ui.add(
            TextEdit::singleline(path)
                .hint_text(field.hint.to_owned())
                .desired_width(width - 8.0)
                .min_size(egui::vec2(width, size::CONTROL))
                .align(egui::Align2::LEFT_CENTER),
        );
        // A hint would be read out as the field's name in place of the label of its row.
        ui.ctx().accesskit_node_builder(response.id, |node| node.clear_placeholder());
        if let Some(picked) = dialogs.take(field.salt) {
            *path = picked.display().to_string();
            response.mark_changed();
        }
        for (kind, icon, manner) in buttons {
            if icon_button_ui(ui, *icon, &format!("Choose {}{manner}…", field.what)).clicked() {
                dialogs.open(ui.ctx(), field.salt, field.what, *kind);
            }
        }
        if path.is_empty() { response } else { response.on_hover_ui(|ui| whole_path_ui(ui, path)) }
    })
    .inner
}

/// The dialogs that a field offers: the icon of each, and what to say of it where there are two.
fn buttons_of(kind: PickKind) -> &'static [(PickKind, Icon, &'static str)] {
    match kind {
        PickKind::File => &[(PickKind::File, Icon::File, "")],
        PickKind::Folder => &[(PickKind::Folder, Icon::Folder, "")],
        PickKind::FileOrFolder => {
            &[(PickKind::File, Icon::File, " as a file"), (PickKind::Folder, Icon::Folder, " as a folder")]
        }
    }
}

/// Most paths are longer than their field. Not `on_hover_text`: that would rename the field.
fn whole_path_ui(ui: &mut Ui, path: &str) {
    ui.set_max_width(ui.spacing().tooltip_width);
    ui.add(egui::Label::new(path).wrap());
}
