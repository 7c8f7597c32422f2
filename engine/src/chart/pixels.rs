//! A scene as the bytes of a PNG file.

use std::io::Cursor;

use tiny_skia::{FillRule, LineCap, LineJoin, Path, PathBuilder, Pixmap, PixmapMut, Transform};

use super::ChartError;
use super::font::{self, Face};
use super::palette::Rgb;
use super::scene::{Anchor, Dash, Paint, Point, Scene, Shape, Stroke, snapped};

/// Least and most pixels per px.
const SCALES: (f64, f64) = (0.25, 8.0);
/// Most pixels of a picture: 400 MB while it is drawn.
const MAX_PIXELS: f64 = 1e8;

/// Draws `scene` with `scale` pixels per px.
pub(super) fn write(scene: &Scene, scale: f64) -> Result<Vec<u8>, ChartError> {
    let (least, most) = SCALES;
    let most = most.min((MAX_PIXELS / (f64::from(scene.width) * f64::from(scene.height))).sqrt());
    // Not a number is in no range.
    if !(least..=most).contains(&scale) {
        return Err(ChartError::Scale { scale, least, most });
    }
    let size = |px: u32| (f64::from(px) * scale).round().max(1.0) as u32;
    let (width, height) = (size(scene.width), size(scene.height));
    let mut pixmap = Pixmap::new(width, height).ok_or(ChartError::Pixels { width, height })?;
    let [red, green, blue] = scene.background.channels();
    pixmap.fill(tiny_skia::Color::from_rgba8(red, green, blue, 255));
    let mut canvas = Canvas { pixels: pixmap.as_mut(), transform: Transform::from_scale(scale as f32, scale as f32) };
    scene.shapes.iter().for_each(|shape| canvas.draw(shape));
    // The background is opaque, so no pixel holds less than its whole color.
    let rgb: Vec<u8> = pixmap.pixels().iter().flat_map(|pixel| [pixel.red(), pixel.green(), pixel.blue()]).collect();
    let mut file = Cursor::new(Vec::new());
    image::write_buffer_with_format(&mut file, &rgb, width, height, image::ColorType::Rgb8, image::ImageFormat::Png)
        .map_err(|source| ChartError::Png { source })?;
    Ok(file.into_inner())
}

struct Canvas<'a> {
    pixels: PixmapMut<'a>,
    transform: Transform,
}

impl Canvas<'_> {
    fn draw(&mut self, shape: &Shape) {
        match shape {
            Shape::Line { points, stroke } => self.paint(path_of(points, false), None, Some(stroke)),
            Shape::Area { points, fill, stroke } => {
                self.paint(path_of(points, true), fill.as_ref(), stroke.as_ref());
            }
            Shape::Rect { corner: [x, y], size: [width, height], fill } => {
                let (right, bottom) = (x + width, y + height);
                self.paint(path_of(&[[*x, *y], [right, *y], [right, bottom], [*x, bottom]], true), Some(fill), None);
            }
            Shape::Circle { center: [x, y], radius, fill, stroke } => {
                let [x, y, radius] = [*x, *y, *radius].map(|value| snapped(value) as f32);
                self.paint(PathBuilder::from_circle(x, y, radius), fill.as_ref(), stroke.as_ref());
            }
            Shape::Text { at, anchor, size, face, color, text } => {
                self.text(*at, *anchor, (*face, *size), *color, text);
            }
        }
    }

    fn text(&mut self, [x, y]: Point, anchor: Anchor, (face, size): (Face, f64), color: Rgb, text: &str) {
        let x = match anchor {
            Anchor::Start => x,
            Anchor::Middle => x - font::width(text, face, size) / 2.0,
            Anchor::End => x - font::width(text, face, size),
        };
        let mut path = PathBuilder::new();
        font::outline(text, face, size, [snapped(x), snapped(y)], &mut path);
        self.paint(path.finish(), Some(&Paint::solid(color)), None);
    }

    /// Draws `path`; an empty one is `None`, and nothing to draw.
    fn paint(&mut self, path: Option<Path>, fill: Option<&Paint>, stroke: Option<&Stroke>) {
        let Some(path) = path else { return };
        if let Some(fill) = fill {
            self.pixels.fill_path(&path, &paint_of(fill), FillRule::Winding, self.transform, None);
        }
        if let Some(stroke) = stroke {
            self.pixels.stroke_path(&path, &paint_of(&stroke.paint), &stroke_of(stroke), self.transform, None);
        }
    }
}

fn path_of(points: &[Point], is_closed: bool) -> Option<Path> {
    let mut path = PathBuilder::new();
    for (index, point) in points.iter().enumerate() {
        let [x, y] = point.map(|value| snapped(value) as f32);
        if index == 0 {
            path.move_to(x, y);
        } else {
            path.line_to(x, y);
        }
    }
    if is_closed {
        path.close();
    }
    path.finish()
}

fn paint_of(paint: &Paint) -> tiny_skia::Paint<'static> {
    let [red, green, blue] = paint.color.channels();
    let mut painted = tiny_skia::Paint::default();
    painted.set_color_rgba8(red, green, blue, (paint.opacity * 255.0).round() as u8);
    painted
}

fn stroke_of(stroke: &Stroke) -> tiny_skia::Stroke {
    let dash = stroke.dash.lengths();
    let dash =
        dash.and_then(|lengths| tiny_skia::StrokeDash::new(lengths.iter().map(|length| *length as f32).collect(), 0.0));
    let line_cap = match stroke.dash {
        Dash::Solid | Dash::Dashed | Dash::Dotted => LineCap::Butt,
    };
    tiny_skia::Stroke { width: stroke.width as f32, dash, line_cap, line_join: LineJoin::Round, ..Default::default() }
}
