//! Byte budgets: what a run will hold, by kind, from its config alone.
//!
//! Invariant: planning allocates nothing.

mod beside_gpu;
mod budget;
mod composed;
mod composed_blocks;
mod flops;
mod layers;
mod plan;
mod planner;
mod remedies;
mod scratch;
#[cfg(test)]
mod tests;

pub use beside_gpu::plan_beside_gpu;
pub use budget::{default_budget, format_bytes};
pub(crate) use composed_blocks::{ComposedBlocks, composed_blocks};
pub use flops::step_flops;
pub(crate) use layers::sequence_layer;
pub use plan::{MemoryPlan, MemorySettings, PlanItem, PlanKind, Remedy};
pub(crate) use planner::{CUDA_BYTES, CUDA_HOST_BYTES, PROGRAM_BYTES};
pub use planner::{Place, PlanInput, counted, grouped, plan};
