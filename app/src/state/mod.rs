//! What the window remembers: `saved` outlives it, `live` does not.
//!
//! Invariant: state is plain data. It changes in `App::logic` (answers of the engine) and by the
//! controls of a screen, nowhere else.

mod catalog;
mod draft;
mod live;
mod query;
mod saved;

pub use catalog::{Catalog, RecipeEntry};
pub use draft::{DataForm, DataKind, Draft, TokenizerKind, guessed_shape};
pub use live::{CloseState, Live, LogFilter, RunLive, SampleImages, is_active};
pub use query::Query;
pub use saved::{PlotsSaved, Saved, Screen, Settings};
