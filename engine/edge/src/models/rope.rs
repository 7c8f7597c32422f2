//! Rotary positions, and the ways to stretch them beyond the length that a model was trained on.
//! Sources: Su et al. 2021, arXiv 2104.09864; Chen et al. 2023, arXiv 2306.15595 (linear); Peng et al. 2023, arXiv
//! 2309.00071 (YaRN); transformers' `modeling_rope_utils.py` (llama3), and llama.cpp's `ggml_rope_ext`.

use std::f64::consts::TAU;
use std::ops::Range;

/// Which two numbers of a head turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RopePairs {
    /// i and i + head_dim / 2, as transformers' `rotate_half`.
    Halves,
    /// 2i and 2i + 1, as llama.cpp, whose converter permutes the query and key rows to match.
    Neighbors,
}

/// How frequencies are stretched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum RopeScaling {
    /// Not at all.
    None,
    /// All by the same factor.
    Linear { factor: f64 },
    /// Long waves by the factor, short ones not, those between by a part of it.
    Llama3 { factor: f64, low_freq_factor: f64, high_freq_factor: f64, original_positions: f64 },
    /// The same by the number of turns within the original length; sines and cosines grow by `magnitude`.
    Yarn { factor: f64, original_positions: f64, beta_fast: f64, beta_slow: f64, magnitude: f64 },
}

