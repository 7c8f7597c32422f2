//! Quantize and export: what a precision costs, and packages for hardware targets.

mod costs;
mod measure;
mod report;
mod rounding;
mod screen;
mod tables;
mod targets;

pub use screen::ship_ui;
