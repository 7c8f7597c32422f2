//! Differentiable functions of more tensors than candle's custom operations take (three).
//!
//! Candle adds each gradient to a fresh tensor of zeros, so every node of its graph costs several passes
//! over memory; a whole transformer layer as one node costs them once. The node's second and third
//! arguments are *tickets*: one-element tensors that depend on up to three others each (inputs, or more
//! tickets). Candle visits the node first, which computes all gradients and leaves them in a shared box;
//! then it visits the tickets, and each hands its inputs theirs.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp3, DType, Device, Layout, Result, Shape, Tensor, bail};

/// The backward half of a function whose output is already computed.
pub(super) trait Backward: Send + Sync + 'static {
    /// Shown in errors.
    fn name(&self) -> &'static str;
    /// Gradients of all inputs, in their order and shapes, from that of the output. May be called again.
    fn backward(&self, inputs: &[Tensor], grad: &Tensor) -> Result<Vec<Tensor>>;
}

/// True when any of these takes part in a graph.
pub(super) fn any_tracked(inputs: &[&Tensor]) -> bool {
    inputs.iter().any(|input| input.track_op())
}

/// `output` as a function of `inputs` (on the CPU, at least one) whose gradients come from `op`.
pub(super) fn attach(output: (CpuStorage, Shape), inputs: &[&Tensor], op: impl Backward) -> Result<Tensor> {
    let Some((first, others)) = inputs.split_first() else {
        bail!("{}: expected at least one input", op.name());
    };
    let left = Gradients::default();
    let unused = Tensor::zeros(1, DType::F32, &Device::Cpu)?;
    let at = |group: &[Tensor], index: usize| group.get(index).unwrap_or(&unused).clone();
    let mut level: Vec<Tensor> = others.iter().map(|&input| input.clone()).collect();
    let mut leaves = Some(left.clone());
    while level.len() > 2 || leaves.is_some() {
        let groups = level.chunks(3).enumerate().map(|(index, group)| {
            let ticket = Ticket { leaves: leaves.clone(), first: 3 * index, count: group.len() };
            at(group, 0).apply_op3(&at(group, 1), &at(group, 2), ticket)
        });
        level = groups.collect::<Result<_>>()?;
        leaves = None;
    }
    let node = Node {
        output: Mutex::new(Some(output)),
        inputs: inputs.iter().map(|&input| input.clone()).collect(),
        num_tickets: level.len(),
        op,
        left,
    };
    first.apply_op3(&at(&level, 0), &at(&level, 1), node)
}

/// Gradients of the inputs after the first, waiting to be fetched.
type Gradients = Arc<Mutex<Vec<Option<Tensor>>>>;

struct Node<B> {
    output: Mutex<Option<(CpuStorage, Shape)>>,
    inputs: Vec<Tensor>,
    num_tickets: usize,
    op: B,
    left: Gradients,
}

impl<B: Backward> CustomOp3 for Node<B> {
    fn name(&self) -> &'static str {
        self.op.name()
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        match self.output.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(output) => Ok(output),
            None => bail!("{}: the output was taken already", self.op.name()),
        }
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let mut gradients = self.op.backward(&self.inputs, &grad.contiguous()?)?;
        if gradients.len() != self.inputs.len() {
            bail!("{}: expected {} gradients, found {}", self.op.name(), self.inputs.len(), gradients.len());
        }
        let others = gradients.split_off(1);
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = others.into_iter().map(Some).collect();
        let call = |ticket: usize| -> Result<Option<Tensor>> {
            if ticket < self.num_tickets { Tensor::zeros(1, DType::F32, &Device::Cpu).map(Some) } else { Ok(None) }
        };
        let first = gradients.pop().filter(|_| self.inputs.first().is_some_and(Tensor::track_op));
        Ok((first, call(0)?, call(1)?))
    }
}

struct Ticket {
    /// Where its inputs' gradients are; `None` when its inputs are tickets.
    leaves: Option<Gradients>,
    first: usize,
    count: usize,
}

impl CustomOp3 for Ticket {
    fn name(&self) -> &'static str {
        "ticket"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![0.0]), 1.into()))
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        _: &Tensor,
        _: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let fetch = |index: usize, input: &Tensor| -> Result<Option<Tensor>> {
            if index >= self.count || !input.track_op() {
                return Ok(None);
            }
            match &self.leaves {
                Some(left) => {
                    let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
                    match left.get_mut(self.first + index).and_then(Option::take) {
                        Some(gradient) => Ok(Some(gradient)),
                        None => bail!("ticket: expected a gradient for input {}", self.first + index),
                    }
                }
                None => Tensor::zeros(1, DType::F32, &Device::Cpu).map(Some),
            }
        };
        Ok((fetch(0, a)?, fetch(1, b)?, fetch(2, c)?))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::models::ops::check::{gradient_error, wave};

    /// Σ (i + 1) · input_i², elementwise.
    struct WeightedSquares;

    impl Backward for WeightedSquares {
        fn name(&self) -> &'static str {
            "weighted squares"
        }

        fn backward(&self, inputs: &[Tensor], grad: &Tensor) -> Result<Vec<Tensor>> {
            inputs.iter().zip(1..).map(|(x, i)| (x * grad)? * f64::from(2 * i)).collect()
        }
    }

    fn weighted_squares(inputs: &[Tensor]) -> Result<Tensor> {
        let mut sum = inputs[0].zeros_like()?.detach();
        for (input, i) in inputs.iter().zip(1..) {
            sum = (sum + (input.detach().sqr()? * f64::from(i))?)?;
        }
        let output = CpuStorage::F64(sum.to_vec1()?);
        attach((output, sum.shape().clone()), &inputs.iter().collect::<Vec<_>>(), WeightedSquares)
    }

    #[test]
    fn every_input_gets_its_gradient() {
        for count in [1, 2, 3, 4, 7, 10, 13, 28, 31] {
            let inputs: Vec<Tensor> = (0..count).map(|i| wave(&[4], 1.0 + 0.01 * f64::from(i)).unwrap()).collect();
            // The first input is used twice, once outside.
            let loss = |x: &[Tensor]| (weighted_squares(x)? * &x[0])?.sum_all();
            let error = gradient_error(&inputs, loss).unwrap();
            assert!(error < 1e-6, "{count} inputs: {error}");
        }
    }
}
