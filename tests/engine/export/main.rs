//! Packages: every target for every family, read back; and what must never happen.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod bad_checkpoints;
mod fixtures;
mod packages;
mod safety;
mod stored;
mod tables;
