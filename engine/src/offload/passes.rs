//! One block forward, one block backward, and the head with its loss, each under a graph of its own.
//!
//! A block's weights come from the machine's memory and its gradients go back there; what goes in and out of blocks stays on
//! the device that computes.

use std::cell::Cell;
use std::time::{Duration, Instant};

use candle_core::{CpuStorage, Device, Storage, Tensor, Var};
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
        return collect(&scalar, input_var.as_ref(), vars, reached);
    }
    let mut gradients = collect(&scalar, input_var.as_ref(), vars, [])?;
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
    let (params, input) = (tracked(vars), Var::from_tensor(work.input)?);
    let (total, seen) = measured(block, &params, input.as_tensor(), work)?;
    Ok((seen, collect(&total, Some(&input), vars, [])?))
}

/// The head forward, without a graph.
pub(super) fn look(block: &dyn Block, vars: &[NamedVar], work: &HeadWork<'_>) -> Result<Seen, OffloadError> {
    let params = vars.iter().map(|(name, var)| (name.clone(), var.as_detached_tensor())).collect();
    Ok(measured(block, &params, &work.input.detach(), work)?.1)
}

/// The losses of all tokens, nats, by a head without a graph.
pub(super) fn losses(block: &dyn Block, params: &Params, work: &HeadWork<'_>) -> Result<Vec<f32>, OffloadError> {
    Ok(head_loss(block, params, work.input, work)?.1.losses)
}

/// What is minimized, and what was measured.
fn measured(
    block: &dyn Block,
    params: &Params,
    input: &Tensor,
    work: &HeadWork<'_>,
) -> Result<(Tensor, Seen), OffloadError> {
    let (total, HeadLoss { losses, error_norms, .. }) = head_loss(block, params, input, work)?;
    Ok((total, Seen::of_rows(&losses, &error_norms, work.targets.dim(1)?)))
}

fn head_loss(
    block: &dyn Block,
    params: &Params,
    input: &Tensor,
    work: &HeadWork<'_>,
) -> Result<(Tensor, HeadLoss), OffloadError> {
    let per_sequence = work.targets.dim(1)?;
    let (targets, weights) = (work.targets.flatten_all()?, weights_of_rows(work.weights, per_sequence));
    let timed = |measure: &mut dyn FnMut()| {
        let started = Instant::now();
        measure();
        if let Some(time) = work.errors_time {
            time.set(time.get() + started.elapsed());
        }
    };
    let error_norms: Option<Around<'_>> = if work.errors_time.is_some() { Some(&timed) } else { None };
    let goal = HeadTargets { targets: &targets, weights: &weights, error_norms, max_logits: work.max_logits };
    let pass = Forward::new(params, Mode::Train).in_precision(work.products).measured_by(goal);
    let total = block.forward(&pass, input)?;
    let Some(measured) = pass.take_head_loss() else {
        return Err(candle_core::Error::Msg("expected the last block to be a language model's head".to_owned()).into());
    };
    Ok((total, measured))
}

fn tracked(vars: &[NamedVar]) -> Params {
    vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect()
}

/// Goes back from a scalar, onto what has reached variables before; takes the gradients out, those of variables one by one
/// into the machine's memory.
fn collect<'a>(
    scalar: &Tensor,
    input: Option<&Var>,
    vars: &[NamedVar],
    reached: impl IntoIterator<Item = (&'a Tensor, Tensor)>,
) -> Result<Gradients, OffloadError> {
    let mut store = ops::backward_onto(scalar, reached)?;
    let mut take = |var: &Var| match store.remove(var.as_tensor()) {
        Some(gradient) => gradient.contiguous(),
        None => Ok(var.zeros_like()?.detach()),
    };
    let input = input.map(&mut take).transpose()?;
    let vars = vars.iter().map(|(_, var)| take(var)?.to_device(&Device::Cpu));
    let vars = vars.collect::<Result<Vec<Tensor>, candle_core::Error>>()?;
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
