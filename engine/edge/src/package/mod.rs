//! A package folder: manifest, config, weights, tokenizer.

mod files;
mod image_file;
mod manifest;
mod open;

pub use image_file::read_pixels;
pub use manifest::{FORMAT_VERSION, Manifest, PackagedFile};
pub use open::{Package, PackageKind};
