//! Data: choose a dataset, look at it, train on it.

use egui::text::{LayoutJob, TextFormat};
use egui::{FontId, Rect, Sense, Stroke, StrokeKind, Ui, WidgetInfo, vec2};
use foretrain_engine::data::{DataWarning, SplitRecord};
use foretrain_engine::session::{Command, DataPreview, ImagePreview, PreviewExamples, TokenPreview};

use super::{Action, ViewCtx, data_form_ui, empty_ui, job_ui, panes_ui};
use crate::state::{DataLive, Live, Saved, Screen};
use crate::theme::{font, palette, space};
use crate::widgets::{
    BarRow, Icon, ImageStrip, Severity, bar_row_ui, card_ui, chip_ui, hint_ui, icon_text_button_ui, notice_ui, number,
    primary_button_ui, stat_ui,
};

/// Side of an image in the grid.
const IMAGE_SIDE: f32 = 56.0;
/// Width of the column of class names.
const NAME_WIDTH: f32 = 84.0;

/// Shows the screen.
pub fn data_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut Live, ui: &mut Ui) {
    panes_ui(
        ui,
        "data",
        &mut (saved, live),
        |(saved, live), ui| choice_ui(ctx, saved, live, ui),
        |(_, live), ui| match live.data.inspect.answer().cloned() {
            Some(preview) => preview_ui(&mut live.data, &preview, ui),
            None => empty_ui(
                ui,
                "Look before you train",
                "Choose a dataset at the left and inspect it: its examples, classes and split appear here.",
            ),
        },
    );
}

fn choice_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut Live, ui: &mut Ui) {
    ui.heading("Data");
    card_ui(ui, "Dataset", |ui| {
        data_form_ui(ctx, "data", &mut saved.data, ui);
        ui.add_space(space::XS);
        let inspect = &mut live.data.inspect;
        if primary_button_ui(ui, !inspect.is_waiting(), "Inspect").clicked() {
            match saved.data.spec() {
                Ok(spec) => {
                    inspect.ask(ctx, |job| Command::Inspect(job, spec));
                }
                Err(missing) => inspect.fail(missing),
            }
        }
        job_ui(ctx, "Inspecting", inspect, ui);
    });
    card_ui(ui, "Train on this", |ui| {
        hint_ui(ui, "Puts this dataset into the recipe of the next run, with a model that can read it.");
        let is_complete = saved.data.spec().is_ok() && saved.draft.is_some();
        let button = ui.add_enabled_ui(is_complete, |ui| icon_text_button_ui(ui, Icon::Play, "Train on this")).inner;
        if button.on_disabled_hover_text("Choose the dataset's path first").clicked()
            && let Some(draft) = &mut saved.draft
        {
            draft.set_data(saved.data.clone());
            ctx.act(Action::Show(Screen::Run));
        }
    });
}

fn preview_ui(live: &mut DataLive, preview: &DataPreview, ui: &mut Ui) {
    ui.heading(&preview.name);
    for warning in &preview.warnings {
        notice_ui(ui, Severity::Warning, &warning_text(warning), |ui| {
            if let DataWarning::SkippedFiles { examples, .. } = warning {
                examples.iter().for_each(|example| {
                    hint_ui(ui, example);
                });
            }
        });
    }
    let is_text = matches!(preview.examples, PreviewExamples::Text { .. });
    card_ui(ui, "Split", |ui| split_ui(&preview.split, if is_text { "tokens" } else { "images" }, ui));
    match &preview.examples {
        PreviewExamples::Images { shape, classes, class_counts, images } => {
            // Every answer of the engine forgets those of the one before.
            if live.images.is_none() {
                live.class = None;
                let pixels = images.iter().map(|image| &*image.pixels);
                live.images = Some(ImageStrip::new(ui.ctx(), &preview.name, *shape, pixels));
            }
            let title = format!("Classes: {} in the training part", classes.len());
            card_ui(ui, &title, |ui| counts_ui(classes, class_counts, ui));
            let (channels, height, width) = shape;
            let color = if *channels >= 3 { "color" } else { "grey" };
            card_ui(ui, &format!("Examples: {width} x {height} pixels, {color}"), |ui| {
                images_ui(live, classes, images, ui);
            });
        }
        PreviewExamples::Text { vocab_size, tokens } => {
            let count = number::count(*vocab_size as u64);
            let title = format!("The first {} tokens, of {count} that there are", tokens.len());
            card_ui(ui, &title, |ui| tokens_ui(tokens, ui));
        }
    }
}

