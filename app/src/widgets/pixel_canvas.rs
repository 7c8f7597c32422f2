//! A picture of few pixels to draw on, with the mouse or with the keys.

use egui::{
    Color32, ColorImage, EventFilter, Key, PointerButton, Pos2, Rect, Response, Sense, Stroke, StrokeKind,
    TextureHandle, TextureOptions, Ui, Vec2, WidgetInfo, pos2, vec2,
};

use super::image_strip::pixel_color;
use crate::theme::palette;

/// What was done with a canvas in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CanvasAct {
    /// Nothing that ended.
    Nothing,
    /// A stroke or a dot ended.
    Stroke,
    /// Enter was pressed on it.
    Enter,
}

/// The picture, and what its screen needs to show it.
pub struct PixelCanvas {
    /// (channels, height, width).
    shape: (usize, usize, usize),
    pixels: Vec<u8>,
    /// Where the pen is in pixels, while it is drawing or led by keys.
    pen: Pos2,
    texture: Option<TextureHandle>,
    is_changed: bool,
}

impl Default for PixelCanvas {
    fn default() -> Self {
        Self { shape: (1, 0, 0), pixels: Vec::new(), pen: Pos2::ZERO, texture: None, is_changed: false }
    }
}

impl std::fmt::Debug for PixelCanvas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PixelCanvas").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl PixelCanvas {
    /// Takes another shape, beginning anew when it differs.
    pub fn set_shape(&mut self, shape: (usize, usize, usize)) {
        if self.shape != shape {
            self.shape = shape;
            self.pen = pos2(shape.2 as f32 / 2.0, shape.1 as f32 / 2.0);
            self.clear();
        }
    }

    /// (channels, height, width).
    #[must_use]
    pub fn shape(&self) -> (usize, usize, usize) {
        self.shape
    }

    /// Makes everything black.
    pub fn clear(&mut self) {
        let (channels, height, width) = self.shape;
        self.pixels = vec![0; channels * height * width];
        self.is_changed = true;
    }

    /// Shows `pixels` when they have the canvas's shape.
    pub fn set_pixels(&mut self, pixels: &[u8]) {
        if pixels.len() == self.pixels.len() {
            self.pixels.copy_from_slice(pixels);
            self.is_changed = true;
        }
    }

    /// The pixels, (channels, height, width), 0 to 255.
    #[must_use]
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// True while nothing was drawn.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.pixels.iter().all(|&value| value == 0)
    }

    /// Draws a white line with round ends, `radius` pixels wide to each side, with soft edges.
    pub fn stroke(&mut self, from: Pos2, to: Pos2, radius: f32) {
        let (channels, height, width) = self.shape;
        let along = to - from;
        for y in 0..height {
            for x in 0..width {
                let point = pos2(x as f32 + 0.5, y as f32 + 0.5);
                let share = ((point - from).dot(along) / along.length_sq().max(1e-6)).clamp(0.0, 1.0);
                let distance = (point - (from + along * share)).length();
                let value = (255.0 * (radius + 0.5 - distance).clamp(0.0, 1.0)) as u8;
                for channel in 0..channels {
                    if let Some(pixel) = self.pixels.get_mut((channel * height + y) * width + x) {
                        *pixel = (*pixel).max(value);
                    }
                }
            }
        }
        self.is_changed = true;
    }

    /// Shows it, its longer side `side` points long. Returns what was done with it.
    pub fn show(&mut self, ui: &mut Ui, name: &str, side: f32, radius: f32) -> CanvasAct {
        let (_, height, width) = self.shape;
        let scale = side / height.max(width).max(1) as f32;
        let (rect, response) =
            ui.allocate_exact_size(vec2(width as f32, height as f32) * scale, Sense::click_and_drag());
        response.widget_info(|| WidgetInfo::labeled(egui::accesskit::Role::Canvas, true, name));
        let at = |pos: Pos2| ((pos - rect.min) / scale).to_pos2();
        if response.is_pointer_button_down_on()
            && let Some(pos) = response.interact_pointer_pos()
        {
            let is_first = ui.input(|input| input.pointer.primary_pressed());
            let next = at(pos);
            self.stroke(if is_first { next } else { self.pen }, next, radius);
            self.pen = next;
            response.request_focus();
        }
        // Not `clicked`: with the focus here, Enter and Space count as clicks, and mean something else.
        let is_done = response.drag_stopped() || response.clicked_by(PointerButton::Primary);
        let mut act = if is_done { CanvasAct::Stroke } else { CanvasAct::Nothing };
        if response.has_focus() && act == CanvasAct::Nothing {
            act = self.keys(ui, &response, radius);
        }
        self.upload(ui);
        self.paint(ui, rect, scale, radius, &response);
        act
    }

    /// Arrow keys lead the pen; with Shift it draws. Space draws a dot.
    fn keys(&mut self, ui: &Ui, response: &Response, radius: f32) -> CanvasAct {
        let filter = EventFilter { horizontal_arrows: true, vertical_arrows: true, ..EventFilter::default() };
        ui.memory_mut(|memory| memory.set_focus_lock_filter(response.id, filter));
        let (way, is_drawing, is_dot, is_enter) = ui.input(|input| {
            let pressed = |key| input.num_presses(key) as f32;
            let way = vec2(
                pressed(Key::ArrowRight) - pressed(Key::ArrowLeft),
                pressed(Key::ArrowDown) - pressed(Key::ArrowUp),
            );
            (way, input.modifiers.shift, input.key_pressed(Key::Space), input.key_pressed(Key::Enter))
        });
        let (_, height, width) = self.shape;
        let next = (self.pen + way).clamp(Pos2::ZERO, pos2(width as f32, height as f32));
        let is_stroke = is_dot || (is_drawing && way != Vec2::ZERO);
        if is_stroke {
            self.stroke(self.pen, next, radius);
        }
        self.pen = next;
        match (is_enter, is_stroke) {
            (true, _) => CanvasAct::Enter,
            (false, true) => CanvasAct::Stroke,
            (false, false) => CanvasAct::Nothing,
        }
    }

    fn upload(&mut self, ui: &Ui) {
        let (channels, height, width) = self.shape;
        if !self.is_changed && self.texture.is_some() {
            return;
        }
        let plane = height * width;
        let colors = (0..plane).map(|at| pixel_color(&self.pixels, channels, plane, at)).collect();
        let picture = ColorImage::new([width, height], colors);
        match &mut self.texture {
            Some(texture) => texture.set(picture, TextureOptions::NEAREST),
            None => self.texture = Some(ui.ctx().load_texture("canvas", picture, TextureOptions::NEAREST)),
        }
        self.is_changed = false;
    }

    fn paint(&self, ui: &Ui, rect: Rect, scale: f32, radius: f32, response: &Response) {
        let p = palette(ui);
        let painter = ui.painter();
        if let Some(texture) = &self.texture {
            let whole = Rect::from_min_max(Pos2::ZERO, pos2(1.0, 1.0));
            painter.image(texture.id(), rect, whole, Color32::WHITE);
        }
        let border = if response.has_focus() { Stroke::new(2.0, p.accent) } else { Stroke::new(1.0, p.border_strong) };
        painter.rect_stroke(rect, 2.0, border, StrokeKind::Outside);
        let brush = Stroke::new(1.0, Color32::from_gray(150));
        if let Some(pos) = response.hover_pos() {
            painter.with_clip_rect(rect).circle_stroke(pos, (radius + 0.5) * scale, brush);
        } else if response.has_focus() {
            let pen = rect.min + self.pen.to_vec2() * scale;
            painter.with_clip_rect(rect).circle_stroke(pen, (radius + 0.5) * scale, brush);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stroke_is_white_inside_and_soft_at_its_edge() {
        let mut canvas = PixelCanvas::default();
        canvas.set_shape((1, 28, 28));
        assert!(canvas.is_blank());
        canvas.stroke(pos2(5.0, 14.5), pos2(20.0, 14.5), 1.2);
        let at = |x: usize, y: usize| canvas.pixels()[y * 28 + x];
        assert_eq!((at(10, 14), at(10, 20), at(26, 14)), (255, 0, 0));
        assert!((1..255).contains(&at(10, 13)), "{}", at(10, 13));
    }

    #[test]
    fn a_color_model_gets_white_in_every_channel() {
        let mut canvas = PixelCanvas::default();
        canvas.set_shape((3, 8, 8));
        canvas.stroke(pos2(4.0, 4.0), pos2(4.0, 4.0), 2.0);
        let plane: Vec<u8> = canvas.pixels()[..64].to_vec();
        assert_eq!(canvas.pixels()[64..128], plane[..]);
        assert_eq!(canvas.pixels()[128..], plane[..]);
        canvas.set_pixels(&[9; 10]);
        assert_eq!(canvas.pixels()[..64], plane[..], "a picture of another shape is not taken");
    }
}
