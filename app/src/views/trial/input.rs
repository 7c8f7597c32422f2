//! What goes in: a drawing, an image file, or a prompt.

use egui::{DragValue, Key, Modifiers, RichText, Slider, TextEdit, Ui};
use foretrain_engine::models::DataShape;
use foretrain_engine::session::{Command, ReadImageJob};

use crate::dialogs::PickKind;
use crate::state::{TrialLive, TrySaved};
use crate::theme::{font, palette, space};
use crate::views::{ViewCtx, job_ui};
use crate::widgets::{
    CanvasAct, CheckLabel, Icon, PathField, card_ui, field_ui, hint_ui, icon_button_ui, icon_text_button_ui,
    path_field_ui, primary_button_ui,
};

/// Side of the canvas in points, where there is room for it.
const CANVAS_SIDE: f32 = 336.0;
/// Width of the buttons beside the canvas and below the prompt.
const TOOLS_WIDTH: f32 = 220.0;

/// Shows the choices at the left.
pub(super) fn options_ui(ctx: &ViewCtx<'_>, saved: &mut TrySaved, live: &mut TrialLive, shape: DataShape, ui: &mut Ui) {
    match shape {
        DataShape::Images { channels, height, width, .. } => {
            card_ui(ui, "Drawing", |ui| {
                field_ui(ui, "Brush", |ui| {
                    let widest = (height.min(width) as f32 / 6.0).max(1.0);
                    ui.add(Slider::new(&mut saved.brush, 0.5..=widest).suffix(" px").max_decimals(1));
                });
                let hover = "Asks the model after every stroke. Off: press Answer.";
                CheckLabel { text: "Answer after every stroke", hover }.show(ui, &mut saved.is_live);
            });
            card_ui(ui, "Image file", |ui| {
                let field =
                    PathField { salt: "try-image", what: "an image", kind: PickKind::File, hint: "/path/to/image.png" };
                field_ui(ui, "File", |ui| path_field_ui(ui, ctx.dialogs, field, &mut live.file));
                let is_ready = !live.file.trim().is_empty() && !live.picture.is_waiting();
                let load = ui.add_enabled_ui(is_ready, |ui| icon_text_button_ui(ui, Icon::Image, "Load image")).inner;
                if load.on_disabled_hover_text("Choose a PNG or JPEG file first").clicked() {
                    let job = ReadImageJob { path: live.file.trim().into(), shape: (channels, height, width) };
                    live.picture.ask(ctx, |id| Command::ReadImage(id, job));
                }
                job_ui(ctx, "Reading the image", &mut live.picture, ui);
                hint_ui(ui, &format!("Scaled to the model's {width} x {height} pixels."));
            });
        }
        DataShape::Text { .. } => {
            card_ui(ui, "Sampling", |ui| {
                field_ui(ui, "Tokens", |ui| {
                    ui.add(DragValue::new(&mut saved.max_tokens).range(1..=4096));
                });
                field_ui(ui, "Temperature", |ui| {
                    ui.add(Slider::new(&mut saved.temperature, 0.0..=2.0).max_decimals(2));
                });
                hint_ui(ui, "0 picks the likeliest token each time; higher is more surprising.");
                field_ui(ui, "Seed", |ui| {
                    ui.add(DragValue::new(&mut saved.seed).range(0..=u64::from(u32::MAX)));
                    if icon_button_ui(ui, Icon::Dice, "Take the next seed").clicked() {
                        saved.seed = (saved.seed + 1) & u64::from(u32::MAX);
                        live.is_stale = true;
                    }
                });
            });
        }
    }
}

/// Shows the canvas with its buttons: beside it, or below it in a narrow window.
pub(super) fn canvas_ui(ctx: &ViewCtx<'_>, saved: &TrySaved, live: &mut TrialLive, ui: &mut Ui) {
    card_ui(ui, "Draw here", |ui| {
        let width = ui.available_width();
        if width < CANVAS_SIDE + TOOLS_WIDTH + space::LG {
            sheet_ui(saved, live, width.min(CANVAS_SIDE), ui);
            return tools_ui(ctx, live, ui);
        }
        ui.horizontal_top(|ui| {
            sheet_ui(saved, live, CANVAS_SIDE, ui);
            ui.add_space(space::SM);
            ui.vertical(|ui| {
                ui.set_width(TOOLS_WIDTH);
                tools_ui(ctx, live, ui);
            });
        });
    });
}

/// The canvas itself.
fn sheet_ui(saved: &TrySaved, live: &mut TrialLive, side: f32, ui: &mut Ui) {
    match live.canvas.show(ui, "Canvas to draw on", side, saved.brush) {
        CanvasAct::Nothing => {}
        CanvasAct::Stroke => live.is_stale |= saved.is_live,
        CanvasAct::Enter => live.is_stale |= !live.canvas.is_blank(),
    }
}

fn tools_ui(ctx: &ViewCtx<'_>, live: &mut TrialLive, ui: &mut Ui) {
    let p = palette(ui);
    ui.spacing_mut().item_spacing.y = space::SM;
    let is_blank = live.canvas.is_blank();
    let answer = ui.scope(|ui| {
        ui.set_max_width(TOOLS_WIDTH.min(ui.available_width()));
        primary_button_ui(ui, !is_blank, "Answer")
    });
    let answer = answer.inner.on_hover_text("Enter, with the focus on the canvas");
    if answer.on_disabled_hover_text("Draw something first").clicked() {
        live.is_stale = true;
    }
    if ui.add_enabled_ui(!is_blank, |ui| icon_text_button_ui(ui, Icon::Close, "Clear")).inner.clicked() {
        live.canvas.clear();
        live.infer.cancel(ctx);
        live.infer.clear();
        live.is_stale = false;
    }
    let (_, height, width) = live.canvas.shape();
    let text = format!(
        "The model sees exactly these {width} x {height} pixels. Draw large and in the middle, as its training images \
         are.\n\nKeys: Tab to the canvas; arrows move the pen, with Shift they draw, Space makes a dot, Enter answers."
    );
    ui.add(egui::Label::new(RichText::new(text).size(font::SMALL).color(p.text_weak)).wrap());
}

/// Shows the prompt with its button.
pub(super) fn prompt_ui(saved: &mut TrySaved, live: &mut TrialLive, ui: &mut Ui) {
    card_ui(ui, "", |ui| {
        let label = ui.label(RichText::new("Prompt").strong().color(palette(ui).text_strong));
        let id = ui.make_persistent_id("prompt");
        // Before the field sees the key: Enter alone is a line break.
        let is_typing = ui.memory(|memory| memory.has_focus(id));
        let is_asked = is_typing && ui.input_mut(|input| input.consume_key(Modifiers::COMMAND, Key::Enter));
        let field = TextEdit::multiline(&mut saved.prompt)
            .id(id)
            .desired_rows(4)
            .desired_width(f32::INFINITY)
            .font(egui::TextStyle::Monospace)
            .hint_text("Text to go on from");
        ui.add(field).labelled_by(label.id);
        let is_ready = !live.infer.is_waiting();
        let button = ui.scope(|ui| {
            ui.set_max_width(TOOLS_WIDTH.min(ui.available_width()));
            primary_button_ui(ui, is_ready, "Go on")
        });
        let button = button.inner.on_hover_text("Ctrl+Enter, with the focus on the prompt");
        if button.clicked() || (is_asked && is_ready) {
            live.is_stale = true;
        }
    });
}
