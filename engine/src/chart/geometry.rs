//! Rectangles, and what of a line or an area lies inside one.

use super::scene::Point;

/// An upright rectangle, px.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) right: f64,
    pub(super) bottom: f64,
}

impl Frame {
    pub(super) fn width(self) -> f64 {
        self.right - self.left
    }

    pub(super) fn height(self) -> f64 {
        self.bottom - self.top
    }

    /// The parts of a line inside, in order.
    pub(super) fn clip_line(self, points: &[Point]) -> Vec<Vec<Point>> {
        let mut parts: Vec<Vec<Point>> = Vec::new();
        let mut is_open = false;
        for pair in points.windows(2) {
            let Some((from, to)) = self.clip_segment(pair[0], pair[1]) else {
                is_open = false;
                continue;
            };
            match parts.last_mut().filter(|_| is_open) {
                Some(part) => part.push(to),
                None => parts.push(vec![from, to]),
            }
            // It goes on only where it did not leave.
            is_open = to == pair[1];
        }
        parts
    }

    /// The part of a segment inside. Source: Liang and Barsky 1984, "A new concept and method for line clipping".
    fn clip_segment(self, [x0, y0]: Point, [x1, y1]: Point) -> Option<(Point, Point)> {
        let (dx, dy) = (x1 - x0, y1 - y0);
        let (mut enter, mut leave) = (0.0_f64, 1.0_f64);
        for (direction, distance) in
            [(-dx, x0 - self.left), (dx, self.right - x0), (-dy, y0 - self.top), (dy, self.bottom - y0)]
        {
            if direction == 0.0 {
                if distance < 0.0 {
                    return None;
                }
            } else if direction < 0.0 {
                enter = enter.max(distance / direction);
            } else {
                leave = leave.min(distance / direction);
            }
        }
        if enter > leave {
            return None;
        }
        // An end that lies inside stays exactly what it is, so that parts can be joined by it.
        let at = |share: f64| [x0 + share * dx, y0 + share * dy];
        let from = if enter > 0.0 { at(enter) } else { [x0, y0] };
        let to = if leave < 1.0 { at(leave) } else { [x1, y1] };
        Some((from, to))
    }

    /// The part of an area inside. Source: Sutherland and Hodgman 1974, "Reentrant polygon clipping".
    pub(super) fn clip_area(self, points: Vec<Point>) -> Vec<Point> {
        let edges: [fn(Self, Point) -> f64; 4] = [
            |frame, [x, _]| x - frame.left,
            |frame, [x, _]| frame.right - x,
            |frame, [_, y]| y - frame.top,
            |frame, [_, y]| frame.bottom - y,
        ];
        edges.into_iter().fold(points, |points, depth| clip_by(&points, |point| depth(self, point)))
    }
}

/// What of an area has a `depth` of at least zero.
fn clip_by(points: &[Point], depth: impl Fn(Point) -> f64) -> Vec<Point> {
    let Some(&last) = points.last() else { return Vec::new() };
    let mut kept = Vec::with_capacity(points.len());
    let mut before = last;
    for &point in points {
        let (was, is) = (depth(before), depth(point));
        if (was < 0.0) != (is < 0.0) {
            let share = was / (was - is);
            kept.push([before[0] + share * (point[0] - before[0]), before[1] + share * (point[1] - before[1])]);
        }
        if is >= 0.0 {
            kept.push(point);
        }
        before = point;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Frame = Frame { left: 0.0, top: 0.0, right: 10.0, bottom: 10.0 };

    #[test]
    fn a_line_inside_stays_whole() {
        let line = vec![[0.0, 0.0], [5.0, 10.0], [10.0, 3.0]];
        assert_eq!(FRAME.clip_line(&line), [line]);
    }

    #[test]
    fn a_line_that_leaves_and_comes_back_is_in_two_parts() {
        let line = [[-5.0, 5.0], [5.0, 5.0], [5.0, 20.0], [8.0, 20.0], [8.0, 0.0]];
        assert_eq!(FRAME.clip_line(&line), [vec![[0.0, 5.0], [5.0, 5.0], [5.0, 10.0]], vec![[8.0, 10.0], [8.0, 0.0]]]);
        assert!(FRAME.clip_line(&[[20.0, 0.0], [20.0, 9.0]]).is_empty());
    }

    #[test]
    fn an_area_is_cut_at_the_edges() {
        let area = FRAME.clip_area(vec![[2.0, -5.0], [8.0, -5.0], [8.0, 15.0], [2.0, 15.0]]);
        assert_eq!(area, [[2.0, 10.0], [2.0, 0.0], [8.0, 0.0], [8.0, 10.0]]);
        assert!(FRAME.clip_area(vec![[20.0, 0.0], [21.0, 0.0], [21.0, 5.0]]).is_empty());
    }
}
