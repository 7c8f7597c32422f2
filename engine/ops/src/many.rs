//! Functions whose backward half is a type of its own and returns all gradients.

use candle_core::{CpuStorage, Result, Shape, Storage, Tensor, bail};

use super::function::record_storage;

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
    if inputs.is_empty() {
        bail!("{}: expected at least one input", op.name());
    }
    let saved: Vec<Tensor> = inputs.iter().map(|&input| input.clone()).collect();
    record_storage(inputs, (Storage::Cpu(output.0), output.1), move |_, grad| {
        let gradients = op.backward(&saved, grad)?;
        if gradients.len() != saved.len() {
            bail!("{}: expected {} gradients, found {}", op.name(), saved.len(), gradients.len());
        }
        Ok(gradients.into_iter().map(Some).collect())
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::check::{gradient_error, wave};

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
