//! The window, driven by its accessible names; without an engine behind it, except in `whole`.

#![allow(clippy::unwrap_used, reason = "a test ends where its expectation fails")]

mod alike;
mod arena;
mod closing;
mod controls;
mod flames;
mod form;
mod fresh;
mod gpu;
mod on_disk;
mod pictures;
mod plots;
mod qat;
mod reports;
mod scales;
mod scene;
mod screens;
mod shell;
mod ship;
mod tables;
mod tier_lock;
mod whole;
mod wording;
mod zoom;
