//! Causal attention out of candle's operations, for devices without kernels of ours: in blocks of query rows, whose
//! probabilities the backward pass computes again, so that the graph holds none.

use candle_core::{Result, Tensor, bail};

use super::Heads;
use crate::function::composed_function;
use crate::linear::{rounded, rounded_product};
use crate::precision::Precision;

/// Scores that are there at once where attention is composed of candle's operations (128 MB in f32); those of one query row
/// are in any case. Tests have several blocks.
pub const MAX_COMPOSED_SCORES: usize = if cfg!(test) { 900 } else { 32 << 20 };

/// [`super::causal_attention`] for heads that fit, with products of this precision.
pub(crate) fn attention(qkv: &Tensor, heads: Heads, precision: Precision) -> Result<Tensor> {
    let forward = |inputs: &[Tensor]| {
        let [qkv] = inputs else { bail!("causal_attention: expected one input") };
        let parts = Parts::of(qkv, heads, precision)?;
        let blocks = parts.blocks()?.into_iter().map(|block| parts.forward(block)).collect::<Result<Vec<Tensor>>>()?;
        parts.side_by_side(&Tensor::cat(&blocks, 3)?)
    };
    composed_function(&[qkv], forward, move |inputs, output, grad| {
        let [qkv] = inputs else { bail!("causal_attention: expected one input") };
        Ok(vec![Parts::of(qkv, heads, precision)?.backward(output, grad)?])
    })
}

/// Query rows first..first + count.
#[derive(Debug, Clone, Copy)]
struct Block {
    first: usize,
    count: usize,
}

impl Block {
    /// Keys that its rows see.
    fn num_keys(self) -> usize {
        self.first + self.count
    }
}

/// Queries, scaled as scores are, (n, key heads, group, t, size); keys and values (n · key heads, t, size); all rounded.
struct Parts {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: Heads,
    precision: Precision,
}

impl Parts {
    fn of(qkv: &Tensor, heads: Heads, precision: Precision) -> Result<Self> {
        let (n, t, _) = qkv.dims3()?;
        let part = |start: usize, count: usize| -> Result<Tensor> {
            let part = qkv.narrow(2, start * heads.size, count * heads.size)?;
            part.reshape((n, t, count, heads.size))?.transpose(1, 2)?.contiguous()
        };
        let of_keys = |start: usize| part(start, heads.num_kv)?.reshape((n * heads.num_kv, t, heads.size));
        Ok(Self {
            q: rounded(&(grouped(&part(0, heads.num_query)?, heads)? * heads.scale::<f64>())?, precision)?,
            k: rounded(&of_keys(heads.num_query)?, precision)?,
            v: rounded(&of_keys(heads.num_query + heads.num_kv)?, precision)?,
            heads,
            precision,
        })
    }

    /// Blocks of about equal size, as few as the bound allows.
    fn blocks(&self) -> Result<Vec<Block>> {
        let (n, num_kv, group, t, _) = self.q.dims5()?;
        let most = (MAX_COMPOSED_SCORES / (n * num_kv * group * t).max(1)).max(1);
        let count = t.div_ceil(t.div_ceil(most).max(1)).max(1);
        Ok((0..t).step_by(count).map(|first| Block { first, count: count.min(t - first) }).collect())
    }

    /// Of `x`, shaped as queries, those of a block: (n · key heads, group · count, size).
    fn rows(&self, x: &Tensor, Block { first, count }: Block) -> Result<Tensor> {
        let (n, num_kv, group, _, size) = x.dims5()?;
        x.narrow(3, first, count)?.contiguous()?.reshape((n * num_kv, group * count, size))
    }

    /// softmax of a block's scores: (n · key heads, group · count, keys).
    fn probabilities(&self, block: Block, keys: &Tensor) -> Result<Tensor> {
        let rows = self.rows(&self.q, block)?;
        let scores = rounded_product(&rows, &keys.t()?)?;
        let (device, num_keys) = (scores.device(), block.num_keys());
        let position = |from: usize, to: usize| Tensor::arange(from as u32, to as u32, device);
        let is_later =
            position(0, num_keys)?.unsqueeze(0)?.broadcast_gt(&position(block.first, num_keys)?.unsqueeze(1)?)?;
        let none = Tensor::zeros((block.count, num_keys), scores.dtype(), device)?;
        let hidden = is_later.where_cond(&none.affine(0.0, f64::NEG_INFINITY)?, &none)?;
        let (batch, rows, _) = scores.dims3()?;
        let of_groups = (batch, rows / block.count, block.count, num_keys);
        let scores = scores.reshape(of_groups)?.broadcast_add(&hidden)?;
        candle_nn::ops::softmax_last_dim(&scores)?.reshape((batch, rows, num_keys))
    }

