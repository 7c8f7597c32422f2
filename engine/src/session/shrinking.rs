//! A checkpoint's weights, quantized as asked: calibrated, equalized, mixed, with figures for every layer.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::Tensor;

use super::SessionError;
use super::shipping::batches;
use super::table_search::{Found, TableSearch};
use crate::data::{Batch, Dataset, SplitPart};
use crate::device::Watch;
use crate::evaluation::{Evaluation, evaluate};
use crate::export::Checkpoint;
use crate::models::{DataShape, Network, Params};
use crate::quant::{
    self, Choice, Container, LayerFigures, PostTraining, QuantError, QuantScheme, QuantizedWeights, Rounding, Sparsity,
    Storage, TableChoice, TableReason, TensorPlan,
};

/// Images of the training part that a tensor's sensitivity is measured on, and tokens.
const PROBE_IMAGES: usize = 512;
const PROBE_TOKENS: usize = 8_192;

/// Whether every tensor's sensitivity is measured: a forward pass over the probe for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// Only where it decides something.
    Brief,
    /// For a report.
    EveryLayer,
}

/// What is to be quantized, and for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shrinking<'a> {
    pub checkpoint: &'a Checkpoint,
    pub network: &'a Network,
    /// The dataset that fits the checkpoint; calibration looks at its training part.
    pub dataset: &'a Arc<Dataset>,
    pub scheme: QuantScheme,
    pub container: Container,
    pub options: &'a PostTraining,
    pub detail: Detail,
    /// Most validation examples that embedding and head are chosen by.
    pub max_examples: usize,
}

/// Quantized weights with what there is to say about them.
#[derive(Debug)]
pub(super) struct Shrunk {
    pub weights: QuantizedWeights,
    pub layers: Vec<LayerFigures>,
    /// "gptq, calibrated on 1000 sequences, equalized"
    pub method: String,
    /// What was asked for beside the scheme.
    pub sparsity: Option<Sparsity>,
    pub notes: Vec<String>,
    /// How embedding and head are stored, where that was asked for or chosen.
    pub tables: Option<TableChoice>,
    /// `weights` on the validation part, where it was measured already.
    pub measured: Option<Evaluation>,
}

