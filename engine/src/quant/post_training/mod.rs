//! Post-training quantization: a trained network, a calibration set, and no gradient.
//!
//! Rooms: `options` says what is wanted, `unheeded` what of it has nothing to work on; `statistics` and `maxima` watch what layers read; `factor`, `grid` and `gptq`
//! round with second-order error compensation; `layer` does one tensor and `walk` the network; `joints` and `equalize`
//! scale channels against each other; `sparsity` says which weights go; `mixed` gives each tensor its own storage; `figures` tells what all this did.
//!
//! Invariants: the same network, calibration set and options give the same bytes on the same number of threads; a layer
//! never loses more of its outputs than by rounding each weight alone.

mod equalize;
mod factor;
mod figures;
mod gptq;
mod grid;
mod joints;
mod layer;
mod maxima;
mod mixed;
mod options;
mod packing;
mod sparsity;
mod statistics;
#[cfg(test)]
mod tests;
mod unheeded;
mod walk;

pub use equalize::equalized;
pub use figures::{LayerFigures, layer_advice, layer_figures, small_calibration_note};
pub use mixed::{Choice, cheapest_within};
pub use options::{PostTraining, Rounding, TernaryScales};
pub use sparsity::Sparsity;
pub use walk::{CalibratedWeights, OutputError, quantize_calibrated};
