//! Compare: past runs side by side.

mod figures;
mod screen;
mod table;

pub use screen::compare_ui;
