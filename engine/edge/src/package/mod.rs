//! A package folder: manifest, config, weights, tokenizer.
#![forbid(unsafe_code)]

mod files;
mod image_file;
mod json_shape;
mod manifest;
mod open;
mod tokenizer_file;

pub use image_file::read_pixels;
pub use manifest::{FORMAT_VERSION, Manifest, PackagedFile};
pub use open::{Package, PackageKind};
pub use tokenizer_file::check_tokenizer;
