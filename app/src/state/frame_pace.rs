//! How fast the window draws.

use std::time::Duration;

/// Seconds over which frames are counted.
const WINDOW_SECONDS: f64 = 1.0;

/// Frames of a second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct FrameRate {
    /// Frames drawn per second. The window draws when something changed, so a quiet one draws few.
    pub per_second: f64,
    /// The longest time that the processor took for one, milliseconds, where the system told.
    pub longest_ms: Option<f64>,
}

impl std::fmt::Display for FrameRate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} frames a second", self.per_second)?;
        self.longest_ms.map_or(Ok(()), |longest_ms| write!(f, ", the longest took {longest_ms:.1} ms"))
    }
}

/// Counts frames.
#[derive(Debug, Clone, Copy, Default)]
pub struct FramePace {
    /// When counting began, seconds of egui's clock.
    since: f64,
    num_frames: u32,
    longest_ms: Option<f64>,
    latest: Option<FrameRate>,
}

impl FramePace {
    /// Counts a frame at `now` (seconds of egui's clock) that took the processor `took`, where that is known.
    /// Returns the rate when another second is full.
    pub fn count(&mut self, now: f64, took: Option<Duration>) -> Option<FrameRate> {
        self.num_frames += 1;
        let took_ms = took.map(|took| took.as_secs_f64() * 1e3);
        // `None` is less than any time.
        self.longest_ms = if took_ms > self.longest_ms { took_ms } else { self.longest_ms };
        let seconds = now - self.since;
        if seconds < WINDOW_SECONDS {
            return None;
        }
        let rate = FrameRate { per_second: f64::from(self.num_frames) / seconds, longest_ms: self.longest_ms };
        *self = Self { since: now, num_frames: 0, longest_ms: None, latest: Some(rate) };
        self.latest
    }

    /// The rate of the last full second.
    #[must_use]
    pub fn latest(&self) -> Option<FrameRate> {
        self.latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_by_the_second() {
        let mut pace = FramePace::default();
        for frame in 1_u32..50 {
            assert_eq!(pace.count(f64::from(frame) / 50.0, Some(Duration::from_millis(frame.into()))), None);
        }
        let rate = pace.count(1.0, None).unwrap_or_default();
        assert_eq!(rate.to_string(), "50 frames a second, the longest took 49.0 ms");
        assert_eq!(pace.latest(), Some(rate));
    }
}
