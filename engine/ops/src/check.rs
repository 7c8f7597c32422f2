//! What tests of operations share: smooth inputs and central differences.

use candle_core::{DType, Device, Result, Tensor, Var};

use super::kernels::without_kernels;
use super::precision::Precision;

/// A tensor of irregular, repeatable f64 values in ± `size`.
pub fn wave(shape: &[usize], size: f64) -> Result<Tensor> {
    let count: usize = shape.iter().product();
    let offset = shape.iter().fold(0.3, |seed: f64, &d| seed * 1.7 + d as f64);
    let values: Vec<f64> =
        (0..count).map(|i| size * ((i as f64 + offset) * 1.37).sin() * ((i * i) as f64).cos()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// The largest difference between `loss`'s gradient and its central differences (step 1e-5) over all `inputs`,
/// relative to the largest gradient or 1: with our kernels, and composed of candle's operations, as on a GPU.
pub fn gradient_error(inputs: &[Tensor], loss: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<f64> {
    let with_kernels = gradient_error_here(inputs, &loss)?;
    Ok(with_kernels.max(without_kernels(|| gradient_error_here(inputs, &loss))?))
}

fn gradient_error_here(inputs: &[Tensor], loss: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<f64> {
    let vars = inputs.iter().map(Var::from_tensor).collect::<Result<Vec<_>>>()?;
    let tracked: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let grads = loss(&tracked)?.backward()?;
    let step = 1e-5;
    let mut worst = 0.0_f64;
    for (index, input) in inputs.iter().enumerate() {
        let found: Vec<f64> = match grads.get(&vars[index]) {
            Some(grad) => grad.flatten_all()?.to_vec1()?,
            None => candle_core::bail!("input {index} has no gradient"),
        };
        let values: Vec<f64> = input.flatten_all()?.to_vec1()?;
        let at = |element: usize, delta: f64| -> Result<f64> {
            let mut moved = values.clone();
            moved[element] += delta;
            let mut all = inputs.to_vec();
            all[index] = Tensor::from_vec(moved, input.shape(), &Device::Cpu)?;
            loss(&all)?.to_scalar()
        };
        let scale = found.iter().fold(1.0_f64, |m, g| m.max(g.abs()));
        // Every element of small inputs, an irregular choice from large ones.
        for element in (0..values.len()).step_by((values.len() / 97).max(1)) {
            let expected = (at(element, step)? - at(element, -step)?) / (2.0 * step);
            worst = worst.max((found[element] - expected).abs() / scale);
        }
    }
    Ok(worst)
}

/// How far outputs and gradients in bf16 are from those in f32: the largest distance over the output of `function` and the
/// gradients of its f32 `inputs`, relative to the norm in f32. `None` where the processor multiplies no bf16.
pub fn bf16_error(inputs: &[Tensor], function: impl Fn(&[Tensor], Precision) -> Result<Tensor>) -> Result<Option<f64>> {
    if Precision::Bf16.missing().is_some() {
        return Ok(None);
    }
    rounding_error(inputs, Precision::Bf16, function).map(Some)
}

/// The same of `precision`, composed of candle's operations, as on a GPU.
pub fn composed_error(
    inputs: &[Tensor],
    precision: Precision,
    function: impl Fn(&[Tensor], Precision) -> Result<Tensor>,
) -> Result<f64> {
    without_kernels(|| rounding_error(inputs, precision, function))
}

/// Gradients of a composed function's f32 inputs, by a fixed gradient of its output.
pub fn composed_gradients(inputs: &[Tensor], function: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<Vec<Vec<f32>>> {
    without_kernels(|| {
        let vars = inputs.iter().map(|x| Var::from_tensor(&x.to_dtype(DType::F32)?)).collect::<Result<Vec<_>>>()?;
        let tracked: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let output = function(&tracked)?;
        let target = wave(output.dims(), 1.0)?.to_dtype(DType::F32)?;
        let grads = (&output * &target)?.sum_all()?.backward()?;
        let of = |var: &Var| match grads.get(var) {
            Some(grad) => grad.flatten_all()?.to_vec1(),
            None => candle_core::bail!("an input has no gradient"),
        };
        vars.iter().map(of).collect()
    })
}

fn rounding_error(
    inputs: &[Tensor],
    precision: Precision,
    function: impl Fn(&[Tensor], Precision) -> Result<Tensor>,
) -> Result<f64> {
    let all = |precision: Precision| -> Result<Vec<Tensor>> {
        let vars = inputs.iter().map(|x| Var::from_tensor(&x.to_dtype(DType::F32)?)).collect::<Result<Vec<_>>>()?;
        let tracked: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let output = function(&tracked, precision)?;
        let target = wave(output.dims(), 1.0)?.to_dtype(DType::F32)?;
        let grads = (&output * &target)?.sum_all()?.backward()?;
        let mut found = vec![output.detach()];
        for (index, var) in vars.iter().enumerate() {
            match grads.get(var) {
                Some(grad) => found.push(grad.clone()),
                None => candle_core::bail!("input {index} has no gradient"),
            }
        }
        Ok(found)
    };
    let norm = |x: &Tensor| -> Result<f64> { x.to_dtype(DType::F64)?.sqr()?.sum_all()?.sqrt()?.to_scalar() };
    let mut worst = 0.0_f64;
    for (exact, rounded) in all(Precision::F32)?.iter().zip(&all(precision)?) {
        worst = worst.max(norm(&(exact - rounded)?)? / norm(exact)?);
    }
    Ok(worst)
}

/// The largest difference between two tensors.
pub fn max_difference(a: &Tensor, b: &Tensor) -> Result<f64> {
    let a = a.to_dtype(DType::F64)?;
    let b = b.to_dtype(DType::F64)?;
    (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar()
}
