//! Softmax cross entropy of logits against class numbers, and the length of its gradient per row.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

use super::buffers::{Reading, rows_per_task, slice, unwritten};
use super::function::composed_function;
use super::kernels::has_kernels;
use super::real::{Real, max_of, sum_map};
use super::simd::kernel;

/// −ln softmax(logits)[target] of each row: logits (n, v) f32 or f64, targets (n) u32, to (n) in nats.
///
/// Stable for logits of any size; NaN or infinite logits give NaN. Differentiable in the logits
/// (gradient: (softmax − onehot) times the row's incoming gradient).
/// Errors: other shapes or types; a target that is not below v.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    check("cross_entropy", logits, targets)?;
    if has_kernels(logits.device()) {
        return logits.contiguous()?.apply_op2(&targets.contiguous()?, CrossEntropy);
    }
    let targets = targets.detach();
    let forward = |inputs: &[Tensor]| {
        let [logits] = inputs else { bail!("cross_entropy: expected logits") };
        Ok(Exponents::of(logits, &targets)?.losses)
    };
    let of_backward = targets.clone();
    composed_function(&[logits], forward, move |inputs, _, grad| {
        let [logits] = inputs else { bail!("cross_entropy: expected logits") };
        Ok(vec![Exponents::of(logits, &of_backward)?.into_gradient(&of_backward, grad)?])
    })
}

/// Rows of logits on the way to their losses, by candle's operations, without a graph.
pub(super) struct Exponents {
    /// e^(logit − the row's largest), (n, v).
    exponents: Tensor,
    /// Of each row, (n, 1).
    sums: Tensor,
    /// −ln softmax(logits)[target] of each row, (n).
    pub(super) losses: Tensor,
}

impl Exponents {
    /// Of logits (n, v), targets (n).
    pub(super) fn of(logits: &Tensor, targets: &Tensor) -> Result<Self> {
        let shifted = logits.broadcast_sub(&logits.max_keepdim(1)?)?;
        let at_target = shifted.gather(&targets.unsqueeze(1)?, 1)?;
        let exponents = shifted.exp()?;
        let sums = exponents.sum_keepdim(1)?;
        let losses = (sums.log()? - at_target)?.squeeze(1)?;
        Ok(Self { exponents, sums, losses })
    }

    /// ‖softmax − onehot‖₂ of each row.
    pub(super) fn error_norms(&self, targets: &Tensor) -> Result<Vec<f32>> {
        let p = self.exponents.broadcast_div(&self.sums)?;
        let at_target = p.gather(&targets.unsqueeze(1)?, 1)?.squeeze(1)?;
        // Σp² with p_t² replaced by (1 - p_t)²; exact enough: both parts are of the size of the answer.
        let others = (p.sqr()?.sum(1)? - at_target.sqr()?)?;
        let own = (1.0 - at_target)?.sqr()?;
        (others.relu()? + own)?.sqrt()?.to_dtype(DType::F32)?.to_vec1()
    }

    /// (softmax − onehot) · weight, (n, v), for a weight of each row (n).
    pub(super) fn into_gradient(self, targets: &Tensor, weights: &Tensor) -> Result<Tensor> {
        let weights = weights.unsqueeze(1)?.contiguous()?;
        let gradient = self.exponents.broadcast_mul(&(&weights / &self.sums)?)?;
        gradient.scatter_add_set(&targets.unsqueeze(1)?.contiguous()?, &weights.neg()?, 1)?;
        Ok(gradient)
    }
}

/// ‖softmax(logits) − onehot(target)‖₂ of each row: logits (n, v) f32 or f64, targets (n) u32, to n numbers in
/// [0, √2]: the length of the loss gradient at the logits. Builds no graph.
/// Errors: other shapes or types; a target that is not below v.
pub fn error_norms(logits: &Tensor, targets: &Tensor) -> Result<Vec<f32>> {
    check("error_norms", logits, targets)?;
    let (logits, targets) = (logits.detach(), targets.detach());
    if has_kernels(logits.device()) {
        let norms = logits.contiguous()?.apply_op2_no_bwd(&targets.contiguous()?, &ErrorNorms)?;
        return norms.to_vec1();
    }
    Exponents::of(&logits, &targets)?.error_norms(&targets)
}

fn check(op: &str, logits: &Tensor, targets: &Tensor) -> Result<()> {
    check_targets(op, logits.dims2()?, targets)
}

/// Targets (n) of logits (n, v).
pub(super) fn check_targets(op: &str, (n, v): (usize, usize), targets: &Tensor) -> Result<()> {
    if targets.dims() != [n] || targets.dtype() != DType::U32 {
        bail!(
            "{op}: expected targets ({n}) of type u32, found {:?} of type {}",
            targets.dims(),
            targets.dtype().as_str()
        );
    }
    if v == 0 {
        bail!("{op}: expected at least one class, found logits ({n}, {v})");
    }
    Ok(())
}

