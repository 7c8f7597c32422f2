//! What a series' look means: entries in rows, outside the data.

use super::font::{Face, width};
use super::marks::{self, Filling};
use super::palette::{Palette, Rgb};
use super::scene::{Dash, Paint, Point, Shape, Stroke};
use super::text::shorten;

/// Height of a row, px.
pub(super) const ROW: f64 = 18.0;
/// Size of its text, px.
pub(super) const SIZE: f64 = 12.0;
/// Between a sample and its text.
const GAP: f64 = 6.0;
/// Between two entries.
const BETWEEN: f64 = 18.0;
/// Longest text of an entry.
const LONGEST: f64 = 280.0;
/// Most rows; what does not fit is counted.
const MAX_ROWS: usize = 4;

/// How a series looks, small.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Sample {
    /// A line, with a band around it or not.
    Line { stroke: Stroke, band: Option<Paint> },
    /// A mark, with an error bar or not.
    Mark { color: u8, filling: Filling, has_ends: bool },
    /// An area.
    Area(Paint),
    /// Values that are not numbers.
    Cross(Rgb),
    /// Values below the axis.
    DownArrow(Rgb),
    /// Entries that found no room.
    Nothing,
}

/// A sample and its meaning.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) sample: Sample,
    pub(super) label: String,
}

/// Entries with their places: x from the left, and the row.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Legend {
    places: Vec<(Entry, f64, usize)>,
    /// Rows.
    pub(super) num_rows: usize,
    /// Width of the first row.
    pub(super) first_row_width: f64,
}

impl Entry {
    pub(super) fn new(sample: Sample, label: impl Into<String>) -> Self {
        Self { sample, label: label.into() }
    }

    fn width(&self) -> f64 {
        let sample = self.sample.width();
        sample + if sample > 0.0 { GAP } else { 0.0 } + width(&self.label, Face::Regular, SIZE)
    }
}

impl Sample {
    fn width(&self) -> f64 {
        match self {
            Self::Line { .. } => 24.0,
            Self::Mark { .. } | Self::Area(_) => 12.0,
            Self::Cross(_) | Self::DownArrow(_) => 9.0,
            Self::Nothing => 0.0,
        }
    }
}

/// Lays `entries` out in rows of `room` px.
pub(super) fn lay_out(entries: Vec<Entry>, room: f64) -> Legend {
    let mut legend = Legend::default();
    let (mut x, mut row) = (0.0, 0);
    let mut entries = without_repeats(entries).into_iter().peekable();
    while let Some(mut entry) = entries.next() {
        let longest = LONGEST.min(room - entry.sample.width() - GAP);
        entry.label = shorten(&entry.label, Face::Regular, SIZE, longest);
        // In the last row there must be room to say how many are left out.
        let rest = if row + 1 == MAX_ROWS && entries.peek().is_some() { 80.0 } else { 0.0 };
        if x > 0.0 && x + entry.width() + rest > room {
            if row + 1 == MAX_ROWS {
                let label = format!("and {} more", entries.count() + 1);
                legend.places.push((Entry::new(Sample::Nothing, label), x, row));
                break;
            }
            (x, row) = (0.0, row + 1);
        }
        let end = x + entry.width();
        legend.places.push((entry, x, row));
        if row == 0 {
            legend.first_row_width = end;
        }
        x = end + BETWEEN;
    }
    legend.num_rows = if legend.places.is_empty() { 0 } else { row + 1 };
    legend
}

/// What looks and is called the same is told once.
fn without_repeats(entries: Vec<Entry>) -> Vec<Entry> {
    let mut kept: Vec<Entry> = Vec::new();
    for entry in entries {
        // Beyond these, entries are only counted.
        if kept.len() > 200 || !kept.contains(&entry) {
            kept.push(entry);
        }
    }
    kept
}

impl Legend {
    /// Height, px.
    pub(super) fn height(&self) -> f64 {
        self.num_rows as f64 * ROW
    }

    /// Draws it with its upper left corner at `corner`.
    pub(super) fn draw(&self, p: &Palette, [left, top]: Point, shapes: &mut Vec<Shape>) {
        for (entry, x, row) in &self.places {
            let (x, middle) = (left + x, top + (*row as f64 + 0.5) * ROW);
            draw_sample(p, &entry.sample, [x, middle], shapes);
            let text_x = x + entry.sample.width() + if entry.sample.width() > 0.0 { GAP } else { 0.0 };
            let at = [text_x, middle + SIZE * 0.36];
            shapes.push(Shape::text(at, super::scene::Anchor::Start, (Face::Regular, SIZE), p.text, &entry.label));
        }
    }
}

fn draw_sample(p: &Palette, sample: &Sample, [x, y]: Point, shapes: &mut Vec<Shape>) {
    let width = sample.width();
    match sample {
        Sample::Line { stroke, band } => {
            if let Some(band) = band {
                shapes.push(Shape::Rect { corner: [x, y - 5.0], size: [width, 10.0], fill: *band });
            }
            // Dashes end where the sample does.
            let end = if stroke.dash == Dash::Dashed { x + width + 1.0 } else { x + width };
            shapes.push(Shape::segment([x, y], [end, y], *stroke));
        }
        Sample::Mark { color, filling, has_ends } => {
            let middle = x + width / 2.0;
            if *has_ends {
                let stroke = Stroke::solid(p.series(*color), 1.2);
                shapes.push(Shape::segment([middle, y - 7.0], [middle, y + 7.0], stroke));
            }
            shapes.push(marks::mark(p, *color, *filling, [middle, y]));
        }
        Sample::Area(paint) => {
            shapes.push(Shape::Rect { corner: [x, y - 5.0], size: [width, 10.0], fill: *paint });
        }
        Sample::Cross(color) => shapes.extend(marks::cross(*color, [x + width / 2.0, y])),
        Sample::DownArrow(color) => shapes.push(marks::down_arrow(*color, [x + width / 2.0, y])),
        Sample::Nothing => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(count: usize) -> Vec<Entry> {
        let sample = Sample::Cross(Rgb(0));
        (0..count).map(|index| Entry::new(sample.clone(), format!("Contender {index}"))).collect()
    }

    #[test]
    fn entries_go_on_in_the_next_row() {
        let legend = lay_out(entries(5), 250.0);
        let rows: Vec<_> = legend.places.iter().map(|(_, _, row)| *row).collect();
        assert_eq!((rows, legend.num_rows), (vec![0, 0, 1, 1, 2], 3));
        assert!(legend.places.iter().all(|(entry, x, _)| x + entry.width() <= 250.0));
        assert_eq!(lay_out(Vec::new(), 250.0).height(), 0.0);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let legend = lay_out(entries(50), 250.0);
        assert_eq!(legend.num_rows, MAX_ROWS);
        let last = legend.places.last().map(|(entry, _, _)| entry.label.clone()).unwrap_or_default();
        let shown = legend.places.len() - 1;
        assert_eq!(last, format!("and {} more", 50 - shown));
        assert!(legend.places.iter().all(|(entry, x, _)| x + entry.width() <= 250.0));
    }

    #[test]
    fn what_is_the_same_is_told_once() {
        let twice = entries(2).into_iter().chain(entries(3)).collect();
        assert_eq!(lay_out(twice, 2000.0).places.len(), 3);
    }

    #[test]
    fn a_long_name_is_shortened() {
        let legend = lay_out(vec![Entry::new(Sample::Nothing, "long ".repeat(100))], 2000.0);
        assert!(legend.first_row_width <= LONGEST);
    }
}
