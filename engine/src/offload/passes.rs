//! One block forward, one block backward, and the head with its loss, each under a graph of its own.
//!
//! A block's weights come from the machine's memory and its gradients go back there; what goes in and out of blocks stays on
//! the device that computes.

use std::cell::Cell;
use std::time::{Duration, Instant};

use candle_core::{CpuStorage, D, Device, Storage, Tensor, Var};
use rayon::prelude::*;

use super::OffloadError;
use super::layout::Layout;
use super::state::Weights;
use crate::hybrid::{Seen, weights_of_rows};
use crate::models::ops::{self, Around, HeadLoss, HeadTargets};
use crate::models::{Block, Forward, Mode, Params};
use crate::optim::axpby;

/// Numbers per task of a sum.
const TASK: usize = 1 << 14;

/// A tensor of a block as a variable, with its name.
pub(super) type NamedVar = (String, Var);

/// What a backward pass leaves.
pub(super) struct Gradients {
    /// Of the input, on the device; `None` where that was tokens.
    pub(super) input: Option<Tensor>,
    /// Of each variable, in their order, in the machine's memory.
    pub(super) vars: Vec<Tensor>,
}

impl Gradients {
    /// Those of variables, which are on the device, go to the machine's memory one by one.
    fn into_memory(self) -> Result<Self, OffloadError> {
        let vars = self.vars.into_iter().map(|gradient| gradient.to_device(&Device::Cpu));
        Ok(Self { input: self.input, vars: vars.collect::<Result<_, candle_core::Error>>()? })
    }
}

/// What the head is measured by, and how.
pub(super) struct HeadWork<'a> {
    /// What goes in: (n, t, c) f32.
    pub(super) input: &'a Tensor,
    /// (n, t) u32.
    pub(super) targets: &'a Tensor,
    /// What each sequence counts for in what is minimized, n numbers.
    pub(super) weights: &'a [f32],
    /// Are predicted gradient norms wanted? Their time is added here.
    pub(super) errors_time: Option<&'a Cell<Duration>>,
    /// Logits stand in memory for at most so many numbers' worth of tokens.
    pub(super) max_logits: usize,
    /// Of matrix products.
    pub(super) products: ops::Precision,
}

/// The weights of a block in f32 on `device`, without a graph.
pub(super) fn detached(layout: &Layout, weights: &Weights, device: &Device) -> Result<Params, OffloadError> {
    let mut params = Params::default();
    for (start, slot) in starts(layout) {
        let numbers = weights.numbers(start, slot.count);
        params.insert(slot.name.clone(), Tensor::from_vec(numbers, slot.shape.as_slice(), device)?);
    }
    Ok(params)
}

/// The same as variables, in the layout's order.
pub(super) fn vars(layout: &Layout, weights: &Weights, device: &Device) -> Result<Vec<NamedVar>, OffloadError> {
    let var = |(start, slot): (usize, &super::layout::Slot)| {
        let numbers = weights.numbers(start, slot.count);
        Ok((slot.name.clone(), Var::from_vec(numbers, slot.shape.as_slice(), device)?))
    };
    starts(layout).map(var).collect()
}

fn starts(layout: &Layout) -> impl Iterator<Item = (usize, &super::layout::Slot)> {
    layout.slots.iter().scan(0, |next, slot| {
        let start = *next;
        *next += slot.count;
        Some((start, slot))
    })
}

/// A block without a graph: input to output.
pub(super) fn forward(
    block: &dyn Block,
    products: ops::Precision,
    params: &Params,
    input: &Tensor,
) -> Result<Tensor, OffloadError> {
    Ok(block.forward(&Forward::new(params, Mode::Train).in_precision(products), input)?)
}

/// A block again, with a graph; `grad` is that of its output. `input` is (n, t) u32 tokens or (n, t, c) f32. What the head
/// left in the machine's memory for tensors of this block is added to: there, where another device computes.
pub(super) fn backward(
    block: &dyn Block,
    products: ops::Precision,
    vars: &[NamedVar],
    (input, grad): (&Tensor, &Tensor),
    of_head: Vec<(String, Tensor)>,
) -> Result<Gradients, OffloadError> {
    let params = tracked(vars);
    let input_var = if input.dtype().is_float() { Some(Var::from_tensor(input)?) } else { None };
    let x = input_var.as_ref().map_or(input, Var::as_tensor);
    let output = block.forward(&Forward::new(&params, Mode::Train).in_precision(products), x)?;
    // The gradient of Σ output · grad is the product of grad with the block's Jacobian.
    let scalar = (output * grad)?.sum_all()?;
    let place = |name: &str| vars.iter().position(|(own, _)| own == name);
    let of_head = of_head.into_iter().filter_map(|(name, gradient)| Some((place(&name)?, gradient)));
    if ops::has_kernels(input.device()) {
        let reached = of_head.filter_map(|(place, gradient)| Some((vars.get(place)?.1.as_tensor(), gradient)));
        return collect(&scalar, input_var.as_ref(), vars, reached)?.into_memory();
    }
    let mut gradients = collect(&scalar, input_var.as_ref(), vars, [])?.into_memory()?;
    for (place, gradient) in of_head {
        if let Some(sum) = gradients.vars.get_mut(place) {
            *sum = ops::on_processor(|| axpby(sum, &gradient, 1.0, 1.0))?;
        }
    }
    Ok(gradients)
}

