//! Where the weights of the next run lie: in memory, or on disk.

use egui::Ui;
use foretrain_engine::offload::{Commit, Precision};
use foretrain_engine::optim::OptimizerKind;

use crate::dialogs::PickKind;
use crate::state::{Draft, Streaming};
use crate::views::ViewCtx;
use crate::widgets::{PathField, field_ui, hint_ui, path_field_ui};

/// Shows the choice. Models of images fit into memory: they have none.
pub(super) fn weights_ui(ctx: &ViewCtx<'_>, draft: &mut Draft, ui: &mut Ui) {
    let folder = Streaming::default_folder(&draft.config.name, ctx.settings).display().to_string();
    let was_on = draft.streaming.is_on;
    let streaming = &mut draft.streaming;
    field_ui(ui, "Where", |ui| {
        ui.selectable_value(&mut streaming.is_on, false, "In memory").on_hover_text("All of them, as long as they fit");
        let hover = "They go through memory block by block: for models that do not fit, and slower for those that do";
        ui.selectable_value(&mut streaming.is_on, true, "On disk").on_hover_text(hover);
    });
    if !streaming.is_on {
        return;
    }
    if !was_on {
        // The one optimizer that moves block by block.
        draft.config.optimizer.switch_to(OptimizerKind::AdamW);
    }
    hint_ui(
        ui,
        "Block after block is read, computed (on a GPU where the settings say so), moved by AdamW on the processor and written \
         back. Every step is saved by its end.",
    );
    field_ui(ui, "Folder", |ui| {
        let field = PathField { salt: "blocks", what: "the folder of blocks", kind: PickKind::Folder, hint: &folder };
        path_field_ui(ui, ctx.dialogs, field, &mut streaming.folder);
    });
    field_ui(ui, "Per weight", |ui| {
        for (precision, text, hover) in [
            (
                Precision::Compact,
                "4 bytes",
                "bf16, rounded stochastically, and two moments of 8 bits. The loss is near that of full precision",
            ),
            (Precision::Full, "12 bytes", "f32, and two moments in f32: bit for bit what training in memory does"),
        ] {
            ui.selectable_value(&mut streaming.precision, precision, text).on_hover_text(hover);
        }
    });
    field_ui(ui, "Commit", |ui| {
        for (commit, text, hover) in [
            (None, "By room", "Whole steps where the disk has room for two generations of blocks, else block by block"),
            (
                Some(Commit::Step),
                "Steps",
                "A step that is broken off is undone. Takes room for two generations of blocks",
            ),
            (Some(Commit::Block), "Blocks", "A step that is broken off is finished later. Takes room for one"),
        ] {
            ui.selectable_value(&mut streaming.commit, commit, text).on_hover_text(hover);
        }
    });
}
