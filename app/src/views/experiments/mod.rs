//! Experiments: a recipe against its controls. Choices and past reports at the left; at the right the experiment that
//! goes on, or a report.

mod curves;
mod estimate;
mod form;
mod race;
mod report;
mod reports;
mod screen;
mod start;
mod table;

pub(super) use screen::experiments_ui;
