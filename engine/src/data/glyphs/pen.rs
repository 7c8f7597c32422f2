//! From strokes to a grey image: curves become short lines, lines become ink by their distance.

use super::fonts::{Glyph, Stroke};
use crate::data::draw::Draw;

/// Pixels of a side.
pub(super) const SIDE: usize = 28;
/// Lines that a stretch between two points becomes, so that it can bend.
const LINES: usize = 6;
/// Nodes of a side of the grid of displacements.
const NODES: usize = 6;

type Point = (f64, f64);

/// How one image differs from its font.
#[derive(Debug)]
pub(super) struct Hand {
    /// Rows of the matrix from the font's box, centered, to pixels.
    matrix: [[f64; 2]; 2],
    center: Point,
    /// Half the width of a stroke at its start and at its end, pixels.
    radius: (f64, f64),
    /// How far a font's point may be off, in its units.
    wobble: f64,
    /// Displacements in pixels on a grid over the image.
    field: [[Point; NODES]; NODES],
}

impl Hand {
    /// Draws everything at random.
    pub fn draw(draw: &mut Draw) -> Self {
        let (width, height) = (draw.range(10.0, 16.5), draw.range(14.0, 20.5));
        let (sin, cos) = sin_cos(draw.range(-0.32, 0.32));
        let shear = draw.range(-0.35, 0.35);
        // Rotation after shear after scale.
        let (a, b, d) = (width, shear * height, height);
        let matrix = [[cos * a, cos * b - sin * d], [sin * a, sin * b + cos * d]];
        let middle = SIDE as f64 / 2.0;
        let center = (middle + draw.range(-2.5, 2.5), middle + draw.range(-2.5, 2.5));
        let thick = draw.range(0.65, 1.75);
        let radius = (thick * draw.range(0.75, 1.25), thick * draw.range(0.75, 1.25));
        let amplitude = draw.range(0.4, 1.5);
        let field =
            std::array::from_fn(|_| std::array::from_fn(|_| (amplitude * draw.bell(), amplitude * draw.bell())));
        Self { matrix, center, radius, wobble: draw.range(1.0, 5.0), field }
    }

    /// Puts the ink of `glyph` on `canvas`.
    pub fn write(&self, glyph: Glyph, draw: &mut Draw, canvas: &mut Canvas) {
        for stroke in glyph {
            let line: Vec<Point> = flatten(*stroke, self.wobble, draw).into_iter().map(|p| self.place(p)).collect();
            canvas.ink(&line, self.radius, 1.0);
        }
    }

    /// From the font's box to pixels.
    fn place(&self, (x, y): Point) -> Point {
        let (x, y) = (x / 100.0 - 0.5, y / 100.0 - 0.5);
        let [top, bottom] = self.matrix;
        let at = (self.center.0 + top[0] * x + top[1] * y, self.center.1 + bottom[0] * x + bottom[1] * y);
        let (dx, dy) = self.displacement(at);
        (at.0 + dx, at.1 + dy)
    }

    /// The field at a point: a cubic B-spline of its nodes, which smooths it.
    fn displacement(&self, (x, y): Point) -> Point {
        let spread = (NODES - 3) as f64 / SIDE as f64;
        let split = |at: f64| {
            let at = (at * spread).clamp(0.0, (NODES - 3) as f64 - 1e-9);
            (at as usize, at - at.floor())
        };
        let ((column, fx), (row, fy)) = (split(x), split(y));
        let (wx, wy) = (spline_weights(fx), spline_weights(fy));
        let mut sum = (0.0, 0.0);
        for (nodes, wy) in self.field.iter().skip(row).zip(wy) {
            for (node, wx) in nodes.iter().skip(column).zip(wx) {
                sum = (sum.0 + wx * wy * node.0, sum.1 + wx * wy * node.1);
            }
        }
        // The spline averages; this brings the size back to about the nodes' own.
        (sum.0 * 1.8, sum.1 * 1.8)
    }
}

fn spline_weights(t: f64) -> [f64; 4] {
    let s = 1.0 - t;
    [
        s * s * s / 6.0,
        (3.0 * t * t * t - 6.0 * t * t + 4.0) / 6.0,
        (3.0 * s * s * s - 6.0 * s * s + 4.0) / 6.0,
        t * t * t / 6.0,
    ]
}

/// Sine and cosine of a small angle by their series, which unlike the system's are the same everywhere.
fn sin_cos(angle: f64) -> (f64, f64) {
    let s = angle * angle;
    let sin = angle * (1.0 - s / 6.0 * (1.0 - s / 20.0 * (1.0 - s / 42.0 * (1.0 - s / 72.0))));
    let cos = 1.0 - s / 2.0 * (1.0 - s / 12.0 * (1.0 - s / 30.0 * (1.0 - s / 56.0)));
    (sin, cos)
}

