//! Numbers between the steps of a model, whose memory the next step uses again. Given back to the system, it would be taken
//! anew a few microseconds later: each page is cleared first, and the other threads are interrupted to forget the old ones.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// Buffers that wait, at most: more than are in use at once.
const MAX_SHELVED: usize = 12;

thread_local! {
    /// Buffers that wait to be used again by this thread, the latest last; `None` while no answer is under way.
    static SHELF: RefCell<Option<Vec<Vec<f32>>>> = const { RefCell::new(None) };
}

/// This thread's shelf, until this is dropped.
pub(super) struct Shelf(());

impl Shelf {
    /// `None` when there is one already.
    pub(super) fn open() -> Option<Self> {
        SHELF.with_borrow_mut(|shelf| {
            if shelf.is_some() {
                return None;
            }
            *shelf = Some(Vec::new());
            Some(Self(()))
        })
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        SHELF.set(None);
    }
}

/// A vector that goes to this thread's shelf when it is dropped, if there is one.
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

    /// `len` numbers of no particular value, for who writes every one.
    pub(crate) fn any(len: usize) -> Self {
        match take(len) {
            Some(mut buffer) => {
                // Clears no more than what was never written.
                buffer.resize(len, 0.0);
                Self(buffer)
            }
            None => Self(vec![0.0; len]),
        }
    }

    /// The vector, for keeps.
    pub(crate) fn into_vec(mut self) -> Vec<f32> {
        let mut values = std::mem::take(&mut self.0);
        values.shrink_to_fit();
        values
    }
}

/// The smallest buffer that `len` numbers fit into, unless it is much larger than they are.
fn take(len: usize) -> Option<Vec<f32>> {
    SHELF.with_borrow_mut(|shelf| {
        let shelf = shelf.as_mut()?;
        let fits = |buffer: &Vec<f32>| buffer.capacity() >= len && buffer.capacity() / 2 <= len;
        let fitting = shelf.iter().enumerate().filter(|(_, buffer)| fits(buffer));
        let (index, _) = fitting.min_by_key(|(_, buffer)| buffer.capacity())?;
        Some(shelf.remove(index))
    })
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
            let Some(shelf) = shelf.as_mut() else { return };
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

    fn shelved() -> Option<Vec<usize>> {
        SHELF.with_borrow(|shelf| Some(shelf.as_ref()?.iter().map(Vec::capacity).collect()))
    }

    #[test]
    fn memory_is_used_again_and_zeros_are_zeros() {
        let _shelf = Shelf::open().expect("no answer is under way");
        let mut floats = Floats::zeros(100);
        floats.fill(1.0);
        let address = floats.as_ptr();
        drop(floats);
        let again = Floats::zeros(60);
        assert_eq!((again.as_ptr(), &*again), (address, &[0.0; 60][..]));
        drop(again);
        // Too large, and much too small for what waits.
        let others = [Floats::zeros(101), Floats::zeros(40)];
        assert_eq!(shelved(), Some(vec![100]));
        drop(others);
        let kept = Floats::zeros(60).into_vec();
        assert_eq!((kept.len(), kept.capacity()), (60, 60));
        assert_eq!(shelved(), Some(vec![101, 40]));
    }

    #[test]
    fn few_buffers_wait_and_none_after_the_answer() {
        let last = super::super::with_threads(2, || {
            drop((1..=2 * MAX_SHELVED).map(Floats::zeros).collect::<Vec<_>>());
            let waiting = shelved().unwrap_or_default();
            assert_eq!((waiting.len(), waiting.last()), (MAX_SHELVED, Some(&(2 * MAX_SHELVED))));
            super::super::with_threads(1, || {});
            assert_eq!(shelved(), Some(waiting), "an answer within the answer");
            Floats::zeros(8)
        });
        assert_eq!(shelved(), None);
        drop(last);
        assert_eq!(shelved(), None);
        super::super::with_threads(1, || {
            drop(Floats::zeros(8));
            assert_eq!(shelved(), Some(vec![8]));
        });
        assert_eq!(shelved(), None);
    }
}
