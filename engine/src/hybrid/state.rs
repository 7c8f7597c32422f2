//! The trainer's state: what a checkpoint holds and a rollback brings back.

use candle_core::Device;

use super::HybridError;
use super::control::Control;
use super::strategy::PredictStep;
use crate::models::{ParamStore, Params};
use crate::optim::{Optimizer, WeightAverage};

const WEIGHTS: &str = "weights.";
const OPTIMIZER: &str = "optimizer.";
const STRATEGY: &str = "strategy.";
const TEACHER: &str = "teacher.";

/// Everything that decides the steps to come.
#[derive(Debug, Clone)]
pub struct TrainerState {
    /// `weights.NAME` (buffers included), `optimizer.NAME`, `strategy.NAME`, the weight average's own `average.NAME`, and
    /// `teacher.NAME` where there is a teacher.
    pub tensors: Params,
    /// JSON of phases, gate, forecaster, guard, ladder and counters; its numbers are exact.
    pub control: String,
}

impl TrainerState {
    /// The weights and buffers under their own names.
    #[must_use]
    pub fn weights(&self) -> Params {
        under(&self.tensors, WEIGHTS)
    }

    /// The weights that teach, on `device`; `None` before the switch, and without distillation.
    pub(super) fn teacher(&self, device: &Device) -> Result<Option<Params>, HybridError> {
        let teacher = under(&self.tensors, TEACHER).map(|_, tensor| tensor.to_device(device))?;
        Ok(Some(teacher).filter(|teacher| !teacher.is_empty()))
    }

    /// Errors: [`HybridError::Control`].
    pub(super) fn control(&self) -> Result<Control, HybridError> {
        serde_json::from_str(&self.control).map_err(|source| HybridError::Control { source })
    }
}

/// A deep copy of all that changes during a run, in the machine's memory also where a GPU computes: its own is scarcer, and
/// what is seldom read need not lie there.
pub(super) fn save(
    store: &ParamStore,
    optimizer: &Optimizer,
    average: Option<&WeightAverage>,
    strategy: &dyn PredictStep,
    control: &Control,
    teacher: Option<&Params>,
) -> Result<TrainerState, HybridError> {
    let mut tensors = Params::default();
    for (name, tensor) in store.snapshot()? {
        tensors.insert(format!("{WEIGHTS}{name}"), tensor);
    }
    for (name, tensor) in optimizer.state()? {
        tensors.insert(format!("{OPTIMIZER}{name}"), tensor);
    }
    for (name, tensor) in strategy.state()? {
        tensors.insert(format!("{STRATEGY}{name}"), tensor);
    }
    if let Some(average) = average {
        for (name, tensor) in average.state()? {
            tensors.insert(name, tensor);
        }
    }
    // A teacher never moves, so that it is shared where it is.
    for (name, tensor) in teacher.into_iter().flat_map(Params::iter) {
        tensors.insert(format!("{TEACHER}{name}"), tensor.clone());
    }
    let control = serde_json::to_string(control).map_err(|source| HybridError::Control { source })?;
    Ok(TrainerState { tensors, control })
}

/// What a saved state is loaded into.
pub(super) struct Parts<'a> {
    pub store: &'a mut ParamStore,
    pub optimizer: &'a mut Optimizer,
    pub average: Option<&'a mut WeightAverage>,
    pub strategy: &'a mut dyn PredictStep,
}

/// The reverse of [`save`], for the tensors. They move to where the weights are one by one; the optimizer's do at its next
/// step, if at all.
pub(super) fn load(saved: &TrainerState, parts: Parts<'_>) -> Result<(), HybridError> {
    let device = parts.store.device();
    parts.store.restore(&under(&saved.tensors, WEIGHTS))?;
    parts.optimizer.load_state(&under(&saved.tensors, OPTIMIZER))?;
    if let Some(average) = parts.average {
        average.load_state(&saved.tensors)?;
    }
    parts.strategy.load_state(&under(&saved.tensors, STRATEGY).map(|_, tensor| tensor.to_device(&device))?)
}

/// Tensors whose names begin with `prefix`, without it.
fn under(tensors: &Params, prefix: &str) -> Params {
    let named =
        tensors.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone())));
    named.collect()
}
