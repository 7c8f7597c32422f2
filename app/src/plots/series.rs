//! A growing series that can be drawn at any zoom in time that does not depend on its length.
//!
//! Beside the raw values it keeps a pyramid: each level holds, for every four buckets of the level
//! below, where the smallest and the largest value are. A push touches each level at most once.

/// Buckets of one level that make one of the next.
const FACTOR: usize = 4;

/// Where the extremes of some neighbouring values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bucket {
    min_at: u32,
    max_at: u32,
    /// First value that is not a number.
    nan_at: Option<u32>,
}

/// A piece of a line: points without a break.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Run {
    /// Points (x, y) in drawing order, x never falling.
    pub points: Vec<[f64; 2]>,
}

/// What to draw of a series in a range.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Drawn {
    /// Lines.
    pub runs: Vec<Run>,
    /// Where values are not numbers.
    pub nan_marks: Vec<f64>,
}

/// Smallest and largest value between two x.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// First x.
    pub from: f64,
    /// Last x.
    pub to: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
}

/// Values over rising x.
#[derive(Debug, Clone, Default)]
pub struct Series {
    xs: Vec<f64>,
    ys: Vec<f32>,
    levels: Vec<Vec<Bucket>>,
    /// Lines break where x jumps by more than this; 0 never breaks.
    max_gap: f64,
}

impl Series {
    /// A series that breaks where x jumps by more than `max_gap`.
    #[must_use]
    pub fn with_gaps(max_gap: f64) -> Self {
        Self { max_gap, ..Self::default() }
    }

    /// Adds a value; `x` must lie above the last one, else it is left out.
    pub fn push(&mut self, x: f64, y: f32) {
        if self.xs.last().is_some_and(|&last| x <= last) {
            return;
        }
        self.xs.push(x);
        self.ys.push(y);
        let mut level = 0;
        let mut size = FACTOR;
        while self.ys.len().is_multiple_of(size) {
            let bucket = if level == 0 {
                self.scan(self.ys.len() - size, self.ys.len())
            } else {
                let below = &self.levels[level - 1];
                let parts = &below[below.len() - FACTOR..];
                parts.iter().copied().reduce(|a, b| self.merge(a, b))
            };
            let Some(bucket) = bucket else { return };
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            self.levels[level].push(bucket);
            level += 1;
            size *= FACTOR;
        }
    }

