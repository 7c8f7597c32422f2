//! Byte budgets: what a run will hold, by kind, from its config alone.
//!
//! Invariant: planning allocates nothing.

mod plan;

pub use plan::{MemoryPlan, PlanItem, PlanKind};
