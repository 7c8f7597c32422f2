//! Causal attention over caches of keys and values.

use std::ops::Range;

use super::cache::{LayerCache, Precision};
use crate::kernels;
use crate::runtime::{Floats, Output, Panel, Runs, panels};

/// Positions whose keys and values stay in the nearest cache while a few tokens pass by.
const TILE_POSITIONS: usize = 64;
/// Tokens that pass by.
const TILE_TOKENS: usize = 8;

/// The heads of an attention layer; `kv_heads` divides `heads`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
}

/// In each cache, the last n positions attend to themselves and everything before: `queries`, all caches' (n, heads ·
/// head_dim) after each other, to the same shape. `caches` says how many rows are each one's; their keys and values are in
/// there already. Threads meet once for all.
///
/// One pass over a cache: scores are scaled to the largest so far, and what was summed is scaled down when a larger one
/// comes. Source: Dao et al. 2022, arXiv 2205.14135.
pub(super) fn attend(heads: Heads, caches: &[(&LayerCache, usize)], queries: &[f32]) -> Floats {
    let (width, group) = (heads.heads * heads.head_dim, heads.heads / heads.kv_heads);
    let mut values = Floats::zeros(queries.len());
    let (mut outputs, mut parts) = (Vec::with_capacity(caches.len()), Vec::with_capacity(caches.len()));
    let (mut left, mut queries) = (&mut *values, queries);
    for &(cache, num_rows) in caches {
        let len = (num_rows * width).min(left.len());
        let (values, other_values) = left.split_at_mut(len);
        let (own, other_queries) = queries.split_at(len.min(queries.len()));
        outputs.push(Output { values, width, panel_width: group * heads.head_dim, num_runs: 1 });
        parts.push((cache, own));
        (left, queries) = (other_values, other_queries);
    }
    panels(&mut outputs, |number, mut panel| {
        let Some((cache, queries)) = parts.get(number) else { return };
        let kv_head = panel.columns().start / (group * heads.head_dim);
        for first in (0..panel.num_rows()).step_by(TILE_TOKENS) {
            let tokens = first..(first + TILE_TOKENS).min(panel.num_rows());
            cache.attend_some(heads, kv_head, queries, tokens, &mut panel);
        }
    });
    values
}

impl LayerCache {
    /// Fills the rows `tokens` of `panel`, which are the heads of one key-value head.
    fn attend_some(&self, heads: Heads, kv_head: usize, queries: &[f32], tokens: Range<usize>, panel: &mut Panel<'_>) {
        let Heads { heads: num_heads, kv_heads, head_dim } = heads;
        let kernels = kernels::active();
        let (products, mix) = match self.precision {
            // Bytes are turned into floats, a tile at a time.
            Precision::Full | Precision::Byte => (kernels.f32_rows, kernels.mix_f32),
            Precision::Half => (kernels.f16_rows, kernels.mix_f16),
        };
        let group = num_heads / kv_heads;
        let scale = 1.0 / (head_dim as f32).sqrt();
        let Some((keys, values)) = self.keys.get(kv_head).zip(self.values.get(kv_head)) else { return };
        let (mut key_floats, mut value_floats) = (Vec::new(), Vec::new());
        let first_visible = self.num_positions.saturating_sub(panel.num_rows());
        // Per token and head: the largest score so far, and the sum of weights scaled to it.
        let mut states = vec![(f32::NEG_INFINITY, 0.0_f32); tokens.len() * group];
        let mut scores = [0.0_f32; TILE_POSITIONS];
        for start in (0..first_visible + tokens.end).step_by(TILE_POSITIONS) {
            let keys = keys.rows(start, TILE_POSITIONS, head_dim, &mut key_floats);
            let values = values.rows(start, TILE_POSITIONS, head_dim, &mut value_floats);
            for (token, states) in tokens.clone().zip(states.chunks_exact_mut(group)) {
                let visible = first_visible + token + 1;
                let scores = &mut scores[..visible.saturating_sub(start).min(TILE_POSITIONS)];
                let queries = queries.chunks_exact(head_dim).skip(token * num_heads + kv_head * group);
                let outputs = panel.row_mut(token).chunks_exact_mut(head_dim);
                if scores.is_empty() {
                    continue;
                }
                for (((largest, sum), query), output) in states.iter_mut().zip(queries).zip(outputs) {
                    products(keys, Runs::ONE, query, scores);
                    let tile_largest = (kernels.largest)(scores) * scale;
                    if tile_largest > *largest {
                        let shrink = (*largest - tile_largest).exp();
                        output.iter_mut().for_each(|output| *output *= shrink);
                        (*largest, *sum) = (tile_largest, *sum * shrink);
                    }
                    scores.iter_mut().for_each(|score| *score *= scale);
                    *sum += (kernels.exp_shifted)(scores, *largest);
                    mix(values, scores, output);
                }
            }
        }
        for (token, states) in tokens.zip(states.chunks_exact(group)) {
            for ((_, sum), output) in states.iter().zip(panel.row_mut(token).chunks_exact_mut(head_dim)) {
                let inverse = 1.0 / sum;
                output.iter_mut().for_each(|output| *output *= inverse);
            }
        }
    }
}

/// In place; the largest is subtracted first.
pub(crate) fn softmax(scores: &mut [f32]) {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - largest).exp();
        sum += *score;
    }
    for score in scores {
        *score /= sum;
    }
}
