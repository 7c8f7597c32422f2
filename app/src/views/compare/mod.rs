//! Compare: past runs side by side, or a recipe with its controls.

mod figures;
mod list;
mod screen;
mod table;
mod tabs;
mod toolbar;

pub use screen::compare_ui;
pub(super) use tabs::tabs_ui;
