//! The run screen: recipe at the left, plots in the middle, gauges at the right, log and samples below.

mod charts;
mod header;
mod log;
mod needs;
mod recipe;
mod resume;
mod samples;
mod screen;
mod side;
mod tier;

pub use recipe::start;
pub use screen::run_ui;
