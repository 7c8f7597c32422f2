//! Curves, points, bands, limits and marks in a panel's frame.

use super::axis::{Extent, Placeless, Ruler, straightened};
use super::description::{CurvePanel, Piece, Series, Source, Style};
use super::font::Face;
use super::geometry::Frame;
use super::legend::{self, Entry};
use super::marks::{self, Filling};
use super::palette::Palette;
use super::scene::{Anchor, Dash, Paint, Point, Shape, Stroke};
use super::text::clean;
use super::thinning::{self, Sample, Slice};

/// Width of a line of data, px.
const LINE: f64 = 1.7;
/// Width of an error bar's line, px.
pub(super) const ERROR: f64 = 1.3;
/// Half the width of an error bar's cap, px; its line's width comes on top.
const CAP: f64 = 3.0;
/// Most that bands add to the range of y beyond the values, as a share of it: wide ones leave the plot.
const BAND_SHARE: f64 = 0.35;

/// Extent of all x.
pub(super) fn x_extent(panel: &CurvePanel) -> Extent {
    let mut extent = Extent::EMPTY;
    for series in &panel.series {
        for x in series.pieces.iter().flat_map(|piece| &piece.x) {
            if let Ok(x) = straightened(panel.x.scale, *x) {
                extent.include(x);
            }
        }
    }
    extent
}

/// True when nothing is drawn as a line, so that points need room at the edges.
pub(super) fn is_points_only(panel: &CurvePanel) -> bool {
    panel.series.iter().all(|series| match series.style {
        Style::Points | Style::OpenPoints => true,
        Style::Line | Style::Faint | Style::Reference | Style::Band => false,
    })
}

/// Extent of what is drawn over the x for which `is_visible`, limits included.
pub(super) fn y_extent(panel: &CurvePanel, is_visible: impl Fn(f64) -> bool) -> Extent {
    let scale = panel.y.scale;
    let (mut values, mut bands) = (Extent::EMPTY, Extent::EMPTY);
    for series in &panel.series {
        let ends_are_bars = series.filling().is_some();
        for piece in &series.pieces {
            for (index, x) in piece.x.iter().enumerate() {
                if !straightened(panel.x.scale, *x).is_ok_and(&is_visible) {
                    continue;
                }
                let ends = [piece.low.get(index), piece.high.get(index)];
                for end in ends.into_iter().flatten().filter_map(|end| straightened(scale, *end).ok()) {
                    if ends_are_bars { values.include(end) } else { bands.include(end) }
                }
                let y = piece.y.get(index).filter(|_| series.style != Style::Band);
                if let Some(y) = y.and_then(|y| straightened(scale, *y).ok()) {
                    values.include(y);
                }
            }
        }
    }
    for limit in &panel.limits {
        if let Ok(y) = straightened(scale, limit.y) {
            values.include(y);
        }
    }
    if values.is_empty() {
        return bands;
    }
    if !bands.is_empty() {
        let most = (values.high - values.low) * BAND_SHARE;
        values.join(Extent { low: bands.low.max(values.low - most), high: bands.high.min(values.high + most) });
    }
    values
}

impl Series {
    /// For single marks, whether they are full.
    fn filling(&self) -> Option<Filling> {
        match (self.style, self.source) {
            (Style::Points, Source::Measured) => Some(Filling::Full),
            (Style::Points, Source::Predicted) | (Style::OpenPoints, _) => Some(Filling::Hollow),
            (Style::Line | Style::Faint | Style::Reference | Style::Band, _) => None,
        }
    }

    fn stroke(&self, p: &Palette) -> Stroke {
        let color = p.series(self.color);
        let dash = match self.source {
            Source::Measured => Dash::Solid,
            Source::Predicted => Dash::Dashed,
        };
        match self.style {
            Style::Faint => Stroke { paint: Paint::pale(color, p.faint), width: 1.0, dash },
            Style::Reference => Stroke::solid(p.reference, 1.3).with_dash(Dash::Dotted),
            Style::Line | Style::Points | Style::OpenPoints | Style::Band => Stroke::solid(color, LINE).with_dash(dash),
        }
    }

    fn band(&self, p: &Palette) -> Paint {
        Paint::pale(p.series(self.color), p.band)
    }

    fn has_ends(&self) -> bool {
        self.pieces.iter().any(|piece| !piece.low.is_empty())
    }

    fn is_empty(&self) -> bool {
        self.pieces.iter().all(|piece| piece.x.is_empty())
    }

    /// Its entry in the legend, if it has a name.
    fn entry(&self, p: &Palette) -> Option<Entry> {
        let mut label = clean(&self.label);
        if label.is_empty() {
            return None;
        }
        let words = label.to_lowercase();
        let is_said = words.contains("predict") || words.contains("forecast");
        match self.source {
            Source::Predicted if !is_said => label.push_str(" (predicted)"),
            Source::Predicted | Source::Measured => {}
        }
        if self.is_empty() {
            label.push_str(" (no data)");
        }
        let sample = match (self.filling(), self.style) {
            (Some(filling), _) => legend::Sample::Mark { color: self.color, filling, has_ends: self.has_ends() },
            (None, Style::Band) => legend::Sample::Area(self.band(p)),
            (None, _) => {
                let band = self.has_ends().then(|| self.band(p));
                legend::Sample::Line { stroke: self.stroke(p), band }
            }
        };
        Some(Entry::new(sample, label))
    }
}

