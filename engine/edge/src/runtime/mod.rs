//! Threads that compute together.

mod team;

pub use team::with_threads;
pub(crate) use team::{Output, Panel, panels};
