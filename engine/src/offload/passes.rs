//! One block forward, one block backward, and the head with its loss, each under a graph of its own.

use candle_core::{CpuStorage, Device, Storage, Tensor, Var};

use super::OffloadError;
use super::layout::Layout;
use super::state::Weights;
use crate::models::ops::{self, cross_entropy};
use crate::models::{Block, Forward, Mode, Params};

/// Most logits that are there at once (64 MB in f32): the head goes through as many tokens at a time.
pub(super) const MAX_LOGITS: usize = 16 << 20;

/// A tensor of a block as a variable, with its name.
pub(super) type NamedVar = (String, Var);

/// What a backward pass leaves.
pub(super) struct Gradients {
    /// Of the input; `None` where that was tokens.
    pub(super) input: Option<Tensor>,
    /// Of each variable, in their order.
    pub(super) vars: Vec<Tensor>,
}

/// What the head leaves.
pub(super) struct HeadPass {
    /// Sum over tokens, nats.
    pub(super) loss_sum: f64,
    pub(super) gradients: Gradients,
}

/// The weights of a block in f32, without a graph.
pub(super) fn detached(layout: &Layout, weights: &Weights) -> Result<Params, OffloadError> {
    let mut params = Params::default();
    for (start, slot) in starts(layout) {
        let numbers = weights.numbers(start, slot.count);
        params.insert(slot.name.clone(), Tensor::from_vec(numbers, slot.shape.as_slice(), &Device::Cpu)?);
    }
    Ok(params)
}

/// The same as variables, in the layout's order.
pub(super) fn vars(layout: &Layout, weights: &Weights) -> Result<Vec<NamedVar>, OffloadError> {
    let var = |(start, slot): (usize, &super::layout::Slot)| {
        let numbers = weights.numbers(start, slot.count);
        Ok((slot.name.clone(), Var::from_vec(numbers, slot.shape.as_slice(), &Device::Cpu)?))
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

/// A block again, with a graph; `grad` is that of its output. `input` is (n, t) u32 tokens or (n, t, c) f32.
pub(super) fn backward(
    block: &dyn Block,
    products: ops::Precision,
    vars: &[NamedVar],
    input: &Tensor,
    grad: &Tensor,
) -> Result<Gradients, OffloadError> {
    let params = tracked(vars);
    let input_var = if input.dtype().is_float() { Some(Var::from_tensor(input)?) } else { None };
    let x = input_var.as_ref().map_or(input, Var::as_tensor);
    let output = block.forward(&Forward::new(&params, Mode::Train).in_precision(products), x)?;
    // The gradient of Σ output · grad is the product of grad with the block's Jacobian.
    let scalar = (output * grad)?.sum_all()?;
    collect(&scalar, input_var.as_ref(), vars)
}

/// The head forward and backward: x (n, t, c) f32, targets (n, t) u32; gradients are of the mean loss of a token.
/// Logits stand in memory for at most `max_logits` numbers' worth of tokens.
pub(super) fn head(
    block: &dyn Block,
    products: ops::Precision,
    vars: &[NamedVar],
    (x, targets): (&Tensor, &Tensor),
    max_logits: usize,
) -> Result<HeadPass, OffloadError> {
    let (n, t, c) = x.dims3()?;
    let num_tokens = n * t;
    let (x, targets) = (x.reshape((num_tokens, c))?, targets.flatten_all()?);
    let params = tracked(vars);
    let rows = rows_per_part(vars, c, max_logits);
    let (mut loss_sum, mut first) = (0.0, 0);
    let mut inputs = Vec::new();
    let mut sums: Vec<Tensor> = Vec::new();
    while first < num_tokens {
        let count = rows.min(num_tokens - first);
        let part = Var::from_tensor(&x.narrow(0, first, count)?.unsqueeze(0)?)?;
        let pass = Forward::new(&params, Mode::Train).in_precision(products);
        let logits = block.forward(&pass, part.as_tensor())?.squeeze(0)?;
        let losses = cross_entropy(&logits, &targets.narrow(0, first, count)?)?;
        let sum = losses.sum_all()?;
        loss_sum += f64::from(sum.to_scalar::<f32>()?);
        let gradients = collect(&(sum / num_tokens as f64)?, Some(&part), vars)?;
        drop((logits, losses));
        inputs.extend(gradients.input);
        sums = if sums.is_empty() {
            gradients.vars
        } else {
            sums.into_iter()
                .zip(gradients.vars)
                .map(|(sum, part)| Ok((sum + part)?))
                .collect::<Result<_, OffloadError>>()?
        };
        first += count;
    }
    let input = Tensor::cat(&inputs, 1)?.reshape((n, t, c))?;
    Ok(HeadPass { loss_sum, gradients: Gradients { input: Some(input), vars: sums } })
}

/// Tokens whose logits are there at once: the largest weight is (vocabulary, c).
fn rows_per_part(vars: &[NamedVar], c: usize, max_logits: usize) -> usize {
    let widest = vars.iter().map(|(_, var)| var.elem_count()).max().unwrap_or(0) / c.max(1);
    (max_logits / widest.max(1)).max(1)
}

fn tracked(vars: &[NamedVar]) -> Params {
    vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect()
}

/// Goes back from a scalar; takes the gradients out.
fn collect(scalar: &Tensor, input: Option<&Var>, vars: &[NamedVar]) -> Result<Gradients, OffloadError> {
    let mut store = scalar.backward()?;
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

/// Calls `f` with the numbers of f32 tensors on the CPU. Errors: other tensors.
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
    use rayon::prelude::*;
    const TASK: usize = 1 << 14;
    let of = |part: &[f32]| part.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>();
    numbers.iter().map(|all| all.par_chunks(TASK).map(of).collect::<Vec<f64>>().iter().sum::<f64>()).sum()
}
