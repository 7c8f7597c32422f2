//! Runs Foretrain packages on a CPU: no candle, no window.
//!
//! [`Package::open`] reads a folder written by export; an image package classifies, a language package generates text
//! and measures losses. [`Model::open`] reads a language package or a GGUF file; [`Model::generate`] is an iterator over
//! text, a [`Context`] remembers what was read, a [`Batch`] goes on with several texts at a time. [`gguf`] reads and
//! writes llama.cpp's weight files.
//!
//! Rooms, from the public face down:
//! `package -> text, chat -> models -> weights -> gguf, kernels, runtime -> bytes`.
//!
//! Invariants: no file content causes a panic, a read out of bounds, or an allocation that the file's size does not
//! justify; weights are used where they lie in the mapped file, in the type they are stored in; the same package,
//! input and seed give the same answer, alone and beside others. Each `unsafe` block says why it is sound.
#![warn(clippy::undocumented_unsafe_blocks)]

#[cfg(target_endian = "big")]
compile_error!("weights are read in place and are little-endian; a big-endian machine would need to swap them");

mod bench;
mod bytes;
mod chat;
mod error;
pub mod gguf;
mod kernels;
mod models;
mod package;
mod runtime;
mod text;
mod weights;

pub use bench::{BenchOptions, BenchReport, Pace, bench};
pub use chat::{ChatPrompt, Message, PLAIN_FORM};
pub use error::EdgeError;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub use kernels::matrix_unit;
pub use kernels::{choose_kernels, kernel_sets};
pub use models::CacheFormat;
pub use package::{
    Context, FORMAT_VERSION, Manifest, Model, Package, PackageKind, PackagedFile, Pieces, check_tokenizer,
    is_unfinished, partial_prefix, read_pixels, refuse_unfinished,
};
pub use runtime::with_threads;
pub use text::{Batch, Finish, GenerateOptions, Generated, Progress, Unknown};
pub use weights::Activations;
