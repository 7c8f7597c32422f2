//! Mixed precision: each tensor gets its own storage, so that all of them fit a budget and the loss grows least.

use crate::quant::Storage;

/// One way to store a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// How.
    pub storage: Storage,
    /// What it takes, scales included.
    pub bytes: u64,
    /// What it costs: by how much the loss grows when this tensor alone is stored so, nats.
    pub loss_increase: f64,
}

/// Which choice each tensor gets, so that together they take at most `budget_bytes`: from the fewest bytes up, always
/// the change that saves most loss per byte and still fits. `choices`: of each tensor, by rising bytes.
///
/// `None` when not even the smallest choices fit, or a tensor has none.
/// Losses are treated as if they added up, which holds while each is small.
#[must_use]
pub fn cheapest_within(choices: &[Vec<Choice>], budget_bytes: u64) -> Option<Vec<usize>> {
    let smallest = choices.iter().map(|of_tensor| of_tensor.first().map(|choice| choice.bytes));
    let mut left = budget_bytes.checked_sub(smallest.sum::<Option<u64>>()?)?;
    let mut chosen = vec![0_usize; choices.len()];
    loop {
        let mut best: Option<(f64, usize, usize, u64)> = None;
        for (tensor, of_tensor) in choices.iter().enumerate() {
            let Some(current) = of_tensor.get(chosen[tensor]) else { continue };
            for (index, choice) in of_tensor.iter().enumerate().skip(chosen[tensor] + 1) {
                let added = choice.bytes.saturating_sub(current.bytes);
                // A loss that is NaN is the worst of all.
                let gain = sanitized(current.loss_increase) - sanitized(choice.loss_increase);
                let rate = gain / added.max(1) as f64;
                if added <= left && gain > 0.0 && best.is_none_or(|(most, ..)| rate > most) {
                    best = Some((rate, tensor, index, added));
                }
            }
        }
        let Some((_, tensor, index, added)) = best else { return Some(chosen) };
        chosen[tensor] = index;
        left -= added;
    }
}

fn sanitized(loss: f64) -> f64 {
    if loss.is_finite() { loss } else { f64::MAX / 4.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(choices: &[(u64, f64)]) -> Vec<Choice> {
        let choice = |&(bytes, loss_increase)| Choice { storage: Storage::F32, bytes, loss_increase };
        choices.iter().map(choice).collect()
    }

    #[test]
    fn the_sensitive_tensor_gets_the_bytes() {
        let choices = [of(&[(10, 1.0), (40, 0.1), (80, 0.0)]), of(&[(10, 0.02), (40, 0.01), (80, 0.0)])];
        assert_eq!(cheapest_within(&choices, 19), None);
        assert_eq!(cheapest_within(&choices, 20), Some(vec![0, 0]));
        assert_eq!(cheapest_within(&choices, 50), Some(vec![1, 0]));
        assert_eq!(cheapest_within(&choices, 90), Some(vec![2, 0]));
        assert_eq!(cheapest_within(&choices, 1000), Some(vec![2, 2]));
    }

    #[test]
    fn a_step_that_is_no_better_may_be_skipped_and_noise_buys_nothing() {
        assert_eq!(cheapest_within(&[of(&[(10, 1.0), (20, 1.1), (30, 0.0)])], 30), Some(vec![2]));
        assert_eq!(cheapest_within(&[of(&[(10, -0.01), (20, 0.0)])], 100), Some(vec![0]));
        assert_eq!(cheapest_within(&[of(&[(10, f64::NAN), (20, 5.0)])], 100), Some(vec![1]));
        assert_eq!(cheapest_within(&[Vec::new()], 100), None);
        assert_eq!(cheapest_within(&[], 0), Some(Vec::new()));
    }

    proptest! {
        #[test]
        fn never_over_budget(
            tensors in prop::collection::vec(prop::collection::vec((1_u64..50, 0.0_f64..1.0), 1..4), 0..6),
            budget in 0_u64..300,
        ) {
            let choices: Vec<Vec<Choice>> = tensors.into_iter().map(|mut tensor| {
                tensor.sort_by_key(|(bytes, _)| *bytes);
                of(&tensor)
            }).collect();
            if let Some(chosen) = cheapest_within(&choices, budget) {
                let bytes: u64 = chosen.iter().zip(&choices).map(|(index, choices)| choices[*index].bytes).sum();
                prop_assert!(bytes <= budget);
            }
        }
    }
}
