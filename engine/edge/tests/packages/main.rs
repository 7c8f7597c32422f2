//! Whole packages: written here with random weights, opened, and compared with naive 64-bit arithmetic; then damaged.
#![allow(clippy::unwrap_used, reason = "tests")]

mod allocations;
mod builder;
mod command_line;
mod contexts;
mod hostile;
mod image_models;
mod kernel_sets;
mod language_models;
mod program;
mod reference;
mod roundings;
mod serving;
mod talker;