    /// How many values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ys.len()
    }

    /// True without any value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ys.is_empty()
    }

    /// The newest value with its x.
    #[must_use]
    pub fn last(&self) -> Option<(f64, f32)> {
        Some((*self.xs.last()?, *self.ys.last()?))
    }

    /// The value at `x`, or the last one before it, not further back than `reach`.
    #[must_use]
    pub fn at(&self, x: f64, reach: f64) -> Option<(f64, f32)> {
        let index = self.xs.partition_point(|&known| known <= x).checked_sub(1)?;
        (x - self.xs[index] <= reach).then(|| (self.xs[index], self.ys[index]))
    }

    /// All values with their x.
    pub fn iter(&self) -> impl Iterator<Item = (f64, f32)> {
        self.xs.iter().copied().zip(self.ys.iter().copied())
    }

    /// Lines over `from..=to`, with at most about `2 * max_buckets` points, extremes kept. One value
    /// beyond each end is included, so that lines reach the edges.
    #[must_use]
    pub fn draw(&self, from: f64, to: f64, max_buckets: usize) -> Drawn {
        let mut drawn = Drawn::default();
        let mut run = Run::default();
        let mut last_x = f64::NAN;
        for (first, end, bucket) in self.buckets(from, to, max_buckets) {
            let is_gap = self.max_gap > 0.0 && self.xs[first] - last_x > self.max_gap;
            if (is_gap || bucket.nan_at.is_some()) && !run.points.is_empty() {
                drawn.runs.push(std::mem::take(&mut run));
            }
            for at in ordered(bucket.min_at, bucket.max_at) {
                let y = self.ys[at as usize];
                if !y.is_nan() {
                    run.points.push([self.xs[at as usize], f64::from(y)]);
                }
            }
            if let Some(at) = bucket.nan_at {
                drawn.nan_marks.push(self.xs[at as usize]);
                if !run.points.is_empty() {
                    drawn.runs.push(std::mem::take(&mut run));
                }
            }
            last_x = self.xs[end - 1];
        }
        if !run.points.is_empty() {
            drawn.runs.push(run);
        }
        drawn
    }

    /// Bands over `from..=to`, broken like the lines; values that are not numbers are left out.
    #[must_use]
    pub fn spans(&self, from: f64, to: f64, max_buckets: usize) -> Vec<Vec<Span>> {
        let mut runs = Vec::new();
        let mut run: Vec<Span> = Vec::new();
        for (first, end, bucket) in self.buckets(from, to, max_buckets) {
            let (min, max) = (self.ys[bucket.min_at as usize], self.ys[bucket.max_at as usize]);
            let is_gap = run.last().is_some_and(|last| self.max_gap > 0.0 && self.xs[first] - last.to > self.max_gap);
            if (is_gap || min.is_nan()) && !run.is_empty() {
                runs.push(std::mem::take(&mut run));
            }
            if !min.is_nan() {
                run.push(Span { from: self.xs[first], to: self.xs[end - 1], min: min.into(), max: max.into() });
            }
        }
        if !run.is_empty() {
            runs.push(run);
        }
        runs
    }

    /// Indices of the values in `from..=to`, and one more on each side.
    fn indices(&self, from: f64, to: f64) -> (usize, usize) {
        let first = self.xs.partition_point(|&x| x < from).saturating_sub(1);
        let end = (self.xs.partition_point(|&x| x <= to) + 1).min(self.xs.len());
        (first, end.max(first))
    }

    /// Buckets that cover the range at the finest level with at most `max_buckets`: (first, end, bucket).
    fn buckets(&self, from: f64, to: f64, max_buckets: usize) -> impl Iterator<Item = (usize, usize, Bucket)> {
        let (first, end) = self.indices(from, to);
        let mut level = 0;
        let mut size = 1;
        while (end - first) / size > max_buckets.max(1) && level < self.levels.len() {
            size *= FACTOR;
            level += 1;
        }
        let start = first / size;
        let stop = end.div_ceil(size);
        (start..stop).filter_map(move |index| {
            let (low, high) = (index * size, ((index + 1) * size).min(self.ys.len()));
            let known = level.checked_sub(1).and_then(|level| self.levels[level].get(index)).copied();
            Some((low, high, known.or_else(|| self.scan(low, high))?))
        })
    }

    fn scan(&self, first: usize, end: usize) -> Option<Bucket> {
        (first..end).map(|at| self.single(at)).reduce(|a, b| self.merge(a, b))
    }

    fn single(&self, at: usize) -> Bucket {
        let nan_at = self.ys[at].is_nan().then_some(at as u32);
        Bucket { min_at: at as u32, max_at: at as u32, nan_at }
    }

    /// A number wins over what is none.
    fn merge(&self, a: Bucket, b: Bucket) -> Bucket {
        let y = |at: u32| self.ys[at as usize];
        let min_at = if y(a.min_at).is_nan() || y(b.min_at) < y(a.min_at) { b.min_at } else { a.min_at };
        let max_at = if y(a.max_at).is_nan() || y(b.max_at) > y(a.max_at) { b.max_at } else { a.max_at };
        Bucket { min_at, max_at, nan_at: a.nan_at.or(b.nan_at) }
    }
}

