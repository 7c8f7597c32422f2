//! Tests of the room through its public face: hostile files, real data, the built-in sets, batches.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
#![allow(clippy::print_stderr, reason = "a test says when it skips, and reports what it measured")]

mod batches;
mod built_in;
mod difficulty;
mod fingerprints;
mod fixtures;
mod hostile;
mod image_files;
mod real;
mod texts;
