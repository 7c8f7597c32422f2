//! A GPT-2 layer as one operation: pre-norm attention and pre-norm feed-forward, each added to its input.

use candle_core::{D, Result, Tensor, bail};

use super::activations::Activations;
use super::attention::{self, Attended, Heads, attend, attend_backward, scratch_len};
use super::function::recomputed;
use super::gelu::{add_bias_and_gelu, gelu, gelu_again_and_gradient};
use super::gemm::{Matrix, Old, Shared, multiply};
use super::kernels::has_kernels;
use super::layer_norm::{layer_norm, layer_norm_backward_rows, layer_norm_rows};
use super::linear::{Map, Stored};
use super::precision::Precision;
use super::real::Real;
use super::rows::{add_column_sums, add_row, fill_rows, split};
use super::sequence::{Factor, Kept, MatrixGradient, Place, Seen, SequenceLayer, apply};

/// Weights of a layer of width c, in transformers' layout: matrices are (inputs, outputs).
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the names are those of the checkpoint")]
pub struct Gpt2LayerWeights<'a> {
    pub ln_1_weight: &'a Tensor,
    pub ln_1_bias: &'a Tensor,
    pub c_attn_weight: &'a Tensor,
    pub c_attn_bias: &'a Tensor,
    pub attn_c_proj_weight: &'a Tensor,
    pub attn_c_proj_bias: &'a Tensor,
    pub ln_2_weight: &'a Tensor,
    pub ln_2_bias: &'a Tensor,
    pub c_fc_weight: &'a Tensor,
    pub c_fc_bias: &'a Tensor,
    pub mlp_c_proj_weight: &'a Tensor,
    pub mlp_c_proj_bias: &'a Tensor,
}

impl<'a> Gpt2LayerWeights<'a> {
    fn in_order(&self) -> [&'a Tensor; 12] {
        [
            self.ln_1_weight,
            self.ln_1_bias,
            self.c_attn_weight,
            self.c_attn_bias,
            self.attn_c_proj_weight,
            self.attn_c_proj_bias,
            self.ln_2_weight,
            self.ln_2_bias,
            self.c_fc_weight,
            self.c_fc_bias,
            self.mlp_c_proj_weight,
            self.mlp_c_proj_bias,
        ]
    }

    /// What lies after the layer's input, in the order of [`Self::in_order`].
    fn after_input(inputs: &'a [Tensor]) -> Result<(&'a Tensor, Self)> {
        let [
            x,
            ln_1_weight,
            ln_1_bias,
            c_attn_weight,
            c_attn_bias,
            attn_c_proj_weight,
            attn_c_proj_bias,
            ln_2_weight,
            ln_2_bias,
            c_fc_weight,
            c_fc_bias,
            mlp_c_proj_weight,
            mlp_c_proj_bias,
        ] = inputs
        else {
            bail!("gpt2_layer: expected an input and 12 weights, found {} tensors", inputs.len());
        };
        let weights = Self {
            ln_1_weight,
            ln_1_bias,
            c_attn_weight,
            c_attn_bias,
            attn_c_proj_weight,
            attn_c_proj_bias,
            ln_2_weight,
            ln_2_bias,
            c_fc_weight,
            c_fc_bias,
            mlp_c_proj_weight,
            mlp_c_proj_bias,
        };
        Ok((x, weights))
    }
}

/// The numbers of a GPT-2 layer that its weights do not show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gpt2LayerShape {
    /// Heads; together as wide as the layer.
    pub num_heads: usize,
    /// Added to the variance in layer norm.
    pub eps: f64,
    /// How its matrices read their inputs.
    pub activations: Activations,
    /// Of matrix products; counts for f32.
    pub precision: Precision,
    /// For the backward pass.
    pub kept: Kept,
}

/// x (n, t, c) through a layer, to (n, t, c). f32 or f64; differentiable in everything.
/// Errors: weights that do not fit c; heads that do not divide it; a precision that the processor has not.
/// Source: Radford et al. 2019, as in transformers' `GPT2Block`.
pub fn gpt2_layer(x: &Tensor, weights: &Gpt2LayerWeights<'_>, shape: Gpt2LayerShape) -> Result<Tensor> {
    let (heads, hidden) = check(x, weights, shape.num_heads)?;
    if has_kernels(x.device()) {
        let Gpt2LayerShape { eps, activations, precision, kept, .. } = shape;
        return apply(&Gpt2Layer { heads, hidden, eps, activations, precision, kept }, x, &weights.in_order());
    }
    match shape.kept {
        Kept::Activations => composed(x, weights, shape, heads, &mut |_, _| Ok(())),
        Kept::Input => {
            let mut inputs = vec![x];
            inputs.extend(weights.in_order());
            recomputed(&inputs, move |inputs| {
                let (x, weights) = Gpt2LayerWeights::after_input(inputs)?;
                composed(x, &weights, shape, heads, &mut |_, _| Ok(()))
            })
        }
    }
}

