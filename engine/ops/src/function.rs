//! Functions of any number of tensors with a gradient of our own.
//!
//! candle's custom operations take at most three arguments, and each gradient that reaches a tensor costs two passes
//! over memory (a cleared buffer, then an addition). So a function of ours is one node for its first input, and its
//! other inputs (weights) hang on a chain of one-number tensors, whose nodes hand on the gradients that the main node
//! left for them. candle visits a node only after all that use it, so they are always there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Storage, Tensor, Var, bail,
};

use super::backward::{backward, leave};
use super::real::Real;

/// Gradients for each input, `None` where none is tracked.
pub(super) type InputGradients = Vec<Option<Tensor>>;

/// The tensor `values` of this shape on the CPU, as a function of `inputs`; `backward(output, gradient)` returns one
/// gradient per input, in order, at least for those that are tracked (`Tensor::track_op`). It is dropped at once when none
/// is.
pub(super) fn record<T: Real>(
    inputs: &[&Tensor],
    values: Vec<T>,
    shape: impl Into<Shape>,
    backward: impl Fn(&Tensor, &Tensor) -> Result<InputGradients> + Send + Sync + 'static,
) -> Result<Tensor> {
    let shape = shape.into();
    if values.len() != shape.elem_count() {
        bail!("recording a function: expected {} values for {shape:?}, found {}", shape.elem_count(), values.len());
    }
    record_storage(inputs, (Storage::Cpu(T::to_cpu_storage_owned(values)), shape), backward)
}

/// What `forward` makes of the inputs without a graph, on any device, as a function of them whose gradients are
/// `backward(inputs, output, gradient)`: of all that it computes, only its result stays.
pub(super) fn composed_function(
    inputs: &[&Tensor],
    forward: impl FnOnce(&[Tensor]) -> Result<Tensor>,
    backward: impl Fn(&[Tensor], &Tensor, &Tensor) -> Result<Vec<Tensor>> + Send + Sync + 'static,
) -> Result<Tensor> {
    let detached: Vec<Tensor> = inputs.iter().map(|input| input.detach()).collect();
    let value = forward(&detached)?;
    if !inputs.iter().any(|input| input.track_op()) {
        return Ok(value);
    }
    record_storage(inputs, storage_of(value)?, move |output, grad| {
        let gradients = backward(&detached, &output.detach(), grad)?;
        if gradients.len() != detached.len() {
            bail!("a recorded function: expected {} gradients, found {}", detached.len(), gradients.len());
        }
        Ok(gradients.into_iter().map(Some).collect())
    })
}

/// `f` of the inputs, which is composed of differentiable operations, on any device: only its result stays, and the
/// backward pass computes the rest again. Source: activation checkpointing, Chen et al. 2016, arXiv 1604.06174.
pub(super) fn recomputed(
    inputs: &[&Tensor],
    f: impl Fn(&[Tensor]) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    let detached: Vec<Tensor> = inputs.iter().map(|input| input.detach()).collect();
    let value = f(&detached)?;
    if !inputs.iter().any(|input| input.track_op()) {
        return Ok(value);
    }
    let saved: Vec<Tensor> = inputs.iter().map(|&input| input.clone()).collect();
    record_storage(inputs, storage_of(value)?, move |_, grad| {
        // A variable is its own; of other inputs these are copies, whose graph ends here.
        let leaf = |input: &Tensor| input.track_op().then(|| Var::from_tensor(input)).transpose();
        let leaves = saved.iter().map(leaf).collect::<Result<Vec<Option<Var>>>>()?;
        let given = leaves.iter().zip(&detached);
        let given: Vec<Tensor> =
            given.map(|(leaf, fixed)| leaf.as_ref().map_or(fixed, Var::as_tensor).clone()).collect();
        // The gradient of Σ output · grad is the product of grad with the Jacobian.
        let mut gradients = backward(&(f(&given)? * grad)?.sum_all()?)?;
        Ok(leaves.iter().map(|leaf| leaf.as_ref().and_then(|leaf| gradients.remove(leaf))).collect())
    })
}