/// The head forward and backward: what was measured, and gradients of the weighted sum of the sequences' mean losses.
pub(super) fn head(
    block: &dyn Block,
    vars: &[NamedVar],
    work: &HeadWork<'_>,
) -> Result<(Seen, Gradients), OffloadError> {
    let params = tracked(vars);
    let (mut rows, mut of_input, mut of_vars) = (Rows::default(), Vec::new(), Vec::new());
    for part in parts(&params, work)? {
        let input = Var::from_tensor(&part.input)?;
        let total = rows.add(head_loss(block, &params, (input.as_tensor(), &part), work)?);
        let reached = vars.iter().map(|(_, var)| var.as_tensor()).zip(std::mem::take(&mut of_vars));
        let Gradients { input, vars } = collect(&total, Some(&input), vars, reached)?;
        of_input.extend(input);
        of_vars = vars;
    }
    let input = match of_input.as_slice() {
        [whole] => whole.reshape(work.input.shape())?,
        parts => Tensor::cat(parts, 1)?.reshape(work.input.shape())?,
    };
    Ok((rows.seen(work)?, Gradients { input: Some(input), vars: of_vars }.into_memory()?))
}

/// The head forward, without a graph.
pub(super) fn look(block: &dyn Block, vars: &[NamedVar], work: &HeadWork<'_>) -> Result<Seen, OffloadError> {
    let params = vars.iter().map(|(name, var)| (name.clone(), var.as_detached_tensor())).collect();
    measured(block, &params, work)?.seen(work)
}

/// The losses of all tokens, nats, by a head without a graph.
pub(super) fn losses(block: &dyn Block, params: &Params, work: &HeadWork<'_>) -> Result<Vec<f32>, OffloadError> {
    Ok(measured(block, params, work)?.losses)
}

/// What the head was measured to be, row by row.
#[derive(Default)]
struct Rows {
    losses: Vec<f32>,
    error_norms: Vec<f32>,
}

impl Rows {
    /// Adds those of a part; returns what is minimized of it.
    fn add(&mut self, measured: HeadLoss) -> Tensor {
        let HeadLoss { total, losses, error_norms } = measured;
        self.losses.extend(losses);
        self.error_norms.extend(error_norms);
        total
    }

    fn seen(&self, work: &HeadWork<'_>) -> Result<Seen, OffloadError> {
        Ok(Seen::of_rows(&self.losses, &self.error_norms, work.targets.dim(1)?))
    }
}

/// Tokens that go through the head together.
struct Part {
    /// (n, t, c) of whole sequences, (1, rows, c) of some rows.
    input: Tensor,
    /// (rows)
    targets: Tensor,
    /// What each row counts for.
    weights: Vec<f32>,
}

/// All tokens where our kernel makes their logits part by part itself; elsewhere as many at a time as logits may be there.
fn parts(params: &Params, work: &HeadWork<'_>) -> Result<Vec<Part>, OffloadError> {
    let targets = work.targets.flatten_all()?;
    let weights = weights_of_rows(work.weights, work.targets.dim(1)?);
    if ops::has_kernels(work.input.device()) {
        return Ok(vec![Part { input: work.input.clone(), targets, weights }]);
    }
    let (num_rows, width) = (targets.elem_count(), work.input.dim(D::Minus1)?);
    let input = work.input.reshape((1, num_rows, width))?;
    // The matrix that makes them has the most rows.
    let outputs = params.iter().filter_map(|(_, tensor)| tensor.dims2().ok()).map(|(outputs, _)| outputs).max();
    let at_once = (work.max_logits / outputs.unwrap_or(1).max(1)).max(1);
    let part = |first: usize| {
        let count = at_once.min(num_rows - first);
        Ok(Part {
            input: input.narrow(1, first, count)?,
            targets: targets.narrow(0, first, count)?.contiguous()?,
            weights: weights.iter().skip(first).take(count).copied().collect(),
        })
    };
    (0..num_rows).step_by(at_once).map(part).collect()
}

