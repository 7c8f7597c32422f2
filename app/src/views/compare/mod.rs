//! Compare: past runs side by side.

mod figures;
mod list;
mod screen;
mod table;
mod toolbar;

pub use screen::compare_ui;
