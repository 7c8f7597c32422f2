//! Times a part of a step between the trainer's marks: it reads no clock itself.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::hybrid::{Mark, StepPart};

/// Adds up the time between marks of one kind of work.
#[derive(Debug)]
pub struct Stopwatch {
    work: StepPart,
    began: Cell<Option<Instant>>,
    total: Cell<Option<Duration>>,
}

impl Stopwatch {
    /// A watch for `work`.
    #[must_use]
    pub fn new(work: StepPart) -> Self {
        Self { work, began: Cell::default(), total: Cell::default() }
    }

    /// Takes a mark, now; those of other work are ignored.
    pub fn mark(&self, mark: Mark) {
        match mark {
            Mark::Begins(work) | Mark::Ends(work) if work != self.work => {}
            Mark::Begins(_) => self.began.set(Some(Instant::now())),
            Mark::Ends(_) => {
                let elapsed = self.began.take().map(|began| began.elapsed()).unwrap_or_default();
                self.total.set(Some(self.total.get().unwrap_or_default() + elapsed));
            }
        }
    }

    /// Time between all pairs of marks; `None` when there was none, which is not the same as no time.
    #[must_use]
    pub fn total(&self) -> Option<Duration> {
        self.total.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marked_time_counts() {
        let watch = Stopwatch::new(StepPart::ErrorNorms);
        assert_eq!(watch.total(), None);
        let outer = Instant::now();
        for _ in 0..2 {
            watch.mark(Mark::Begins(StepPart::ErrorNorms));
            watch.mark(Mark::Ends(StepPart::ErrorNorms));
        }
        let once = watch.total();
        assert!(once.is_some_and(|total| total <= outer.elapsed()));
        watch.mark(Mark::Begins(StepPart::ErrorNorms));
        assert_eq!(watch.total(), once, "an open pair has no time yet");
        let other = Stopwatch::new(StepPart::Decisions);
        other.mark(Mark::Begins(StepPart::ErrorNorms));
        other.mark(Mark::Ends(StepPart::ErrorNorms));
        assert_eq!(other.total(), None, "other work has its own watch");
    }
}