fn ordered(a: u32, b: u32) -> impl Iterator<Item = u32> {
    std::iter::once(a.min(b)).chain((a != b).then_some(a.max(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(ys: impl IntoIterator<Item = f32>) -> Series {
        let mut series = Series::default();
        ys.into_iter().enumerate().for_each(|(x, y)| series.push(x as f64, y));
        series
    }

    fn wave(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919) % 1013) as f32 / 1013.0).collect()
    }

    #[test]
    fn few_values_are_drawn_as_they_are() {
        let drawn = series([3.0, 1.0, 2.0]).draw(0.0, 2.0, 100);
        assert_eq!(drawn.runs, [Run { points: vec![[0.0, 3.0], [1.0, 1.0], [2.0, 2.0]] }]);
        assert!(drawn.nan_marks.is_empty());
    }

    #[test]
    fn a_spike_survives_any_zoom() {
        let mut ys = wave(100_000);
        ys[54_321] = 99.0;
        ys[12_345] = -7.0;
        let series = series(ys);
        for buckets in [10, 100, 1000, 5000] {
            let drawn = series.draw(0.0, 1e5, buckets);
            let points: Vec<_> = drawn.runs.iter().flat_map(|run| &run.points).collect();
            assert!(points.len() <= 2 * buckets + 2, "{} points for {buckets} buckets", points.len());
            assert!(points.contains(&&[54_321.0, 99.0]));
            assert!(points.contains(&&[12_345.0, -7.0]));
        }
    }

    #[test]
    fn every_bucket_keeps_its_extremes() {
        let ys = wave(1000);
        let series = series(ys.clone());
        for span in series.spans(0.0, 1000.0, 50).iter().flatten() {
            let part = &ys[span.from as usize..=span.to as usize];
            let min = part.iter().copied().fold(f32::INFINITY, f32::min);
            let max = part.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!((span.min, span.max), (f64::from(min), f64::from(max)));
        }
    }

    #[test]
    fn nan_breaks_the_line_and_leaves_a_mark() {
        let drawn = series([1.0, 2.0, f32::NAN, 3.0, 4.0]).draw(0.0, 4.0, 100);
        assert_eq!(drawn.nan_marks, [2.0]);
        assert_eq!(drawn.runs.len(), 2);

        let mut ys = wave(10_000);
        ys[5000] = f32::NAN;
        let drawn = series(ys).draw(0.0, 1e4, 100);
        assert_eq!(drawn.nan_marks, [5000.0]);
        assert!(drawn.runs.len() >= 2);
        assert!(drawn.runs.iter().flat_map(|run| &run.points).all(|point| point[1].is_finite()));
    }

    #[test]
    fn nothing_but_nan_draws_marks_only() {
        let drawn = series([f32::NAN; 9]).draw(0.0, 9.0, 2);
        assert!(drawn.runs.is_empty());
        assert!(!drawn.nan_marks.is_empty());
    }

    #[test]
    fn gaps_break_where_asked() {
        let mut series = Series::with_gaps(1.5);
        [1.0, 2.0, 3.0, 10.0, 11.0].into_iter().for_each(|x| series.push(x, 0.5));
        assert_eq!(series.draw(0.0, 20.0, 100).runs.len(), 2);
        assert_eq!(series.spans(0.0, 20.0, 100).len(), 2);
    }

    #[test]
    fn zoom_reaches_one_value_beyond_the_edges() {
        let drawn = series(wave(100)).draw(40.0, 50.0, 100);
        let xs: Vec<_> = drawn.runs[0].points.iter().map(|point| point[0]).collect();
        assert_eq!((xs[0], xs[xs.len() - 1]), (39.0, 51.0));
    }

    #[test]
    fn growing_step_by_step_equals_building_at_once() {
        let ys = wave(5000);
        let mut grown = Series::default();
        for (x, y) in ys.iter().enumerate() {
            grown.push(x as f64, *y);
            if x % 617 == 0 {
                let _ = grown.draw(0.0, x as f64, 30);
            }
        }
        assert_eq!(grown.draw(0.0, 5000.0, 30), series(ys).draw(0.0, 5000.0, 30));
    }

    #[test]
    fn read_out_finds_the_last_known_value() {
        let mut series = Series::default();
        [(10.0, 1.0), (20.0, 2.0)].into_iter().for_each(|(x, y)| series.push(x, y));
        assert_eq!(series.at(19.0, 100.0), Some((10.0, 1.0)));
        assert_eq!(series.at(9.0, 100.0), None);
        assert_eq!(series.at(25.0, 2.0), None);
        series.push(20.0, 9.0);
        assert_eq!(series.len(), 2, "a step comes once");
    }
}
