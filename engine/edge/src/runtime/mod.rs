//! Threads that compute together, and the memory of what they compute.

mod ahead;
mod floats;
mod team;

pub(crate) use ahead::Stretch;
pub(crate) use floats::Floats;
pub use team::with_threads;
pub(crate) use team::{Output, Panel, Runs, fetch_ahead, fetch_no_more, panels};
