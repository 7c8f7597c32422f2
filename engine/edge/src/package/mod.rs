//! A package folder: manifest, config, weights, tokenizer.

mod files;
mod image_file;
mod manifest;
mod open;

pub use manifest::{FORMAT_VERSION, Manifest, PackagedFile};
pub use open::{Package, PackageKind};
