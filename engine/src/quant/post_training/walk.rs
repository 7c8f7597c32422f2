//! A network quantized block by block: each block is calibrated on what the blocks before it, quantized already, give.
//!
//! Within a block, layers see each other in full precision; between blocks they do not.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::PostTraining;
use super::layer::{QuantizedLayer, quantize_layer};
use super::statistics::{LayerStatistics, StatisticsObserver};
use crate::device::Watch;
use crate::models::{Block, Forward, Mode, Network, Params, TensorKind};
use crate::quant::plan::TensorPlan;
use crate::quant::tensor::{check_finite, quantize_tensor};
use crate::quant::{Container, QuantError, QuantScheme, QuantizedWeights};

/// Second moments that are gathered in one pass over a block, bytes.
const MAX_MOMENT_BYTES: u64 = 1 << 30;
/// Activations between two blocks that are kept; beyond, each pass begins at the network's input again.
const MAX_ACTIVATION_BYTES: usize = 1 << 30;

/// What quantization did to one calibrated layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OutputError {
    /// ‖x(w - q)‖ / ‖xw‖ over the calibration set, each weight rounded by itself.
    pub nearest: f64,
    /// The same as stored.
    pub stored: f64,
    /// Rows of the calibration set that the layer read: tokens, images, or windows of a convolution.
    pub num_rows: u64,
    /// Numbers in such a row.
    pub num_inputs: usize,
}

/// A quantized network with what that did to its layers.
#[derive(Debug)]
pub struct CalibratedWeights {
    /// The weights as they will be stored.
    pub weights: QuantizedWeights,
    /// By the names of calibrated tensors.
    pub output_errors: BTreeMap<String, OutputError>,
}

/// Stores `weights` of `network` as `plans` say, calibrated on `inputs`: batches as the network reads them.
///
/// Hidden matrices, convolutions and the head are calibrated where their storage is one of codes; all other tensors,
/// and a head that is the embedding too, are rounded.
/// Errors: [`QuantError::NotFinite`] naming the tensor; [`QuantError::Calibration`] without inputs, and for inputs that
/// make a layer read NaN; those of the forward pass.
pub fn quantize_calibrated(
    network: &Network,
    weights: &Params,
    (scheme, container, plans): (QuantScheme, Container, Vec<TensorPlan>),
    inputs: &[Tensor],
    options: &PostTraining,
    watch: Watch<'_>,
) -> Result<CalibratedWeights, QuantError> {
    if inputs.is_empty() {
        return Err(QuantError::Calibration { expected: "at least one example".to_owned(), found: "none".to_owned() });
    }
    // Before any forward pass, which would take longer and not know where NaN began.
    plans.par_iter().try_for_each(|plan| {
        let values = weights.get(&plan.name)?.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        check_finite(&plan.name, &values.flatten_all()?.to_vec1::<f32>()?)
    })?;
    let mut walk = Walk { network, inputs, params: weights.clone(), activations: Some(inputs.to_vec()), next: 0 };
    let plans: BTreeMap<String, TensorPlan> = plans.into_iter().map(|plan| (plan.name.clone(), plan)).collect();
    let mut stored = BTreeMap::new();
    let mut output_errors = BTreeMap::new();
    let total = network.blocks().len() as u64;
    for (done, block) in (0..).zip(network.blocks()) {
        watch.step("calibrating", done, Some(total))?;
        let planned: Vec<&TensorPlan> = block.specs().iter().filter_map(|spec| plans.get(&spec.name)).collect();
        let (calibrated, others): (Vec<_>, Vec<_>) = planned.into_iter().partition(|plan| is_calibrated(plan));
        let rounded = |plan: &&TensorPlan| {
            let tensor = quantize_tensor((*plan).clone(), weights.get(&plan.name)?, options)?;
            Ok((plan.name.clone(), tensor))
        };
        let rounded: Result<Vec<_>, QuantError> = others.par_iter().map(rounded).collect();
        for pass in passes(&calibrated) {
            let statistics = walk.statistics(&pass, watch)?;
            for plan in pass {
                let Some(statistics) = statistics.get(&plan.name) else { continue };
                check(&plan.name, statistics)?;
                let layer = quantize_layer(plan.clone(), weights.get(&plan.name)?, statistics, options, watch)?;
                let QuantizedLayer { tensor, nearest_error, output_error } = layer;
                output_errors.insert(
                    plan.name.clone(),
                    OutputError {
                        nearest: nearest_error,
                        stored: output_error,
                        num_rows: statistics.num_rows,
                        num_inputs: statistics.num_inputs,
                    },
                );
                stored.insert(plan.name.clone(), tensor);
            }
        }
        stored.extend(rounded?);
        let names: BTreeSet<String> = block.specs().into_iter().map(|spec| spec.name).collect();
        for (name, tensor) in stored.iter().filter(|(name, _)| names.contains(*name)) {
            walk.params.insert(name.clone(), tensor.dequantized()?);
        }
        walk.advance(watch)?;
    }
    let tensors = network.specs().iter().filter_map(|spec| stored.remove(&spec.name)).collect();
    Ok(CalibratedWeights { weights: QuantizedWeights::new(scheme, container, tensors), output_errors })
}

