//! Quantize and export: what a precision costs, and packages for hardware targets.

mod measure;
mod report;
mod screen;
mod tables;
mod targets;

pub use screen::ship_ui;
