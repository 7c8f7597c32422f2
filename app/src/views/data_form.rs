//! Which dataset: the same form in a recipe and on the data screen.

use egui::{DragValue, TextEdit, Ui};

use super::ViewCtx;
use crate::dialogs::PickKind;
use crate::state::{DataForm, DataKind, TokenizerKind};
use crate::widgets::{PathField, combo_ui, field_ui, hint_ui, path_field_ui};

/// Shows the form; `salt` keeps two of them apart.
pub fn data_form_ui(ctx: &ViewCtx<'_>, salt: &str, data: &mut DataForm, ui: &mut Ui) {
    field_ui(ui, "Dataset", |ui| {
        combo_ui(ui, &format!("{salt}-dataset"), data.kind.label(), |ui| {
            for kind in DataKind::ALL {
                ui.selectable_value(&mut data.kind, kind, kind.label()).on_hover_text(kind.about());
            }
        });
    });
    hint_ui(ui, data.kind.about());
    if data.kind.needs_path() {
        field_ui(ui, "Path", |ui| {
            let kind = match data.kind {
                DataKind::Jsonl => PickKind::File,
                DataKind::Cifar10 | DataKind::Text => PickKind::FileOrFolder,
                DataKind::Idx | DataKind::ImageFolder | DataKind::Glyphs | DataKind::Grammar | DataKind::Rounds => {
                    PickKind::Folder
                }
            };
            let salt = format!("{salt}-data-path");
            let field = PathField { salt: &salt, what: "the dataset", kind, hint: "/path/to/data" };
            path_field_ui(ui, ctx.dialogs, field, &mut data.path);
        });
    }
    match data.kind {
        DataKind::ImageFolder => {
            field_ui(ui, "Image side", |ui| {
                ui.add(DragValue::new(&mut data.image_size).range(8..=512).suffix(" px"));
            });
        }
        DataKind::Text | DataKind::Jsonl => {
            if data.kind == DataKind::Jsonl {
                field_ui(ui, "Text field", |ui| {
                    ui.add(TextEdit::singleline(&mut data.field).desired_width(f32::INFINITY));
                });
            }
            tokenizer_ui(ctx, salt, data, ui);
        }
        DataKind::Glyphs | DataKind::Grammar | DataKind::Rounds | DataKind::Idx | DataKind::Cifar10 => {}
    }
}

fn tokenizer_ui(ctx: &ViewCtx<'_>, salt: &str, data: &mut DataForm, ui: &mut Ui) {
    field_ui(ui, "Tokens", |ui| {
        combo_ui(ui, &format!("{salt}-tokenizer"), data.tokenizer.label(), |ui| {
            for kind in TokenizerKind::ALL {
                ui.selectable_value(&mut data.tokenizer, kind, kind.label());
            }
        });
    });
    let (what, kind) = match data.tokenizer {
        TokenizerKind::Byte | TokenizerKind::Char => return,
        TokenizerKind::Gpt2 => ("the tokenizer's folder", PickKind::Folder),
        TokenizerKind::File => ("tokenizer.json", PickKind::File),
    };
    field_ui(ui, "Tokenizer", |ui| {
        let salt = format!("{salt}-tokenizer-path");
        let field = PathField { salt: &salt, what, kind, hint: "/path/to/tokenizer" };
        path_field_ui(ui, ctx.dialogs, field, &mut data.tokenizer_path);
    });
}
