//! What the window remembers: `saved` outlives it, `live` does not.
//!
//! Invariant: state is plain data. It changes in `App::logic` (answers of the engine) and by the
//! controls of a screen, nowhere else.

mod asked;
mod catalog;
mod command_line;
mod draft;
mod experiments;
mod frame_pace;
mod held_model;
mod live;
mod log_rows;
mod machine;
mod query;
mod saved;
mod ship;
mod streaming;
mod tier_lock;

pub use asked::Asked;
pub use catalog::{Catalog, RecipeEntry};
pub use command_line::experiment_command;
pub use draft::{DataForm, DataKind, Draft, TokenizerKind, guessed_shape, preset_of};
pub use experiments::{AskedExperiment, ExperimentsLive, StageTrack};
pub use frame_pace::{FramePace, FrameRate};
pub use held_model::{HeldChange, HeldModel};
pub use live::{
    CloseState, CompareLive, DataLive, Live, LogFilter, ModelLive, OpenedPanels, OpenedRun, Planned, Replaced, RunLive,
    TrialLive, is_active,
};
pub use log_rows::{LogKey, LogRow, LogRows};
pub use machine::Machine;
pub use query::Query;
pub use saved::{
    CompareAxis, CompareSaved, CompareTab, ExperimentChoice, ExperimentsSaved, PlotsSaved, RaceAxis, Saved, Screen,
    Settings, ShipSaved, TrySaved, TrySource,
};
pub use ship::{MeasureSettings, Measured, ShipAction, ShipLive};
pub use streaming::{Streaming, Wanted};
pub use tier_lock::{Access, CorrectionFigures, Demand, Found, LOCKED_TIER, PROOF_CONFIDENCE, RecipeKey, TierLock};
