//! The run screen: recipe at the left, plots in the middle, gauges at the right, log and samples below.

mod charts;
mod control;
mod fold;
mod header;
mod log;
mod needs;
mod recipe;
mod resume;
mod run_recipe;
mod samples;
mod screen;
mod side;
mod starting;
mod tier;
mod toolbar;

pub use control::{pause_or_resume, save, start, stop};
pub(in crate::views) use log::last_checkpoint;
pub use screen::run_ui;
