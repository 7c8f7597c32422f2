//! Training of models that are larger than memory: weights and optimizer state lie on disk, block by block.
//!
//! A step reads the blocks forward and keeps what goes into each; then it reads them backward, computes each again under
//! a graph of its own, moves its weights at once and writes it back. Gradients of two blocks never exist together. While
//! one block computes, the next is read and the one before is written. Where a GPU computes, a block's weights go there and
//! its gradients come back; updates are the processor's work in any case.
//!
//! On disk a number of a block is a bf16 weight, rounded stochastically, and two moments of 8 bits ([`Precision::Compact`],
//! 4 bytes), or an f32 weight and two f32 moments ([`Precision::Full`], 12 bytes).
//!
//! Invariants: a file of a block is whole: written beside, synced, renamed. A folder is at one step, or says of each
//! block whether it has the next update ([`Commit`]), or that its snapshot takes their place. Two steps from equal folders on equal batches give equal bits. A block
//! whose gradient is not finite does not move. Files that a snapshot links to are never written in place.
//!
//! Files are read and written, not mapped into memory: a disk that goes away is an error of a read, where a mapped page
//! would end the process; and pages in the system's cache do not count as this process's memory.

#[cfg(test)]
mod composed_tests;
mod error;
mod evaluate;
mod files;
mod layout;
mod led;
#[cfg(test)]
mod led_tests;
mod manifest;
mod passes;
mod plan;
mod plan_on_gpu;
mod rates;
mod rehearsal;
mod room;
mod scratch_folder;
mod snapshot;
mod state;
mod step;
mod store;
mod streams;
#[cfg(test)]
mod tests;
mod trainer;
mod update;

pub use error::OffloadError;
pub use layout::Precision;
pub use led::LedTrainer;
pub use plan::{OffloadInput, OffloadPlan, PredictPlan, plan};
pub use rates::{Cost, Rates};
pub use rehearsal::StepShape;
pub use room::DiskRoom;
pub use scratch_folder::ScratchFolder;
pub use store::{Commit, FirstWeights, OffloadSettings};
pub(crate) use trainer::check_streamable;
pub use trainer::{OffloadTrainer, StoredTensor, StreamedStep};
