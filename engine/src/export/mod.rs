//! Packages for hardware targets, and the check that reads each back.
//!
//! Invariants: nothing is ever written over; a package is whole and verified under its own name or
//! not there at all; a hostile checkpoint makes an error that names file, expectation and finding.

mod blocker;
mod card;
mod checkpoint;
mod error;
mod target;
mod weights_file;

pub use blocker::Blocker;
pub use card::{ModelCard, Preprocessing};
pub use checkpoint::{
    COMPLETE_MARKER, Checkpoint, TOKENIZER_FILE, WEIGHTS_FILE, read_checkpoint, read_checkpoint_watched,
    resolve_checkpoint,
};
pub use error::ExportError;
pub use target::{PackageFormat, TargetPreset};
pub use weights_file::{WeightsReader, read_params, write_params};
