//! Causal self-attention in blocks of query rows: probabilities are never stored for a whole sequence.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::buffers::{Reading, Scratch, slice, unwritten};
use super::gemm::{Matrix, Old, Products, multiply};
use super::kernels::has_kernels;
use super::precision::Precision;
use super::profile::{self, Kind};
use super::real::{Real, max_of, sum_map, sum_map2};
use super::simd::{LANES, kernel};

mod composed;

pub use composed::MAX_COMPOSED_SCORES;

/// Query rows handled together. Scores of one block against 256 keys take 64 KiB.
const BLOCK: usize = 64;

/// How many heads a row of queries, keys and values holds, and their size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub num_query: usize,
    /// Key heads, and as many value heads; divides `num_query`.
    pub num_kv: usize,
    /// Numbers per head.
    pub size: usize,
}

impl std::fmt::Display for Heads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} query and {} key heads of {} numbers", self.num_query, self.num_kv, self.size)
    }
}

impl Heads {
    /// Width of a row [queries | keys | values].
    #[must_use]
    pub fn row_width(self) -> usize {
        (self.num_query + 2 * self.num_kv) * self.size
    }

    /// Width of a row of queries, and of the output.
    #[must_use]
    pub fn query_width(self) -> usize {
        self.num_query * self.size
    }

    /// Where the queries, keys and values of query head `head` start in a row.
    fn offsets(self, head: usize) -> (usize, usize, usize) {
        let kv_head = head / (self.num_query / self.num_kv);
        let key = (self.num_query + kv_head) * self.size;
        (head * self.size, key, key + self.num_kv * self.size)
    }

    fn scale<T: Real>(self) -> T {
        T::from_f64(1.0 / (self.size as f64).sqrt())
    }
}

/// softmax(QKᵀ/√size) V for each head, each position seeing itself and those before it:
/// qkv (n, t, row width), each row [queries | keys | values], to (n, t, query width). Query head h reads key head
/// h · num_kv / num_query. f32 or f64; differentiable.
/// Errors: a width that does not fit `heads`.
/// Source: Vaswani et al. 2017, arXiv 1706.03762; grouped queries: Ainslie et al. 2023, arXiv 2305.13245;
/// blocks: Dao et al. 2022, arXiv 2205.14135.
pub fn causal_attention(qkv: &Tensor, heads: Heads) -> Result<Tensor> {
    let (_, _, width) = qkv.dims3()?;
    let grouped = heads.num_kv > 0 && heads.num_query.is_multiple_of(heads.num_kv);
    if !grouped || heads.size == 0 || width != heads.row_width() {
        bail!("causal_attention: expected rows of {} for {heads}, found {width}", heads.row_width());
    }
    any_device(qkv, heads, Precision::F32)
}

/// The same for heads that fit, with products of this precision where there are no kernels.
pub(super) fn any_device(qkv: &Tensor, heads: Heads, precision: Precision) -> Result<Tensor> {
    if has_kernels(qkv.device()) {
        qkv.contiguous()?.apply_op1(Attention { heads })
    } else {
        composed::attention(qkv, heads, precision)
    }
}

struct Attention {
    heads: Heads,
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "causal_attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, t, _) = layout.shape().dims3()?;
        let out = match storage.dtype() {
            DType::F32 => CpuStorage::F32(self.forward::<f32>(slice(self.name(), storage, layout)?, t).0),
            DType::F64 => CpuStorage::F64(self.forward::<f64>(slice(self.name(), storage, layout)?, t).0),
            other => bail!("causal_attention: expected f32 or f64, found {}", other.as_str()),
        };
        Ok((out, (n, t, self.heads.query_width()).into()))
    }

    fn bwd(&self, qkv: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        match qkv.dtype() {
            DType::F64 => self.backward::<f64>(qkv, &grad.contiguous()?).map(Some),
            _ => self.backward::<f32>(qkv, &grad.contiguous()?).map(Some),
        }
    }
}

impl Attention {
    /// Output (n, t, query width) and log-sums (n, query heads, t).
    fn forward<T: Real>(&self, qkv: &[T], t: usize) -> (Vec<T>, Vec<T>) {
        let (width, query_width) = (self.heads.row_width(), self.heads.query_width());
        let n = if t == 0 { 0 } else { qkv.len() / (t * width) };
        let mut out = unwritten(n * t * query_width);
        let mut log_sums = unwritten(n * t * self.heads.num_query);
        if n > 0 {
            out.par_chunks_mut(t * query_width)
                .zip(log_sums.par_chunks_mut(t * self.heads.num_query))
                .zip(qkv.par_chunks(t * width))
                .for_each(|((out, log_sums), qkv)| {
                    let mut scores = Scratch::new(scratch_len(t));
                    attend(self.heads, t, qkv, out, log_sums, &mut scores, Products::full(n));
                });
        }
        (out, log_sums)
    }