/// Targets as a slice, all below `v`.
pub(super) fn read_targets<'a>(op: &str, storage: &'a CpuStorage, layout: &Layout, v: usize) -> Result<&'a [u32]> {
    let all = storage.as_slice::<u32>()?;
    let Some(targets) = layout.contiguous_offsets().and_then(|(start, end)| all.get(start..end)) else {
        bail!("{op}: expected contiguous targets, found strides {:?}", layout.stride());
    };
    match targets.iter().position(|&target| target as usize >= v) {
        Some(row) => bail!("{op}: expected targets below {v}, found {} in row {row}", targets[row]),
        None => Ok(targets),
    }
}

struct CrossEntropy;

impl CustomOp2 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, v) = l1.shape().dims2()?;
        let targets = read_targets(self.name(), s2, l2, v)?;
        let losses = match s1.dtype() {
            DType::F32 => f32::to_cpu_storage_owned(map_rows(slice(self.name(), s1, l1)?, targets, v, losses_of_rows)),
            DType::F64 => f64::to_cpu_storage_owned(map_rows(slice(self.name(), s1, l1)?, targets, v, losses_of_rows)),
            other => bail!("cross_entropy: expected f32 or f64 logits, found {}", other.as_str()),
        };
        Ok((losses, n.into()))
    }

    fn bwd(
        &self,
        logits: &Tensor,
        targets: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let gradient = match logits.dtype() {
            DType::F64 => logit_gradient::<f64>(logits, targets, &grad)?,
            _ => logit_gradient::<f32>(logits, targets, &grad)?,
        };
        Ok((Some(gradient), None))
    }
}

struct ErrorNorms;

impl CustomOp2 for ErrorNorms {
    fn name(&self) -> &'static str {
        "error_norms"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, v) = l1.shape().dims2()?;
        let targets = read_targets(self.name(), s2, l2, v)?;
        let norms: Vec<f32> = match s1.dtype() {
            DType::F32 => map_rows::<f32>(slice(self.name(), s1, l1)?, targets, v, norms_of_rows),
            DType::F64 => map_rows::<f64>(slice(self.name(), s1, l1)?, targets, v, norms_of_rows)
                .into_iter()
                .map(|norm| norm as f32)
                .collect(),
            other => bail!("error_norms: expected f32 or f64 logits, found {}", other.as_str()),
        };
        Ok((f32::to_cpu_storage_owned(norms), n.into()))
    }
}

/// One number per row, `kernel(logits, targets, v, out)` on groups of rows in parallel.
fn map_rows<T: Real>(logits: &[T], targets: &[u32], v: usize, kernel: fn(&[T], &[u32], usize, &mut [T])) -> Vec<T> {
    let rows = rows_per_task(v);
    let mut out = unwritten::<T>(targets.len());
    out.par_chunks_mut(rows)
        .zip(targets.par_chunks(rows).zip(logits.par_chunks(rows * v)))
        .for_each(|(out, (targets, logits))| kernel(logits, targets, v, out));
    out
}

/// (softmax − onehot) · grad, shape (n, v).
fn logit_gradient<T: Real>(logits: &Tensor, targets: &Tensor, grad: &Tensor) -> Result<Tensor> {
    let (n, v) = logits.dims2()?;
    let (logits, grad) = (Reading::of(logits), Reading::of(grad));
    let (logits, grad) = (logits.slice::<T>("cross_entropy")?, grad.slice::<T>("cross_entropy")?);
    let (targets, layout) = targets.storage_and_layout();
    let candle_core::Storage::Cpu(targets) = &*targets else {
        bail!("cross_entropy: expected targets on the CPU");
    };
    let targets = read_targets("cross_entropy", targets, layout, v)?;
    let rows = rows_per_task(v);
    let mut out = unwritten::<T>(n * v);
    out.par_chunks_mut(rows * v)
        .zip(logits.par_chunks(rows * v).zip(targets.par_chunks(rows).zip(grad.par_chunks(rows))))
        .for_each(|(out, (logits, (targets, grad)))| gradients_of_rows(logits, targets, grad, v, out));
    Tensor::from_vec(out, (n, v), &candle_core::Device::Cpu)
}

kernel! { for Loss:
    fn losses_of_rows<T>(logits: &[T], targets: &[u32], v: usize, out: &mut [T]) {
        for ((row, &target), loss) in logits.chunks_exact(v).zip(targets).zip(out) {
            let max = max_of(row);
            let sum = sum_map(row, |x| (x - max).exp());
            *loss = sum.ln() - (row[target as usize] - max);
        }
    }
}

kernel! { for Loss:
    fn gradients_of_rows<T>(logits: &[T], targets: &[u32], grad: &[T], v: usize, out: &mut [T]) {
        for (((row, &target), &g), out) in logits.chunks_exact(v).zip(targets).zip(grad).zip(out.chunks_exact_mut(v)) {
            softmax(row, out, g);
            out[target as usize] -= g;
        }
    }
}