impl RopeScaling {
    /// By how much YaRN lets sines and cosines grow unless the model says otherwise.
    pub(crate) fn yarn_magnitude(factor: f64) -> f64 {
        if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 }
    }

    /// What becomes of `frequency`, that of pair `pair`, radians per position.
    fn stretched(self, frequency: f64, pair: usize, theta: f64, head_dim: usize) -> f64 {
        match self {
            Self::None => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_positions } => {
                let num_turns = original_positions * frequency / TAU;
                if num_turns < low_freq_factor {
                    frequency / factor
                } else if num_turns > high_freq_factor {
                    frequency
                } else {
                    let kept = (num_turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                    (1.0 - kept) * frequency / factor + kept * frequency
                }
            }
            Self::Yarn { factor, original_positions, beta_fast, beta_slow, .. } => {
                // The pair that turns `turns` times within the original length.
                let width = head_dim as f64;
                let pair_of = |turns: f64| width * (original_positions / (turns * TAU)).ln() / (2.0 * theta.ln());
                let low = pair_of(beta_fast).floor().max(0.0);
                let high = pair_of(beta_slow).ceil().min(width - 1.0);
                let ramp = ((pair as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                frequency / factor * ramp + frequency * (1.0 - ramp)
            }
        }
    }
}

/// The rotation of a model's heads.
#[derive(Debug, Clone)]
pub(super) struct Rope {
    /// Per pair, radians per position.
    frequencies: Vec<f64>,
    /// Sines and cosines are this much larger.
    magnitude: f64,
    head_dim: usize,
    pairs: RopePairs,
}

/// Sine and cosine of each pair's angle, per position.
#[derive(Debug, Default)]
pub(super) struct Turns(Vec<(f32, f32)>);

impl Rope {
    /// `divisors`: of each pair's frequency before it is stretched (head_dim / 2), llama.cpp's tensor `rope_freqs`.
    pub(super) fn new(
        theta: f32,
        head_dim: usize,
        pairs: RopePairs,
        scaling: RopeScaling,
        divisors: Option<&[f32]>,
    ) -> Self {
        let theta = f64::from(theta);
        let frequency = |pair: usize| {
            let divisor = divisors.and_then(|divisors| divisors.get(pair)).map_or(1.0, |divisor| f64::from(*divisor));
            let plain = theta.powf(-2.0 * pair as f64 / head_dim as f64) / divisor;
            scaling.stretched(plain, pair, theta, head_dim)
        };
        let magnitude = if let RopeScaling::Yarn { magnitude, .. } = scaling { magnitude } else { 1.0 };
        Self { frequencies: (0..head_dim / 2).map(frequency).collect(), magnitude, head_dim, pairs }
    }

    /// Those of the positions in `range`: the same in every layer.
    pub(super) fn turns(&self, range: Range<usize>) -> Turns {
        let turn = |angle: f64| {
            let (sin, cos) = angle.sin_cos();
            ((sin * self.magnitude) as f32, (cos * self.magnitude) as f32)
        };
        let angles =
            range.flat_map(|position| self.frequencies.iter().map(move |frequency| position as f64 * frequency));
        Turns(angles.map(turn).collect())
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

impl Turns {
    /// Those of further rows, after these.
    pub(super) fn extend(&mut self, further: Self) {
        self.0.extend(further.0);
    }
}

fn rotate(a: &mut f32, b: &mut f32, (sin, cos): (f32, f32)) {
    (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frequencies of heads of 8 with base 10000, that is 1, 0.1, 0.01, 0.001, after `scaling`.
    #[track_caller]
    fn check(scaling: RopeScaling, divisors: Option<&[f32]>, expected: [f64; 4], magnitude: f64) {
        let rope = Rope::new(10_000.0, 8, RopePairs::Halves, scaling, divisors);
        for (found, expected) in rope.frequencies.iter().zip(expected) {
            assert!((found / expected - 1.0).abs() < 1e-6, "{:?}, expected {expected}", rope.frequencies);
        }
        let Turns(turns) = rope.turns(2..3);
        for ((sin, cos), frequency) in turns.iter().zip(expected) {
            let (expected_sin, expected_cos) = (2.0 * frequency).sin_cos();
            assert!((f64::from(*sin) - magnitude * expected_sin).abs() < 1e-6);
            assert!((f64::from(*cos) - magnitude * expected_cos).abs() < 1e-6);
        }
    }

    #[test]
    fn one_factor_for_all_or_one_for_each() {
        check(RopeScaling::None, None, [1.0, 0.1, 0.01, 0.001], 1.0);
        check(RopeScaling::Linear { factor: 4.0 }, None, [0.25, 0.025, 0.0025, 0.00025], 1.0);
        let divisors = [1.0, 1.0, 2.0, 8.0];
        check(RopeScaling::None, Some(&divisors), [1.0, 0.1, 0.005, 0.000_125], 1.0);
        check(RopeScaling::Linear { factor: 2.0 }, Some(&divisors), [0.5, 0.05, 0.0025, 0.000_062_5], 1.0);
    }

    #[test]
    fn llama3_stretches_long_waves_only() {
        // 128 positions hold 20.37, 2.037, 0.2037 and 0.02037 turns: the first is above 4, the last two are below 1, the
        // second keeps (2.037183 - 1) / 3 = 0.345728 of itself: 0.1 · (0.345728 + 0.654272 / 8).
        let scaling =
            RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_positions: 128.0 };
        check(scaling, None, [1.0, 0.042_751_2, 0.00125, 0.000_125], 1.0);
    }

    #[test]
    fn yarn_stretches_by_turns_and_grows() {
        // Of 128 positions: the pair with 32 turns is 8 · ln(128 / 201.06) / (2 · ln 10000) = -0.196, so the ramp starts
        // at 0; that with one is 8 · ln(128 / 6.2832) / 18.4207 = 1.309, so it ends at 2. Pair 1 is halfway:
        // 0.1 / 4 · 0.5 + 0.1 · 0.5.
        let magnitude = RopeScaling::yarn_magnitude(4.0);
        assert!((magnitude - 1.138_629_4).abs() < 1e-6);
        let scaling =
            RopeScaling::Yarn { factor: 4.0, original_positions: 128.0, beta_fast: 32.0, beta_slow: 1.0, magnitude };
        check(scaling, None, [1.0, 0.0625, 0.0025, 0.000_25], magnitude);
    }
}
