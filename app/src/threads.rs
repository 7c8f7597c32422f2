//! What the process says to candle's own threads, which only its environment can tell them.
//!
//! candle splits element-wise operations over a pool of its own that spins while it waits, beside the compute pool of
//! the run: on a busy machine the two fight for the same cores. And for each matrix product it reads its thread count
//! from the environment, or, where that says nothing, parses `/proc/cpuinfo` anew. Both together took 40% of a training
//! step of a small network.
#![allow(unsafe_code, reason = "the environment is set once, before any other thread exists")]

use std::thread::available_parallelism;

/// Names of candle's variables, and whether each is one thread or one per core.
const VARIABLES: [(&str, bool); 2] = [("CANDLE_NUM_THREADS", true), ("RAYON_NUM_THREADS", false)];

/// Leaves the cores to the run's compute pool. What the user set stays. To be called first in `main`.
pub(crate) fn leave_cores_to_compute_pools() {
    let num_cores = available_parallelism().map_or(1, usize::from);
    for (name, is_single) in VARIABLES {
        if std::env::var_os(name).is_none() {
            let num_threads = if is_single { 1 } else { num_cores };
            // SAFETY: `main` calls this before it starts a thread, so nothing reads the environment meanwhile.
            unsafe { std::env::set_var(name, num_threads.to_string()) };
        }
    }
}
