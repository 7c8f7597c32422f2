//! Numbers between the steps of a model, whose memory the next step uses again. Given back to the system, it would be taken
//! anew a few microseconds later: each page is cleared first, and the other threads are interrupted to forget the old ones.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// Buffers that wait, at most: more than are in use at once.
const MAX_SHELVED: usize = 12;

thread_local! {
    /// Buffers that wait to be used again by this thread, the latest last.
    static SHELF: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// A vector that goes to this thread's shelf when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Floats(Vec<f32>);

impl Floats {
    /// `len` zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        match take(len) {
            Some(mut buffer) => {
                buffer.clear();
                buffer.resize(len, 0.0);
                Self(buffer)
            }
            None => Self(vec![0.0; len]),
        }
    }

    /// The vector, for keeps.
    pub(crate) fn into_vec(mut self) -> Vec<f32> {
        std::mem::take(&mut self.0)
    }
}

/// The smallest buffer that `len` numbers fit into, unless it is much larger than they are.
fn take(len: usize) -> Option<Vec<f32>> {
    SHELF.with_borrow_mut(|shelf| {
        let fits = |buffer: &Vec<f32>| buffer.capacity() >= len && buffer.capacity() / 2 <= len;
        let fitting = shelf.iter().enumerate().filter(|(_, buffer)| fits(buffer));
        let (index, _) = fitting.min_by_key(|(_, buffer)| buffer.capacity())?;
        Some(shelf.remove(index))
    })
}

/// Frees what waits on this thread's shelf.
pub(super) fn clear_shelf() {
    SHELF.with_borrow_mut(Vec::clear);
}

impl Drop for Floats {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        if buffer.capacity() == 0 {
            return;
        }
        // A thread that ends has no shelf any more.
        let _ = SHELF.try_with(|shelf| {
            let mut shelf = shelf.borrow_mut();
            if shelf.len() >= MAX_SHELVED {
                // Of sizes that nobody asks for any more, in time.
                shelf.remove(0);
            }
            shelf.push(buffer);
        });
    }
}

impl Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Floats {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelved() -> Vec<usize> {
        SHELF.with_borrow(|shelf| shelf.iter().map(Vec::capacity).collect())
    }

    #[test]
    fn memory_is_used_again_and_zeros_are_zeros() {
        let mut floats = Floats::zeros(100);
        floats.fill(1.0);
        let address = floats.as_ptr();
        drop(floats);
        let again = Floats::zeros(60);
        assert_eq!((again.as_ptr(), &*again), (address, &[0.0; 60][..]));
        // Too large, and much too small for what waits.
        drop(again);
        assert!(Floats::zeros(101).as_ptr() != address && Floats::zeros(40).as_ptr() != address);
        let kept = Floats::zeros(100).into_vec();
        assert_eq!((kept.as_ptr(), kept.len()), (address, 100));
        assert!(!shelved().contains(&kept.capacity()));
    }

    #[test]
    fn few_buffers_wait_and_none_after_the_answer() {
        super::super::with_threads(2, || {
            drop((1..=2 * MAX_SHELVED).map(Floats::zeros).collect::<Vec<_>>());
            assert_eq!(shelved().len(), MAX_SHELVED);
            assert_eq!(shelved().last(), Some(&(2 * MAX_SHELVED)));
            super::super::with_threads(1, || {});
            assert_eq!(shelved().len(), MAX_SHELVED, "an answer within the answer");
        });
        assert!(shelved().is_empty());
        super::super::with_threads(1, || drop(Floats::zeros(8)));
        assert!(shelved().is_empty());
    }
}
