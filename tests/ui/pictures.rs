//! A few pictures, compared pixel by pixel. They need a Vulkan driver; a software one will do.

use std::panic::{AssertUnwindSafe, catch_unwind};

use egui_kittest::{Harness, SnapshotOptions};
use foretrain::app::App;
use foretrain::state::Screen;
use foretrain::theme::ThemeChoice;
use foretrain_engine::session::RunStatus;

use crate::scene;

/// Drivers differ in the last bit of a blend: a few hundred pixels of 1.4 million may differ.
fn options() -> SnapshotOptions {
    SnapshotOptions::new().output_path(concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots")).max_failed_pixels(400)
}

/// Compares with the stored picture, or says why it cannot.
#[allow(clippy::print_stderr, reason = "a test that is left out says so")]
fn compare(mut harness: Harness<'static, App>, name: &str) {
    harness.remove_cursor();
    harness.run();
    // The renderer panics where there is no graphics driver.
    match catch_unwind(AssertUnwindSafe(|| harness.render())) {
        Ok(Ok(_)) => harness.snapshot_options(name, &options()),
        Ok(Err(error)) => eprintln!("LEFT OUT: picture {name}: {error}"),
        Err(_) => eprintln!("LEFT OUT: picture {name}: no graphics driver; install mesa-vulkan-drivers"),
    }
}

#[test]
fn welcome_in_dark() {
    compare(scene::window(ThemeChoice::Dark), "welcome_dark");
}

#[test]
fn training_in_dark() {
    compare(scene::window_with(scene::snapshot(900, RunStatus::Training), ThemeChoice::Dark), "training_dark");
}

#[test]
fn training_in_light() {
    compare(scene::window_with(scene::snapshot(900, RunStatus::Training), ThemeChoice::Light), "training_light");
}

#[test]
fn settings_in_light() {
    let mut harness = scene::window(ThemeChoice::Light);
    harness.state_mut().saved_mut().screen = Screen::Settings;
    compare(harness, "settings_light");
}
