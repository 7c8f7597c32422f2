//! Threads that compute together.

mod team;

pub(crate) use team::{Output, Panel, panels, with_threads};
