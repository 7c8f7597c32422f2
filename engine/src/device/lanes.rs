//! Independent work side by side, each piece on compute threads of its own.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::ThreadPool;

use super::{ComputeError, compute_pool, resolved_num_threads};

/// Compute pools that share no core, as far as there are cores.
#[derive(Debug)]
pub struct Lanes {
    first: ThreadPool,
    others: Vec<ThreadPool>,
}

impl Lanes {
    /// As many pools of `num_threads` threads as this machine has cores for, at least one; 0 threads means one pool with
    /// a thread per core. Errors: as [`compute_pool`].
    pub fn of_machine(num_threads: usize) -> Result<Self, ComputeError> {
        Self::new(resolved_num_threads(0) / resolved_num_threads(num_threads), num_threads)
    }

    /// `count` pools, at least one. Errors: as [`compute_pool`].
    pub fn new(count: usize, num_threads: usize) -> Result<Self, ComputeError> {
        let others = (1..count).map(|_| compute_pool(num_threads)).collect::<Result<_, _>>()?;
        Ok(Self { first: compute_pool(num_threads)?, others })
    }

    /// Pools.
    #[must_use]
    pub fn count(&self) -> usize {
        1 + self.others.len()
    }

    /// Does `work` on the first pool, the others resting: for what is measured, and for what comes alone.
    pub fn alone<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.first.install(work)
    }

    /// Does `work` for each of `items`, as many at once as there are pools; results come in the order of the items.
    /// After a failure nothing more is begun. Must not be called from within one of the pools.
    /// Errors: that of the first item, in order, that failed.
    pub fn side_by_side<T: Sync, R: Send, E: Send>(
        &self,
        items: &[T],
        work: impl Fn(&T) -> Result<R, E> + Sync,
    ) -> Result<Vec<R>, E> {
        let next = AtomicUsize::new(0);
        let finished: Mutex<Vec<(usize, Result<R, E>)>> = Mutex::new(Vec::new());
        let walk = |pool: &ThreadPool| {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(index) else { return };
                let result = pool.install(|| work(item));
                if result.is_err() {
                    next.store(items.len(), Ordering::Relaxed);
                }
                finished.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((index, result));
            }
        };
        std::thread::scope(|scope| {
            for pool in self.others.iter().take(items.len().saturating_sub(1)) {
                scope.spawn(|| walk(pool));
            }
            walk(&self.first);
        });
        let mut finished = finished.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        finished.sort_unstable_by_key(|(index, _)| *index);
        finished.into_iter().map(|(_, result)| result).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn results_keep_their_order_and_pools_their_size() {
        let lanes = Lanes::new(3, 2).unwrap();
        let items: Vec<usize> = (0..20).collect();
        let found = lanes.side_by_side(&items, |&item| Ok::<_, ()>((item, rayon::current_num_threads()))).unwrap();
        assert_eq!(found, items.iter().map(|&item| (item, 2)).collect::<Vec<_>>());
        assert_eq!(lanes.alone(rayon::current_num_threads), 2);
    }

    #[test]
    fn items_are_really_done_at_once() {
        // Neither could pass the barrier alone.
        let barrier = Barrier::new(2);
        let lanes = Lanes::new(2, 1).unwrap();
        lanes.side_by_side(&[(), ()], |()| Ok::<_, ()>(barrier.wait().is_leader())).unwrap();
    }

    #[test]
    fn a_failure_ends_the_rest() {
        let lanes = Lanes::new(1, 1).unwrap();
        let begun = AtomicUsize::new(0);
        let work = |&item: &usize| {
            begun.fetch_add(1, Ordering::Relaxed);
            if item == 2 { Err(item) } else { Ok(item) }
        };
        assert_eq!(lanes.side_by_side(&(0..10).collect::<Vec<_>>(), work), Err(2));
        assert_eq!(begun.into_inner(), 3);
    }

    #[test]
    fn a_machine_has_at_least_one_lane() {
        assert_eq!(Lanes::of_machine(0).unwrap().count(), 1);
        assert_eq!(Lanes::of_machine(resolved_num_threads(0) + 1).unwrap().count(), 1);
        assert_eq!(Lanes::of_machine(1).unwrap().count(), resolved_num_threads(0));
    }
}