    /// Keys or values that a block's rows see.
    fn seen(x: &Tensor, block: Block) -> Result<Tensor> {
        x.narrow(1, 0, block.num_keys())?.contiguous()
    }

    /// A block's output, shaped as queries.
    fn forward(&self, block: Block) -> Result<Tensor> {
        let p = self.probabilities(block, &Self::seen(&self.k, block)?)?;
        self.as_queries(&rounded_product(&rounded(&p, self.precision)?, &Self::seen(&self.v, block)?)?, block)
    }

    fn as_queries(&self, rows: &Tensor, block: Block) -> Result<Tensor> {
        let (n, num_kv, group, _, size) = self.q.dims5()?;
        rows.reshape((n, num_kv, group, block.count, size))
    }

    /// Shaped as queries, to (n, t, query width).
    fn side_by_side(&self, x: &Tensor) -> Result<Tensor> {
        let (n, num_kv, group, t, size) = x.dims5()?;
        x.reshape((n, num_kv * group, t, size))?.transpose(1, 2)?.reshape((n, t, num_kv * group * size))
    }

    /// The gradient of qkv, from that of the output. Source: Dao et al. 2022, arXiv 2205.14135, appendix B.2.
    fn backward(&self, output: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let (n, t, _) = grad.dims3()?;
        let Heads { num_query, num_kv, size } = self.heads;
        let as_queries =
            |x: &Tensor| grouped(&x.reshape((n, t, num_query, size))?.transpose(1, 2)?.contiguous()?, self.heads);
        let (output, grad) = (as_queries(output)?, as_queries(grad)?);
        let (mut d_q, mut d_k, mut d_v) = (Vec::new(), None, None);
        for block in self.blocks()? {
            let (keys, values) = (Self::seen(&self.k, block)?, Self::seen(&self.v, block)?);
            let (d_out, out) = (self.rows(&grad, block)?, self.rows(&output, block)?);
            let p = self.probabilities(block, &keys)?;
            let along = (&d_out * out)?.sum_keepdim(2)?;
            let d_out = rounded(&d_out, self.precision)?;
            add_rows(&mut d_v, rounded_product(&rounded(&p, self.precision)?.t()?, &d_out)?, t)?;
            let d_p = rounded_product(&d_out, &values.t()?)?;
            let d_scores = rounded(&(d_p.broadcast_sub(&along)? * p)?, self.precision)?;
            d_q.push(self.as_queries(&rounded_product(&d_scores, &keys)?, block)?);
            add_rows(&mut d_k, rounded_product(&d_scores.t()?, &self.rows(&self.q, block)?)?, t)?;
        }
        let d_q = (Tensor::cat(&d_q, 3)? * self.heads.scale::<f64>())?;
        let of_keys = |x: Option<Tensor>| match x {
            Some(x) => x.reshape((n, num_kv, t, size))?.transpose(1, 2)?.reshape((n, t, num_kv * size)),
            None => bail!("causal_attention: expected at least one position"),
        };
        Tensor::cat(&[self.side_by_side(&d_q)?, of_keys(d_k)?, of_keys(d_v)?], 2)
    }
}

/// (n, query heads, t, size) to (n, key heads, group, t, size).
fn grouped(x: &Tensor, heads: Heads) -> Result<Tensor> {
    let (n, _, t, size) = x.dims4()?;
    x.reshape((n, heads.num_kv, heads.num_query / heads.num_kv, t, size))
}

/// Adds the gradient of the first rows of (batch, t, size).
fn add_rows(sum: &mut Option<Tensor>, of_first: Tensor, t: usize) -> Result<()> {
    let missing = t - of_first.dim(1)?;
    let padded = if missing == 0 { of_first } else { of_first.pad_with_zeros(1, 0, missing)? };
    *sum = Some(match sum.take() {
        Some(before) => (before + padded)?,
        None => padded,
    });
    Ok(())
}