/// What a tensor without a graph is stored in, as something of our own. A tensor does not give it up, so that it is copied.
pub(super) fn storage_of(value: Tensor) -> Result<(Storage, Shape)> {
    let value = value.contiguous()?;
    let value = if value.layout().start_offset() == 0 { value } else { value.copy()? };
    let (storage, layout) = value.storage_and_layout();
    Ok((storage.try_clone(layout)?, layout.shape().clone()))
}

/// The same for a value that is already what candle stores, where its inputs are. Errors: no inputs.
pub(super) fn record_storage(
    inputs: &[&Tensor],
    (values, shape): (Storage, Shape),
    backward: impl Fn(&Tensor, &Tensor) -> Result<InputGradients> + Send + Sync + 'static,
) -> Result<Tensor> {
    let Some((first, rest)) = inputs.split_first() else {
        bail!("recording a function: expected at least one input");
    };
    let handed = Handed(Arc::new(Mutex::new(Vec::new())));
    let mut chain: Option<Tensor> = None;
    for (index, input) in rest.iter().enumerate().filter(|(_, input)| input.track_op()) {
        let link = Link { handed: handed.clone(), index };
        chain = Some(match chain {
            None => input.apply_op1(link)?,
            Some(before) => before.apply_op2(input, link)?,
        });
    }
    let value = Mutex::new(Some(values));
    let node = Node { value, shape, backward: Box::new(backward), wants_first: first.track_op(), handed };
    match chain {
        None => first.apply_op1(node),
        Some(chain) => first.apply_op2(&chain, node),
    }
}

/// Gradients on their way from the main node to the links.
#[derive(Clone)]
struct Handed(Arc<Mutex<InputGradients>>);

impl Handed {
    fn lock(&self) -> MutexGuard<'_, InputGradients> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands on the gradient of one input.
struct Link {
    handed: Handed,
    index: usize,
}

impl Link {
    fn take(&self) -> Option<Tensor> {
        self.handed.lock().get_mut(self.index).and_then(Option::take)
    }

    fn value() -> (CpuStorage, Shape) {
        (CpuStorage::F32(vec![0.0]), Shape::from(1))
    }

    fn cuda_value(like: &CudaStorage) -> Result<(CudaStorage, Shape)> {
        let shape = Shape::from(1);
        Ok((like.device().zeros_impl(&shape, DType::F32)?, shape))
    }
}

impl CustomOp1 for Link {
    fn name(&self) -> &'static str {
        "link"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(Self::value())
    }

    fn cuda_fwd(&self, input: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        Self::cuda_value(input)
    }

    fn bwd(&self, input: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        leave(input, self.take())
    }
}

impl CustomOp2 for Link {
    fn name(&self) -> &'static str {
        "link"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(Self::value())
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout, input: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        Self::cuda_value(input)
    }

    fn bwd(&self, before: &Tensor, input: &Tensor, _: &Tensor, _: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(before.zeros_like()?), leave(input, self.take())?))
    }
}

type Backward = dyn Fn(&Tensor, &Tensor) -> Result<InputGradients> + Send + Sync;

/// The function itself; its value was computed before.
struct Node {
    value: Mutex<Option<Storage>>,
    shape: Shape,
    backward: Box<Backward>,
    /// The first input is tracked.
    wants_first: bool,
    handed: Handed,
}

impl Node {
    fn value(&self) -> Result<(CpuStorage, Shape)> {
        match self.take()? {
            Storage::Cpu(value) => Ok((value, self.shape.clone())),
            Storage::Cuda(_) | Storage::Metal(_) => bail!("a function of tensors on the CPU has a value on a GPU"),
        }
    }

    fn cuda_value(&self) -> Result<(CudaStorage, Shape)> {
        match self.take()? {
            Storage::Cuda(value) => Ok((value, self.shape.clone())),
            Storage::Cpu(_) | Storage::Metal(_) => bail!("a function of tensors on a GPU has a value elsewhere"),
        }
    }