/// [`gpt2_layer`], telling `seen` what each matrix reads: its name within the layer ("attn.c_attn") and its inputs,
/// (n, t, inputs). Slower, for calibration: intermediate values are tensors of their own, and products are f32.
pub fn gpt2_layer_observed(
    x: &Tensor,
    weights: &Gpt2LayerWeights<'_>,
    shape: Gpt2LayerShape,
    seen: &mut dyn FnMut(&'static str, &Tensor) -> Result<()>,
) -> Result<Tensor> {
    let (heads, _) = check(x, weights, shape.num_heads)?;
    composed(x, weights, Gpt2LayerShape { precision: Precision::F32, ..shape }, heads, seen)
}

/// Heads, and the width of the feed-forward part. Errors: as [`gpt2_layer`].
fn check(x: &Tensor, weights: &Gpt2LayerWeights<'_>, num_heads: usize) -> Result<(Heads, usize)> {
    let c = x.dim(D::Minus1)?;
    let (_, hidden) = weights.c_fc_weight.dims2()?;
    if num_heads == 0 || !c.is_multiple_of(num_heads) || c == 0 || hidden == 0 {
        bail!("gpt2_layer: expected a number of heads that divides {c}, found {num_heads}");
    }
    let shapes: [&[usize]; 12] =
        [&[c], &[c], &[c, 3 * c], &[3 * c], &[c, c], &[c], &[c], &[c], &[c, hidden], &[hidden], &[hidden, c], &[c]];
    for (weight, shape) in weights.in_order().into_iter().zip(shapes) {
        if weight.dims() != shape {
            bail!("gpt2_layer: expected a weight of shape {shape:?}, found {:?}", weight.dims());
        }
    }
    Ok((Heads { num_query: num_heads, num_kv: num_heads, size: c / num_heads }, hidden))
}

/// The same out of smaller operations, for devices other than the CPU and for observers.
pub(super) fn composed(
    x: &Tensor,
    weights: &Gpt2LayerWeights<'_>,
    Gpt2LayerShape { eps, activations, precision, .. }: Gpt2LayerShape,
    heads: Heads,
    seen: &mut dyn FnMut(&'static str, &Tensor) -> Result<()>,
) -> Result<Tensor> {
    let affine = |x: &Tensor, weight, bias, onto| {
        Map { weight, stored: Stored::InputMajor, bias: Some(bias), onto }.composed(x, precision)
    };
    let h = activations.read(&layer_norm(x, weights.ln_1_weight, weights.ln_1_bias, eps)?)?;
    seen("attn.c_attn", &h)?;
    let h = attention::any_device(&affine(&h, weights.c_attn_weight, weights.c_attn_bias, None)?, heads, precision)?;
    let h = activations.read(&h)?;
    seen("attn.c_proj", &h)?;
    let x = affine(&h, weights.attn_c_proj_weight, weights.attn_c_proj_bias, Some(x))?;
    let h = activations.read(&layer_norm(&x, weights.ln_2_weight, weights.ln_2_bias, eps)?)?;
    seen("mlp.c_fc", &h)?;
    let h = activations.read(&gelu(&affine(&h, weights.c_fc_weight, weights.c_fc_bias, None)?)?)?;
    seen("mlp.c_proj", &h)?;
    affine(&h, weights.mlp_c_proj_weight, weights.mlp_c_proj_bias, Some(&x))
}

#[derive(Debug, Clone, Copy)]
struct Gpt2Layer {
    heads: Heads,
    /// Width of the feed-forward part.
    hidden: usize,
    eps: f64,
    activations: Activations,
    precision: Precision,
    kept: Kept,
}

impl Gpt2Layer {
    fn width(self) -> usize {
        self.heads.query_width()
    }

    /// Lengths of what is saved: qkv, attention output, its log-sums, the middle of the residual stream, the
    /// feed-forward part before GELU.
    fn saved(self, t: usize) -> [usize; 5] {
        let c = self.width();
        [t * 3 * c, t * c, t * self.heads.num_query, t * c, t * self.hidden]
    }
}

impl SequenceLayer for Gpt2Layer {
    const NAME: &'static str = "gpt2_layer";
    type Tables<T: Real> = ();

    fn precision(&self) -> Precision {
        self.precision
    }

    fn kept(&self) -> Kept {
        self.kept
    }

    fn tables<T: Real>(&self, _: usize) {}

    fn saved_len(&self, t: usize) -> usize {
        self.saved(t).iter().sum()
    }

    fn forward_scratch_len(&self, t: usize) -> usize {
        t * self.width() + (t * self.hidden).max(scratch_len(t))
    }

    fn backward_scratch_len(&self, t: usize) -> usize {
        t * self.width() + 2 * scratch_len(t)
    }

    fn factor_widths(&self) -> Vec<usize> {
        // What c_attn, attn.c_proj, c_fc and mlp.c_proj read; the gradients of what the first three give.
        let c = self.width();
        vec![c, c, c, self.hidden, 3 * c, c, self.hidden]
    }

    fn matrix_gradients(&self) -> Vec<MatrixGradient> {
        let widths = self.factor_widths();
        let all_of = |of: usize| Factor::Columns { of, start: 0, width: widths[of] };
        vec![
            MatrixGradient { left: all_of(0), right: all_of(4) },
            MatrixGradient { left: all_of(1), right: all_of(5) },
            MatrixGradient { left: all_of(2), right: all_of(6) },
            MatrixGradient { left: all_of(3), right: Factor::OutputGradient },
        ]
    }

    fn forward<T: Real>(&self, at: &Place<'_, T, ()>, x: &[T], saved: &mut [T], out: &mut [T], scratch: &mut [T]) {
        let (t, c, hidden, eps) = (at.t, self.width(), self.hidden, T::from_f64(self.eps));
        let [ln1_w, ln1_b, qkv_w, qkv_b, proj_w, proj_b, ln2_w, ln2_b, fc_w, fc_b, out_w, out_b] = at.weights else {
            return;
        };
        let [qkv, attended, log_sums, middle, f] = split(saved, self.saved(t));
        let (h, scratch) = scratch.split_at_mut(t * c);
        let product = |dst: &mut [T], old: Old, a: &[T], inputs: usize, w: &Shared<'_, T>, outputs: usize| {
            let factors = (Matrix::rows(a, inputs), Matrix::shared(w, outputs));
            multiply((t, outputs, inputs), (dst, outputs), old, T::one(), factors, at.products);
        };
        layer_norm_rows(x, ln1_w, ln1_b, eps, h);
        self.activations.read_rows(h, c);
        fill_rows(qkv_b, qkv);
        product(qkv, Old::Kept, h, c, qkv_w, 3 * c);
        attend(self.heads, t, qkv, attended, log_sums, scratch, at.products);
        add_row(x, proj_b, middle);
        // The backward pass of attention needs its output as it was.
        h.copy_from_slice(attended);
        self.activations.read_rows(h, c);
        product(middle, Old::Kept, h, c, proj_w, c);
        layer_norm_rows(middle, ln2_w, ln2_b, eps, h);
        self.activations.read_rows(h, c);
        product(f, Old::Replaced, h, c, fc_w, hidden);
        let g = &mut scratch[..t * hidden];
        add_bias_and_gelu(f, fc_b, g);
        self.activations.read_rows(g, hidden);
        add_row(middle, out_b, out);
        product(out, Old::Kept, g, hidden, out_w, c);
    }

    fn backward<T: Real>(
        &self,
        at: &Place<'_, T, ()>,
        seen: Seen<'_, T>,
        dx: &mut [T],
        d_vectors: &mut [&mut [T]],
        factors: &mut [&mut [T]],
        scratch: &mut [T],
    ) {
        let (t, c, hidden, eps) = (at.t, self.width(), self.hidden, T::from_f64(self.eps));
        let [ln1_w, ln1_b, qkv_w, _, proj_w, _, ln2_w, ln2_b, fc_w, _, out_w, _] = at.weights else {
            return;
        };
        let [d_ln1_w, d_ln1_b, d_qkv_b, d_proj_b, d_ln2_w, d_ln2_b, d_fc_b, d_out_b] = d_vectors else {
            return;
        };
        let [qkv_reads, proj_reads, fc_reads, out_reads, d_qkv, d_middle, d_f] = factors else {
            return;
        };
        let mut rest = seen.saved;
        let [qkv, attended, log_sums, middle, f] = self.saved(t).map(|length| {
            let (part, tail) = rest.split_at(length);
            rest = tail;
            part
        });
        let Seen { x, grad, .. } = seen;
        let (d_h, scratch) = scratch.split_at_mut(t * c);
        // Gradient of a factor a of a · w.
        let to_input = |dst: &mut [T], grad: &[T], outputs: usize, w: &Shared<'_, T>, inputs: usize| {
            let factors = (Matrix::rows(grad, outputs), Matrix::shared(w, outputs).t());
            multiply((t, inputs, outputs), (dst, inputs), Old::Replaced, T::one(), factors, at.products);
        };

        to_input(d_f, grad, c, out_w, hidden);
        gelu_again_and_gradient(f, out_reads, d_f);
        self.activations.read_rows(out_reads, hidden);
        add_column_sums(grad, d_out_b);
        layer_norm_rows(middle, ln2_w, ln2_b, eps, fc_reads);
        self.activations.read_rows(fc_reads, c);
        add_column_sums(d_f, d_fc_b);
        to_input(d_h, d_f, hidden, fc_w, c);
        d_middle.copy_from_slice(grad);
        layer_norm_backward_rows(middle, ln2_w, d_h, eps, d_middle, d_ln2_w, d_ln2_b);

        proj_reads.copy_from_slice(attended);
        self.activations.read_rows(proj_reads, c);
        add_column_sums(d_middle, d_proj_b);
        to_input(d_h, d_middle, c, proj_w, c);
        d_qkv.fill(T::zero());
        let attention = Attended { qkv, out: attended, log_sums };
        attend_backward(self.heads, t, attention, d_h, d_qkv, scratch, at.products);
        layer_norm_rows(x, ln1_w, ln1_b, eps, qkv_reads);
        self.activations.read_rows(qkv_reads, c);
        add_column_sums(d_qkv, d_qkv_b);
        to_input(d_h, d_qkv, 3 * c, qkv_w, c);
        dx.copy_from_slice(d_middle);
        layer_norm_backward_rows(x, ln1_w, d_h, eps, dx, d_ln1_w, d_ln1_b);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::check::{bf16_error, composed_error, composed_gradients, gradient_error, max_difference, wave};

    const HEADS: Heads = Heads { num_query: 2, num_kv: 2, size: 4 };
    const SHAPE: Gpt2LayerShape = Gpt2LayerShape {
        num_heads: 2,
        eps: 1e-5,
        activations: Activations::Floats,
        precision: Precision::F32,
        kept: Kept::Activations,
    };
    const INT8: Gpt2LayerShape = Gpt2LayerShape { activations: Activations::Int8, ..SHAPE };

    fn inputs(n: usize, t: usize) -> Vec<Tensor> {
        let (c, hidden) = (8, 20);
        let vector = |len: usize, size: f64| wave(&[len], size).unwrap();
        let matrix = |a: usize, b: usize| wave(&[a, b], 0.6).unwrap();
        vec![
            wave(&[n, t, c], 1.5).unwrap(),
            vector(c, 1.0),
            vector(c, 0.3),
            matrix(c, 3 * c),
            vector(3 * c, 0.2),
            matrix(c, c),
            vector(c, 0.2),
            vector(c, 0.8),
            vector(c, 0.4),
            matrix(c, hidden),
            vector(hidden, 0.2),
            matrix(hidden, c),
            vector(c, 0.1),
        ]
    }

    fn weights(x: &[Tensor]) -> Gpt2LayerWeights<'_> {
        Gpt2LayerWeights {
            ln_1_weight: &x[1],
            ln_1_bias: &x[2],
            c_attn_weight: &x[3],
            c_attn_bias: &x[4],
            attn_c_proj_weight: &x[5],
            attn_c_proj_bias: &x[6],
            ln_2_weight: &x[7],
            ln_2_bias: &x[8],
            c_fc_weight: &x[9],
            c_fc_bias: &x[10],
            mlp_c_proj_weight: &x[11],
            mlp_c_proj_bias: &x[12],
        }
    }

    #[test]
    fn bf16_is_as_far_from_f32_as_rounding_allows() {
        // Factors lose up to 1/256 of themselves, and 8-bit inputs may fall on the next step; no error at all would be f32
        // after all.
        for (shape, limit) in [(SHAPE, 0.02), (INT8, 0.04)] {
            let layer = |x: &[Tensor], precision| gpt2_layer(&x[0], &weights(x), Gpt2LayerShape { precision, ..shape });
            let error = bf16_error(&inputs(5, 67), layer).unwrap();
            assert!(error.is_none_or(|error| 1e-4 < error && error < limit), "{shape:?}: {error:?}");
        }
    }

    #[test]
    fn equals_the_composed_layer() {
        for ((n, t), shape) in [((1, 1), SHAPE), ((3, 5), SHAPE), ((2, 67), SHAPE), ((3, 5), INT8)] {
            let x = inputs(n, t);
            let ours = gpt2_layer(&x[0], &weights(&x), shape).unwrap();
            let theirs = composed(&x[0], &weights(&x), shape, HEADS, &mut |_, _| Ok(())).unwrap();
            assert!(max_difference(&ours, &theirs).unwrap() < 1e-12, "n {n} t {t}");
        }
        let x = inputs(3, 5);
        let [floats, rounded] = [SHAPE, INT8].map(|shape| gpt2_layer(&x[0], &weights(&x), shape).unwrap());
        let distance = max_difference(&floats, &rounded).unwrap();
        assert!((1e-4..0.5).contains(&distance), "{distance}");
    }

    #[test]
    fn gradient_agrees_with_central_differences() {
        let target = wave(&[3, 5, 8], 1.0).unwrap();
        for kept in [Kept::Activations, Kept::Input] {
            let shape = Gpt2LayerShape { kept, ..SHAPE };
            let loss = |x: &[Tensor]| (gpt2_layer(&x[0], &weights(x), shape)? * &target)?.sum_all();
            let error = gradient_error(&inputs(3, 5), loss).unwrap();
            assert!(error < 1e-7, "{kept:?}: {error}");
        }
    }

    #[test]
    fn a_composed_layer_that_is_computed_again_has_the_same_gradients_bit_for_bit() {
        for shape in [SHAPE, INT8, Gpt2LayerShape { precision: Precision::Bf16, ..SHAPE }] {
            let of = |kept| {
                composed_gradients(&inputs(3, 5), |x| gpt2_layer(&x[0], &weights(x), Gpt2LayerShape { kept, ..shape }))
            };
            assert_eq!(of(Kept::Activations).unwrap(), of(Kept::Input).unwrap(), "{shape:?}");
        }
    }

    #[test]
    fn composed_layers_are_as_far_from_f32_as_rounding_allows() {
        for (precision, least, most) in [(Precision::Bf16, 1e-3, 0.03), (Precision::F16, 1e-4, 0.004)] {
            let layer = |x: &[Tensor], precision| gpt2_layer(&x[0], &weights(x), Gpt2LayerShape { precision, ..SHAPE });
            let error = composed_error(&inputs(5, 67), precision, layer).unwrap();
            assert!(least < error && error < most, "{precision:?}: {error}");
        }
    }

    #[test]
    fn gradient_of_a_batch_in_groups_equals_the_composed_one() {
        let x = inputs(37, 6);
        let grads = |layer: &dyn Fn(&[Tensor]) -> Tensor| {
            let vars: Vec<candle_core::Var> = x.iter().map(|x| candle_core::Var::from_tensor(x).unwrap()).collect();
            let tracked: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
            let store = layer(&tracked).sqr().unwrap().sum_all().unwrap().backward().unwrap();
            vars.iter().map(|v| store.get(v).unwrap().clone()).collect::<Vec<_>>()
        };
        let of = |shape| {
            let ours = grads(&|x| gpt2_layer(&x[0], &weights(x), shape).unwrap());
            let theirs = grads(&|x| composed(&x[0], &weights(x), shape, HEADS, &mut |_, _| Ok(())).unwrap());
            ours.into_iter().zip(theirs).collect::<Vec<_>>()
        };
        for (a, b) in of(SHAPE).iter().chain(&of(INT8)) {
            assert!(max_difference(a, b).unwrap() < 1e-9);
        }
    }

    #[test]
    fn misfit_weights_are_errors() {
        let x = inputs(1, 2);
        assert!(gpt2_layer(&x[0], &weights(&x), Gpt2LayerShape { num_heads: 3, ..SHAPE }).is_err());
        let mut wrong = weights(&x);
        wrong.c_attn_bias = wrong.ln_1_bias;
        assert!(gpt2_layer(&x[0], &wrong, SHAPE).is_err());
    }
}