/// A stroke as a line of many points, its own points moved by up to about `wobble`.
fn flatten(stroke: Stroke, wobble: f64, draw: &mut Draw) -> Vec<Point> {
    let (points, is_smooth) = match stroke {
        Stroke::Straight(points) => (points, false),
        Stroke::Smooth(points) => (points, true),
    };
    let is_closed = points.len() > 2 && points.first() == points.last();
    let mut points: Vec<Point> = points
        .iter()
        .map(|&(x, y)| (f64::from(x) + wobble * draw.bell(), f64::from(y) + wobble * draw.bell()))
        .collect();
    if is_closed
        && let Some((first, rest)) = points.split_first_mut()
        && let Some(last) = rest.last_mut()
    {
        *last = *first;
    }
    let num = points.len() as i64;
    let at = |i: i64| {
        let i = if is_closed { i.rem_euclid(num - 1) } else { i.clamp(0, num - 1) };
        points[i as usize]
    };
    let mut line = vec![at(0)];
    for i in 0..num - 1 {
        let (p0, p1, p2, p3) = (at(i - 1), at(i), at(i + 1), at(i + 2));
        for step in 1..=LINES {
            let t = step as f64 / LINES as f64;
            let mix = |a, b, c, d| if is_smooth { catmull_rom(a, b, c, d, t) } else { b + (c - b) * t };
            line.push((mix(p0.0, p1.0, p2.0, p3.0), mix(p0.1, p1.1, p2.1, p3.1)));
        }
    }
    line
}

/// The curve through `b` (t = 0) and `c` (t = 1) whose slopes there follow from the neighbors.
fn catmull_rom(a: f64, b: f64, c: f64, d: f64, t: f64) -> f64 {
    0.5 * (2.0 * b + (c - a) * t + (2.0 * a - 5.0 * b + 4.0 * c - d) * t * t + (3.0 * b - a - 3.0 * c + d) * t * t * t)
}

/// Ink from 0 to 1 on every pixel.
#[derive(Debug)]
pub(super) struct Canvas(pub [f64; SIDE * SIDE]);

impl Canvas {
    pub fn blank() -> Self {
        Self([0.0; SIDE * SIDE])
    }

    /// Draws a line of points with half-widths from `radius.0` to `radius.1`; ink does not add up.
    pub fn ink(&mut self, line: &[Point], radius: (f64, f64), strength: f64) {
        let num = line.len().max(2) - 1;
        for (i, pair) in line.windows(2).enumerate() {
            let [from, to] = *pair else { continue };
            let radius = radius.0 + (radius.1 - radius.0) * i as f64 / num as f64;
            self.ink_segment(from, to, radius, strength);
        }
    }

    fn ink_segment(&mut self, from: Point, to: Point, radius: f64, strength: f64) {
        let reach = radius + 1.0;
        let range = |a: f64, b: f64| {
            let low = (a.min(b) - reach).floor().clamp(0.0, SIDE as f64) as usize;
            let high = (a.max(b) + reach).ceil().clamp(0.0, SIDE as f64) as usize;
            low..high
        };
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let length_squared = (dx * dx + dy * dy).max(1e-12);
        for y in range(from.1, to.1) {
            for x in range(from.0, to.0) {
                // Pixel centers are at halves.
                let (px, py) = (x as f64 + 0.5 - from.0, y as f64 + 0.5 - from.1);
                let along = ((px * dx + py * dy) / length_squared).clamp(0.0, 1.0);
                let (ex, ey) = (px - along * dx, py - along * dy);
                let distance = (ex * ex + ey * ey).sqrt();
                let cover = (radius + 0.5 - distance).clamp(0.0, 1.0) * strength;
                let pixel = &mut self.0[y * SIDE + x];
                *pixel = pixel.max(cover);
            }
        }
    }

    /// Mixes each pixel with its neighbors (weights 1 2 1 both ways) to the share `amount`.
    pub fn blur(&mut self, amount: f64) {
        let old = self.0;
        let at = |y: usize, x: usize| old[y.min(SIDE - 1) * SIDE + x.min(SIDE - 1)];
        for y in 0..SIDE {
            for x in 0..SIDE {
                let row = |y: usize| at(y, x.saturating_sub(1)) + 2.0 * at(y, x) + at(y, x + 1);
                let smooth = (row(y.saturating_sub(1)) + 2.0 * row(y) + row(y + 1)) / 16.0;
                let pixel = &mut self.0[y * SIDE + x];
                *pixel += amount * (smooth - *pixel);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_sine_and_cosine() {
        for angle in [-0.4, -0.1, 0.0, 0.25, 0.4_f64] {
            let (sin, cos) = sin_cos(angle);
            assert!((sin - angle.sin()).abs() < 1e-9 && (cos - angle.cos()).abs() < 1e-9);
        }
    }

    #[test]
    fn a_line_is_as_wide_as_asked() {
        let mut canvas = Canvas::blank();
        canvas.ink(&[(14.0, 4.0), (14.0, 24.0)], (2.0, 2.0), 1.0);
        let row: f64 = canvas.0[14 * SIDE..15 * SIDE].iter().sum();
        assert!((row - 4.0).abs() < 1e-9, "{row}");
        assert!(canvas.0[..3 * SIDE - 3 * SIDE / 2].iter().all(|&ink| ink == 0.0));
    }

    #[test]
    fn spline_weights_sum_to_one() {
        for t in [0.0, 0.3, 0.999] {
            assert!((spline_weights(t).iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
    }
}