/// Entries of the legend, marks for values without a place included.
pub(super) fn entries(panel: &CurvePanel, p: &Palette) -> Vec<Entry> {
    let mut entries: Vec<Entry> = panel.series.iter().filter_map(|series| series.entry(p)).collect();
    for limit in &panel.limits {
        let label = clean(&limit.label);
        if !label.is_empty() {
            let stroke = limit_stroke(p);
            entries.push(Entry::new(legend::Sample::Line { stroke, band: None }, label));
        }
    }
    let placeless = placeless(panel);
    if placeless.has_nan {
        entries.push(Entry::new(legend::Sample::Cross(p.bad), "not a number"));
    }
    if placeless.has_low {
        entries.push(Entry::new(legend::Sample::DownArrow(p.bad), "zero or below"));
    }
    entries
}

/// Which kinds of values without a place a panel has.
struct PlacelessKinds {
    has_nan: bool,
    has_low: bool,
}

fn placeless(panel: &CurvePanel) -> PlacelessKinds {
    let mut kinds = PlacelessKinds { has_nan: false, has_low: false };
    for series in panel.series.iter().filter(|series| series.style != Style::Band) {
        for piece in &series.pieces {
            for (x, y) in piece.x.iter().zip(&piece.y) {
                for result in [straightened(panel.x.scale, *x), straightened(panel.y.scale, *y)] {
                    match result {
                        Ok(_) => {}
                        Err(Placeless::NotANumber) => kinds.has_nan = true,
                        Err(Placeless::NotAboveZero) => kinds.has_low = true,
                    }
                }
            }
        }
    }
    kinds
}

/// Where a panel draws.
pub(super) struct Plot<'a> {
    pub(super) p: &'a Palette,
    pub(super) frame: Frame,
    pub(super) x: Ruler,
    pub(super) y: Ruler,
}

