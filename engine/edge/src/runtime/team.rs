//! A team of threads for one answer: its workers spin while the answer is made, for work that comes every few
//! microseconds, and end with it.
//!
//! Work is a number of tasks. Each thread has a contiguous share of them and, when that is done, takes from the others'
//! shares, so that a thread which the system put aside holds up at most the one task it is in. The thread that calls
//! takes part; a worker that never showed up is not waited for.
#![allow(unsafe_code, reason = "tasks borrow from the caller's stack, and write disjoint columns of shared outputs")]

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;

use super::ahead::{Ahead, Fetched, Stretch};
use super::floats::Shelf;

/// Looks for work before a worker lets other threads have the processor: some 50 microseconds.
const SPINS: u32 = 1 << 10;
/// Looks for work before a worker sleeps: some milliseconds, much longer than anything between two steps of a model.
const YIELDS: u32 = SPINS + (1 << 12);
/// In [`Shared::state`]: tasks may be taken. Below: the workers inside, above: the number of the work.
const OPEN: u64 = 1 << 32;

type Task<'a> = &'a (dyn Fn(usize) + Sync + 'a);

/// What the threads of a team share.
struct Shared {
    /// `number of the work << 33 | OPEN | workers inside`.
    state: AtomicU64,
    task: Mutex<Option<Task<'static>>>,
    shares: Box<[Share]>,
    workers: OnceLock<Vec<Thread>>,
    num_sleeping: AtomicUsize,
    has_ended: AtomicBool,
    has_panicked: AtomicBool,
}

/// One thread's tasks, `next..end`, and what it will read then; on cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Share {
    next: AtomicUsize,
    end: AtomicUsize,
    ahead: Ahead,
}

thread_local! {
    /// The team of this thread, if it leads one.
    static CURRENT: RefCell<Option<Arc<Shared>>> = const { RefCell::new(None) };
}

/// Most threads of a team, whoever asks for more: systems have no room for any number of them, and say so late.
const MAX_THREADS: usize = 1024;

/// Runs `answer`, during which models share their work among `num_threads` threads, this one included, and keep the memory
/// between their steps. Within such a call already, that one's threads serve.
pub fn with_threads<T>(num_threads: usize, answer: impl FnOnce() -> T) -> T {
    let Some(_shelf) = Shelf::open() else { return answer() };
    if num_threads < 2 {
        return answer();
    }
    let num_threads = num_threads.min(MAX_THREADS);
    let shared = Arc::new(Shared {
        state: AtomicU64::new(0),
        task: Mutex::new(None),
        shares: (0..num_threads).map(|_| Share::default()).collect(),
        workers: OnceLock::new(),
        num_sleeping: AtomicUsize::new(0),
        has_ended: AtomicBool::new(false),
        has_panicked: AtomicBool::new(false),
    });
    std::thread::scope(|scope| {
        // Ends the workers however `answer` returns.
        let _end = End(&shared);
        let spawn = |index: usize| {
            let shared = &shared;
            let thread = std::thread::Builder::new().name(format!("edge-{index}"));
            // A thread that the system refuses is done without: the others take its share.
            thread.spawn_scoped(scope, move || shared.serve(index)).ok().map(|handle| handle.thread().clone())
        };
        // Set once, here.
        let _ = shared.workers.set((1..num_threads).filter_map(spawn).collect());
        CURRENT.set(Some(Arc::clone(&shared)));
        answer()
    })
}

/// The first of `num_tasks` that is thread `index`'s.
fn first_task(index: usize, num_tasks: usize, num_threads: usize) -> usize {
    index * num_tasks / num_threads
}

/// Leaves the team and ends its workers.
struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        CURRENT.set(None);
        self.0.has_ended.store(true, Ordering::SeqCst);
        self.0.wake();
    }
}

/// Closes the work and waits for the workers inside, also when a task of the leading thread panics: after this nothing
/// refers to the task any more.
struct Close<'a>(&'a Shared);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        let mut spins = 0;
        let mut state = self.0.state.fetch_and(!OPEN, Ordering::AcqRel);
        while state & (OPEN - 1) != 0 {
            wait_a_little(&mut spins);
            state = self.0.state.load(Ordering::Acquire);
        }
    }
}

