//! Runs Foretrain packages on a CPU: no candle, no window.
//!
//! [`Package::open`] reads a folder written by export; an image package classifies, a language package generates text
//! and measures losses. [`gguf`] reads and writes llama.cpp's weight files.
//!
//! Rooms, from the public face down: `package -> text -> models -> weights -> gguf, kernels, runtime -> bytes`.
//!
//! Invariants: no file content causes a panic, a read out of bounds, or an allocation that the file's size does not
//! justify; weights are used where they lie in the mapped file, in the type they are stored in; the same package,
//! input and seed give the same answer.

#[cfg(target_endian = "big")]
compile_error!("weights are read in place and are little-endian; a big-endian machine would need to swap them");

mod bench;
mod bytes;
mod error;
pub mod gguf;
mod kernels;
mod models;
mod package;
mod runtime;
mod text;
mod weights;

pub use bench::{BenchOptions, BenchReport, Pace, bench};
pub use error::EdgeError;
pub use package::{FORMAT_VERSION, Manifest, Package, PackageKind, PackagedFile, read_pixels};
pub use text::{GenerateOptions, Generated};
pub use weights::Activations;
