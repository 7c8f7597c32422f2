//! Try it: draw or type, and see what each precision answers, through the runtime that ships.

mod answers;
mod input;
mod screen;

pub use screen::trial_ui;