fn wait_a_little(spins: &mut u32) {
    if *spins < SPINS {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
    *spins = spins.saturating_add(1);
}

impl Shared {
    /// Runs `task` once for each number below `num_tasks`, on all threads. Only the leading thread calls this.
    fn run(&self, num_tasks: usize, task: Task<'_>) {
        let num_threads = self.shares.len();
        for (index, share) in self.shares.iter().enumerate() {
            share.next.store(first_task(index, num_tasks, num_threads), Ordering::Relaxed);
            share.end.store(first_task(index + 1, num_tasks, num_threads), Ordering::Relaxed);
        }
        // SAFETY: only the lifetime changes. Workers take the task between entering and leaving, which `state` counts;
        // they can enter only while it is open, and `Close` closes it and waits for those inside before `run` returns
        // or unwinds. So no one uses the task after that.
        let task_for_workers = unsafe { std::mem::transmute::<Task<'_>, Task<'static>>(task) };
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task_for_workers);
        let number = (self.state.load(Ordering::Relaxed) >> 33).wrapping_add(1);
        self.state.store(number << 33 | OPEN, Ordering::SeqCst);
        let close = Close(self);
        self.wake();
        self.take_part(0, task);
        drop(close);
        assert!(!self.has_panicked.load(Ordering::Acquire), "a task failed on another thread; its message is above");
    }

    /// The tasks of thread `index`, then what is left of the others'.
    fn take_part(&self, index: usize, task: Task<'_>) {
        let num_threads = self.shares.len();
        for share in (0..num_threads).filter_map(|offset| self.shares.get((index + offset) % num_threads)) {
            let end = share.end.load(Ordering::Relaxed);
            loop {
                let number = share.next.fetch_add(1, Ordering::Relaxed);
                if number >= end {
                    break;
                }
                task(number);
            }
        }
    }

    /// A worker's life.
    fn serve(&self, index: usize) {
        let (mut done, mut spins, mut fetched) = (0, 0, Fetched::default());
        while !self.has_ended.load(Ordering::Acquire) {
            let state = self.state.load(Ordering::Acquire);
            if state & OPEN == 0 || state >> 33 == done {
                // Something to fetch is found in every work but a few, and comes to an end: the look for work is not put off.
                if !self.shares.get(index).is_some_and(|share| fetched.fetch_some(&share.ahead)) {
                    self.rest(&mut spins, done);
                }
                continue;
            }
            if self.state.compare_exchange_weak(state, state + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                continue;
            }
            (done, spins) = (state >> 33, 0);
            let task = *self.task.lock().unwrap_or_else(PoisonError::into_inner);
            let is_fine =
                task.is_none_or(|task| catch_unwind(AssertUnwindSafe(|| self.take_part(index, task))).is_ok());
            if !is_fine {
                self.has_panicked.store(true, Ordering::Release);
            }
            self.state.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits a moment for work after number `done`: spins, then yields, then sleeps until [`Shared::wake`].
    fn rest(&self, spins: &mut u32, done: u64) {
        if *spins < YIELDS {
            wait_a_little(spins);
            return;
        }
        self.num_sleeping.fetch_add(1, Ordering::SeqCst);
        // Looking again after saying so: whoever opens work later sees a sleeper, and wakes it.
        let state = self.state.load(Ordering::SeqCst);
        if (state & OPEN == 0 || state >> 33 == done) && !self.has_ended.load(Ordering::SeqCst) {
            std::thread::park();
        }
        self.num_sleeping.fetch_sub(1, Ordering::SeqCst);
        *spins = 0;
    }

    fn wake(&self) {
        if self.num_sleeping.load(Ordering::SeqCst) > 0 {
            self.workers.get().into_iter().flatten().for_each(Thread::unpark);
        }
    }
}

/// Places in `num` runs (at least 1) of equally many neighbors, `apart` places from the start of one to that of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Runs {
    pub(crate) num: usize,
    pub(crate) apart: usize,
}

impl Runs {
    /// All are neighbors.
    pub(crate) const ONE: Self = Self { num: 1, apart: 0 };

    /// How far from the first place number `index` lies, with `len` to a run.
    pub(crate) fn place(self, index: usize, len: usize) -> usize {
        if self.num == 1 { index } else { index / len.max(1) * self.apart + index % len.max(1) }
    }

    /// From the first of `count` places to behind the last; `None` for more than can be counted, and where they are no
    /// equal runs.
    pub(crate) fn span(self, count: usize) -> Option<usize> {
        if self.num == 1 || count == 0 {
            return Some(count);
        }
        let len = count.checked_div(self.num).filter(|len| len * self.num == count)?;
        (self.num - 1).checked_mul(self.apart)?.checked_add(len)
    }
}

/// Numbers (rows, width), row-major, that tasks fill in panels of columns.
#[derive(Debug)]
pub(crate) struct Output<'a> {
    /// A multiple of `width` long.
    pub(crate) values: &'a mut [f32],
    /// At least 1.
    pub(crate) width: usize,
    /// A panel's columns in each run, at least 1; the last panel may have fewer.
    pub(crate) panel_width: usize,
    /// Into how many equal runs the columns are cut, of each of which a panel has a part: successive panels then go on in
    /// all of them. Taken as 1 where it does not divide `width`.
    pub(crate) num_runs: usize,
}

