//! Weights that are set to zero: two of every four neighbors, or a share of a tensor, those that matter least.
//!
//! How much a weight matters is its square times the second moment of the input that it multiplies, or its square alone
//! where nothing is known of the inputs.
//! Sources: Sun et al. 2023, arXiv 2306.11695, section 3 (Wanda), for the score; Frantar and Alistarh 2023,
//! arXiv 2301.00774 (SparseGPT), for compensating what is lost.

use serde::{Deserialize, Serialize};

use crate::quant::QuantError;

/// Which weights of a matrix become zero.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Sparsity {
    /// Two of every four neighbors in a row: what sparse tensor cores skip. Mishra et al. 2021, arXiv 2104.08378.
    TwoOfFour,
    /// This share of each tensor, wherever they are.
    Share(f64),
}

impl Sparsity {
    /// The name to show and to type: "2:4" or "0.5".
    #[must_use]
    pub fn label(self) -> String {
        match self {
            Self::TwoOfFour => "2:4".to_owned(),
            Self::Share(share) => share.to_string(),
        }
    }

    /// The one called `label`.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        match label {
            "2:4" => Some(Self::TwoOfFour),
            share => share.parse().ok().map(Self::Share),
        }
    }

    /// Errors: [`QuantError::Setting`] for a share that is none.
    pub(super) fn check(self) -> Result<(), QuantError> {
        match self {
            Self::TwoOfFour => Ok(()),
            Self::Share(share) if share > 0.0 && share < 1.0 => Ok(()),
            Self::Share(share) => Err(QuantError::Setting {
                setting: "sparsity",
                expected: "2:4, or a share between 0 and 1".to_owned(),
                found: share.to_string(),
            }),
        }
    }

    /// True for each weight of `weights`, (rows, row_len), that becomes zero. `moments`: of the inputs, (row_len).
    /// Of equals the first go. A row's last one to three weights lose half of them, rounded down.
    pub(crate) fn mask(self, weights: &[f64], row_len: usize, moments: &[f64]) -> Vec<bool> {
        let row_len = row_len.max(1);
        let score = |(at, weight): (usize, &f64)| weight * weight * moments.get(at % row_len).copied().unwrap_or(1.0);
        let scores: Vec<f64> = weights.iter().enumerate().map(score).collect();
        let mut mask = vec![false; weights.len()];
        match self {
            Self::TwoOfFour => {
                for (scores, mask) in scores.chunks(row_len).zip(mask.chunks_mut(row_len)) {
                    for (scores, mask) in scores.chunks(4).zip(mask.chunks_mut(4)) {
                        drop_least(scores, mask, scores.len() / 2);
                    }
                }
            }
            Self::Share(share) => {
                let count = (share * scores.len() as f64) as usize;
                drop_least(&scores, &mut mask, count);
            }
        }
        mask
    }
}

/// Marks the `count` least of `scores`.
fn drop_least(scores: &[f64], mask: &mut [bool], count: usize) {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    for index in order.into_iter().take(count) {
        mask[index] = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_go() {
        let weights = [1.0, -3.0, 0.5, 2.0, 0.1, 0.2];
        let mask = |sparsity: Sparsity, moments: &[f64]| {
            let mask = sparsity.mask(&weights, 6, moments);
            mask.iter().map(|&is_zero| if is_zero { '0' } else { 'x' }).collect::<String>()
        };
        assert_eq!(mask(Sparsity::TwoOfFour, &[1.0; 6]), "0x0x0x");
        assert_eq!(mask(Sparsity::Share(0.5), &[1.0; 6]), "xx0x00");
        // What the inputs are large at stays.
        assert_eq!(mask(Sparsity::TwoOfFour, &[100.0, 1.0, 1.0, 1.0, 9.0, 1.0]), "xx00x0");
        assert_eq!(mask(Sparsity::Share(0.01), &[]), "xxxxxx");
        assert!(Sparsity::TwoOfFour.mask(&[], 0, &[]).is_empty());
    }

    #[test]
    fn labels_and_ranges() {
        for sparsity in [Sparsity::TwoOfFour, Sparsity::Share(0.5)] {
            assert_eq!(Sparsity::from_label(&sparsity.label()), Some(sparsity));
            assert!(sparsity.check().is_ok());
        }
        assert_eq!(Sparsity::from_label("half"), None);
        for share in [0.0, 1.0, -0.5, f64::NAN] {
            assert!(Sparsity::Share(share).check().is_err());
        }
    }
}
