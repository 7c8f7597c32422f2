//! Learning rates by the size of a model.

/// Peak rates of AdamW by the number of weights.
const RATES: [(u64, f64); 6] = [
    (125_000_000, 6e-4),
    (350_000_000, 3e-4),
    (760_000_000, 2.5e-4),
    (1_300_000_000, 2e-4),
    (2_700_000_000, 1.6e-4),
    (6_700_000_000, 1.2e-4),
];

/// The peak rate of AdamW that is usual for a language model of this many weights; `None` below 75 million, where higher
/// rates do as well. Recipes are for small models, whose rates are too high for large ones.
/// Source: Brown et al. 2020, arXiv 2005.14165, table 2.1.
#[must_use]
pub fn usual_learning_rate(num_params: u64) -> Option<f64> {
    // Three fifths of a size count as it: the vocabulary, a third of GPT-2's 124M, is not always known.
    RATES.iter().rev().find(|(size, _)| num_params >= size / 10 * 6).map(|(_, rate)| *rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_the_papers() {
        let of = [800_000, 124_439_808, 354_823_168, 1_100_048_384, 6_738_415_616].map(usual_learning_rate);
        assert_eq!(of, [None, Some(6e-4), Some(3e-4), Some(2e-4), Some(1.2e-4)]);
        // The same with a vocabulary of characters.
        let of = [85_900_000, 303_400_000, 969_200_000, 6_476_500_000].map(usual_learning_rate);
        assert_eq!(of, [6e-4, 3e-4, 2e-4, 1.2e-4].map(Some));
    }
}
