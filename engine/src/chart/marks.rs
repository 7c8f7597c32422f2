//! Marks for single values. Each color has its own shape, so that nobody has to tell them by color.

use super::palette::{Palette, Rgb};
use super::scene::{Paint, Point, Shape, Stroke};

/// Whether a mark is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filling {
    Full,
    Hollow,
}

/// From a mark's middle to its edge, px.
const RADIUS: f64 = 3.6;

/// The mark of color `index`.
pub(super) fn mark(p: &Palette, index: u8, filling: Filling, center: Point) -> Shape {
    let color = p.series(index);
    let (fill, stroke) = match filling {
        // A rim in the background's color keeps neighbours apart.
        Filling::Full => (Paint::solid(color), Stroke::solid(p.background, 1.0)),
        Filling::Hollow => (Paint::solid(p.background), Stroke::solid(color, 1.5)),
    };
    let (fill, stroke) = (Some(fill), Some(stroke));
    let polygon = |corners: &[[f64; 2]]| Shape::Area {
        points: corners.iter().map(|[x, y]| [center[0] + x * RADIUS, center[1] + y * RADIUS]).collect(),
        fill,
        stroke,
    };
    // Areas of about one size.
    match index % 9 {
        0 | 8 => Shape::Circle { center, radius: RADIUS, fill, stroke },
        1 => polygon(&[[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]]),
        2 => polygon(&[[0.0, -1.2], [1.15, 0.85], [-1.15, 0.85]]),
        3 => polygon(&[[0.0, -1.3], [1.3, 0.0], [0.0, 1.3], [-1.3, 0.0]]),
        4 => polygon(&[[0.0, 1.2], [1.15, -0.85], [-1.15, -0.85]]),
        5 => polygon(&[[-1.2, 0.0], [0.85, -1.15], [0.85, 1.15]]),
        6 => polygon(&[[1.2, 0.0], [-0.85, -1.15], [-0.85, 1.15]]),
        _ => polygon(&[[-0.55, -1.2], [0.55, -1.2], [1.2, 0.0], [0.55, 1.2], [-0.55, 1.2], [-1.2, 0.0]]),
    }
}

/// The mark of a value that is not a number: a cross.
pub(super) fn cross(color: Rgb, [x, y]: Point) -> [Shape; 2] {
    let stroke = Stroke::solid(color, 1.6);
    let arm = 3.2;
    [
        Shape::segment([x - arm, y - arm], [x + arm, y + arm], stroke),
        Shape::segment([x - arm, y + arm], [x + arm, y - arm], stroke),
    ]
}

/// The mark of a value below the end of a logarithmic axis: an arrow down.
pub(super) fn down_arrow(color: Rgb, [x, y]: Point) -> Shape {
    let points = vec![[x - 3.5, y - 3.0], [x + 3.5, y - 3.0], [x, y + 3.5]];
    Shape::Area { points, fill: None, stroke: Some(Stroke::solid(color, 1.4)) }
}
