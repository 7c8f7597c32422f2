//! The optimizer: which rule moves which tensor, and the state it keeps.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use rayon::prelude::*;

use super::buffer::Buffer;
use super::kernels::{self, AdamWNumbers, MomentsMut};
use super::moment::Moment;
use super::muon::{self, MatrixView};
use super::{Gradients, OptimError, OptimizerConfig, StatePlace, StatePrecision, state};
use crate::models::ops::{has_kernels, on_processor};
use crate::models::{ParamStore, Params, TensorKind, TensorSpec, host_copy};

/// Name of the step count in a saved state.
const STEP: &str = "step";
/// And of what a tensor has: AdamW's moments, Muon's momentum.
const ADAM_M: &str = "adam.m";
const ADAM_V: &str = "adam.v";
const MUON_M: &str = "muon.m";

/// Moves weights by AdamW or Muon, in place.
///
/// With Muon, tensors of kind [`TensorKind::Matrix`] with two or more dimensions are moved by it, all
/// others by AdamW at `adam_learning_rate`. Weight decay spares [`TensorKind::Vector`].
///
/// With [`super::StatePlace::HostMemory`] and weights on a GPU, moments stay in the machine's memory and kernels of ours
/// move them there. AdamW's weights come, are moved and go back; Muon's stay, and get a direction, which is orthogonalized
/// where they are, because its products are most of Muon's work.
/// A gradient that is not finite makes weights that are not: look at [`Gradients::norm`] first.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    /// In name order.
    slots: Vec<Slot>,
    num_steps: u64,
}

/// One trainable tensor.
#[derive(Debug)]
struct Slot {
    name: String,
    shape: Vec<usize>,
    kind: TensorKind,
    /// Of its moments.
    states: StatePrecision,
    rule: Rule,
}

/// Who moves it, with the state; `None` before the first step.
#[derive(Debug)]
enum Rule {
    AdamW { moments: Option<(Moment, Moment)> },
    Muon { view: MatrixView, momentum: Option<Moment> },
}

impl Optimizer {
    /// An optimizer without history for the trainable tensors among `specs`; allocates its state at the first step.
    /// Errors: [`OptimError::Setting`].
    pub fn new(config: &OptimizerConfig, specs: &[TensorSpec]) -> Result<Self, OptimError> {
        config.check()?;
        let trainable = specs.iter().filter(|spec| spec.kind != TensorKind::Buffer);
        let mut slots: Vec<Slot> = trainable.map(|spec| Slot::new(config, spec)).collect();
        slots.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { config: config.clone(), slots, num_steps: 0 })
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &OptimizerConfig {
        &self.config
    }

    /// Steps taken.
    #[must_use]
    pub fn num_steps(&self) -> u64 {
        self.num_steps
    }

