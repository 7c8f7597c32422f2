//! How much curves are smoothed.

use egui::{Align, Layout, Response, RichText, Slider, Ui, vec2};

use crate::theme::{font, palette, size};

/// Width of the slider.
const SLIDER_WIDTH: f32 = 110.0;
/// Width of the slider with its texts: where less is left of a line, all of it goes to the next.
const WIDTH: f32 = 320.0;
/// Width without the text that says what it means.
const WORDLESS_WIDTH: f32 = 206.0;

/// A slider for the weight of the past in a smoothed curve, 0 to below 1, with what that means in steps.
pub fn smoothing_ui(ui: &mut Ui, smoothing: &mut f32) -> Response {
    let layout = Layout::left_to_right(Align::Center);
    // A line that is too short for the text leaves it to who hovers the slider.
    let is_wordy = ui.max_rect().width() >= WIDTH;
    let width = if is_wordy { WIDTH } else { WORDLESS_WIDTH };
    ui.allocate_ui_with_layout(vec2(width, size::CONTROL), layout, |ui| slider_ui(ui, smoothing, is_wordy)).inner
}

fn slider_ui(ui: &mut Ui, smoothing: &mut f32, is_wordy: bool) -> Response {
    let p = palette(ui);
    let label = ui.label(RichText::new("Smoothing").color(p.text_weak));
    ui.spacing_mut().slider_width = SLIDER_WIDTH;
    // Squeezed towards 1, where a step of the slider should change little.
    let mut position = position_of(*smoothing);
    let text =
        if *smoothing == 0.0 { "off".to_owned() } else { format!("over about {:.0} steps", 1.0 / (1.0 - *smoothing)) };
    let slider = ui.add(Slider::new(&mut position, 0.0..=1.0).show_value(false)).labelled_by(label.id);
    let slider = slider.on_hover_text(&text);
    if slider.changed() {
        *smoothing = smoothing_at(position);
    }
    if is_wordy {
        ui.label(RichText::new(text).size(font::SMALL).color(p.text_weak));
    }
    slider
}

/// Slider position of a smoothing weight: the number of steps it reaches back, on a log scale up to 1000.
fn position_of(smoothing: f32) -> f32 {
    ((1.0 / (1.0 - smoothing.clamp(0.0, 0.999))).log10() / 3.0).clamp(0.0, 1.0)
}

fn smoothing_at(position: f32) -> f32 {
    if position < 0.01 { 0.0 } else { 1.0 - 10f32.powf(-3.0 * position) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slider_and_smoothing_agree() {
        for smoothing in [0.0, 0.5, 0.9, 0.99, 0.999] {
            let back = smoothing_at(position_of(smoothing));
            assert!((back - smoothing).abs() < 1e-3, "{smoothing} became {back}");
        }
    }
}
