//! A scene as SVG text, without ids, styles or scripts: safe to embed, the same wherever it stands.

use std::fmt::Write;

use super::font::{FAMILIES, Face};
use super::palette::Rgb;
use super::scene::{Anchor, Paint, Point, Scene, Shape, Stroke, snapped};
use super::text::escape;

/// Writes `scene`.
pub(super) fn write(scene: &Scene) -> String {
    let (width, height) = (scene.width, scene.height);
    let title = escape(&scene.title);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\" font-family=\"{FAMILIES}\">\n\
         <title>{title}</title>\n<rect width=\"{width}\" height=\"{height}\" fill=\"{}\"/>\n",
        hex(scene.background)
    );
    scene.shapes.iter().for_each(|shape| shape_to(&mut out, shape));
    out.push_str("</svg>\n");
    out
}

/// Writing into a string cannot fail, so the results of `write!` say nothing.
fn shape_to(out: &mut String, shape: &Shape) {
    match shape {
        Shape::Line { points, stroke } => {
            out.push_str("<path d=\"");
            path_to(out, points);
            out.push_str("\" fill=\"none\"");
            stroke_to(out, stroke);
        }
        Shape::Area { points, fill, stroke } => {
            out.push_str("<path d=\"");
            path_to(out, points);
            out.push_str("Z\"");
            paints_to(out, fill.as_ref(), stroke.as_ref());
        }
        Shape::Rect { corner: [x, y], size: [width, height], fill } => {
            let (x, y, width, height) = (number(*x), number(*y), number(*width), number(*height));
            let _ = write!(out, "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"");
            paints_to(out, Some(fill), None);
        }
        Shape::Circle { center: [x, y], radius, fill, stroke } => {
            let (x, y, radius) = (number(*x), number(*y), number(*radius));
            let _ = write!(out, "<circle cx=\"{x}\" cy=\"{y}\" r=\"{radius}\"");
            paints_to(out, fill.as_ref(), stroke.as_ref());
        }
        Shape::Text { at: [x, y], anchor, size, face, color, text } => {
            let (x, y, size) = (number(*x), number(*y), number(*size));
            let _ = write!(out, "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\" fill=\"{}\"", hex(*color));
            match anchor {
                Anchor::Start => {}
                Anchor::Middle => out.push_str(" text-anchor=\"middle\""),
                Anchor::End => out.push_str(" text-anchor=\"end\""),
            }
            match face {
                Face::Regular => {}
                Face::Bold => out.push_str(" font-weight=\"bold\""),
            }
            let _ = writeln!(out, ">{}</text>", escape(text));
            return;
        }
    }
    out.push_str("/>\n");
}

fn path_to(out: &mut String, points: &[Point]) {
    for (index, [x, y]) in points.iter().enumerate() {
        let command = match index {
            0 => "M",
            1 => "L",
            _ => " ",
        };
        let _ = write!(out, "{command}{},{}", number(*x), number(*y));
    }
}

fn paints_to(out: &mut String, fill: Option<&Paint>, stroke: Option<&Stroke>) {
    match fill {
        Some(fill) => {
            let _ = write!(out, " fill=\"{}\"", hex(fill.color));
            if fill.opacity < 1.0 {
                let _ = write!(out, " fill-opacity=\"{}\"", number(fill.opacity));
            }
        }
        None => out.push_str(" fill=\"none\""),
    }
    if let Some(stroke) = stroke {
        stroke_to(out, stroke);
    }
}

fn stroke_to(out: &mut String, stroke: &Stroke) {
    let _ = write!(out, " stroke=\"{}\" stroke-width=\"{}\"", hex(stroke.paint.color), number(stroke.width));
    if stroke.paint.opacity < 1.0 {
        let _ = write!(out, " stroke-opacity=\"{}\"", number(stroke.paint.opacity));
    }
    if let Some([on, off]) = stroke.dash.lengths() {
        let _ = write!(out, " stroke-dasharray=\"{} {}\"", number(on), number(off));
    }
    out.push_str(" stroke-linejoin=\"round\"");
}

fn hex(color: Rgb) -> String {
    format!("#{:06x}", color.0)
}

/// Two decimals at most, without a minus before zero.
fn number(value: f64) -> String {
    // Adding zero turns -0 into 0.
    format!("{}", snapped(value) + 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [(1.0, "1"), (0.1 + 0.2, "0.3"), (-0.001, "0"), (12.345_678, "12.35")] {
            assert_eq!(number(value), text);
        }
    }
}
