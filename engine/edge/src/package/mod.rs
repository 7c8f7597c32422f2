//! Packages and models: opening them and asking them things.

mod context;
mod files;
mod image_file;
mod manifest;
mod model;
mod open;
mod prompt_cache;

pub use context::Context;
pub use image_file::read_pixels;
pub use manifest::{FORMAT_VERSION, Manifest, PackagedFile};
pub use model::{Model, Pieces};
pub use open::{Package, PackageKind};
