//! Numbers drawn from a stream, by integer and exact floating-point steps alone.
//!
//! Invariant: no function of the system's mathematics library is used, so that every machine draws the same bits.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::device::seed::{self, Stream};

/// A stream with the draws that this room needs.
#[derive(Debug)]
pub(crate) struct Draw(ChaCha8Rng);

impl Draw {
    /// The draws of `stream` at `index`.
    pub fn new(seed: u64, stream: Stream, index: u64) -> Self {
        Self(seed::stream(seed, stream, index))
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn uniform(&mut self) -> f64 {
        // Both steps are exact: 53 bits fit the significand, and the factor is a power of two.
        (self.0.next_u64() >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// Uniform in [low, high).
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Uniform in 0..n; 0 for n = 0.
    pub fn below(&mut self, n: usize) -> usize {
        // The bias of the multiply-shift is below n / 2^64.
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// Mean 0, variance 1, within ±2√3: the sum of four uniforms, close to normal.
    pub fn bell(&mut self) -> f64 {
        let bits = self.0.next_u64();
        let sum: u64 = (0..4).map(|i| (bits >> (16 * i)) & 0xffff).sum();
        (sum as f64 / 65_536.0 - 2.0) * 1.732_050_807_568_877_2
    }

    /// A random order of 0..n.
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        self.shuffle(&mut order);
        order
    }

    /// Puts `items` in random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = self.below(i + 1);
            items.swap(i, j);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_their_moments() {
        let mut draw = Draw::new(1, Stream::Generate, 0);
        let n = 100_000;
        let bells: Vec<f64> = (0..n).map(|_| draw.bell()).collect();
        let mean = bells.iter().sum::<f64>() / f64::from(n);
        let variance = bells.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / f64::from(n);
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "mean {mean}, variance {variance}");
        let mean = (0..n).map(|_| draw.uniform()).sum::<f64>() / f64::from(n);
        assert!((mean - 0.5).abs() < 0.005, "mean {mean}");
    }

    #[test]
    fn permutation_holds_each_once() {
        let mut order = Draw::new(3, Stream::Data, 9).permutation(1000);
        assert_ne!(order[..5], [0, 1, 2, 3, 4]);
        order.sort_unstable();
        assert!(order.iter().enumerate().all(|(i, &x)| i as u32 == x));
    }

    #[test]
    fn below_stays_below() {
        let mut draw = Draw::new(0, Stream::Data, 0);
        assert_eq!(draw.below(0), 0);
        assert!((0..1000).all(|_| draw.below(7) < 7));
    }
}
