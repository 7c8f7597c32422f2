//! Times what the trainer marks: it reads no clock itself.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::hybrid::ExtraWork;

/// Adds up the time between marks of one step.
#[derive(Debug, Default)]
pub(super) struct Stopwatch {
    began: Cell<Option<Instant>>,
    total: Cell<Option<Duration>>,
}

impl Stopwatch {
    /// Takes a mark, now.
    pub(super) fn mark(&self, mark: ExtraWork) {
        match mark {
            ExtraWork::Begins => self.began.set(Some(Instant::now())),
            ExtraWork::Ends => {
                let elapsed = self.began.take().map(|began| began.elapsed()).unwrap_or_default();
                self.total.set(Some(self.total.get().unwrap_or_default() + elapsed));
            }
        }
    }

    /// Time between all pairs of marks; `None` when there was none, which is not the same as no time.
    pub(super) fn total(&self) -> Option<Duration> {
        self.total.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marked_time_counts() {
        let watch = Stopwatch::default();
        assert_eq!(watch.total(), None);
        let outer = Instant::now();
        for _ in 0..2 {
            watch.mark(ExtraWork::Begins);
            watch.mark(ExtraWork::Ends);
        }
        let once = watch.total();
        assert!(once.is_some_and(|total| total <= outer.elapsed()));
        watch.mark(ExtraWork::Begins);
        assert_eq!(watch.total(), once, "an open pair has no time yet");
    }
}