    /// Recomputes the forward pass rather than have candle keep its log-sums.
    fn backward<T: Real>(&self, qkv: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let shape = qkv.shape();
        let (n, t, width) = qkv.dims3()?;
        let (qkv, grad) = (Reading::of(qkv), Reading::of(grad));
        let (qkv, grad) = (qkv.slice::<T>("causal_attention")?, grad.slice::<T>("causal_attention")?);
        let (out, log_sums) = self.forward(qkv, t);
        let query_width = self.heads.query_width();
        let mut d_qkv = vec![T::zero(); qkv.len()];
        if t > 0 {
            d_qkv
                .par_chunks_mut(t * width)
                .zip(qkv.par_chunks(t * width).zip(log_sums.par_chunks(t * self.heads.num_query)))
                .zip(out.par_chunks(t * query_width).zip(grad.par_chunks(t * query_width)))
                .for_each(|((d_qkv, (qkv, log_sums)), (out, grad))| {
                    let mut scratch = Scratch::new(2 * scratch_len(t));
                    let seen = Attended { qkv, out, log_sums };
                    attend_backward(self.heads, t, seen, grad, d_qkv, &mut scratch, Products::full(n));
                });
        }
        Tensor::from_vec(d_qkv, shape, &Device::Cpu)
    }
}

/// Scratch numbers that [`attend`] needs for t positions; [`attend_backward`] needs twice as many.
pub(super) fn scratch_len(t: usize) -> usize {
    BLOCK.min(t) * t
}

/// Attention of one sequence: qkv (t, row width) to out (t, query width), and the logarithm of each softmax
/// denominator, (query heads, t).
pub(super) fn attend<T: Real>(
    heads: Heads,
    t: usize,
    qkv: &[T],
    out: &mut [T],
    log_sums: &mut [T],
    scores: &mut [T],
    products: Products,
) {
    let _timing = profile::time(Kind::Attention);
    let products = products.counted_as(Kind::Attention);
    let (width, query_width) = (heads.row_width(), heads.query_width());
    for (head, log_sums) in (0..heads.num_query).zip(log_sums.chunks_exact_mut(t)) {
        let (q, k, v) = heads.offsets(head);
        for start in (0..t).step_by(BLOCK) {
            let end = (start + BLOCK).min(t);
            let (rows, scores) = (end - start, &mut scores[..(end - start) * end]);
            let queries = Matrix::rows(&qkv[start * width + q..], width);
            let keys = Matrix::rows(&qkv[k..], width);
            multiply(
                (rows, end, heads.size),
                (scores, end),
                Old::Replaced,
                heads.scale(),
                (queries, keys.t()),
                products,
            );
            softmax_block(scores, start, end, &mut log_sums[start..end]);
            let values = Matrix::rows(&qkv[v..], width);
            let out = &mut out[start * query_width + q..];
            let factors = (Matrix::rows(scores, end), values);
            multiply((rows, heads.size, end), (out, query_width), Old::Replaced, T::one(), factors, products);
        }
    }
}

/// What the forward pass of one sequence saw and gave.
#[derive(Clone, Copy)]
pub(super) struct Attended<'a, T> {
    /// (t, row width)
    pub(super) qkv: &'a [T],
    /// (t, query width)
    pub(super) out: &'a [T],
    /// (query heads, t)
    pub(super) log_sums: &'a [T],
}

/// Adds the gradient of one sequence's queries, keys and values, (t, row width), to `d_qkv`, given that of the output.
pub(super) fn attend_backward<T: Real>(
    heads: Heads,
    t: usize,
    seen: Attended<'_, T>,
    grad: &[T],
    d_qkv: &mut [T],
    scratch: &mut [T],
    products: Products,
) {
    let _timing = profile::time(Kind::Attention);
    let products = products.counted_as(Kind::Attention);
    let (width, query_width, size, scale) = (heads.row_width(), heads.query_width(), heads.size, heads.scale::<T>());
    let (scores, d_scores) = scratch.split_at_mut(scratch_len(t));
    let one = T::one();
    for (head, log_sums) in (0..heads.num_query).zip(seen.log_sums.chunks_exact(t)) {
        let (q, k, v) = heads.offsets(head);
        let (keys, values) = (Matrix::rows(&seen.qkv[k..], width), Matrix::rows(&seen.qkv[v..], width));
        for start in (0..t).step_by(BLOCK) {
            let end = (start + BLOCK).min(t);
            let rows = end - start;
            let (p, d_p) = (&mut scores[..rows * end], &mut d_scores[..rows * end]);
            let queries = Matrix::rows(&seen.qkv[start * width + q..], width);
            let out_rows = &seen.out[start * query_width + q..];
            let grad_rows = &grad[start * query_width + q..];
            let grads = Matrix::rows(grad_rows, query_width);
            multiply((rows, end, size), (p, end), Old::Replaced, scale, (queries, keys.t()), products);
            multiply((rows, end, size), (d_p, end), Old::Replaced, one, (grads, values.t()), products);
            let mut grad_dot_out = [T::zero(); BLOCK];
            for (row, dot) in grad_dot_out[..rows].iter_mut().enumerate() {
                let at = row * query_width..row * query_width + size;
                *dot = sum_map2(&grad_rows[at.clone()], &out_rows[at], |g, o| g * o);
            }
            score_gradients_block(p, d_p, start, end, &log_sums[start..end], &grad_dot_out);
            let (p, d_s) = (Matrix::rows(p, end), Matrix::rows(d_p, end));
            let by_key = (end, size, rows);
            multiply(by_key, (&mut d_qkv[v..], width), Old::Kept, one, (p.t(), grads), products);
            multiply(by_key, (&mut d_qkv[k..], width), Old::Kept, scale, (d_s.t(), queries), products);
            let d_queries = &mut d_qkv[start * width + q..];
            multiply((rows, size, end), (d_queries, width), Old::Kept, scale, (d_s, keys), products);
        }
    }
}

