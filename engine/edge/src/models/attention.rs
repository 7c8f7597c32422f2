//! Causal attention over a cache of keys and values, and rotary positions.

use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::kernels;
use crate::runtime::{Output, Panel, panels};
use crate::weights::Matrix;

/// Positions whose keys and values stay in the nearest cache while a few tokens pass by.
const TILE_POSITIONS: usize = 64;
/// Tokens that pass by.
const TILE_TOKENS: usize = 8;

/// How exactly keys and values are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Precision {
    /// In 32 bits.
    #[default]
    Full,
    /// In half precision: enough for projections that round their inputs to 8 bits.
    Half,
}

impl Precision {
    /// For keys that come out of `projection`.
    pub(super) fn after(projection: &Matrix) -> Self {
        if projection.rounds_inputs() { Self::Half } else { Self::Full }
    }
}

/// Numbers as they are kept.
#[derive(Debug, Clone)]
enum Numbers {
    Full(Vec<f32>),
    Half(Vec<f16>),
}

impl Numbers {
    fn new(precision: Precision) -> Self {
        match precision {
            Precision::Full => Self::Full(Vec::new()),
            Precision::Half => Self::Half(Vec::new()),
        }
    }

    fn append(&mut self, numbers: &[f32]) {
        match self {
            Self::Full(kept) => kept.extend_from_slice(numbers),
            Self::Half(kept) => {
                let start = kept.len();
                kept.resize(start + numbers.len(), f16::ZERO);
                kept[start..].convert_from_f32_slice(numbers);
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Full(kept) => bytemuck::cast_slice(kept),
            Self::Half(kept) => bytemuck::cast_slice(kept),
        }
    }
}

/// Keys and values of all positions so far in one layer, per key-value head (positions, head_dim).
#[derive(Debug, Clone, Default)]
pub(super) struct LayerCache {
    precision: Precision,
    keys: Vec<Numbers>,
    values: Vec<Numbers>,
    num_positions: usize,
}

/// The heads of an attention layer; `kv_heads` divides `heads`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
}

impl LayerCache {
    pub(super) fn new(precision: Precision) -> Self {
        Self { precision, ..Self::default() }
    }

    /// Bytes that the cache holds.
    pub(super) fn num_bytes(&self) -> usize {
        self.keys.iter().chain(&self.values).map(|numbers| numbers.bytes().len()).sum()
    }

    /// Appends `keys` and `values` (n, kv_heads · head_dim).
    pub(super) fn push(&mut self, heads: Heads, keys: &[f32], values: &[f32]) {
        let width = heads.kv_heads * heads.head_dim;
        for (cache, rows) in [(&mut self.keys, keys), (&mut self.values, values)] {
            cache.resize(heads.kv_heads, Numbers::new(self.precision));
            for row in rows.chunks_exact(width) {
                for (head, part) in cache.iter_mut().zip(row.chunks_exact(heads.head_dim)) {
                    head.append(part);
                }
            }
        }
        self.num_positions += keys.len() / width;
    }

    /// The last n positions attend to themselves and everything before: `queries` (n, heads · head_dim) to the same
    /// shape. Their keys and values are in the cache already.
    ///
    /// One pass over the cache: scores are scaled to the largest so far, and what was summed is scaled down when a larger
    /// one comes. Source: Dao et al. 2022, arXiv 2205.14135.
    pub(super) fn attend(&self, heads: Heads, queries: &[f32]) -> Vec<f32> {
        let (width, group) = (heads.heads * heads.head_dim, heads.heads / heads.kv_heads);
        let mut outputs = vec![0.0; queries.len()];
        let output = Output { values: &mut outputs, width, panel_width: group * heads.head_dim };
        panels(&mut [output], |_, mut panel| {
            let kv_head = panel.columns().start / (group * heads.head_dim);
            for first in (0..panel.num_rows()).step_by(TILE_TOKENS) {
                let tokens = first..(first + TILE_TOKENS).min(panel.num_rows());
                self.attend_some(heads, kv_head, queries, tokens, &mut panel);
            }
        });
        outputs
    }

    /// Fills the rows `tokens` of `panel`, which are the heads of one key-value head.
    fn attend_some(&self, heads: Heads, kv_head: usize, queries: &[f32], tokens: Range<usize>, panel: &mut Panel<'_>) {
        let Heads { heads: num_heads, kv_heads, head_dim } = heads;
        let kernels = kernels::active();
        let (products, mix, size) = match self.precision {
            Precision::Full => (kernels.f32_rows, kernels.mix_f32, size_of::<f32>()),
            Precision::Half => (kernels.f16_rows, kernels.mix_f16, size_of::<f16>()),
        };
        let (group, row_bytes) = (num_heads / kv_heads, head_dim * size);
        let scale = 1.0 / (head_dim as f32).sqrt();
        let keys = self.keys.get(kv_head).map(Numbers::bytes).unwrap_or_default();
        let values = self.values.get(kv_head).map(Numbers::bytes).unwrap_or_default();
        let first_visible = self.num_positions.saturating_sub(panel.num_rows());
        // Per token and head: the largest score so far, and the sum of weights scaled to it.
        let mut states = vec![(f32::NEG_INFINITY, 0.0_f32); tokens.len() * group];
        let mut scores = [0.0_f32; TILE_POSITIONS];
        for start in (0..first_visible + tokens.end).step_by(TILE_POSITIONS) {
            let rows = start * row_bytes..;
            let (keys, values) = (keys.get(rows.clone()).unwrap_or_default(), values.get(rows).unwrap_or_default());
            for (token, states) in tokens.clone().zip(states.chunks_exact_mut(group)) {
                let visible = first_visible + token + 1;
                let scores = &mut scores[..visible.saturating_sub(start).min(TILE_POSITIONS)];
                let queries = queries.chunks_exact(head_dim).skip(token * num_heads + kv_head * group);
                let outputs = panel.row_mut(token).chunks_exact_mut(head_dim);
                if scores.is_empty() {
                    continue;
                }
                for (((largest, sum), query), output) in states.iter_mut().zip(queries).zip(outputs) {
                    products(keys, query, scores);
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

/// Sine and cosine of each pair's angle, per position.
#[derive(Debug)]
pub(super) struct Turns(Vec<(f32, f32)>);

impl Rope {
    /// Those of the positions in `range`: the same in every layer.
    pub(super) fn turns(&self, range: Range<usize>) -> Turns {
        let frequency = |i: usize| f64::from(self.theta).powf(-2.0 * i as f64 / self.head_dim as f64);
        let frequencies: Vec<f64> = (0..self.head_dim / 2).map(frequency).collect();
        let angles = range.flat_map(|position| frequencies.iter().map(move |frequency| position as f64 * frequency));
        Turns(angles.map(f64::sin_cos).map(|(sin, cos)| (sin as f32, cos as f32)).collect())
    }

    /// Turns each head of `x` (n, heads · head_dim), whose rows stand at the positions of `turns`.
    pub(super) fn apply(&self, x: &mut [f32], width: usize, turns: &Turns) {
        let half = self.head_dim / 2;
        for (row, turns) in x.chunks_exact_mut(width).zip(turns.0.chunks_exact(half)) {
            for head in row.chunks_exact_mut(self.head_dim) {
                match self.pairs {
                    RopePairs::Halves => {
                        let (first, second) = head.split_at_mut(half);
                        for ((a, b), &turn) in first.iter_mut().zip(second).zip(turns) {
                            rotate(a, b, turn);
                        }
                    }
                    RopePairs::Neighbors => {
                        for ([a, b], &turn) in head.as_chunks_mut::<2>().0.iter_mut().zip(turns) {
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
