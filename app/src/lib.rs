//! The studio: its window and its command line, over `foretrain_engine::session`.
//!
//! Invariants: a frame never waits for the engine, a file or a dialog; only [`link`] touches a
//! channel; screens read frozen state and queue requests.

pub mod app;
mod background;
pub mod cli;
pub mod dialogs;
pub mod folders;
pub mod link;
pub mod open_folder;
pub mod plots;
pub mod shortcuts;
pub mod state;
pub mod theme;
mod threads;
pub mod views;
pub mod widgets;
pub mod window;

use std::process::ExitCode;

use foretrain_engine::models::ops;

/// The program: log, arguments, then a subcommand or the window.
#[must_use]
pub fn main() -> ExitCode {
    ops::share_freed_pages();
    threads::leave_cores_to_compute_pools();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,wgpu=error,naga=error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match cli::parse().command {
        Some(command) => cli::run(command),
        None => match window::run_window(&window::WindowOptions::default()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!("{error:#}");
                ExitCode::FAILURE
            }
        },
    }
}