/// A head without a graph.
fn measured(block: &dyn Block, params: &Params, work: &HeadWork<'_>) -> Result<Rows, OffloadError> {
    let mut rows = Rows::default();
    for part in parts(params, work)? {
        rows.add(head_loss(block, params, (&part.input.detach(), &part), work)?);
    }
    Ok(rows)
}

/// What is minimized of a part, whose input is `input`, and what was measured.
fn head_loss(
    block: &dyn Block,
    params: &Params,
    (input, part): (&Tensor, &Part),
    work: &HeadWork<'_>,
) -> Result<HeadLoss, OffloadError> {
    let timed = |measure: &mut dyn FnMut()| {
        let started = Instant::now();
        measure();
        if let Some(time) = work.errors_time {
            time.set(time.get() + started.elapsed());
        }
    };
    let error_norms: Option<Around<'_>> = if work.errors_time.is_some() { Some(&timed) } else { None };
    let (targets, weights) = (&part.targets, part.weights.as_slice());
    let goal = HeadTargets { targets, weights, error_norms, max_logits: work.max_logits };
    let pass = Forward::new(params, Mode::Train).in_precision(work.products).measured_by(goal);
    block.forward(&pass, input)?;
    pass.take_head_loss().ok_or_else(|| {
        candle_core::Error::Msg("expected the last block to be a language model's head".to_owned()).into()
    })
}

fn tracked(vars: &[NamedVar]) -> Params {
    vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect()
}

/// Goes back from a scalar, onto what has reached variables before; takes the gradients out, all of them on the device.
fn collect<'a>(
    scalar: &Tensor,
    input: Option<&Var>,
    vars: &[NamedVar],
    reached: impl IntoIterator<Item = (&'a Tensor, Tensor)>,
) -> Result<Gradients, OffloadError> {
    let mut store = ops::backward_onto(scalar, reached)?;
    let mut take = |var: &Var| match store.remove(var.as_tensor()) {
        Some(gradient) => Ok(gradient.contiguous()?),
        None => Ok(var.zeros_like()?.detach()),
    };
    let input = input.map(&mut take).transpose()?;
    let vars = vars.iter().map(|(_, var)| take(var)).collect::<Result<Vec<Tensor>, candle_core::Error>>()?;
    Ok(Gradients { input, vars })
}

/// False when a number of an f32 tensor is NaN or infinite (or their sum is, which takes numbers beyond 1e30).
pub(super) fn is_finite(tensor: &Tensor) -> Result<bool, OffloadError> {
    Ok(tensor.sum_all()?.to_scalar::<f32>()?.is_finite())
}

/// Calls `f` with the numbers of f32 tensors in the machine's memory. Errors: other tensors.
pub(super) fn with_numbers<R>(tensors: &[Tensor], f: impl FnOnce(&[&[f32]]) -> R) -> Result<R, OffloadError> {
    let guards: Vec<_> = tensors.iter().map(Tensor::storage_and_layout).collect();
    let mut slices = Vec::with_capacity(tensors.len());
    for (storage, layout) in &guards {
        let numbers = match (&**storage, layout.contiguous_offsets()) {
            (Storage::Cpu(CpuStorage::F32(all)), Some((start, end))) => all.get(start..end),
            _ => None,
        };
        match numbers {
            Some(numbers) => slices.push(numbers),
            None => {
                let what = "expected contiguous f32 gradients on the CPU".to_owned();
                return Err(candle_core::Error::Msg(what).into());
            }
        }
    }
    Ok(f(&slices))
}

/// Σ g² over all numbers, in f64, in an order that no thread changes.
pub(super) fn sum_of_squares(numbers: &[&[f32]]) -> f64 {
    let of = |part: &[f32]| part.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>();
    numbers.iter().map(|all| all.par_chunks(TASK).map(of).collect::<Vec<f64>>().iter().sum::<f64>()).sum()
}

/// Σ a·b over all numbers of two lists alike, in f64, in an order that no thread changes.
pub(super) fn dot(a: &[&[f32]], b: &[&[f32]]) -> f64 {
    let of = |(a, b): (&[f32], &[f32])| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let of_tensor = |(a, b): (&&[f32], &&[f32])| {
        a.par_chunks(TASK).zip(b.par_chunks(TASK)).map(of).collect::<Vec<f64>>().iter().sum::<f64>()
    };
    a.iter().zip(b).map(of_tensor).sum()
}