impl Shrinking<'_> {
    /// Quantizes. Errors: those of the options, of batches, of the forward pass and of weights that no scheme holds.
    pub fn run(&self, watch: Watch<'_>) -> Result<Shrunk, SessionError> {
        let options = self.options;
        options.check()?;
        let plans = quant::plan(&self.network.specs(), self.scheme, self.container);
        let mut notes = Vec::new();
        let inputs = if options.is_calibrated() { self.calibration_inputs(&mut notes, watch)? } else { Vec::new() };
        let trained = &self.checkpoint.weights;
        let mut equalized = None;
        if self.is_equalized() {
            let (weights, num_joints) = quant::equalized(self.network, trained, &inputs, watch)?;
            notes
                .push(format!("Equalized channels at {num_joints} places between layers; the function stays the same"));
            equalized = Some(weights);
        } else if options.is_equalized {
            notes.push("Not equalized: that would move weights that were trained to be stored as they are".to_owned());
        }
        let weights = equalized.as_ref().unwrap_or(trained);
        let probe = Probe::new(self, weights, watch)?;
        let plans = self.plans(plans, (weights, probe.as_ref()), &mut notes, watch)?;
        let is_searched = self.has_free_tables(&plans) && options.budget_bits.is_none();
        let target = (self.scheme, self.container, plans);
        let (stored, output_errors) = if options.is_calibrated() {
            let found = quant::quantize_calibrated(self.network, weights, target, &inputs, options, watch)?;
            (found.weights, found.output_errors)
        } else {
            (quant::quantize_planned(weights, target, options, watch)?, BTreeMap::new())
        };
        let (stored, left, measured) = if is_searched {
            let Found { weights, tried, measured } = TableSearch::new(self, weights, stored).run(watch)?;
            (weights, (TableReason::Measured, tried), Some(measured))
        } else {
            let left = options.budget_bits.map_or(TableReason::Unmeasured, |_| TableReason::Budget);
            (stored, (left, Vec::new()), None)
        };
        let tables = TableChoice::of(&stored, options.tables, left);
        notes.extend(tables.iter().flat_map(TableChoice::notes));
        let loss_increases = match &probe {
            Some(probe) => probe.loss_increases(weights, &stored, watch)?,
            None => BTreeMap::new(),
        };
        let layers = quant::layer_figures(&stored, &output_errors, &loss_increases)?;
        if self.options.sparsity.is_some() {
            notes.push(zeros_note(&stored, &layers));
        }
        notes.extend(quant::small_calibration_note(&output_errors));
        notes.extend(quant::layer_advice(&layers, self.scheme));
        let (method, sparsity) = (self.method(inputs_len(&inputs)), options.sparsity);
        Ok(Shrunk { weights: stored, layers, method, sparsity, notes, tables, measured })
    }

    /// True where there is a table to choose for.
    fn has_free_tables(&self, plans: &[TensorPlan]) -> bool {
        let is_free = |table| self.options.tables.of(table).is_none();
        quant::has_table_choice(plans, self.scheme, self.container)
            && quant::tables_of(plans).any(|(table, _)| is_free(table))
    }

    /// Weights that were trained for their quantized values stay where they are.
    fn is_equalized(&self) -> bool {
        self.options.is_equalized && self.checkpoint.card.trained_for.is_none()
    }

    /// What was done, in words.
    fn method(&self, num_examples: usize) -> String {
        let mut parts = vec![self.options.rounding.label().to_owned()];
        if self.options.is_calibrated() {
            parts.push(format!("calibrated on {num_examples} {}", self.examples()));
        }
        if self.is_equalized() {
            parts.push("equalized".to_owned());
        }
        if let Some(sparsity) = self.options.sparsity {
            parts.push(format!("sparse {}", sparsity.label()));
        }
        if let Some(bits) = self.options.budget_bits {
            parts.push(format!("mixed within {bits} bits per weight"));
        }
        parts.join(", ")
    }

    fn examples(&self) -> &'static str {
        match self.checkpoint.card.model.data_shape() {
            DataShape::Images { .. } => "images",
            DataShape::Text { .. } => "sequences",
        }
    }

    /// Batches as the network reads them, evenly spread over the training part.
    fn calibration_inputs(&self, notes: &mut Vec<String>, watch: Watch<'_>) -> Result<Vec<Tensor>, SessionError> {
        let wanted = self.options.calibration_samples;
        let source = batches(&self.checkpoint.card, self.dataset)?;
        let mut inputs = Vec::new();
        for batch in source.evaluation_batches(SplitPart::Train, wanted) {
            watch.step("reading the calibration set", inputs_len(&inputs) as u64, Some(wanted as u64))?;
            inputs.push(batch?.inputs);
        }
        let found = inputs_len(&inputs);
        if found < wanted {
            notes.push(format!("Calibrated on {found} {}: the training part has no more", self.examples()));
        }
        Ok(inputs)
    }

    /// The storage of each tensor.
    fn plans(
        &self,
        plans: Vec<TensorPlan>,
        (weights, probe): (&Params, Option<&Probe<'_>>),
        notes: &mut Vec<String>,
        watch: Watch<'_>,
    ) -> Result<Vec<TensorPlan>, SessionError> {
        let mut plans = quant::with_tables(plans, self.container, self.options.tables);
        let (Some(bits), Some(probe)) = (self.options.budget_bits, probe) else { return Ok(plans) };
        let alternatives: Vec<_> = plans.iter().map(|plan| self.alternatives(plan, &plans)).collect();
        let total = alternatives.iter().filter(|storages| storages.len() > 1).map(Vec::len).sum::<usize>() as u64;
        let mut done = 0;
        let mut choices = Vec::new();
        for (plan, storages) in plans.iter().zip(&alternatives) {
            let mut of_tensor = Vec::new();
            for &storage in storages {
                let plan = TensorPlan { storage, ..plan.clone() };
                let bytes = plan.num_bytes();
                let loss_increase = if storages.len() > 1 {
                    watch.step("measuring sensitivity", done, Some(total))?;
                    done += 1;
                    probe.loss_increase_of(weights, plan, (self.scheme, self.container), self.options, watch)?
                } else {
                    0.0
                };
                of_tensor.push(Choice { storage, bytes, loss_increase });
            }
            choices.push(of_tensor);
        }
        let num_weights: usize = plans.iter().map(TensorPlan::num_weights).sum();
        let budget_bytes = (bits * num_weights as f64 / 8.0) as u64;
        let Some(chosen) = quant::cheapest_within(&choices, budget_bytes) else {
            let least: u64 = choices.iter().flat_map(|of_tensor| of_tensor.first()).map(|choice| choice.bytes).sum();
            return Err(QuantError::Setting {
                setting: "budget",
                expected: format!(
                    "at least {:.2} bits per weight, what {} takes with embeddings and scales",
                    least as f64 * 8.0 / num_weights.max(1) as f64,
                    self.scheme.label()
                ),
                found: bits.to_string(),
            }
            .into());
        };
        let mut num_widened = 0;
        for ((plan, choices), index) in plans.iter_mut().zip(&choices).zip(chosen) {
            if let Some(choice) = choices.get(index) {
                num_widened += usize::from(index > 0);
                plan.storage = choice.storage;
            }
        }
        notes.push(format!(
            "Mixed precision: {num_widened} of {} tensors got more bits than the fewest that {} gives, the most sensitive \
             first",
            alternatives.iter().filter(|storages| storages.len() > 1).count(),
            self.scheme.label()
        ));
        Ok(plans)
    }

    /// What a budget may choose from for one of `plans`, by rising bytes. Tables are tensors among the others, where nobody
    /// asked for their types: to measure them by themselves would leave them out of the budget.
    fn alternatives(&self, plan: &TensorPlan, plans: &[TensorPlan]) -> Vec<Storage> {
        match quant::tables_of(plans).find(|(_, of)| of.name == plan.name) {
            Some((table, _)) if self.options.tables.of(table).is_some() => vec![plan.storage],
            Some(_) if quant::has_table_choice(plans, self.scheme, self.container) => {
                quant::table_candidates(plan, self.container).into_iter().map(|plan| plan.storage).collect()
            }
            Some(_) | None => quant::alternatives(plan, self.container),
        }
    }
}