    /// One update of every trainable weight, at `lr_factor` times the peak learning rates.
    ///
    /// Does not clip: see [`Gradients::clip`]. Errors: [`OptimError::MissingWeight`],
    /// [`OptimError::MissingGradient`], [`OptimError::Shape`], [`OptimError::NumberType`] (f32 only),
    /// all before anything has moved.
    pub fn step(&mut self, store: &ParamStore, gradients: &Gradients, lr_factor: f64) -> Result<(), OptimError> {
        let vars: BTreeMap<&str, &Var> = store.vars().collect();
        let mut jobs = Vec::with_capacity(self.slots.len());
        for slot in &mut self.slots {
            let weight = vars.get(slot.name.as_str()).copied();
            let weight = weight.ok_or_else(|| OptimError::MissingWeight { name: slot.name.clone() })?;
            let gradient = gradients.get(&slot.name);
            let gradient = gradient.ok_or_else(|| OptimError::MissingGradient { name: slot.name.clone() })?;
            slot.check(weight)?;
            slot.check(gradient)?;
            jobs.push((slot, weight, gradient));
        }
        let pace = Pace { config: &self.config, step: self.num_steps + 1, lr_factor };
        let (muon, adamw): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|(slot, ..)| matches!(slot.rule, Rule::Muon { .. }));
        let apply = |(slot, weight, gradient): (&mut Slot, &Var, &Tensor)| slot.apply(weight, gradient, pace);
        adamw.into_iter().try_for_each(apply)?;
        let all_here = muon.iter().all(|(_, weight, _)| has_kernels(weight.device()));
        if all_here {
            // Small matrices do not fill the machine one by one, so they go side by side.
            muon.into_par_iter().try_for_each(apply)?;
        } else {
            // A GPU takes them one after the other, whoever asks.
            muon.into_iter().try_for_each(apply)?;
        }
        self.num_steps += 1;
        Ok(())
    }

    /// Everything that decides later steps: `step`, and per tensor `adam.m.NAME` and `adam.v.NAME`, or
    /// `muon.m.NAME` (none before the first step); where they are codes of 8 bits, their scales, too, as
    /// `adam.m_scales.NAME`. A deep copy in the machine's memory, whose names and numbers say nothing of where they were.
    pub fn state(&self) -> Result<Params, OptimError> {
        let mut state = Params::default();
        state.insert(STEP, Tensor::from_slice(&[self.num_steps as i64], 1, &Device::Cpu)?);
        for slot in &self.slots {
            match &slot.rule {
                Rule::AdamW { moments: None } | Rule::Muon { momentum: None, .. } => {}
                Rule::AdamW { moments: Some((m, v)) } => {
                    m.save((ADAM_M, &slot.name), &slot.shape, &mut state)?;
                    v.save((ADAM_V, &slot.name), &slot.shape, &mut state)?;
                }
                Rule::Muon { momentum: Some(m), .. } => {
                    m.save((MUON_M, &slot.name), &slot.shape, &mut state)?;
                }
            }
        }
        Ok(state)
    }

    /// Restores what [`Self::state`] gave, exactly; other names are ignored.
    /// Errors: [`OptimError::MissingState`], [`OptimError::Shape`], [`OptimError::StatePrecision`]; nothing is changed then.
    pub fn load_state(&mut self, saved: &Params) -> Result<(), OptimError> {
        let num_steps = state::count(saved, STEP)?;
        let load = |kind: &str, slot: &Slot| -> Result<Option<Moment>, OptimError> {
            if num_steps == 0 {
                return Ok(None);
            }
            Moment::load(saved, (kind, &slot.name), &slot.shape, slot.states).map(Some)
        };
        let rules = self.slots.iter().map(|slot| match &slot.rule {
            Rule::AdamW { .. } => Ok(Rule::AdamW { moments: load(ADAM_M, slot)?.zip(load(ADAM_V, slot)?) }),
            Rule::Muon { view, .. } => Ok(Rule::Muon { view: *view, momentum: load(MUON_M, slot)? }),
        });
        let rules = rules.collect::<Result<Vec<_>, OptimError>>()?;
        for (slot, rule) in self.slots.iter_mut().zip(rules) {
            slot.rule = rule;
        }
        self.num_steps = num_steps;
        Ok(())
    }
}

/// What is the same for all tensors of a step.
#[derive(Clone, Copy)]
struct Pace<'a> {
    config: &'a OptimizerConfig,
    /// From 1.
    step: u64,
    lr_factor: f64,
}

impl Slot {
    fn new(config: &OptimizerConfig, spec: &TensorSpec) -> Self {
        let rule = match config.view(spec) {
            Some(view) => Rule::Muon { view, momentum: None },
            None => Rule::AdamW { moments: None },
        };
        let states = config.states_of(spec);
        Self { name: spec.name.clone(), shape: spec.shape.clone(), kind: spec.kind, states, rule }
    }

    fn check(&self, tensor: &Tensor) -> Result<(), OptimError> {
        if tensor.dims() != self.shape {
            return Err(OptimError::Shape {
                tried: "moving",
                name: self.name.clone(),
                expected: self.shape.clone(),
                found: tensor.dims().to_vec(),
            });
        }
        if tensor.dtype() != DType::F32 {
            return Err(OptimError::NumberType {
                tried: "moving",
                name: self.name.clone(),
                expected: "f32",
                found: tensor.dtype(),
            });
        }
        Ok(())
    }