/// Some columns of an [`Output`], for one task alone.
#[derive(Debug)]
pub(crate) struct Panel<'a> {
    base: *mut f32,
    num_rows: usize,
    width: usize,
    /// Of the first run.
    columns: Range<usize>,
    runs: Runs,
    lifetime: PhantomData<&'a mut [f32]>,
}

impl Panel<'_> {
    /// Rows of the output.
    pub(crate) fn num_rows(&self) -> usize {
        self.num_rows
    }

    /// Which columns these are, in the first run.
    pub(crate) fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// How the columns lie.
    pub(crate) fn runs(&self) -> Runs {
        self.runs
    }

    /// Columns in all runs.
    pub(crate) fn len(&self) -> usize {
        self.columns.len() * self.runs.num
    }

    /// The columns in the first run of row `row`; empty past the end.
    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [f32] {
        self.run_mut(row, 0)
    }

    /// The columns in run `run` of row `row`; empty past the end.
    pub(crate) fn run_mut(&mut self, row: usize, run: usize) -> &mut [f32] {
        if row >= self.num_rows || run >= self.runs.num {
            return &mut [];
        }
        // SAFETY: row and columns lie within the output that `base` points to, which is borrowed for as long as this
        // panel lives; no other panel has these columns, and `&mut self` keeps this one from handing them out twice.
        unsafe {
            let start = self.base.add(row * self.width + run * self.runs.apart + self.columns.start);
            std::slice::from_raw_parts_mut(start, self.columns.len())
        }
    }
}

/// An output's address, for tasks on any thread.
struct Shareable {
    base: *mut f32,
    num_rows: usize,
    width: usize,
    panel_width: usize,
    runs: Runs,
    num_panels: usize,
}

// SAFETY: the pointer is used only through panels, each of which is made once, by one task, of columns of its own.
unsafe impl Sync for Shareable {}

/// Calls `task` once for each panel of each output, with the number of the output; on the threads of the current
/// [`with_threads`], else on this one.
pub(crate) fn panels(outputs: &mut [Output<'_>], task: impl Fn(usize, Panel<'_>) + Sync) {
    let shareable = |output: &mut Output<'_>| {
        let (width, panel_width) = (output.width.max(1), output.panel_width.max(1));
        let (base, num_rows) = (output.values.as_mut_ptr(), output.values.len() / width);
        let num = if width.is_multiple_of(output.num_runs.max(1)) { output.num_runs.max(1) } else { 1 };
        let runs = Runs { num, apart: width / num };
        Shareable { base, num_rows, width, panel_width, runs, num_panels: runs.apart.div_ceil(panel_width) }
    };
    let outputs: Vec<Shareable> = outputs.iter_mut().map(shareable).collect();
    let numbered = |mut number: usize| {
        for (index, output) in outputs.iter().enumerate() {
            if number < output.num_panels {
                let start = number * output.panel_width;
                let columns = start..(start + output.panel_width).min(output.runs.apart);
                let Shareable { base, num_rows, width, runs, .. } = *output;
                task(index, Panel { base, num_rows, width, columns, runs, lifetime: PhantomData });
                return;
            }
            number -= output.num_panels;
        }
    };
    let num_tasks = outputs.iter().map(|output| output.num_panels).sum();
    // Taken while it works, so that a task which asks for a team finds none.
    match CURRENT.take() {
        Some(team) => {
            if num_tasks > 1 {
                team.run(num_tasks, &numbered);
            } else {
                (0..num_tasks).for_each(numbered);
            }
            CURRENT.set(Some(team));
        }
        None => (0..num_tasks).for_each(numbered),
    }
}

