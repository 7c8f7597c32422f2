//! Causal attention over a cache of keys and values, and rotary positions.

use rayon::prelude::*;

use crate::kernels::{add_scaled, dot_f32};

/// Multiplications that are worth another thread's attention.
const MIN_TASK_WORK: usize = 1 << 15;

/// Keys and values of all positions so far in one layer, per key-value head (positions, head_dim).
#[derive(Debug, Clone, Default)]
pub(super) struct LayerCache {
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

/// The heads of an attention layer; `kv_heads` divides `heads`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
}

impl LayerCache {
    /// Appends `keys` and `values` (n, kv_heads · head_dim).
    pub(super) fn push(&mut self, heads: Heads, keys: &[f32], values: &[f32]) {
        for (cache, rows) in [(&mut self.keys, keys), (&mut self.values, values)] {
            cache.resize(heads.kv_heads, Vec::new());
            for row in rows.chunks_exact(heads.kv_heads * heads.head_dim) {
                for (head, part) in cache.iter_mut().zip(row.chunks_exact(heads.head_dim)) {
                    head.extend_from_slice(part);
                }
            }
        }
    }

    /// The last n positions attend to themselves and everything before: `queries` (n, heads · head_dim) to the same
    /// shape. Their keys and values are in the cache already.
    pub(super) fn attend(&self, heads: Heads, queries: &[f32]) -> Vec<f32> {
        let Heads { heads: num_heads, kv_heads, head_dim } = heads;
        let n = queries.len() / (num_heads * head_dim);
        let num_positions = self.keys.first().map_or(0, |keys| keys.len() / head_dim);
        let scale = 1.0 / (head_dim as f32).sqrt();
        let mut outputs = vec![0.0; queries.len()];
        let task = |(index, output): (usize, &mut [f32])| {
            let (token, head) = (index / num_heads, index % num_heads);
            let visible = (num_positions + token + 1).saturating_sub(n) * head_dim;
            let kv_head = head / (num_heads / kv_heads);
            let keys = self.keys.get(kv_head).and_then(|keys| keys.get(..visible)).unwrap_or_default();
            let values = self.values.get(kv_head).and_then(|values| values.get(..visible)).unwrap_or_default();
            let query = queries.get(index * head_dim..(index + 1) * head_dim).unwrap_or_default();
            let query = bytemuck::cast_slice(query);
            let mut scores: Vec<f32> = keys.chunks_exact(head_dim).map(|key| dot_f32(query, key) * scale).collect();
            softmax(&mut scores);
            for (score, value) in scores.iter().zip(values.chunks_exact(head_dim)) {
                add_scaled(output, *score, value);
            }
        };
        let tasks_per_thread = (MIN_TASK_WORK / (2 * num_positions * head_dim).max(1)).max(1);
        outputs.par_chunks_mut(head_dim).enumerate().with_min_len(tasks_per_thread).for_each(task);
        outputs
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

/// Which two numbers of a head turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RopePairs {
    /// i and i + head_dim / 2, as transformers' `rotate_half`.
    Halves,
    /// 2i and 2i + 1, as llama.cpp, whose converter permutes the query and key rows to match.
    Neighbors,
}

/// Rotary positions. Source: Su et al. 2021, arXiv 2104.09864.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rope {
    pub(super) theta: f32,
    pub(super) head_dim: usize,
    pub(super) pairs: RopePairs,
}

impl Rope {
    /// Turns each head of `x` (n, heads · head_dim), whose first row stands at `first_position`.
    pub(super) fn apply(&self, x: &mut [f32], width: usize, first_position: usize) {
        let half = self.head_dim / 2;
        let frequency = |i: usize| f64::from(self.theta).powf(-2.0 * i as f64 / self.head_dim as f64);
        let frequencies: Vec<f64> = (0..half).map(frequency).collect();
        for (offset, row) in x.chunks_exact_mut(width).enumerate() {
            let position = (first_position + offset) as f64;
            let turns: Vec<(f32, f32)> = frequencies
                .iter()
                .map(|frequency| (position * frequency).sin_cos())
                .map(|(sin, cos)| (sin as f32, cos as f32))
                .collect();
            for head in row.chunks_exact_mut(self.head_dim) {
                match self.pairs {
                    RopePairs::Halves => {
                        let (first, second) = head.split_at_mut(half);
                        for ((a, b), &turn) in first.iter_mut().zip(second).zip(&turns) {
                            rotate(a, b, turn);
                        }
                    }
                    RopePairs::Neighbors => {
                        for ([a, b], &turn) in head.as_chunks_mut::<2>().0.iter_mut().zip(&turns) {
                            rotate(a, b, turn);
                        }
                    }
                }
            }
        }
    }
}

fn rotate(a: &mut f32, b: &mut f32, (sin, cos): (f32, f32)) {
    (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
}