fn is_calibrated(plan: &TensorPlan) -> bool {
    let is_multiplied = match plan.kind {
        TensorKind::Matrix | TensorKind::Head => true,
        TensorKind::Embedding | TensorKind::Vector | TensorKind::Buffer => false,
    };
    is_multiplied && !plan.storage.is_float()
}

/// Layers in groups whose second moments fit into memory together; one that is too large by itself is alone.
fn passes<'a>(plans: &[&'a TensorPlan]) -> Vec<Vec<&'a TensorPlan>> {
    let mut passes: Vec<Vec<&TensorPlan>> = Vec::new();
    let mut bytes = u64::MAX;
    for plan in plans {
        let needed = LayerStatistics::num_bytes(plan.rows().1);
        bytes = bytes.saturating_add(needed);
        if bytes > MAX_MOMENT_BYTES {
            passes.push(Vec::new());
            bytes = needed;
        }
        if let Some(pass) = passes.last_mut() {
            pass.push(plan);
        }
    }
    passes
}

fn check(name: &str, statistics: &LayerStatistics) -> Result<(), QuantError> {
    if statistics.second_moments.iter().all(|moment| moment.is_finite()) {
        return Ok(());
    }
    Err(QuantError::Calibration {
        expected: format!("examples that make the inputs of {name:?} finite"),
        found: "NaN or infinity".to_owned(),
    })
}

/// Where in the network the calibration is.
struct Walk<'a> {
    network: &'a Network,
    /// What the network reads.
    inputs: &'a [Tensor],
    /// Quantized up to the block before the next.
    params: Params,
    /// What the next block reads; `None` once that is too large to keep.
    activations: Option<Vec<Tensor>>,
    /// Index of the next block.
    next: usize,
}

impl Walk<'_> {
    /// What the layers of `plans`, all in the next block, read.
    fn statistics(
        &self,
        plans: &[&TensorPlan],
        watch: Watch<'_>,
    ) -> Result<BTreeMap<String, LayerStatistics>, QuantError> {
        let observer = StatisticsObserver::new(plans.iter().map(|plan| (plan.name.clone(), plan.rows().1)));
        if let Some(block) = self.network.blocks().get(self.next) {
            for batch in 0..self.inputs.len() {
                watch.check()?;
                let pass = Forward::new(&self.params, Mode::Eval).observed_by(&observer);
                block.forward(&pass, &self.activation(batch)?)?;
            }
        }
        Ok(observer.into_statistics())
    }

    /// What the next block reads of a batch.
    fn activation(&self, batch: usize) -> Result<Tensor, QuantError> {
        if let Some(kept) = self.activations.as_ref().and_then(|activations| activations.get(batch)) {
            return Ok(kept.clone());
        }
        let mut before = self.network.blocks().iter().take(self.next);
        Ok(before.try_fold(self.inputs[batch].clone(), |x, block| self.forward(block.as_ref(), &x))?)
    }

    fn forward(&self, block: &dyn Block, x: &Tensor) -> Result<Tensor, crate::models::ModelError> {
        block.forward(&Forward::new(&self.params, Mode::Eval), x)
    }

    /// Goes behind the next block, whose weights are quantized now.
    fn advance(&mut self, watch: Watch<'_>) -> Result<(), QuantError> {
        if let (Some(kept), Some(block)) = (self.activations.take(), self.network.blocks().get(self.next)) {
            let mut activations = Vec::with_capacity(kept.len());
            let mut bytes = 0;
            for x in kept {
                watch.check()?;
                let x = self.forward(block.as_ref(), &x)?;
                bytes += x.elem_count() * x.dtype().size_in_bytes();
                activations.push(x);
                if bytes > MAX_ACTIVATION_BYTES {
                    break;
                }
            }
            self.activations = (bytes <= MAX_ACTIVATION_BYTES).then_some(activations);
        }
        self.next += 1;
        Ok(())
    }
}
