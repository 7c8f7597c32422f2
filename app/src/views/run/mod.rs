//! The run screen: recipe at the left, plots in the middle, gauges at the right, log and samples below.

mod charts;
mod control;
mod flames;
mod fold;
mod forecasts;
mod header;
mod lock;
mod log;
mod needs;
mod needs_on_disk;
mod qat;
mod recipe;
mod resume;
mod run_recipe;
mod samples;
mod savings;
mod screen;
mod side;
mod starting;
mod tier;
mod toolbar;
mod weights;

pub use control::{pause_or_resume, save, start, stop};
pub(in crate::views) use log::last_checkpoint;
pub(in crate::views) use needs::settled as settled_plan;
pub(in crate::views) use recipe::plan_when_settled;
pub use screen::run_ui;
