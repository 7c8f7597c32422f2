//! Colored ranges of x behind the curves, such as the phases of a run: a strip above the frame in full color, a tint in
//! it. Where many ranges share a px, the strip shows their shares stacked, so that none is hidden or made larger; the
//! tint is that of the largest.

use super::axis::Ruler;
use super::curves::Plot;
use super::description::{Chart, XRange};
use super::legend::{Entry, Sample};
use super::palette::Palette;
use super::scene::{Paint, Shape};
use super::text::clean;

/// Height that the strip takes above the frame, px.
pub(super) const STRIP: f64 = 9.0;
/// Height of the strip itself.
const THICKNESS: f64 = 6.0;

/// One entry for each name.
pub(super) fn entries(chart: &Chart, p: &Palette) -> Vec<Entry> {
    let mut seen = std::collections::BTreeSet::new();
    let named = chart.x_ranges.iter().map(|range| (clean(&range.label), range.color));
    let first = named.filter(|(label, color)| !label.is_empty() && seen.insert((label.clone(), *color)));
    first.map(|(label, color)| Entry::new(Sample::Area(Paint::solid(p.series(color))), label)).collect()
}

/// Draws what of `ranges` is in view, with its strip or without.
pub(super) fn draw(plot: &Plot<'_>, ranges: &[XRange], has_strip: bool, shapes: &mut Vec<Shape>) {
    let frame = plot.frame;
    let spans = spans(&plot.x, ranges);
    for span in tints(&spans) {
        let fill = Paint::pale(plot.p.series(span.color), plot.p.tint);
        shapes.push(Shape::Rect { corner: [span.left, frame.top], size: [span.width(), frame.height()], fill });
    }
    for span in spans.into_iter().filter(|_| has_strip) {
        let corner = [span.left, frame.top - STRIP + span.from * THICKNESS];
        let size = [span.width(), (span.to - span.from) * THICKNESS];
        shapes.push(Shape::Rect { corner, size, fill: Paint::solid(plot.p.series(span.color)) });
    }
}

/// A piece of the strip: px from left to right, shares of its height from the top.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Span {
    left: f64,
    right: f64,
    from: f64,
    to: f64,
    color: u8,
}

impl Span {
    fn width(&self) -> f64 {
        self.right - self.left
    }

    /// Goes on where `self` ends, looking the same.
    fn is_followed_by(&self, next: &Self) -> bool {
        (self.right, self.from, self.to, self.color) == (next.left, next.from, next.to, next.color)
    }
}

/// Ranges as they are, or when they are many the shares in each px.
fn spans(x: &Ruler, ranges: &[XRange]) -> Vec<Span> {
    let (low, high) = (x.from_px, x.to_px);
    let visible = ranges.iter().filter_map(|range| {
        let (left, right) = (x.px(range.from).ok()?.max(low), x.px(range.to).ok()?.min(high));
        (left < right).then_some(Span { left, right, from: 0.0, to: 1.0, color: range.color })
    });
    let visible: Vec<_> = visible.collect();
    if visible.len() as f64 <= (high - low) / 2.0 { visible } else { by_column(&visible, low, high) }
}

fn by_column(visible: &[Span], low: f64, high: f64) -> Vec<Span> {
    // Px of each color in each column.
    let mut columns = vec![std::collections::BTreeMap::<u8, f64>::new(); (high - low).ceil() as usize];
    for span in visible {
        let (first, last) = ((span.left - low).floor() as usize, (span.right - low).ceil() as usize);
        for (index, column) in columns.iter_mut().enumerate().take(last).skip(first) {
            let left = low + index as f64;
            let share = span.right.min(left + 1.0) - span.left.max(left);
            *column.entry(span.color).or_default() += share;
        }
    }
    let mut spans: Vec<Span> = Vec::new();
    for (index, column) in columns.iter().enumerate() {
        let (left, right) = (low + index as f64, (low + index as f64 + 1.0).min(high));
        let total: f64 = column.values().sum();
        let mut from = 0.0;
        for (color, px) in column.iter().filter(|_| total > 0.0) {
            let span = Span { left, right, from, to: from + px / total, color: *color };
            from = span.to;
            match spans.last_mut().filter(|last| last.is_followed_by(&span)) {
                Some(last) => last.right = right,
                None => spans.push(span),
            }
        }
    }
    spans
}

/// The largest of spans that stand on one another, neighbours of one color joined.
fn tints(spans: &[Span]) -> Vec<Span> {
    let mut tints: Vec<Span> = Vec::new();
    for column in spans.chunk_by(|a, b| a.left == b.left) {
        let largest = column.iter().max_by(|a, b| (a.to - a.from).total_cmp(&(b.to - b.from)));
        let Some(largest) = largest.map(|span| Span { from: 0.0, to: 1.0, ..*span }) else { continue };
        match tints.last_mut().filter(|last| last.is_followed_by(&largest)) {
            Some(last) => last.right = largest.right,
            None => tints.push(largest),
        }
    }
    tints
}

#[cfg(test)]
mod tests {
    use super::super::axis::Range;
    use super::super::description::Scale;
    use super::*;

    fn ruler(high: f64) -> Ruler {
        Ruler { range: Range { scale: Scale::Linear, low: 0.0, high, is_whole: true }, from_px: 0.0, to_px: 100.0 }
    }

    fn range(from: u32, to: u32, color: u8) -> XRange {
        XRange { from: from.into(), to: to.into(), label: String::new(), color }
    }

    fn whole(left: f64, right: f64, color: u8) -> Span {
        Span { left, right, from: 0.0, to: 1.0, color }
    }

    #[test]
    fn ranges_end_at_the_frame() {
        let spans = spans(&ruler(100.0), &[range(0, 10, 1), range(10, 500, 2), range(500, 600, 3)]);
        assert_eq!(spans, [whole(0.0, 10.0, 1), whole(10.0, 100.0, 2)]);
        assert_eq!(tints(&spans), spans);
    }

    #[test]
    fn many_ranges_keep_their_shares() {
        let pair = |i: u32| [range(4 * i, 4 * i + 3, 1), range(4 * i + 3, 4 * i + 4, 2)];
        let many: Vec<_> = (0..2500).flat_map(pair).chain([range(10_000, 20_000, 3)]).collect();
        let spans = spans(&ruler(20_000.0), &many);
        for column in 0..50 {
            let shares = |color| {
                let inside = spans.iter().filter(|span| span.color == color && span.left <= f64::from(column));
                inside.filter(|span| span.right > f64::from(column)).map(|span| span.to - span.from).sum::<f64>()
            };
            assert!((shares(1) - 0.75).abs() < 1e-9 && (shares(2) - 0.25).abs() < 1e-9, "column {column}");
        }
        assert_eq!(spans.last(), Some(&whole(50.0, 100.0, 3)), "equal neighbours are one");
        assert_eq!(tints(&spans), [whole(0.0, 50.0, 1), whole(50.0, 100.0, 3)]);
    }
}
