//! The studio: its window and its command line, over `foretrain_engine::session`.
//!
//! Invariants: a frame never waits for the engine, a file or a dialog; only [`link`] touches a
//! channel; screens read frozen state and queue requests.

pub mod app;
pub mod dialogs;
pub mod link;
pub mod plots;
pub mod shortcuts;
pub mod state;
pub mod theme;
pub mod views;
pub mod widgets;
pub mod window;
