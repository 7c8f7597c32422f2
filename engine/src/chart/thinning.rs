//! Long series with a few points for each px of width: the first, the smallest, the largest and the last.

use super::scene::Point;

/// Series up to this many points for each px of width are drawn as they are.
const DENSE: usize = 4;

/// A value on its way to the plot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Sample {
    /// At its place, px.
    At(Point),
    /// Something that breaks the line.
    Break,
}

/// The lines through `samples`, in order; on `width` px, points that fall into one column are thinned.
pub(super) fn lines(samples: &[Sample], width: f64) -> Vec<Vec<Point>> {
    let is_dense = samples.len() > DENSE * width.max(1.0) as usize;
    let mut lines = Vec::new();
    for piece in samples.split(|sample| *sample == Sample::Break) {
        let points: Vec<Point> = piece.iter().filter_map(|sample| sample.point()).collect();
        if !points.is_empty() {
            lines.push(if is_dense { thinned(&points) } else { points });
        }
    }
    lines
}

impl Sample {
    fn point(&self) -> Option<Point> {
        match self {
            Self::At(point) => Some(*point),
            Self::Break => None,
        }
    }
}

/// Of the neighbours in one column of px the first, the highest, the lowest and the last, in their order.
fn thinned(points: &[Point]) -> Vec<Point> {
    let mut kept = Vec::new();
    for column in points.chunk_by(|a, b| a[0].floor() == b[0].floor()) {
        let by_height = |a: &usize, b: &usize| column[*a][1].total_cmp(&column[*b][1]);
        let (lowest, highest) = ((0..column.len()).min_by(by_height), (0..column.len()).max_by(by_height));
        let mut indices = [0, lowest.unwrap_or(0), highest.unwrap_or(0), column.len() - 1];
        indices.sort_unstable();
        let mut last = None;
        for index in indices {
            if last != Some(index) {
                kept.push(column[index]);
                last = Some(index);
            }
        }
    }
    kept
}

/// A band's upper and lower edge at an x, px.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Slice {
    pub(super) x: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
}

/// A band with one slice for each column of px, as wide as the widest in it, when it has many more.
pub(super) fn slices(slices: Vec<Slice>, width: f64) -> Vec<Slice> {
    if slices.len() <= DENSE * width.max(1.0) as usize {
        return slices;
    }
    let mut kept = Vec::new();
    for column in slices.chunk_by(|a, b| a.x.floor() == b.x.floor()) {
        let top = column.iter().fold(f64::INFINITY, |top, slice| top.min(slice.top));
        let bottom = column.iter().fold(f64::NEG_INFINITY, |bottom, slice| bottom.max(slice.bottom));
        let ends = [column.first(), column.last().filter(|_| column.len() > 1)];
        kept.extend(ends.into_iter().flatten().map(|slice| Slice { x: slice.x, top, bottom }));
    }
    kept
}

/// `points` without those that would cover another to the half px.
pub(super) fn apart(points: impl Iterator<Item = (Point, usize)>) -> Vec<(Point, usize)> {
    let mut seen = std::collections::HashSet::new();
    points.filter(|([x, y], _)| seen.insert(((x * 2.0).round() as i64, (y * 2.0).round() as i64))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(points: &[Point]) -> Vec<Sample> {
        points.iter().map(|point| Sample::At(*point)).collect()
    }

    #[test]
    fn every_column_keeps_its_extremes() {
        let points: Vec<Point> =
            (0..100_000).map(|i: u32| [f64::from(i) / 1000.0, f64::from((i * 7919) % 1013)]).collect();
        let lines = lines(&at(&points), 100.0);
        let [line] = lines.as_slice() else { panic!("{} lines", lines.len()) };
        assert!(line.len() <= 400, "{}", line.len());
        assert!(line.windows(2).all(|pair| pair[0][0] <= pair[1][0]), "in order");
        for column in 0..100 {
            let of = |points: &[Point]| {
                let inside = points.iter().filter(|[x, _]| x.floor() == f64::from(column)).map(|[_, y]| *y);
                inside.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)))
            };
            assert_eq!(of(line), of(&points), "column {column}");
        }
        assert_eq!((line.first(), line.last()), (points.first(), points.last()));
    }

    #[test]
    fn few_points_stay_as_they_are() {
        let points = [[0.0, 1.0], [0.1, 2.0], [0.2, 1.5], [0.3, 1.7], [0.4, 1.6]];
        assert_eq!(lines(&at(&points), 100.0), [points.to_vec()]);
    }

    #[test]
    fn lines_break_where_told_even_when_thinned() {
        let mut samples = at(&(0..1000).map(|i| [f64::from(i) / 100.0, 1.0]).collect::<Vec<_>>());
        samples[500] = Sample::Break;
        samples[501] = Sample::Break;
        assert_eq!(lines(&samples, 10.0).len(), 2);
        assert!(lines(&[Sample::Break, Sample::Break], 10.0).is_empty());
    }

    #[test]
    fn a_thinned_band_hides_nothing() {
        let all: Vec<Slice> = (0..1000)
            .map(|i: u32| Slice { x: f64::from(i) / 100.0, top: f64::from(i % 7), bottom: 20.0 + f64::from(i % 11) })
            .collect();
        let kept = slices(all, 10.0);
        assert!(kept.len() <= 20 && kept.iter().all(|slice| slice.top == 0.0 && slice.bottom == 30.0));
    }

    #[test]
    fn points_on_points_are_drawn_once() {
        let points = [[1.0, 1.0], [1.1, 1.1], [9.0, 9.0]];
        let kept = apart(points.into_iter().zip(0..));
        assert_eq!(kept, [([1.0, 1.0], 0), ([9.0, 9.0], 2)]);
    }
}
