//! Packages and models: opening them and asking them things.
#![forbid(unsafe_code)]

mod context;
mod files;
mod image_file;
mod json_shape;
mod manifest;
mod model;
mod open;
mod prompt_cache;
mod tokenizer_file;
mod unfinished;

pub use context::Context;
pub use image_file::read_pixels;
pub use manifest::{FORMAT_VERSION, Manifest, PackagedFile};
pub use model::{Model, Pieces};
pub use open::{Package, PackageKind};
pub use tokenizer_file::check_tokenizer;
pub use unfinished::{is_unfinished, partial_prefix, refuse_unfinished};