/// How sparse the quantized matrices are, and what that saves.
fn zeros_note(stored: &QuantizedWeights, layers: &[LayerFigures]) -> String {
    let is_quantized =
        |layer: &&LayerFigures| stored.find(&layer.name).is_some_and(|tensor| !tensor.plan.storage.is_float());
    let quantized: Vec<&LayerFigures> = layers.iter().filter(is_quantized).collect();
    let total: u64 = quantized.iter().map(|layer| layer.num_weights).sum();
    let zeros: f64 = quantized.iter().map(|layer| layer.zero_share * layer.num_weights as f64).sum();
    format!(
        "{:.1}% of the quantized weights are 0. The file is as large as without: its storages have room for every weight",
        zeros * 100.0 / total.max(1) as f64
    )
}

/// Examples in batches.
fn inputs_len(inputs: &[Tensor]) -> usize {
    inputs.iter().map(|input| input.dims().first().copied().unwrap_or(0)).sum()
}

/// A part of the training set on which single tensors are tried: the validation part is left to judge the whole.
struct Probe<'a> {
    network: &'a Network,
    batches: Vec<Batch>,
    /// Loss with all tensors as they were, nats.
    loss: f64,
}

impl<'a> Probe<'a> {
    /// `None` where nobody wants to know.
    fn new(of: &Shrinking<'a>, weights: &Params, watch: Watch<'_>) -> Result<Option<Self>, SessionError> {
        if of.detail == Detail::Brief && of.options.budget_bits.is_none() {
            return Ok(None);
        }
        let card = &of.checkpoint.card;
        let source = batches(card, of.dataset)?;
        let num_examples = match card.model.data_shape() {
            DataShape::Images { .. } => PROBE_IMAGES,
            DataShape::Text { .. } => (PROBE_TOKENS / source.config().sequence_length.max(1)).max(1),
        };
        let batches = source.evaluation_batches(SplitPart::Train, num_examples).collect::<Result<Vec<_>, _>>()?;
        let mut probe = Self { network: of.network, batches, loss: 0.0 };
        probe.loss = probe.loss_of(weights, watch)?;
        Ok(Some(probe))
    }

    fn loss_of(&self, params: &Params, watch: Watch<'_>) -> Result<f64, SessionError> {
        Ok(evaluate(self.network, params, self.batches.iter().cloned().map(Ok), watch)?.loss)
    }

    /// By how much the loss grows with one tensor rounded as `plan` says.
    fn loss_increase_of(
        &self,
        weights: &Params,
        plan: TensorPlan,
        (scheme, container): (QuantScheme, Container),
        options: &PostTraining,
        watch: Watch<'_>,
    ) -> Result<f64, SessionError> {
        let plain = PostTraining { rounding: Rounding::Nearest, ..*options };
        let stored = quant::quantize_planned(weights, (scheme, container, vec![plan]), &plain, crate::unwatched!())?;
        let mut params = weights.clone();
        for (name, tensor) in stored.dequantized()? {
            params.insert(name, tensor);
        }
        Ok(self.loss_of(&params, watch)? - self.loss)
    }

    /// By how much the loss grows with each quantized tensor alone, by name.
    fn loss_increases(
        &self,
        weights: &Params,
        stored: &QuantizedWeights,
        watch: Watch<'_>,
    ) -> Result<BTreeMap<String, f64>, SessionError> {
        let quantized: Vec<_> = stored.tensors().iter().filter(|tensor| !tensor.plan.storage.is_float()).collect();
        let mut increases = BTreeMap::new();
        for (done, tensor) in quantized.iter().enumerate() {
            watch.step("measuring each layer", done as u64, Some(quantized.len() as u64))?;
            let mut params = weights.clone();
            params.insert(tensor.plan.name.clone(), tensor.dequantized()?);
            increases.insert(tensor.plan.name.clone(), self.loss_of(&params, watch)? - self.loss);
        }
        Ok(increases)
    }
}