/// Takes back what [`fetch_ahead`] said last: it is being read.
pub(crate) fn fetch_no_more() {
    CURRENT.with_borrow(|team| {
        team.iter().flat_map(|team| team.shares.iter()).for_each(|share| share.ahead.clear());
    });
}

/// Tells the threads of the current [`with_threads`] what they will read next, for them to fetch until the work comes:
/// `stretch(task)` is where the work's task number `task`, of `num_tasks`, and those after it read.
pub(crate) fn fetch_ahead<'a>(num_tasks: usize, stretch: impl Fn(usize) -> Option<Stretch<'a>>) {
    CURRENT.with_borrow(|team| {
        let Some(team) = team else { return };
        let first_task = |index| first_task(index, num_tasks, team.shares.len());
        for (index, share) in team.shares.iter().enumerate().skip(1) {
            match stretch(first_task(index)).filter(|_| first_task(index) < first_task(index + 1)) {
                Some(stretch) => share.ahead.set(stretch),
                None => share.ahead.clear(),
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills `rows` x `width` and a second output of one column, and checks every number.
    fn check(num_threads: usize, rows: usize, width: usize, panel_width: usize, num_runs: usize) {
        let (mut first, mut second) = (vec![0.0; rows * width], vec![0.0; rows]);
        with_threads(num_threads, || {
            for round in 0..50 {
                let mut outputs = [
                    Output { values: &mut first, width, panel_width, num_runs },
                    Output { values: &mut second, width: 1, panel_width: 1, num_runs },
                ];
                panels(&mut outputs, |index, mut panel| {
                    let runs = panel.runs();
                    for (row, run) in (0..panel.num_rows()).flat_map(|row| (0..runs.num).map(move |run| (row, run))) {
                        for (column, value) in panel.columns().zip(panel.run_mut(row, run)) {
                            *value += (index + row * 10 + (column + run * runs.apart) * round) as f32;
                        }
                    }
                    assert!(panel.row_mut(rows).is_empty() && panel.run_mut(0, runs.num).is_empty());
                });
            }
        });
        let rounds: f32 = (0..50).map(|round| round as f32).sum();
        for (at, value) in first.iter().enumerate() {
            assert_eq!(*value, (50 * 10 * (at / width)) as f32 + (at % width) as f32 * rounds);
        }
        assert!(second.iter().enumerate().all(|(row, value)| *value == (50 + 50 * 10 * row) as f32));
    }

    #[test]
    fn every_panel_is_filled_once_on_any_number_of_threads() {
        for num_threads in [1, 2, 3, 7] {
            for num_runs in [1, 4] {
                check(num_threads, 3, 100, 7, num_runs);
                check(num_threads, 1, 5, 8, num_runs);
                check(num_threads, 2, 64, 1, num_runs);
            }
        }
    }

    #[test]
    fn workers_that_sleep_wake_up_and_a_team_serves_within_itself() {
        let mut values = vec![0.0; 40];
        with_threads(3, || {
            for pause in [0, 0, 30, 0, 30] {
                std::thread::sleep(std::time::Duration::from_millis(pause));
                with_threads(8, || {
                    let mut outputs = [Output { values: &mut values, width: 40, panel_width: 1, num_runs: 1 }];
                    panels(&mut outputs, |_, mut panel| panel.row_mut(0).iter_mut().for_each(|value| *value += 1.0));
                });
            }
        });
        assert_eq!(values, [5.0; 40]);
    }

    #[test]
    fn one_thread_is_one_thread() {
        with_threads(1, || {
            with_threads(4, || {
                let (own, mut values) = (std::thread::current().id(), [0.0; 64]);
                let mut outputs = [Output { values: &mut values, width: 64, panel_width: 1, num_runs: 1 }];
                panels(&mut outputs, |_, _| assert_eq!(std::thread::current().id(), own));
            });
        });
    }

    #[test]
    fn a_task_that_fails_fails_the_caller() {
        let failed = catch_unwind(|| {
            with_threads(2, || {
                let mut values = [0.0; 64];
                let mut outputs = [Output { values: &mut values, width: 64, panel_width: 1, num_runs: 1 }];
                panels(&mut outputs, |_, panel| assert!(panel.columns().start < 40, "past 40"));
            });
        });
        assert!(failed.is_err());
        // The thread leads no team any more.
        check(2, 2, 10, 3, 1);
    }
}
