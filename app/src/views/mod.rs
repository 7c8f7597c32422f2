//! Screens. A screen reads frozen state and queues requests; effects run later, in `App::logic`.

mod close;
mod context;
mod help;
mod navigation;
pub mod run;
mod settings;

pub use close::close_ui;
pub use context::{Action, ViewCtx};
pub use help::help_ui;
pub use navigation::{SCREENS, ScreenEntry, navigation_ui};
pub use settings::settings_ui;
