//! A Llama layer as one operation: pre-norm attention with rotary positions, a pre-norm gated feed-forward part, each added
//! to its input. A BitNet's has two more norms, before the output projection and before the down projection.

use candle_core::{D, Result, Tensor, bail};

use super::activations::Activations;
use super::attention::{self, Attended, Heads, attend, attend_backward, scratch_len};
use super::function::{composed_function, recomputed};
use super::gate::GateActivation;
use super::gemm::{Matrix, Old, Shared, multiply};
use super::kernels::has_kernels;
use super::linear::{Map, Stored, as_rows, rounded, rounded_product};
use super::precision::Precision;
use super::real::Real;
use super::rms_norm::{rms_norm, rms_norm_backward_rows, rms_norm_in_place, rms_norm_rows};
use super::rope::{Angles, Tables, Turn, rotate};
use super::rows::split;
use super::sequence::{Factor, Kept, MatrixGradient, Place, Seen, SequenceLayer, apply};

/// Weights of a layer, in transformers' layout: matrices are (outputs, inputs).
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the names are those of the checkpoint")]
pub struct LlamaLayerWeights<'a> {
    pub input_layernorm: &'a Tensor,
    pub q_proj: &'a Tensor,
    pub k_proj: &'a Tensor,
    pub v_proj: &'a Tensor,
    pub o_proj: &'a Tensor,
    pub post_attention_layernorm: &'a Tensor,
    pub gate_proj: &'a Tensor,
    pub up_proj: &'a Tensor,
    pub down_proj: &'a Tensor,
    /// Of BitNet.
    pub sub_norms: Option<SubNorms<'a>>,
}

/// The norms that a BitNet has besides, so that what is rounded to 8 bits is spread evenly.
/// Source: Wang et al. 2023, arXiv 2310.11453, section 2.1, as in transformers' `BitNetDecoderLayer`.
#[derive(Debug, Clone, Copy)]
pub struct SubNorms<'a> {
    /// (c): of what attention gives, before `o_proj`.
    pub attn_sub_norm: &'a Tensor,
    /// (hidden): of the gated product, before `down_proj`.
    pub ffn_sub_norm: &'a Tensor,
}

impl<'a> LlamaLayerWeights<'a> {
    /// Nine tensors, eleven with the sub-norms.
    fn in_order(&self) -> Vec<&'a Tensor> {
        let mut all = vec![
            self.input_layernorm,
            self.q_proj,
            self.k_proj,
            self.v_proj,
            self.o_proj,
            self.post_attention_layernorm,
            self.gate_proj,
            self.up_proj,
            self.down_proj,
        ];
        if let Some(SubNorms { attn_sub_norm, ffn_sub_norm }) = self.sub_norms {
            all.extend([attn_sub_norm, ffn_sub_norm]);
        }
        all
    }

    /// What lies after the layer's input, in the order of [`Self::in_order`].
    fn after_input(inputs: &'a [Tensor]) -> Result<(&'a Tensor, Self)> {
        let [
            x,
            input_layernorm,
            q_proj,
            k_proj,
            v_proj,
            o_proj,
            post_attention_layernorm,
            gate_proj,
            up_proj,
            down_proj,
            sub_norms @ ..,
        ] = inputs
        else {
            bail!("llama_layer: expected an input and 9 weights or 11, found {} tensors", inputs.len());
        };
        let sub_norms = match sub_norms {
            [attn_sub_norm, ffn_sub_norm] => Some(SubNorms { attn_sub_norm, ffn_sub_norm }),
            _ => None,
        };
        let weights = Self {
            input_layernorm,
            q_proj,
            k_proj,
            v_proj,
            o_proj,
            post_attention_layernorm,
            gate_proj,
            up_proj,
            down_proj,
            sub_norms,
        };
        Ok((x, weights))
    }
}

/// The numbers of a Llama layer that its weights do not show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LlamaLayerShape {
    /// Query heads together are as wide as the layer.
    pub heads: Heads,
    /// Added to the mean square in RMS norm.
    pub eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Of the feed-forward part.
    pub hidden_act: GateActivation,
    /// How its matrices read their inputs.
    pub activations: Activations,
    /// Of matrix products; counts for f32.
    pub precision: Precision,
    /// For the backward pass.
    pub kept: Kept,
}

