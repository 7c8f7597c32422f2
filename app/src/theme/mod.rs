//! Every color, size and font of the window. Views name a meaning, never a number of their own.

mod palette;
mod style;
mod tokens;

pub use palette::{DARK, LIGHT, Palette, on_phase, phase_color, phase_label, phase_text, text_on};
pub use style::{ThemeChoice, apply, palette, palette_of};
pub use tokens::{font, radius, size, space};