fn warning_text(warning: &DataWarning) -> String {
    match warning {
        DataWarning::SkippedFiles { count, .. } => format!("{count} files or lines were left out."),
        DataWarning::ClassImbalance { largest, smallest } => format!(
            "The classes differ in size: {} has {}, {} has {}. Accuracy will speak for the large ones.",
            largest.0,
            number::count(largest.1 as u64),
            smallest.0,
            number::count(smallest.1 as u64)
        ),
        DataWarning::SmallValidation { count } => {
            format!("Only {count} validation examples: differences below a few percent mean nothing.")
        }
        DataWarning::UnknownCharacters { count } => {
            format!(
                "{count} characters are unknown to the tokenizer; they became the unknown token, or were dropped where it has none."
            )
        }
        DataWarning::NotCached { reason } => {
            format!("The generated data could not be kept and will be made again next time: {reason}")
        }
    }
}

fn split_ui(split: &SplitRecord, unit: &str, ui: &mut Ui) {
    let p = palette(ui);
    ui.columns(3, |cells| {
        let parts = [("Training", split.num_train), ("Validation", split.num_validation), ("Test", split.num_test)];
        for (cell, (name, count)) in cells.iter_mut().zip(parts) {
            let value = if count == 0 { "none".to_owned() } else { number::count(count as u64) };
            stat_ui(cell, name, &value, p.text_strong, if count == 0 { "" } else { unit });
        }
    });
    hint_ui(ui, &format!("Rule: {}", split.rule));
}

fn counts_ui(classes: &[String], counts: &[usize], ui: &mut Ui) {
    let p = palette(ui);
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let columns = if classes.len() > 6 && ui.available_width() > 560.0 { 2 } else { 1 };
    let per_column = classes.len().div_ceil(columns).max(1);
    let rows: Vec<_> = classes.iter().zip(counts).collect();
    ui.columns(columns, |cells| {
        for (cell, rows) in cells.iter_mut().zip(rows.chunks(per_column)) {
            cell.spacing_mut().item_spacing.y = 2.0;
            for (name, count) in rows {
                let row = BarRow {
                    name,
                    name_width: NAME_WIDTH,
                    about: &format!("{name}: {count}"),
                    share: **count as f32 / most as f32,
                    color: p.measured,
                    value: &number::count(**count as u64),
                    value_width: BarRow::VALUE_WIDTH,
                };
                bar_row_ui(cell, row);
            }
        }
    });
}

fn images_ui(live: &mut DataLive, classes: &[String], images: &[ImagePreview], ui: &mut Ui) {
    let p = palette(ui);
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing = vec2(space::XS, space::XS);
        if chip_ui(ui, "All classes", None, live.class.is_none()).clicked() {
            live.class = None;
        }
        for (class, name) in classes.iter().enumerate() {
            let is_on = live.class == Some(class as u32);
            if chip_ui(ui, name, None, is_on).clicked() {
                live.class = if is_on { None } else { Some(class as u32) };
            }
        }
    });
    ui.add_space(space::SM);
    let Some(strip) = &live.images else { return };
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing = vec2(6.0, 6.0);
        let shown = images.iter().enumerate().filter(|(_, image)| live.class.is_none_or(|class| class == image.label));
        for (index, image) in shown {
            let (rect, response) = ui.allocate_exact_size(vec2(IMAGE_SIDE, IMAGE_SIDE + 15.0), Sense::hover());
            let name = classes.get(image.label as usize).map_or_else(|| image.label.to_string(), Clone::clone);
            response
                .widget_info(|| WidgetInfo::labeled(egui::accesskit::Role::Image, true, format!("Example of {name}")));
            if !ui.is_rect_visible(rect) {
                continue;
            }
            let picture = Rect::from_min_size(rect.min, vec2(IMAGE_SIDE, IMAGE_SIDE));
            strip.paint(ui.painter(), picture, index);
            ui.painter().rect_stroke(picture, 2.0, Stroke::new(1.0, p.border), StrokeKind::Outside);
            let clip = ui.painter().with_clip_rect(rect.expand(2.0));
            let font = FontId::proportional(font::SMALL - 0.5);
            clip.text(rect.center_bottom(), egui::Align2::CENTER_BOTTOM, name, font, p.text_weak);
        }
    });
}

/// The text, each token on the ground of the other of two colors.
fn tokens_ui(tokens: &[TokenPreview], ui: &mut Ui) {
    let p = palette(ui);
    let mut job = LayoutJob::default();
    job.wrap.max_width = ui.available_width();
    for (index, token) in tokens.iter().enumerate() {
        let ground = if index % 2 == 0 { p.accent_soft } else { p.control };
        let format = TextFormat {
            font_id: FontId::monospace(font::MONO + 0.5),
            color: p.text_strong,
            background: ground,
            line_height: Some(20.0),
            ..TextFormat::default()
        };
        // A token that is only a line break would be invisible.
        job.append(&token.text.replace('\n', "¶\n"), 0.0, format);
    }
    ui.label(job);
    hint_ui(ui, "Each change of color is a token boundary; ¶ is a line break.");
}
