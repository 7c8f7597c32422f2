//! Screens. A screen reads frozen state and queues requests; effects run later, in `App::logic`.

mod close;
mod compare;
mod context;
mod data;
mod data_form;
mod help;
mod job;
mod model_choice;
mod navigation;
mod panes;
pub mod run;
mod runs_list;
mod settings;
mod ship;
mod trial;

pub use close::close_ui;
pub use compare::compare_ui;
pub use context::{Action, ViewCtx};
pub use data::data_ui;
pub use data_form::data_form_ui;
pub use help::help_ui;
pub use job::job_ui;
pub use model_choice::{model_card_ui, model_choice_ui, newer_model_ui, package_choice_ui};
pub use navigation::{SCREENS, ScreenEntry, navigation_ui};
pub use panes::{empty_ui, panes_ui};
pub use runs_list::{keep_runs_fresh, run_state};
pub use settings::settings_ui;
pub use ship::ship_ui;
pub use trial::trial_ui;
