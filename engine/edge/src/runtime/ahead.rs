//! What an idle thread fetches into its cache (x86-64): the start of what it will read in the next product, while one
//! thread prepares that product's input and the memory would have nothing to do.
#![allow(unsafe_code, reason = "prefetches, which may name any address")]

use std::sync::atomic::{AtomicUsize, Ordering};

use super::team::Runs;

/// Bytes that a thread fetches at most: what is left of its second-level cache by the time they are read.
const MOST: usize = 128 << 10;
/// Bytes that come together.
const LINE: usize = 64;
/// Lines of a run between two looks for work: fetched in a fraction of a microsecond.
const LINES: usize = 4;

/// Where bytes lie that will be read: in `runs`, from the first of `bytes` on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch<'a> {
    pub(crate) bytes: &'a [u8],
    /// In bytes.
    pub(crate) runs: Runs,
}

/// The stretch that one thread will read. It says so to a thread that looks at it meanwhile; one that sees a half of the old
/// and a half of the new fetches something useless.
#[derive(Default)]
pub(super) struct Ahead {
    start: AtomicUsize,
    num: AtomicUsize,
    apart: AtomicUsize,
    /// Of a run.
    len: AtomicUsize,
}

impl Ahead {
    pub(super) fn set(&self, stretch: Stretch<'_>) {
        let Stretch { bytes, runs } = stretch;
        let behind = runs.num.saturating_sub(1).saturating_mul(runs.apart);
        let len = bytes.len().saturating_sub(behind).min(MOST / runs.num.max(1));
        self.start.store(bytes.as_ptr().addr(), Ordering::Relaxed);
        self.num.store(runs.num, Ordering::Relaxed);
        self.apart.store(runs.apart, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
    }

    pub(super) fn clear(&self) {
        self.len.store(0, Ordering::Relaxed);
    }
}

/// How far a thread has come.
#[derive(Default)]
pub(super) struct Fetched {
    start: usize,
    /// Of a run.
    bytes: usize,
}

impl Fetched {
    /// Fetches the next few lines of each run; false when all that is wanted was fetched.
    pub(super) fn fetch_some(&mut self, ahead: &Ahead) -> bool {
        if cfg!(not(target_arch = "x86_64")) {
            return false;
        }
        let start = ahead.start.load(Ordering::Relaxed);
        if start != self.start {
            *self = Self { start, bytes: 0 };
        }
        if self.bytes >= ahead.len.load(Ordering::Relaxed) {
            return false;
        }
        let apart = ahead.apart.load(Ordering::Relaxed);
        for run in 0..ahead.num.load(Ordering::Relaxed) {
            let first = start.wrapping_add(run.wrapping_mul(apart)).wrapping_add(self.bytes);
            (0..LINES).for_each(|line| fetch(first.wrapping_add(line * LINE)));
        }
        self.bytes += LINES * LINE;
        true
    }
}

/// Fetches the line at `address` into the second-level cache.
fn fetch(address: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch may name any address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(std::ptr::without_provenance(address));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    /// How many bytes of each run of `stretch` are fetched.
    fn fetched(fetched: &mut Fetched, ahead: &Ahead, stretch: Stretch<'_>) -> usize {
        ahead.set(stretch);
        let num_times = std::iter::from_fn(|| fetched.fetch_some(ahead).then_some(())).count();
        assert!(!fetched.fetch_some(ahead));
        num_times * LINES * LINE
    }

    #[test]
    fn each_stretch_is_fetched_once_and_not_too_far() {
        let bytes = vec![0; 4 * MOST];
        let (ahead, mut thread) = (Ahead::default(), Fetched::default());
        assert!(!thread.fetch_some(&ahead), "nothing to fetch yet");
        let runs = Runs { num: 4, apart: MOST };
        let all = Stretch { bytes: &bytes, runs };
        assert_eq!(fetched(&mut thread, &ahead, all), MOST / 4);
        assert_eq!(fetched(&mut thread, &ahead, all), 0, "the same again");
        let short = Stretch { bytes: &bytes[64..3 * MOST + 1000], runs };
        assert_eq!(fetched(&mut thread, &ahead, short), 1024, "936 bytes are left of each run");
        let nothing = Stretch { bytes: &[], runs };
        assert_eq!(fetched(&mut thread, &ahead, nothing), 0);
        ahead.set(all);
        assert!(thread.fetch_some(&ahead));
        ahead.clear();
        assert!(!thread.fetch_some(&ahead), "it is being read");
        assert_eq!(fetched(&mut thread, &ahead, Stretch { bytes: &bytes[64..704], runs: Runs::ONE }), 768);
    }
}
