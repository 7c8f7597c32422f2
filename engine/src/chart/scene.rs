//! Shapes in px, y down, from back to front: what both formats are written from.

use super::font::Face;
use super::palette::Rgb;

/// A picture.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) background: Rgb,
    /// What a screen reader says.
    pub(super) title: String,
    pub(super) shapes: Vec<Shape>,
}

/// A place, px.
pub(super) type Point = [f64; 2];

/// A color that what is behind may shine through.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Paint {
    pub(super) color: Rgb,
    /// 0 to 1.
    pub(super) opacity: f64,
}

/// Pattern of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dash {
    Solid,
    Dashed,
    Dotted,
}

/// A line's look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stroke {
    pub(super) paint: Paint,
    pub(super) width: f64,
    pub(super) dash: Dash,
}

/// Which part of a text stands at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A thing to draw.
#[derive(Debug)]
pub(super) enum Shape {
    /// An open line.
    Line { points: Vec<Point>, stroke: Stroke },
    /// A closed area.
    Area { points: Vec<Point>, fill: Option<Paint>, stroke: Option<Stroke> },
    /// An upright rectangle.
    Rect { corner: Point, size: Point, fill: Paint },
    /// A circle.
    Circle { center: Point, radius: f64, fill: Option<Paint>, stroke: Option<Stroke> },
    /// A line of text on its baseline.
    Text { at: Point, anchor: Anchor, size: f64, face: Face, color: Rgb, text: String },
}

impl Paint {
    /// Nothing shines through.
    pub(super) fn solid(color: Rgb) -> Self {
        Self { color, opacity: 1.0 }
    }

    /// With an opacity of 0 to 1.
    pub(super) fn pale(color: Rgb, opacity: f64) -> Self {
        Self { color, opacity }
    }
}

impl Stroke {
    /// An unbroken line.
    pub(super) fn solid(color: Rgb, width: f64) -> Self {
        Self { paint: Paint::solid(color), width, dash: Dash::Solid }
    }

    /// In a pattern.
    pub(super) fn with_dash(self, dash: Dash) -> Self {
        Self { dash, ..self }
    }
}

impl Dash {
    /// Lengths drawn and left out, px.
    pub(super) fn lengths(self) -> Option<[f64; 2]> {
        match self {
            Self::Solid => None,
            Self::Dashed => Some([6.0, 3.5]),
            Self::Dotted => Some([1.5, 3.0]),
        }
    }
}

impl Shape {
    /// A straight line.
    pub(super) fn segment(from: Point, to: Point, stroke: Stroke) -> Self {
        Self::Line { points: vec![from, to], stroke }
    }

    /// Text.
    pub(super) fn text(at: Point, anchor: Anchor, (face, size): (Face, f64), color: Rgb, text: &str) -> Self {
        Self::Text { at, anchor, size, face, color, text: text.to_owned() }
    }
}

/// `value` in hundredths of a px, the precision of both formats.
pub(super) fn snapped(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