kernel! { for Loss:
    fn norms_of_rows<T>(logits: &[T], targets: &[u32], v: usize, out: &mut [T]) {
        let mut p = vec![T::zero(); v];
        for ((row, &target), norm) in logits.chunks_exact(v).zip(targets).zip(out) {
            softmax(row, &mut p, T::one());
            p[target as usize] -= T::one();
            *norm = sum_map(&p, |x| x * x).sqrt();
        }
    }
}

/// `out` = softmax(row) · scale
#[inline(always)]
fn softmax<T: Real>(row: &[T], out: &mut [T], scale: T) {
    let max = max_of(row);
    for (y, &x) in out.iter_mut().zip(row) {
        *y = (x - max).exp();
    }
    let factor = scale / sum_map(out, |p| p);
    for y in out.iter_mut() {
        *y *= factor;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::check::{gradient_error, wave};

    fn case() -> (Tensor, Tensor) {
        let targets = Tensor::new(&[3_u32, 0, 70, 12, 5], &Device::Cpu).unwrap();
        (wave(&[5, 71], 3.0).unwrap(), targets)
    }

    #[test]
    fn equals_log_softmax() {
        let (logits, targets) = case();
        let composed = candle_nn::ops::log_softmax(&logits, 1).unwrap();
        let composed = composed.gather(&targets.unsqueeze(1).unwrap(), 1).unwrap().squeeze(1).unwrap().neg().unwrap();
        let expected: Vec<f64> = composed.to_vec1().unwrap();
        let f64s: Vec<f64> = cross_entropy(&logits, &targets).unwrap().to_vec1().unwrap();
        let f32s: Vec<f32> = cross_entropy(&logits.to_dtype(DType::F32).unwrap(), &targets).unwrap().to_vec1().unwrap();
        for ((a, b), e) in f64s.iter().zip(&f32s).zip(&expected) {
            assert!((a - e).abs() < 1e-12 && (f64::from(*b) - e).abs() < 2e-6, "{a} {b} {e}");
        }
    }

    #[test]
    fn gradient_agrees_with_central_differences() {
        let (logits, targets) = case();
        let weights = wave(&[5], 1.0).unwrap();
        let error = gradient_error(&[logits], |x| (cross_entropy(&x[0], &targets)? * &weights)?.sum_all()).unwrap();
        assert!(error < 1e-8, "{error}");
    }

    #[test]
    fn huge_logits_stay_finite() {
        let logits = Tensor::new(&[[1e30_f32, -1e30, 0.0]], &Device::Cpu).unwrap();
        let loss = |t: u32| -> f32 {
            cross_entropy(&logits, &Tensor::new(&[t], &Device::Cpu).unwrap()).unwrap().to_vec1().unwrap()[0]
        };
        assert_eq!(loss(0), 0.0);
        assert_eq!(loss(2), 1e30);
    }

    #[test]
    fn nan_is_reported_not_hidden() {
        let logits = Tensor::new(&[[f32::NAN, 1.0, 0.0]], &Device::Cpu).unwrap();
        let loss: Vec<f32> =
            cross_entropy(&logits, &Tensor::new(&[1_u32], &Device::Cpu).unwrap()).unwrap().to_vec1().unwrap();
        assert!(loss[0].is_nan());
    }

    #[test]
    fn wrong_targets_are_errors() {
        let (logits, _) = case();
        let out_of_range = Tensor::new(&[3_u32, 0, 71, 12, 5], &Device::Cpu).unwrap();
        let message = cross_entropy(&logits, &out_of_range).unwrap_err().to_string();
        assert!(message.contains("below 71") && message.contains("row 2"), "{message}");
        assert!(error_norms(&logits, &out_of_range).is_err());
        let too_few = Tensor::new(&[3_u32], &Device::Cpu).unwrap();
        assert!(cross_entropy(&logits, &too_few).is_err());
        assert!(cross_entropy(&logits, &out_of_range.to_dtype(DType::I64).unwrap()).is_err());
    }

    #[test]
    fn error_norms_are_the_lengths_of_the_gradient() {
        let (logits, targets) = case();
        let var = Var::from_tensor(&logits).unwrap();
        let grads = cross_entropy(&var, &targets).unwrap().sum_all().unwrap().backward().unwrap();
        let rows: Vec<Vec<f64>> = grads.get(&var).unwrap().to_vec2().unwrap();
        let norms = error_norms(&logits.to_dtype(DType::F32).unwrap(), &targets).unwrap();
        for (row, norm) in rows.iter().zip(norms) {
            let expected = row.iter().map(|g| g * g).sum::<f64>().sqrt();
            assert!((f64::from(norm) - expected).abs() < 1e-6, "{norm} {expected}");
        }
    }
}