    fn apply(&mut self, weight: &Var, gradient: &Tensor, pace: Pace<'_>) -> Result<(), OptimError> {
        let config = pace.config;
        let device = weight.device();
        let is_offloaded = config.state_place == StatePlace::HostMemory && !has_kernels(device);
        match &mut self.rule {
            Rule::AdamW { moments } => {
                let numbers = AdamWNumbers::of(config, pace.step, pace.lr_factor, self.kind);
                let moved = if is_offloaded {
                    let (copy, gradient) =
                        (host_copy(&weight.as_detached_tensor())?, gradient.to_device(&Device::Cpu)?);
                    on_processor(|| adamw(&copy, &gradient, (moments, self.states), numbers))?;
                    Some(copy.to_device(device)?)
                } else {
                    adamw(&weight.as_detached_tensor(), gradient, (moments, self.states), numbers)?
                };
                Ok(moved.map_or(Ok(()), |moved| weight.set(&moved))?)
            }
            Rule::Muon { view, momentum } => {
                let direction = if is_offloaded {
                    let gradient = gradient.to_device(&Device::Cpu)?;
                    let direction = on_processor(|| nesterov(&gradient, (momentum, self.states), config.momentum))?;
                    direction.to_device(device)?
                } else {
                    nesterov(gradient, (momentum, self.states), config.momentum)?
                };
                let learning_rate = config.learning_rate * pace.lr_factor;
                let direction = view.orthogonalized(&direction, config.newton_schulz_steps)?;
                let step_size = learning_rate * view.step_scale(&self.shape);
                let keep = 1.0 - learning_rate * config.weight_decay_of(self.kind);
                move_weight(weight, &direction, keep, -step_size)
            }
        }
    }
}

/// Moves `weight` in place where kernels take it, else returns what it is to be; `moments`, made where there are none yet,
/// follow it.
fn adamw(
    weight: &Tensor,
    gradient: &Tensor,
    (moments, states): (&mut Option<(Moment, Moment)>, StatePrecision),
    numbers: AdamWNumbers,
) -> Result<Option<Tensor>, OptimError> {
    let (m, v) = match moments {
        Some(moments) => moments,
        None => moments.insert((Moment::zeros(weight, states)?, Moment::zeros(weight, states)?)),
    };
    m.follow(weight)?;
    v.follow(weight)?;
    let moments = match (m, v) {
        (Moment::F32(Buffer::Cpu(m)), Moment::F32(Buffer::Cpu(v))) => MomentsMut::F32(m, v),
        (Moment::EightBit(m), Moment::EightBit(v)) => MomentsMut::EightBit(m, v),
        (Moment::F32(m), Moment::F32(v)) => {
            let (old_m, old_v) = (m.read(weight.dims())?, v.read(weight.dims())?);
            let [new, new_m, new_v] = kernels::adamw_composed(weight, gradient, (&old_m, &old_v), numbers)?;
            (*m, *v) = (Buffer::Device(new_m), Buffer::Device(new_v));
            return Ok(Some(new));
        }
        // Both were made alike.
        (Moment::F32(_), Moment::EightBit(_)) | (Moment::EightBit(_), Moment::F32(_)) => {
            return Err(OptimError::NoEightBitStates);
        }
    };
    kernels::adamw_in_place(weight, gradient, moments, numbers)?;
    Ok(None)
}

/// Muon's direction before it is orthogonalized; `momentum`, made where there is none yet, follows the gradient.
fn nesterov(
    gradient: &Tensor,
    (momentum, states): (&mut Option<Moment>, StatePrecision),
    mu: f64,
) -> Result<Tensor, OptimError> {
    let momentum = match momentum {
        Some(momentum) => momentum,
        None => momentum.insert(Moment::zeros(gradient, states)?),
    };
    momentum.follow(gradient)?;
    Ok(muon::nesterov(momentum, gradient, mu)?)
}

/// `weight = keep * weight + factor * direction`.
fn move_weight(weight: &Var, direction: &Tensor, keep: f64, factor: f64) -> Result<(), OptimError> {
    let moved = kernels::axpby(&weight.as_detached_tensor(), direction, keep, factor)?;
    if !has_kernels(weight.device()) {
        weight.set(&moved)?;
    }
    Ok(())
}
