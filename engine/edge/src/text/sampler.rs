//! Choosing the next token.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::options::GenerateOptions;
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
    top_p: f32,
    min_p: f32,
    repeat_penalty: f32,
    repeat_last: usize,
    random: SplitMix64,
}

/// A token and its logit.
type Candidate = (u32, f32);

/// Likelier first; among equals the first counts as likelier.
fn by_logit(a: &Candidate, b: &Candidate) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

impl Sampler {
    pub(super) fn new(options: &GenerateOptions) -> Self {
        let &GenerateOptions { temperature, top_k, top_p, min_p, repeat_penalty, repeat_last, seed, .. } = options;
        Self { temperature, top_k, top_p, min_p, repeat_penalty, repeat_last, random: SplitMix64(seed) }
    }

    /// A token after `history`; among equals the first counts as likelier.
    ///
    /// Errors: [`EdgeError::Input`] for logits that are not finite or none at all.
    pub(super) fn sample(&mut self, logits: &[f32], history: &[u32]) -> Result<u32, EdgeError> {
        if logits.is_empty() || logits.iter().any(|logit| !logit.is_finite()) {
            let found = if logits.is_empty() { "none" } else { "NaN or infinity: the weights are damaged" };
            return Err(EdgeError::input("choosing a token", "finite logits", found));
        }
        // A vocabulary is far below u32::MAX: its matrix was loaded.
        let mut ranked: Vec<Candidate> = (0_u32..).zip(logits.iter().copied()).collect();
        self.penalize(&mut ranked, history);
        if self.temperature <= 0.0 {
            let best = ranked.iter().min_by(|a, b| by_logit(a, b));
            return Ok(best.map_or(0, |(token, _)| *token));
        }
        if self.top_k > 0 && self.top_k < ranked.len() {
            ranked.select_nth_unstable_by(self.top_k - 1, by_logit);
            ranked.truncate(self.top_k);
            ranked.sort_unstable_by(by_logit);
        }
        self.keep_top_p(&mut ranked);
        let largest = ranked.iter().fold(f32::NEG_INFINITY, |largest, (_, logit)| largest.max(*logit));
        if self.min_p > 0.0 {
            let least = largest + self.min_p.ln();
            ranked.retain(|(_, logit)| *logit >= least);
        }
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

    /// Makes the last tokens of `history` less likely, each once; `candidates` are all tokens in order.
    fn penalize(&self, candidates: &mut [Candidate], history: &[u32]) {
        if self.repeat_penalty == 1.0 {
            return;
        }
        let recent = history.get(history.len().saturating_sub(self.repeat_last)..).unwrap_or_default();
        for token in recent.iter().collect::<BTreeSet<_>>() {
            if let Some((_, logit)) = candidates.get_mut(*token as usize) {
                *logit = if *logit > 0.0 { *logit / self.repeat_penalty } else { *logit * self.repeat_penalty };
            }
        }
    }

    /// Keeps the fewest candidates that have a share of `top_p` together, sorted.
    fn keep_top_p(&self, candidates: &mut Vec<Candidate>) {
        if self.top_p >= 1.0 {
            return;
        }
        candidates.sort_unstable_by(by_logit);
        let largest = candidates.first().map_or(0.0, |(_, logit)| *logit);
        let weight = |logit: f32| f64::from(logit - largest).exp();
        let total: f64 = candidates.iter().map(|(_, logit)| weight(*logit)).sum();
        let mut share = 0.0;
        let kept = candidates.iter().position(|(_, logit)| {
            share += weight(*logit) / total;
            share >= f64::from(self.top_p)
        });
        candidates.truncate(kept.map_or(candidates.len(), |last| last + 1));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn options(temperature: f32, top_k: usize, seed: u64) -> GenerateOptions {
        GenerateOptions { temperature, top_k, seed, ..GenerateOptions::default() }
    }

    /// The tokens that 300 draws give.
    fn drawn(options: &GenerateOptions, logits: &[f32], history: &[u32]) -> BTreeSet<u32> {
        let mut sampler = Sampler::new(options);
        (0..300).map(|_| sampler.sample(logits, history).unwrap()).collect()
    }

    #[test]
    fn zero_temperature_takes_the_first_of_the_likeliest() {
        assert_eq!(Sampler::new(&options(0.0, 0, 1)).sample(&[0.0, 3.0, 3.0, -1.0], &[]).unwrap(), 1);
    }

    #[test]
    fn top_k_leaves_out_the_rest_and_seeds_repeat() {
        let draw = |seed| {
            let mut sampler = Sampler::new(&options(5.0, 2, seed));
            (0..200).map(|_| sampler.sample(&[0.0, 3.0, 2.0, 2.5], &[]).unwrap()).collect::<Vec<_>>()
        };
        assert!(draw(1).iter().all(|token| [1, 3].contains(token)));
        assert!(draw(1).contains(&1) && draw(1).contains(&3));
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn top_p_and_min_p_leave_out_the_unlikely() {
        // Probabilities 0.1, 0.5, 0.15, 0.25.
        let logits = [0.1_f32, 0.5, 0.15, 0.25].map(f32::ln);
        let with = |top_p, min_p| GenerateOptions { top_p, min_p, ..options(3.0, 0, 1) };
        assert_eq!(drawn(&with(1.0, 0.0), &logits, &[]), BTreeSet::from([0, 1, 2, 3]));
        assert_eq!(drawn(&with(0.7, 0.0), &logits, &[]), BTreeSet::from([1, 3]));
        assert_eq!(drawn(&with(0.8, 0.0), &logits, &[]), BTreeSet::from([1, 2, 3]));
        assert_eq!(drawn(&with(0.01, 0.0), &logits, &[]), BTreeSet::from([1]));
        // At least 0.29 · 0.5.
        assert_eq!(drawn(&with(1.0, 0.29), &logits, &[]), BTreeSet::from([1, 2, 3]));
        assert_eq!(drawn(&with(1.0, 1.0), &logits, &[]), BTreeSet::from([1]));
        // Top-p is over what top-k left: 0.5 of 0.75 is enough.
        let both = GenerateOptions { top_k: 2, ..with(0.6, 0.0) };
        assert_eq!(drawn(&both, &logits, &[]), BTreeSet::from([1]));
    }

    #[test]
    fn a_penalty_is_for_the_last_tokens_and_works_on_both_signs() {
        let greedy = |repeat_penalty, repeat_last, logits: &[f32], history: &[u32]| {
            let options = GenerateOptions { repeat_penalty, repeat_last, ..options(0.0, 0, 1) };
            Sampler::new(&options).sample(logits, history).unwrap()
        };
        assert_eq!(greedy(1.0, 64, &[2.0, 1.5], &[0]), 0);
        assert_eq!(greedy(1.5, 64, &[2.0, 1.5], &[0]), 1);
        assert_eq!(greedy(1.5, 64, &[-1.0, -1.2], &[0, 0]), 1);
        // Once, however often it came: 2 / 1.25 is above 1.5, 2 / 1.25² is not.
        assert_eq!(greedy(1.25, 64, &[2.0, 1.5], &[0, 0]), 0);
        // Too long ago; and a token that is none of the model's.
        assert_eq!(greedy(1.5, 2, &[2.0, 1.5, 0.0], &[0, 2, 2]), 0);
        assert_eq!(greedy(1.5, 0, &[2.0, 1.5], &[0]), 0);
        assert_eq!(greedy(1.5, 64, &[2.0, 1.5], &[9]), 0);
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let mut sampler = Sampler::new(&options(1.0, 0, 3));
        let logits = [0.0, (3.0_f32).ln()];
        let ones = (0..4000).filter(|_| sampler.sample(&logits, &[]).unwrap() == 1).count();
        assert!((2900..3100).contains(&ones), "{ones} of 4000, expected about 3000");
    }

    #[test]
    fn damaged_logits_are_an_error() {
        assert!(Sampler::new(&options(1.0, 0, 1)).sample(&[0.0, f32::NAN], &[]).is_err());
        assert!(Sampler::new(&options(0.0, 0, 1)).sample(&[], &[]).is_err());
    }
}