    fn take(&self) -> Result<Storage> {
        match self.value.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(value) => Ok(value),
            None => bail!("a recorded function was applied twice"),
        }
    }

    /// The first input's gradient; the others are left for the links.
    fn gradient(&self, first: &Tensor, output: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let mut gradients = (self.backward)(output, &gradient.contiguous()?)?.into_iter();
        let of_first = gradients.next().flatten().filter(|_| self.wants_first);
        *self.handed.lock() = gradients.collect();
        leave(first, of_first)
    }
}

impl CustomOp1 for Node {
    fn name(&self) -> &'static str {
        "function"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.value()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.cuda_value()
    }

    fn bwd(&self, first: &Tensor, output: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        self.gradient(first, output, gradient)
    }
}

impl CustomOp2 for Node {
    fn name(&self) -> &'static str {
        "function"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.value()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.cuda_value()
    }

    fn bwd(
        &self,
        first: &Tensor,
        chain: &Tensor,
        output: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((self.gradient(first, output, gradient)?, Some(chain.zeros_like()?)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use candle_core::{Device, Var};

    use super::*;

    /// a·b·c, element by element.
    fn product(a: &Tensor, b: &Tensor, c: &Tensor) -> Tensor {
        let value = a.mul(b).unwrap().mul(c).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let inputs = [a.detach(), b.detach(), c.detach()];
        record(&[a, b, c], value, a.shape(), move |_, grad| {
            let [a, b, c] = &inputs;
            let by = |x: &Tensor, y: &Tensor| x.mul(y)?.mul(grad).map(Some);
            Ok(vec![by(b, c)?, by(a, c)?, by(a, b)?])
        })
        .unwrap()
    }

    #[test]
    fn every_tracked_input_gets_its_gradient() {
        let var = |values: [f64; 2]| Var::from_tensor(&Tensor::new(&values, &Device::Cpu).unwrap()).unwrap();
        let (a, b, c) = (var([1.0, 2.0]), var([3.0, 5.0]), var([7.0, 11.0]));
        let read = |t: &Tensor| t.to_vec1::<f64>().unwrap();
        // b is also used before and after, so that its gradients add up.
        let y = product(&a.affine(2.0, 0.0).unwrap(), &b, &c).add(&b).unwrap();
        let y = product(&y, &b, &c.detach());
        let grads = y.sum_all().unwrap().backward().unwrap();
        // y = (2abc + b)·b·c with the last c constant.
        let [a1, b1, c1] = [[1.0, 2.0], [3.0, 5.0], [7.0, 11.0]];
        let expect = |f: fn(f64, f64, f64) -> f64| (0..2).map(|i| f(a1[i], b1[i], c1[i])).collect::<Vec<_>>();
        assert_eq!(read(grads.get(&a).unwrap()), expect(|_, b, c| 2.0 * b * c * b * c));
        assert_eq!(read(grads.get(&b).unwrap()), expect(|a, b, c| 4.0 * a * b * c * c + 2.0 * b * c));
        assert_eq!(read(grads.get(&c).unwrap()), expect(|a, b, c| 2.0 * a * b * b * c));
    }

    #[test]
    fn untracked_inputs_record_nothing() {
        let a = Tensor::new(&[1.0, 2.0], &Device::Cpu).unwrap();
        assert!(!product(&a, &a, &a).track_op());
        let only_last = Var::from_tensor(&a).unwrap();
        let grads = product(&a, &a, &only_last).sum_all().unwrap().backward().unwrap();
        assert_eq!(grads.get(&only_last).unwrap().to_vec1::<f64>().unwrap(), [1.0, 4.0]);
    }

    #[test]
    fn a_second_backward_gives_the_same() {
        let a = Var::from_tensor(&Tensor::new(&[1.5, 2.0], &Device::Cpu).unwrap()).unwrap();
        let y = product(&a, &a, &a).sum_all().unwrap();
        let gradient = || y.backward().unwrap().get(&a).unwrap().to_vec1::<f64>().unwrap();
        assert_eq!(gradient(), [6.75, 12.0]);
        assert_eq!(gradient(), [6.75, 12.0]);
    }
}
