//! Stretches of text that a window may lie in.
//!
//! A window of `t` inputs and their next tokens needs `t + 1` tokens. A document that long is a segment of its own,
//! so no window crosses its ends. Shorter documents would never be seen alone: neighbors are joined, in order, until
//! they are long enough.

use std::ops::Range;

/// The segments of one part, with the number of windows before each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segments {
    window: usize,
    ranges: Vec<Range<usize>>,
    /// Window starts in all segments up to and with this one.
    starts: Vec<usize>,
    /// Consecutive windows in all segments up to and with this one.
    windows: Vec<usize>,
}

impl Segments {
    /// Segments for windows of `window` inputs in a part whose documents end at `ends`.
    pub fn new(ends: &[usize], num_tokens: usize, window: usize) -> Self {
        let needed = window.saturating_add(1);
        let mut ranges: Vec<Range<usize>> = Vec::new();
        let mut begin = 0;
        for end in ends.iter().copied().filter(|&end| end < num_tokens).chain([num_tokens]) {
            if end < begin {
                continue;
            }
            if end - begin >= needed {
                ranges.push(begin..end);
                begin = end;
            }
        }
        // What is left at the end is too short alone.
        match ranges.last_mut() {
            Some(last) if begin < num_tokens => last.end = num_tokens,
            Some(_) | None => {}
        }
        let starts = running_sum(ranges.iter().map(|range| range.len() - window));
        let windows = running_sum(ranges.iter().map(|range| (range.len() - 1) / window.max(1)));
        Self { window, ranges, starts, windows }
    }

    /// How many tokens a random window can start at.
    pub fn num_starts(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// How many windows there are side by side.
    pub fn num_windows(&self) -> usize {
        self.windows.last().copied().unwrap_or(0)
    }

    /// Token at which the `i`-th possible window starts; `None` past the last.
    pub fn start(&self, i: usize) -> Option<usize> {
        let (range, i) = self.locate(&self.starts, i)?;
        Some(range.start + i)
    }

    /// Token at which the `i`-th of the side-by-side windows starts; `None` past the last.
    pub fn window_start(&self, i: usize) -> Option<usize> {
        let (range, i) = self.locate(&self.windows, i)?;
        Some(range.start + i * self.window)
    }

    fn locate(&self, sums: &[usize], i: usize) -> Option<(&Range<usize>, usize)> {
        let segment = sums.partition_point(|&sum| sum <= i);
        let before = segment.checked_sub(1).and_then(|before| sums.get(before)).copied().unwrap_or(0);
        Some((self.ranges.get(segment)?, i - before))
    }
}

fn running_sum(counts: impl Iterator<Item = usize>) -> Vec<usize> {
    counts
        .scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_stay_inside_documents() {
        let segments = Segments::new(&[10, 15, 30], 30, 4);
        let inside = |start: usize| [0..10, 10..15, 15..30].iter().any(|doc| doc.start <= start && start + 4 < doc.end);
        assert_eq!(segments.num_starts(), 6 + 1 + 11);
        assert!((0..segments.num_starts()).all(|i| inside(segments.start(i).unwrap_or(99))));
        assert_eq!(segments.num_windows(), 2 + 1 + 3);
        let windows: Vec<_> = (0..7).map(|i| segments.window_start(i)).collect();
        assert_eq!(windows, [Some(0), Some(4), Some(10), Some(15), Some(19), Some(23), None]);
    }

    #[test]
    fn short_documents_are_joined() {
        let segments = Segments::new(&[2, 4, 6, 8], 8, 4);
        assert_eq!(segments.ranges, [Range { start: 0, end: 8 }]);
    }

    #[test]
    fn nothing_fits_nothing() {
        assert_eq!(Segments::new(&[3], 3, 4).num_starts(), 0);
        assert_eq!(Segments::new(&[], 0, 4).start(0), None);
    }
}