impl Plot<'_> {
    /// Draws everything but axes and legend.
    pub(super) fn draw(&self, panel: &CurvePanel, shapes: &mut Vec<Shape>) {
        for limit in &panel.limits {
            if let Ok(y) = self.y.px(limit.y)
                && self.y.holds(y)
            {
                shapes.push(Shape::segment([self.frame.left, y], [self.frame.right, y], limit_stroke(self.p)));
            }
        }
        // Bands first: no band may cover a line.
        for series in panel.series.iter().filter(|series| series.filling().is_none()) {
            series.pieces.iter().for_each(|piece| self.band(series, piece, shapes));
        }
        for series in panel.series.iter().filter(|series| series.style != Style::Band) {
            match series.filling() {
                Some(filling) => self.points(series, filling, shapes),
                None => series.pieces.iter().for_each(|piece| self.line(series, piece, shapes)),
            }
        }
        self.placeless_marks(panel, shapes);
        if panel.series.iter().all(|series| self.is_blank(series)) {
            self.no_data(shapes);
        }
    }

    /// Says in its middle that there is nothing to draw.
    pub(super) fn no_data(&self, shapes: &mut Vec<Shape>) {
        let Frame { left, right, top, bottom } = self.frame;
        let at = [f64::midpoint(left, right), f64::midpoint(top, bottom) + 4.0];
        shapes.push(Shape::text(at, Anchor::Middle, (Face::Regular, 13.0), self.p.text_weak, "No data"));
    }

    /// True for a series without a value that could be drawn on these axes; lines of reference are no data.
    fn is_blank(&self, series: &Series) -> bool {
        let has_place = |piece: &Piece| {
            let columns = match series.style {
                Style::Band => [&piece.low, &piece.high],
                Style::Line | Style::Faint | Style::Reference | Style::Points | Style::OpenPoints => {
                    [&piece.y, &piece.y]
                }
            };
            let mut ends = piece.x.iter().zip(columns[0]).zip(columns[1]);
            ends.any(|((x, low), high)| self.x.px(*x).is_ok() && self.y.px(*low).is_ok() && self.y.px(*high).is_ok())
        };
        series.style == Style::Reference || !series.pieces.iter().any(has_place)
    }

    fn line(&self, series: &Series, piece: &Piece, shapes: &mut Vec<Shape>) {
        let stroke = series.stroke(self.p);
        let samples = piece.x.iter().zip(&piece.y).map(|(x, y)| match (self.x.px(*x), self.y.px(*y)) {
            (Ok(x), Ok(y)) => Sample::At([x, y]),
            _ => Sample::Break,
        });
        let samples: Vec<Sample> = samples.collect();
        for points in thinning::lines(&samples, self.frame.width()) {
            if let [point] = points.as_slice() {
                if self.holds(*point) {
                    // A value between two gaps is no line, yet there.
                    let radius = stroke.width.max(1.4);
                    let fill = Some(stroke.paint);
                    shapes.push(Shape::Circle { center: *point, radius, fill, stroke: None });
                }
                continue;
            }
            let parts = self.frame.clip_line(&points);
            shapes.extend(parts.into_iter().map(|points| Shape::Line { points, stroke }));
        }
    }

    fn points(&self, series: &Series, filling: Filling, shapes: &mut Vec<Shape>) {
        for piece in &series.pieces {
            let all = piece.x.iter().zip(&piece.y).enumerate().filter_map(|(index, (x, y))| {
                let point = [self.x.px(*x).ok()?, self.y.px(*y).ok()?];
                self.holds(point).then_some((point, index))
            });
            let apart = thinning::apart(all);
            for (point, index) in &apart {
                if let (Some(low), Some(high)) = (piece.low.get(*index), piece.high.get(*index)) {
                    error_bar(
                        self,
                        &[Stroke::solid(self.p.series(series.color), ERROR)],
                        point[0],
                        (*low, *high),
                        shapes,
                    );
                }
            }
            shapes.extend(apart.into_iter().map(|(point, _)| marks::mark(self.p, series.color, filling, point)));
        }
    }

    fn band(&self, series: &Series, piece: &Piece, shapes: &mut Vec<Shape>) {
        let mut runs = vec![Vec::new()];
        for ((x, low), high) in piece.x.iter().zip(&piece.low).zip(&piece.high) {
            // What reaches below a logarithmic axis reaches its lower end.
            let low = match self.y.px(*low) {
                Err(Placeless::NotAboveZero) => Ok(self.frame.bottom),
                px => px,
            };
            match (self.x.px(*x), low, self.y.px(*high)) {
                (Ok(x), Ok(low), Ok(high)) => {
                    let slice = Slice { x, top: low.min(high), bottom: low.max(high) };
                    runs.last_mut().into_iter().for_each(|run: &mut Vec<Slice>| run.push(slice));
                }
                _ => runs.push(Vec::new()),
            }
        }
        for run in runs {
            let slices = thinning::slices(run, self.frame.width());
            let upper = slices.iter().map(|slice| [slice.x, slice.top]);
            let lower = slices.iter().rev().map(|slice| [slice.x, slice.bottom]);
            let points = self.frame.clip_area(upper.chain(lower).collect());
            if points.len() > 2 {
                shapes.push(Shape::Area { points, fill: Some(series.band(self.p)), stroke: None });
            }
        }
    }

    /// Crosses at the upper edge and arrows at the lower one, at most one for each few px.
    fn placeless_marks(&self, panel: &CurvePanel, shapes: &mut Vec<Shape>) {
        let (mut nans, mut lows) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
        for piece in panel.series.iter().filter(|series| series.style != Style::Band).flat_map(|series| &series.pieces)
        {
            for (x, y) in piece.x.iter().zip(&piece.y) {
                let Some(px) = self.x.px(*x).ok().filter(|px| self.x.holds(*px)) else { continue };
                match straightened(panel.y.scale, *y) {
                    Ok(_) => {}
                    Err(Placeless::NotANumber) => {
                        nans.insert((px / 4.0).floor() as i64);
                    }
                    Err(Placeless::NotAboveZero) => {
                        lows.insert((px / 4.0).floor() as i64);
                    }
                }
            }
        }
        let x = |column: i64| column as f64 * 4.0 + 2.0;
        for column in nans {
            let (x, top) = (x(column), self.frame.top);
            let stroke = Stroke::solid(self.p.bad, 1.0).with_dash(Dash::Dotted);
            shapes.push(Shape::segment([x, top + 10.0], [x, self.frame.bottom], stroke));
            shapes.extend(marks::cross(self.p.bad, [x, top + 5.0]));
        }
        shapes
            .extend(lows.into_iter().map(|column| marks::down_arrow(self.p.bad, [x(column), self.frame.bottom - 6.0])));
    }

    fn holds(&self, [x, y]: Point) -> bool {
        self.x.holds(x) && self.y.holds(y)
    }
}

/// An error bar at `x` px between two values, with a cap at each end that is in view, in `strokes` from back to front.
pub(super) fn error_bar(plot: &Plot<'_>, strokes: &[Stroke], x: f64, (low, high): (f64, f64), shapes: &mut Vec<Shape>) {
    let frame = plot.frame;
    let low = match plot.y.px(low) {
        Err(Placeless::NotAboveZero) => Ok(frame.bottom + 1.0),
        px => px,
    };
    let (Ok(low), Ok(high)) = (low, plot.y.px(high)) else { return };
    let [from, to] = [low, high].map(|y| y.clamp(frame.top, frame.bottom));
    for &stroke in strokes {
        shapes.push(Shape::segment([x, from], [x, to], stroke));
        // A wide stroke shows around the ends of a narrow one, too.
        let cap = CAP + stroke.width / 2.0;
        for y in [low, high].into_iter().filter(|y| plot.y.holds(*y)) {
            shapes.push(Shape::segment([x - cap, y], [x + cap, y], stroke));
        }
    }
}

fn limit_stroke(p: &Palette) -> Stroke {
    Stroke { paint: Paint::pale(p.bad, 0.85), width: 1.2, dash: Dash::Dotted }
}
