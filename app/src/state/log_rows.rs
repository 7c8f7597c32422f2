//! Which log entries are shown and how high each is, so that a frame's work does not grow with the log.

use std::ops::Range;

use foretrain_engine::session::{JobId, LogEntry};

use super::LogFilter;

/// What rows depend on; with another one all are measured again.
#[derive(Debug, Clone, PartialEq)]
pub struct LogKey {
    /// The run.
    pub job: JobId,
    /// Kinds of entries shown.
    pub filter: LogFilter,
    /// Text that they must hold.
    pub search: String,
    /// Width of a row, points.
    pub width: f32,
    /// Pixels of a point: texts are as wide as their pixels.
    pub pixels_per_point: f32,
}

/// A row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogRow {
    /// Which entry of the log.
    pub index: usize,
    /// Upper end, points below that of the first row.
    pub top: f32,
    /// Lower end.
    pub bottom: f32,
}

/// The rows of the entries shown.
#[derive(Debug, Default)]
pub struct LogRows {
    key: Option<LogKey>,
    num_seen: usize,
    rows: Vec<LogRow>,
}

impl LogRows {
    /// Adds rows for what is new in `entries`; `height_of` gives the height of an entry's row, and `None` for one
    /// that is not shown.
    pub fn update(&mut self, key: LogKey, entries: &[LogEntry], height_of: impl Fn(&LogEntry) -> Option<f32>) {
        if self.key.as_ref() != Some(&key) || entries.len() < self.num_seen {
            *self = Self { key: Some(key), ..Self::default() };
        }
        for (index, entry) in entries.iter().enumerate().skip(self.num_seen) {
            if let Some(height) = height_of(entry) {
                let top = self.height();
                self.rows.push(LogRow { index, top, bottom: top + height });
            }
        }
        self.num_seen = entries.len();
    }

    /// All rows, from top to bottom.
    #[must_use]
    pub fn all(&self) -> &[LogRow] {
        &self.rows
    }

    /// Height of all rows together.
    #[must_use]
    pub fn height(&self) -> f32 {
        self.rows.last().map_or(0.0, |row| row.bottom)
    }

    /// The rows between two heights.
    #[must_use]
    pub fn between(&self, top: f32, bottom: f32) -> Range<usize> {
        let first = self.rows.partition_point(|row| row.bottom <= top);
        let end = self.rows.partition_point(|row| row.top < bottom);
        first..end.max(first)
    }
}

#[cfg(test)]
mod tests {
    use foretrain_engine::session::LogKind;

    use super::*;

    fn key(width: f32) -> LogKey {
        LogKey { job: JobId(1), filter: LogFilter::All, search: String::new(), width, pixels_per_point: 1.0 }
    }

    fn entries(num: u64) -> Vec<LogEntry> {
        (0..num).map(|step| LogEntry { step, unix_ms: 0, kind: LogKind::Paused }).collect()
    }

    /// Every third entry is not shown; the others are 10 high, with an even step 20.
    fn height_of(entry: &LogEntry) -> Option<f32> {
        let height = if entry.step.is_multiple_of(2) { 20.0 } else { 10.0 };
        (entry.step % 3 != 2).then_some(height)
    }

    #[test]
    fn growing_rows_are_those_of_a_log_read_at_once() {
        let (mut grown, mut whole) = (LogRows::default(), LogRows::default());
        for num in [1, 2, 7, 30] {
            grown.update(key(300.0), &entries(num), height_of);
        }
        whole.update(key(300.0), &entries(30), height_of);
        assert_eq!(grown.all(), whole.all());
        assert_eq!(whole.height(), 300.0);
        let row = |at: usize| whole.all().get(at).map(|row| (row.index, row.top, row.bottom));
        assert_eq!((row(0), row(1), row(2)), (Some((0, 0.0, 20.0)), Some((1, 20.0, 30.0)), Some((3, 30.0, 40.0))));
    }

    #[test]
    fn only_rows_in_view_are_named_and_another_width_measures_again() {
        let mut rows = LogRows::default();
        rows.update(key(300.0), &entries(30), height_of);
        assert_eq!(rows.between(0.0, 20.0), 0..1);
        assert_eq!(rows.between(25.0, 31.0), 1..3);
        assert_eq!(rows.between(1e6, 2e6), 20..20);
        rows.update(key(200.0), &entries(30), |_| Some(50.0));
        assert_eq!((rows.all().len(), rows.height()), (30, 1500.0));
    }
}
