//! Quantization: scales, packing, and what it does to a checkpoint.
//!
//! Invariants: sizes are known from names and shapes before anything is computed; the error of every
//! tensor is measured, never estimated; training with fake quantization and the export share one code path.

mod error;
mod notes;
mod pack_ternary;
mod plan;
mod post_training;
mod qat;
mod scheme;
mod table_choice;
mod tables;
mod tensor;
mod weights;

pub use error::QuantError;
pub use foretrain_ternary::TernaryRule;
pub use notes::{MeasuredQuality, QualityChange, fallback_note, quality_notes, storage_notes};
pub use pack_ternary::pack_ternary;
pub(crate) use plan::is_input_major;
pub use plan::{Container, Storage, TensorPlan, alternatives, plan};
pub use post_training::{
    CalibratedWeights, Choice, LayerFigures, OutputError, PostTraining, Rounding, Sparsity, TernaryScales,
    cheapest_within, equalized, layer_advice, layer_figures, quantize_calibrated, small_calibration_note,
};
pub use qat::{Distillation, FakeQuantizer, QatConfig};
pub use scheme::QuantScheme;
pub use table_choice::{ChosenTable, TableChoice, TableReason, TriedTables};
pub use tables::{
    StrayTables, Table, TableType, Tables, has_table_choice, plan_with_tables, table_candidates, tables_of, with_tables,
};
pub use tensor::{QuantizedTensor, TensorData};
pub use weights::{QuantizedWeights, quantize, quantize_for, quantize_planned};
