//! Packages for hardware targets: one file per target kind, and the check that reads each back.

mod target;

pub use target::{PackageFormat, TargetPreset};