/// How far to compute in a row whose last visible position is `position`: whole vectors are cheaper than the exact
/// length; what was computed beyond it is cleared.
#[inline(always)]
fn whole_vectors(position: usize, end: usize) -> usize {
    (position + 1).next_multiple_of(LANES).min(end)
}

kernel! {
    /// Softmax of rows start..end of the scores, each over the positions it may see; 0 beyond.
    fn softmax_block<T>(scores: &mut [T], start: usize, end: usize, log_sums: &mut [T]) {
        for ((row, log_sum), position) in scores.chunks_exact_mut(end).zip(log_sums).zip(start..) {
            let (seen, hidden) = row.split_at_mut(whole_vectors(position, end));
            seen[position + 1..].fill(T::from_f64(f64::NEG_INFINITY));
            let max = max_of(seen);
            for p in seen.iter_mut() {
                *p = (*p - max).exp();
            }
            seen[position + 1..].fill(T::zero());
            let sum = sum_map(seen, |p| p);
            let factor = T::one() / sum;
            for p in seen.iter_mut() {
                *p *= factor;
            }
            hidden.fill(T::zero());
            *log_sum = max + sum.ln();
        }
    }
}

kernel! {
    /// Scores become probabilities, and gradients of probabilities those of scores.
    fn score_gradients_block<T>(
        scores: &mut [T], grads: &mut [T], start: usize, end: usize, log_sums: &[T], grad_dot_out: &[T],
    ) {
        let rows = scores.chunks_exact_mut(end).zip(grads.chunks_exact_mut(end));
        for ((((scores, grads), &log_sum), &dot), position) in rows.zip(log_sums).zip(grad_dot_out).zip(start..) {
            let whole = whole_vectors(position, end);
            for (p, g) in scores[..whole].iter_mut().zip(&mut grads[..whole]) {
                *p = (*p - log_sum).exp();
                *g = *p * (*g - dot);
            }
            scores[position + 1..].fill(T::zero());
            grads[position + 1..].fill(T::zero());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::check::{composed_error, gradient_error, max_difference, wave};

    const PLAIN: Heads = Heads { num_query: 2, num_kv: 2, size: 6 };
    const GROUPED: Heads = Heads { num_query: 4, num_kv: 2, size: 4 };

    #[test]
    fn equals_candle() {
        for (heads, t) in [(PLAIN, 5), (GROUPED, 70), (PLAIN, 130), (GROUPED, 1), (PLAIN, 64)] {
            let qkv = wave(&[2, t, heads.row_width()], 1.5).unwrap();
            let theirs = composed::attention(&qkv, heads, Precision::F32).unwrap();
            let ours = causal_attention(&qkv, heads).unwrap();
            assert!(max_difference(&ours, &theirs).unwrap() < 1e-12, "t {t}");
            let ours = causal_attention(&qkv.to_dtype(DType::F32).unwrap(), heads).unwrap();
            assert!(max_difference(&ours, &theirs).unwrap() < 2e-6, "t {t}");
        }
    }

    #[test]
    fn gradient_agrees_with_central_differences() {
        for (heads, t) in [(PLAIN, 5), (GROUPED, 70)] {
            let weights = wave(&[2, t, heads.query_width()], 1.0).unwrap();
            let inputs = [wave(&[2, t, heads.row_width()], 1.5).unwrap()];
            let error = gradient_error(&inputs, |x| (causal_attention(&x[0], heads)? * &weights)?.sum_all()).unwrap();
            assert!(error < 1e-8, "{error}");
        }
    }

    #[test]
    fn composed_products_are_as_far_from_f32_as_rounding_allows() {
        for (precision, least, most) in [(Precision::Bf16, 1e-3, 0.02), (Precision::F16, 1e-4, 0.003)] {
            let inputs = [wave(&[2, 70, GROUPED.row_width()], 1.5).unwrap()];
            let error =
                composed_error(&inputs, precision, |x, precision| any_device(&x[0], GROUPED, precision)).unwrap();
            assert!(least < error && error < most, "{precision:?}: {error}");
        }
    }

    #[test]
    fn misfit_heads_are_errors() {
        let qkv = wave(&[1, 2, 12], 1.0).unwrap();
        assert!(causal_attention(&qkv, Heads { num_query: 3, num_kv: 2, size: 2 }).is_err());
        assert!(causal_attention(&qkv, Heads { num_query: 3, num_kv: 0, size: 4 }).is_err());
        assert!(causal_attention(&qkv, Heads { num_query: 1, num_kv: 1, size: 5 }).is_err());
    }
}
