//! Choosing the next token.

use crate::EdgeError;

/// SplitMix64: a small generator whose whole state is one number.
/// Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
#[derive(Debug, Clone)]
struct SplitMix64(u64);

impl SplitMix64 {
    /// In [0, 1).
    fn next_unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Draws tokens from logits.
#[derive(Debug, Clone)]
pub(super) struct Sampler {
    temperature: f32,
    top_k: usize,
    random: SplitMix64,
}

impl Sampler {
    /// `temperature` 0 always takes the likeliest token; `top_k` 0 considers all.
    pub(super) fn new(temperature: f32, top_k: usize, seed: u64) -> Self {
        Self { temperature, top_k, random: SplitMix64(seed) }
    }

    /// A token; among equals the first counts as likelier.
    ///
    /// Errors: [`EdgeError::Input`] for logits that are not finite or none at all.
    pub(super) fn sample(&mut self, logits: &[f32]) -> Result<u32, EdgeError> {
        if logits.is_empty() || logits.iter().any(|logit| !logit.is_finite()) {
            let found = if logits.is_empty() { "none" } else { "NaN or infinity: the weights are damaged" };
            return Err(EdgeError::input("choosing a token", "finite logits", found));
        }
        // A vocabulary is far below u32::MAX: its matrix was loaded.
        let mut ranked: Vec<(u32, f32)> = (0_u32..).zip(logits.iter().copied()).collect();
        let by_logit = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if self.temperature <= 0.0 {
            let best = ranked.iter().min_by(|a, b| by_logit(a, b));
            return Ok(best.map_or(0, |(token, _)| *token));
        }
        if self.top_k > 0 && self.top_k < ranked.len() {
            ranked.select_nth_unstable_by(self.top_k - 1, by_logit);
            ranked.truncate(self.top_k);
            ranked.sort_unstable_by(by_logit);
        }
        let largest = ranked.iter().fold(f32::NEG_INFINITY, |largest, (_, logit)| largest.max(*logit));
        let weight = |logit: f32| f64::from((logit - largest) / self.temperature).exp();
        let total: f64 = ranked.iter().map(|(_, logit)| weight(*logit)).sum();
        let mut left = self.random.next_unit() * total;
        for &(token, logit) in &ranked {
            left -= weight(logit);
            if left < 0.0 {
                return Ok(token);
            }
        }
        // Rounding can leave a remainder; it belongs to the last.
        Ok(ranked.last().map_or(0, |(token, _)| *token))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn zero_temperature_takes_the_first_of_the_likeliest() {
        assert_eq!(Sampler::new(0.0, 0, 1).sample(&[0.0, 3.0, 3.0, -1.0]).unwrap(), 1);
    }

    #[test]
    fn top_k_leaves_out_the_rest_and_seeds_repeat() {
        let draw = |seed| {
            let mut sampler = Sampler::new(5.0, 2, seed);
            (0..200).map(|_| sampler.sample(&[0.0, 3.0, 2.0, 2.5]).unwrap()).collect::<Vec<_>>()
        };
        assert!(draw(1).iter().all(|token| [1, 3].contains(token)));
        assert!(draw(1).contains(&1) && draw(1).contains(&3));
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let mut sampler = Sampler::new(1.0, 0, 3);
        let logits = [0.0, (3.0_f32).ln()];
        let ones = (0..4000).filter(|_| sampler.sample(&logits).unwrap() == 1).count();
        assert!((2900..3100).contains(&ones), "{ones} of 4000, expected about 3000");
    }

    #[test]
    fn damaged_logits_are_an_error() {
        assert!(Sampler::new(1.0, 0, 1).sample(&[0.0, f32::NAN]).is_err());
        assert!(Sampler::new(0.0, 0, 1).sample(&[]).is_err());
    }
}
