//! Small parts used by two or more screens. They know the theme, and nothing of training.

mod card;
mod copy;
mod field;
mod follow_focus;
mod icon;
mod image_strip;
mod meter;
mod notice;
pub mod number;
mod path_field;
mod pixel_canvas;
mod smoothing;
mod stat;
mod table;

pub use card::{card_ui, expander_ui, num_columns, section_title_ui};
pub use copy::copy_button_ui;
pub use field::{CheckLabel, combo_ui, field_ui, hint_ui, primary_button_ui};
pub use follow_focus::FollowFocus;
pub use icon::{Icon, icon_button_ui, icon_text_button_ui};
pub use image_strip::ImageStrip;
pub use meter::{BarRow, Flame, Segment, bar_row_ui, flames_ui, meter_of_parts_ui, meter_ui, stacked_bar_ui};
pub use notice::{Severity, notice_ui};
pub use path_field::{PathField, path_field_ui};
pub use pixel_canvas::{CanvasAct, PixelCanvas};
pub use smoothing::smoothing_ui;
pub use stat::{chip_ui, pill_ui, stat_ui, swatch_ui};
pub use table::number_cell_ui;
