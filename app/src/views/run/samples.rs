//! What the model does now, on inputs that stay the same.

use egui::{FontId, Rect, RichText, ScrollArea, Sense, Stroke, StrokeKind, Ui, WidgetInfo, vec2};
use foretrain_engine::session::{ImageSample, JobId, Samples};

use super::screen::Head;
use crate::state::{Live, RunLive};
use crate::theme::{Palette, font, palette, space};
use crate::views::ViewCtx;
use crate::widgets::{ImageStrip, number};

/// Shows the latest samples.
pub(super) fn samples_ui(ctx: &ViewCtx<'_>, live: &mut Live, head: Head, ui: &mut Ui) {
    let p = palette(ui);
    let shown = ctx.snapshot.as_ref().and_then(|run| Some((run.job, run.samples.clone()?)));
    ui.horizontal(|ui| {
        head.show("Samples", &mut live.run.is_samples_open, ui);
        if let Some((_, samples)) = &shown {
            let caption = RichText::new(caption(samples)).size(font::SMALL).color(p.text_weak);
            ui.add(egui::Label::new(caption).truncate());
        }
    });
    ui.add_space(2.0);
    match shown.as_ref().map(|(job, samples)| (*job, &**samples)) {
        None => {
            let text = if ctx.snapshot.as_ref().is_some_and(|run| run.disk.is_some()) {
                "No text is generated while weights lie on disk: try the model when it is written."
            } else {
                "Predictions on a fixed grid of images, or generated text, appear at the first validation."
            };
            ui.label(RichText::new(text).size(font::SMALL).color(p.text_weak));
        }
        Some((job, Samples::Images { step, shape, classes, images })) => {
            load(&mut live.run, ui, (job, *step), *shape, images);
            ScrollArea::vertical().id_salt("samples").auto_shrink(false).show(ui, |ui| {
                grid_ui(&live.run, ui, p, classes, images);
            });
        }
        Some((_, Samples::Text { prompt, completion, .. })) => {
            egui::Frame::new().fill(p.inset).corner_radius(6).inner_margin(8).show(ui, |ui| {
                ScrollArea::vertical()
                    .id_salt("samples")
                    .auto_shrink(false)
                    .show(ui, |ui| text_ui(ui, p, prompt, completion));
            });
        }
    }
}

fn caption(samples: &Samples) -> String {
    match samples {
        Samples::Images { step, images, .. } => {
            let num_right = images.iter().filter(|image| image.label == image.predicted).count();
            format!("at step {}: {num_right} of {} right, wrong ones outlined", number::count(*step), images.len())
        }
        Samples::Text { step, .. } => format!("at step {}: prompt, then what the model adds", number::count(*step)),
    }
}

/// Uploads the images, once for each step of each run.
fn load(live: &mut RunLive, ui: &Ui, of: (JobId, u64), shape: (usize, usize, usize), images: &[ImageSample]) {
    if !images.is_empty() && !live.sample_images.as_ref().is_some_and(|loaded| loaded.is_of(of)) {
        let images = images.iter().map(|image| &*image.pixels);
        live.sample_images = Some(ImageStrip::new(ui.ctx(), of, shape, images));
    }
}

fn grid_ui(live: &RunLive, ui: &mut Ui, p: &Palette, classes: &[String], images: &[ImageSample]) {
    let Some(loaded) = &live.sample_images else { return };
    ui.spacing_mut().item_spacing = vec2(6.0, 6.0);
    let side = 44.0;
    ui.horizontal_wrapped(|ui| {
        for (index, image) in images.iter().enumerate() {
            let (rect, response) = ui.allocate_exact_size(vec2(side, side + 15.0), Sense::hover());
            let name = |class: u32| classes.get(class as usize).map_or_else(|| class.to_string(), Clone::clone);
            let (predicted, label) = (name(image.predicted), name(image.label));
            response.widget_info(|| {
                let about = format!("Sample of {label}, predicted {predicted}");
                WidgetInfo::labeled(egui::accesskit::Role::Image, true, about)
            });
            if !ui.is_rect_visible(rect) {
                continue;
            }
            let picture = Rect::from_min_size(rect.min, vec2(side, side));
            loaded.paint(ui.painter(), picture, index);
            let is_right = image.label == image.predicted;
            let stroke = if is_right { Stroke::new(1.0, p.border) } else { Stroke::new(2.0, p.bad) };
            ui.painter().rect_stroke(picture, 2.0, stroke, StrokeKind::Outside);
            let text = if is_right { predicted.clone() } else { format!("{predicted} ({label})") };
            let color = if is_right { p.text_weak } else { p.bad };
            let clip = ui.painter().with_clip_rect(rect.expand(2.0));
            let font = FontId::proportional(font::SMALL - 0.5);
            clip.text(rect.center_bottom(), egui::Align2::CENTER_BOTTOM, text, font, color);
            let chance = number::percent(image.probability.into());
            response.on_hover_text(format!("Predicted {predicted} with {chance}; it is {label}"));
        }
    });
}

fn text_ui(ui: &mut Ui, p: &Palette, prompt: &str, completion: &str) {
    let mut job = egui::text::LayoutJob::default();
    let format = |color| egui::TextFormat::simple(FontId::monospace(font::MONO), color);
    job.append(prompt, 0.0, format(p.text_weak));
    job.append(completion, 0.0, format(p.text_strong));
    job.wrap.max_width = ui.available_width() - space::SM;
    ui.label(job);
}