/// x (n, t, c) through a layer, to (n, t, c). f32 or f64; differentiable in everything.
/// Errors: weights or heads that do not fit c; a precision that the processor has not.
/// Source: Touvron et al. 2023, arXiv 2302.13971, as in transformers' `LlamaDecoderLayer`.
pub fn llama_layer(x: &Tensor, weights: &LlamaLayerWeights<'_>, shape: LlamaLayerShape) -> Result<Tensor> {
    let hidden = check(x, weights, shape)?;
    if has_kernels(x.device()) {
        return apply(&LlamaLayer { shape, hidden }, x, &weights.in_order());
    }
    match shape.kept {
        Kept::Activations => composed(x, weights, shape, &mut |_, _| Ok(())),
        Kept::Input => {
            let mut inputs = vec![x];
            inputs.extend(weights.in_order());
            recomputed(&inputs, move |inputs| {
                let (x, weights) = LlamaLayerWeights::after_input(inputs)?;
                composed(x, &weights, shape, &mut |_, _| Ok(()))
            })
        }
    }
}

/// [`llama_layer`], telling `seen` what each matrix reads: its name within the layer ("self_attn.q_proj") and its
/// inputs, (n, t, inputs). Slower, for calibration: intermediate values are tensors of their own, and products are f32.
pub fn llama_layer_observed(
    x: &Tensor,
    weights: &LlamaLayerWeights<'_>,
    shape: LlamaLayerShape,
    seen: &mut dyn FnMut(&'static str, &Tensor) -> Result<()>,
) -> Result<Tensor> {
    check(x, weights, shape)?;
    composed(x, weights, LlamaLayerShape { precision: Precision::F32, ..shape }, seen)
}

/// The width of the feed-forward part. Errors: as [`llama_layer`].
fn check(x: &Tensor, weights: &LlamaLayerWeights<'_>, shape: LlamaLayerShape) -> Result<usize> {
    let c = x.dim(D::Minus1)?;
    let heads = shape.heads;
    let grouped = heads.num_kv > 0 && heads.num_query > 0 && heads.num_query.is_multiple_of(heads.num_kv);
    if !grouped || heads.size == 0 || !heads.size.is_multiple_of(2) || heads.query_width() != c {
        bail!("llama_layer: expected grouped heads of an even size, {c} wide together, found {heads}");
    }
    let (hidden, _) = weights.gate_proj.dims2()?;
    let kv = heads.num_kv * heads.size;
    let shapes: [&[usize]; 11] =
        [&[c], &[c, c], &[kv, c], &[kv, c], &[c, c], &[c], &[hidden, c], &[hidden, c], &[c, hidden], &[c], &[hidden]];
    for (weight, shape) in weights.in_order().into_iter().zip(shapes) {
        if weight.dims() != shape || weight.elem_count() == 0 {
            bail!("llama_layer: expected a weight of shape {shape:?}, found {:?}", weight.dims());
        }
    }
    Ok(hidden)
}

/// The same out of smaller operations, for devices other than the CPU and for observers.
pub(super) fn composed(
    x: &Tensor,
    weights: &LlamaLayerWeights<'_>,
    shape: LlamaLayerShape,
    seen: &mut dyn FnMut(&'static str, &Tensor) -> Result<()>,
) -> Result<Tensor> {
    let linear = |x: &Tensor, weight, onto| {
        Map { weight, stored: Stored::OutputMajor, bias: None, onto }.composed(x, shape.precision)
    };
    let read = |x: Tensor| shape.activations.read(&x);
    let h = read(rms_norm(x, weights.input_layernorm, shape.eps)?)?;
    for part in ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"] {
        seen(part, &h)?;
    }
    let qkv = turned_projections(&h, [weights.q_proj, weights.k_proj, weights.v_proj], shape)?;
    let normed = |h: Tensor, norm: fn(&SubNorms<'_>) -> Tensor| match &weights.sub_norms {
        Some(norms) => rms_norm(&h, &norm(norms), shape.eps),
        None => Ok(h),
    };
    let attended = attention::any_device(&qkv, shape.heads, shape.precision)?;
    let h = read(normed(attended, |norms| norms.attn_sub_norm.clone())?)?;
    seen("self_attn.o_proj", &h)?;
    let x = linear(&h, weights.o_proj, Some(x))?;
    let h = read(rms_norm(&x, weights.post_attention_layernorm, shape.eps)?)?;
    seen("mlp.gate_proj", &h)?;
    seen("mlp.up_proj", &h)?;
    let h = shape.hidden_act.mul(&linear(&h, weights.gate_proj, None)?, &linear(&h, weights.up_proj, None)?)?;
    let h = read(normed(h, |norms| norms.ffn_sub_norm.clone())?)?;
    seen("mlp.down_proj", &h)?;
    linear(&h, weights.down_proj, Some(&x))
}

/// Rows [queries | keys | values] of h (n, t, c), queries and keys turned by their positions; differentiable in everything.
fn turned_projections(h: &Tensor, weights: [&Tensor; 3], shape: LlamaLayerShape) -> Result<Tensor> {
    let LlamaLayerShape { heads, rope_theta, precision, .. } = shape;
    let tables = Tables::new(h, heads.size, rope_theta)?;
    let of_forward = tables.clone();
    let forward = |inputs: &[Tensor]| {
        let [h, of_q, of_k, of_v] = inputs else { bail!("llama_layer: expected three projections") };
        let (n, t, _) = h.dims3()?;
        let rows = rounded(&as_rows(h)?, precision)?;
        let project = |weight: &Tensor| rounded_product(&rows, &rounded(weight, precision)?.t()?)?.reshape((n, t, ()));
        let turned = |x: Tensor| of_forward.turned(&x, Turn::Forward);
        Tensor::cat(&[turned(project(of_q)?)?, turned(project(of_k)?)?, project(of_v)?], 2)
    };
    let [of_q, of_k, of_v] = weights;
    composed_function(&[h, of_q, of_k, of_v], forward, move |inputs, _, grad| {
        let [h, of_q, of_k, of_v] = inputs else { bail!("llama_layer: expected three projections") };
        let rows = rounded(&as_rows(h)?, precision)?;
        let (c, kv) = (heads.query_width(), heads.num_kv * heads.size);
        let part = |start: usize, width: usize| grad.narrow(2, start, width)?.contiguous();
        let d_rows = |part: Tensor| rounded(&as_rows(&part)?, precision);
        let d_q = d_rows(tables.turned(&part(0, c)?, Turn::Back)?)?;
        let d_k = d_rows(tables.turned(&part(c, kv)?, Turn::Back)?)?;
        let d_v = d_rows(part(c + kv, kv)?)?;
        let to_h = |d_rows: &Tensor, weight: &Tensor| rounded_product(d_rows, &rounded(weight, precision)?);
        let d_h = ((to_h(&d_q, of_q)? + to_h(&d_k, of_k)?)? + to_h(&d_v, of_v)?)?.reshape(h.shape())?;
        let of_weight = |d_rows: &Tensor| rounded_product(&d_rows.t()?, &rows);
        Ok(vec![d_h, of_weight(&d_q)?, of_weight(&d_k)?, of_weight(&d_v)?])
    })
}

#[derive(Debug, Clone, Copy)]
struct LlamaLayer {
    shape: LlamaLayerShape,
    /// Width of the feed-forward part.
    hidden: usize,
}

impl LlamaLayer {
    fn width(self) -> usize {
        self.shape.heads.query_width()
    }

    /// Lengths of what is saved: rotated qkv, attention output, its log-sums, the middle of the residual stream,
    /// gate and up.
    fn saved(self, t: usize) -> [usize; 6] {
        let (c, heads) = (self.width(), self.shape.heads);
        [t * heads.row_width(), t * c, t * heads.num_query, t * c, t * self.hidden, t * self.hidden]
    }
}

impl SequenceLayer for LlamaLayer {
    const NAME: &'static str = "llama_layer";
    type Tables<T: Real> = Angles<T>;

    fn precision(&self) -> Precision {
        self.shape.precision
    }

    fn kept(&self) -> Kept {
        self.shape.kept
    }

    fn tables<T: Real>(&self, t: usize) -> Angles<T> {
        Angles::new(t, self.shape.heads.size, self.shape.rope_theta)
    }

    fn saved_len(&self, t: usize) -> usize {
        self.saved(t).iter().sum()
    }

    fn forward_scratch_len(&self, t: usize) -> usize {
        t * self.width() + (t * self.hidden).max(scratch_len(t))
    }

    fn backward_scratch_len(&self, t: usize) -> usize {
        t * self.width() + (t * self.hidden).max(2 * scratch_len(t))
    }

    fn factor_widths(&self) -> Vec<usize> {
        // What q_proj, k_proj and v_proj read, what o_proj does, gate_proj and up_proj, down_proj; the gradients of what they
        // give, but for the last.
        let (c, hidden) = (self.width(), self.hidden);
        vec![c, c, c, hidden, self.shape.heads.row_width(), c, hidden, hidden]
    }

    fn matrix_gradients(&self) -> Vec<MatrixGradient> {
        let (c, kv) = (self.width(), self.shape.heads.num_kv * self.shape.heads.size);
        let widths = self.factor_widths();
        let all_of = |of: usize| Factor::Columns { of, start: 0, width: widths[of] };
        let of_qkv = |start: usize, width: usize| Factor::Columns { of: 4, start, width };
        vec![
            MatrixGradient { left: of_qkv(0, c), right: all_of(0) },
            MatrixGradient { left: of_qkv(c, kv), right: all_of(0) },
            MatrixGradient { left: of_qkv(c + kv, kv), right: all_of(0) },
            MatrixGradient { left: all_of(5), right: all_of(1) },
            MatrixGradient { left: all_of(6), right: all_of(2) },
            MatrixGradient { left: all_of(7), right: all_of(2) },
            MatrixGradient { left: Factor::OutputGradient, right: all_of(3) },
        ]
    }

    fn forward<T: Real>(
        &self,
        at: &Place<'_, T, Angles<T>>,
        x: &[T],
        saved: &mut [T],
        out: &mut [T],
        scratch: &mut [T],
    ) {
        let (t, c, hidden, eps) = (at.t, self.width(), self.hidden, T::from_f64(self.shape.eps));
        let heads = self.shape.heads;
        let (row, kv) = (heads.row_width(), heads.num_kv * heads.size);
        let [norm1, q_w, k_w, v_w, o_w, norm2, gate_w, up_w, down_w, sub_norms @ ..] = at.weights else {
            return;
        };
        let [qkv, attended, log_sums, middle, gate, up] = split(saved, self.saved(t));
        let (h, scratch) = scratch.split_at_mut(t * c);
        // a (t, inputs) times w (outputs, inputs) transposed, into rows `stride` apart.
        let product = |dst: &mut [T], stride: usize, old: Old, a: &[T], inputs: usize, w: &Shared<'_, T>| {
            let factors = (Matrix::rows(a, inputs), Matrix::shared(w, inputs).t());
            multiply((t, w.len() / inputs, inputs), (dst, stride), old, T::one(), factors, at.products);
        };
        let read = |rows: &mut [T], len: usize| self.shape.activations.read_rows(rows, len);
        rms_norm_rows(x, norm1, eps, h);
        read(h, c);
        product(qkv, row, Old::Replaced, h, c, q_w);
        product(&mut qkv[c..], row, Old::Replaced, h, c, k_w);
        product(&mut qkv[c + kv..], row, Old::Replaced, h, c, v_w);
        rotate(qkv, row, c + kv, at.tables, Turn::Forward);
        attend(heads, t, qkv, attended, log_sums, scratch, at.products);
        middle.copy_from_slice(x);
        // The backward pass of attention needs its output as it was.
        h.copy_from_slice(attended);
        if let Some(norm) = sub_norms.first() {
            rms_norm_in_place(h, norm, eps);
        }
        read(h, c);
        product(middle, c, Old::Kept, h, c, o_w);
        rms_norm_rows(middle, norm2, eps, h);
        read(h, c);
        product(gate, hidden, Old::Replaced, h, c, gate_w);
        product(up, hidden, Old::Replaced, h, c, up_w);
        let g = &mut scratch[..t * hidden];
        self.shape.hidden_act.mul_all(gate, up, g);
        if let Some(norm) = sub_norms.get(1) {
            rms_norm_in_place(g, norm, eps);
        }
        read(g, hidden);
        out.copy_from_slice(middle);
        product(out, c, Old::Kept, g, hidden, down_w);
    }

    fn backward<T: Real>(
        &self,
        at: &Place<'_, T, Angles<T>>,
        seen: Seen<'_, T>,
        dx: &mut [T],
        d_vectors: &mut [&mut [T]],
        factors: &mut [&mut [T]],
        scratch: &mut [T],
    ) {
        let (t, c, hidden, eps) = (at.t, self.width(), self.hidden, T::from_f64(self.shape.eps));
        let heads = self.shape.heads;
        let (row, kv) = (heads.row_width(), heads.num_kv * heads.size);
        let [norm1, q_w, k_w, v_w, o_w, norm2, gate_w, up_w, down_w, sub_norms @ ..] = at.weights else {
            return;
        };
        let [d_norm1, d_norm2, d_sub_norms @ ..] = d_vectors else {
            return;
        };
        let [qkv_reads, o_reads, gate_up_reads, down_reads, d_qkv, d_middle, d_gate, d_up] = factors else {
            return;
        };
        let mut rest = seen.saved;
        let [qkv, attended, log_sums, middle, gate, up] = self.saved(t).map(|length| {
            let (part, tail) = rest.split_at(length);
            rest = tail;
            part
        });
        let Seen { x, grad, .. } = seen;
        let (d_h, scratch) = scratch.split_at_mut(t * c);
        // Gradient of a in a · wᵀ, given that of the product in rows `stride` apart.
        let to_input = |dst: &mut [T], old: Old, grad: &[T], stride: usize, w: &Shared<'_, T>, inputs: usize| {
            let factors = (Matrix::rows(grad, stride), Matrix::shared(w, inputs));
            multiply((t, inputs, w.len() / inputs), (dst, inputs), old, T::one(), factors, at.products);
        };
        let read = |rows: &mut [T], len: usize| self.shape.activations.read_rows(rows, len);

        let d_g = &mut scratch[..t * hidden];
        self.shape.hidden_act.mul_all(gate, up, down_reads);
        if let Some(norm) = sub_norms.get(1) {
            // The same before the norm, for the norm's gradient.
            d_up.copy_from_slice(down_reads);
            rms_norm_in_place(down_reads, norm, eps);
        }
        read(down_reads, hidden);
        to_input(d_g, Old::Replaced, grad, c, down_w, hidden);
        if let (Some(norm), Some(d_norm)) = (sub_norms.get(1), d_sub_norms.get_mut(1)) {
            d_gate.fill(T::zero());
            rms_norm_backward_rows(d_up, norm, d_g, eps, d_gate, d_norm);
            d_g.copy_from_slice(d_gate);
        }
        d_gate.copy_from_slice(gate);
        d_up.copy_from_slice(up);
        self.shape.hidden_act.gradient(d_gate, d_up, d_g);
        rms_norm_rows(middle, norm2, eps, gate_up_reads);
        read(gate_up_reads, c);
        to_input(d_h, Old::Replaced, d_gate, hidden, gate_w, c);
        to_input(d_h, Old::Kept, d_up, hidden, up_w, c);
        d_middle.copy_from_slice(grad);
        rms_norm_backward_rows(middle, norm2, d_h, eps, d_middle, d_norm2);

        o_reads.copy_from_slice(attended);
        if let Some(norm) = sub_norms.first() {
            rms_norm_in_place(o_reads, norm, eps);
        }
        read(o_reads, c);
        to_input(d_h, Old::Replaced, d_middle, c, o_w, c);
        if let (Some(norm), Some(d_norm)) = (sub_norms.first(), d_sub_norms.first_mut()) {
            qkv_reads.fill(T::zero());
            rms_norm_backward_rows(attended, norm, d_h, eps, qkv_reads, d_norm);
            d_h.copy_from_slice(qkv_reads);
        }
        d_qkv.fill(T::zero());
        attend_backward(heads, t, Attended { qkv, out: attended, log_sums }, d_h, d_qkv, scratch, at.products);
        rotate(d_qkv, row, c + kv, at.tables, Turn::Back);
        rms_norm_rows(x, norm1, eps, qkv_reads);
        read(qkv_reads, c);
        let (d_q, d_k, d_v) = (&d_qkv[..], &d_qkv[c..], &d_qkv[c + kv..]);
        to_input(d_h, Old::Replaced, d_q, row, q_w, c);
        to_input(d_h, Old::Kept, d_k, row, k_w, c);
        to_input(d_h, Old::Kept, d_v, row, v_w, c);
        dx.copy_from_slice(d_middle);
        rms_norm_backward_rows(x, norm1, d_h, eps, dx, d_norm1);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::check::{bf16_error, composed_error, composed_gradients, gradient_error, max_difference, wave};

    const SHAPE: LlamaLayerShape = LlamaLayerShape {
        heads: Heads { num_query: 4, num_kv: 2, size: 2 },
        eps: 1e-5,
        rope_theta: 100.0,
        hidden_act: GateActivation::Silu,
        activations: Activations::Floats,
        precision: Precision::F32,
        kept: Kept::Activations,
    };
    const INT8: LlamaLayerShape = LlamaLayerShape { activations: Activations::Int8, ..SHAPE };
    const RELU2: LlamaLayerShape = LlamaLayerShape { hidden_act: GateActivation::Relu2, ..SHAPE };
    const RELU2_INT8: LlamaLayerShape = LlamaLayerShape { hidden_act: GateActivation::Relu2, ..INT8 };

    fn inputs(n: usize, t: usize) -> Vec<Tensor> {
        let (c, kv, hidden) = (8, 4, 12);
        let matrix = |a: usize, b: usize| wave(&[a, b], 0.6).unwrap();
        vec![
            wave(&[n, t, c], 1.5).unwrap(),
            wave(&[c], 1.0).unwrap(),
            matrix(c, c),
            matrix(kv, c),
            (matrix(kv, c) * 0.7).unwrap(),
            (matrix(c, c) * 0.9).unwrap(),
            wave(&[c], 0.8).unwrap(),
            matrix(hidden, c),
            (matrix(hidden, c) * 1.3).unwrap(),
            matrix(c, hidden),
        ]
    }

    /// With sub-norms.
    fn bitnet_inputs(n: usize, t: usize) -> Vec<Tensor> {
        let norms = [wave(&[8], 0.9).unwrap(), wave(&[12], 1.1).unwrap()];
        inputs(n, t).into_iter().chain(norms).collect()
    }

    fn weights(x: &[Tensor]) -> LlamaLayerWeights<'_> {
        LlamaLayerWeights {
            input_layernorm: &x[1],
            q_proj: &x[2],
            k_proj: &x[3],
            v_proj: &x[4],
            o_proj: &x[5],
            post_attention_layernorm: &x[6],
            gate_proj: &x[7],
            up_proj: &x[8],
            down_proj: &x[9],
            sub_norms: x.get(11).map(|ffn_sub_norm| SubNorms { attn_sub_norm: &x[10], ffn_sub_norm }),
        }
    }

    #[test]
    fn bf16_is_as_far_from_f32_as_rounding_allows() {
        // Factors lose up to 1/256 of themselves, and 8-bit inputs may fall on the next step; no error at all would be f32
        // after all.
        for (shape, limit) in [(SHAPE, 0.02), (INT8, 0.04)] {
            let layer =
                |x: &[Tensor], precision| llama_layer(&x[0], &weights(x), LlamaLayerShape { precision, ..shape });
            let error = bf16_error(&inputs(5, 67), layer).unwrap();
            assert!(error.is_none_or(|error| 1e-4 < error && error < limit), "{shape:?}: {error:?}");
        }
    }

    #[test]
    fn equals_the_composed_layer() {
        for ((n, t), shape) in
            [((1, 1), SHAPE), ((3, 5), SHAPE), ((2, 67), SHAPE), ((3, 5), INT8), ((2, 67), RELU2), ((3, 5), RELU2_INT8)]
        {
            for x in [inputs(n, t), bitnet_inputs(n, t)] {
                let ours = llama_layer(&x[0], &weights(&x), shape).unwrap();
                let theirs = composed(&x[0], &weights(&x), shape, &mut |_, _| Ok(())).unwrap();
                assert!(max_difference(&ours, &theirs).unwrap() < 1e-12, "n {n} t {t}, {} tensors, {shape:?}", x.len());
            }
        }
    }

    #[test]
    fn gradient_agrees_with_central_differences() {
        let target = wave(&[3, 5, 8], 1.0).unwrap();
        for shape in [SHAPE, RELU2, LlamaLayerShape { kept: Kept::Input, ..SHAPE }] {
            for x in [inputs(3, 5), bitnet_inputs(3, 5)] {
                let loss = |x: &[Tensor]| (llama_layer(&x[0], &weights(x), shape)? * &target)?.sum_all();
                let error = gradient_error(&x, loss).unwrap();
                assert!(error < 1e-7, "{shape:?}, {} tensors: {error}", x.len());
            }
        }
    }

    #[test]
    fn a_composed_layer_that_is_computed_again_has_the_same_gradients_bit_for_bit() {
        for shape in [SHAPE, INT8, LlamaLayerShape { precision: Precision::Bf16, ..RELU2 }] {
            for x in [inputs(3, 5), bitnet_inputs(3, 5)] {
                let layer =
                    |kept| move |x: &[Tensor]| llama_layer(&x[0], &weights(x), LlamaLayerShape { kept, ..shape });
                let of = |kept| composed_gradients(&x, layer(kept)).unwrap();
                assert_eq!(of(Kept::Activations), of(Kept::Input), "{shape:?}, {} tensors", x.len());
            }
        }
    }

    #[test]
    fn composed_layers_are_as_far_from_f32_as_rounding_allows() {
        for (precision, least, most) in [(Precision::Bf16, 1e-3, 0.03), (Precision::F16, 1e-4, 0.004)] {
            let layer =
                |x: &[Tensor], precision| llama_layer(&x[0], &weights(x), LlamaLayerShape { precision, ..SHAPE });
            let error = composed_error(&inputs(5, 67), precision, layer).unwrap();
            assert!(least < error && error < most, "{precision:?}: {error}");
        }
    }

    #[test]
    fn rounded_inputs_have_the_composed_gradients() {
        let x = bitnet_inputs(3, 5);
        let grads = |layer: &dyn Fn(&[Tensor]) -> Tensor| {
            let vars: Vec<candle_core::Var> = x.iter().map(|x| candle_core::Var::from_tensor(x).unwrap()).collect();
            let tracked: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
            let store = layer(&tracked).sqr().unwrap().sum_all().unwrap().backward().unwrap();
            vars.iter().map(|var| store.get(var).unwrap().clone()).collect::<Vec<_>>()
        };
        let ours = grads(&|x| llama_layer(&x[0], &weights(x), INT8).unwrap());
        let theirs = grads(&|x| composed(&x[0], &weights(x), INT8, &mut |_, _| Ok(())).unwrap());
        let floats = grads(&|x| llama_layer(&x[0], &weights(x), SHAPE).unwrap());
        for ((ours, theirs), floats) in ours.iter().zip(&theirs).zip(&floats) {
            assert!(max_difference(ours, theirs).unwrap() < 1e-9);
            assert!(max_difference(ours, floats).unwrap() > 1e-6, "nothing was rounded");
        }
    }

    #[test]
    fn misfit_weights_are_errors() {
        let x = inputs(1, 2);
        let mut wrong = weights(&x);
        wrong.k_proj = wrong.q_proj;
        assert!(llama_layer(&x[0], &wrong, SHAPE).is_err());
        let mut wrong = weights(&x);
        wrong.sub_norms = Some(SubNorms { attn_sub_norm: wrong.input_layernorm, ffn_sub_norm: wrong.input_layernorm });
        assert!(llama_layer(&x[0], &wrong, SHAPE).is_err());
        let odd = LlamaLayerShape { heads: Heads { num_query: 8, num_kv: 2, size: 1 }, ..SHAPE };
        assert!(llama_layer(&x[0], &weights(&x), odd).is_err());
    }
}
