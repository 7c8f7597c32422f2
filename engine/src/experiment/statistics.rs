//! Means with their uncertainty, over a handful of seeds.

use serde::{Deserialize, Serialize};

/// A mean over seeds, and how far it may be off.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Mean.
    pub mean: f64,
    /// Standard deviation between seeds; `None` for one.
    pub std: Option<f64>,
    /// Ends of the 95% confidence interval of the mean, by Student's t; `None` for one seed.
    pub interval: Option<(f64, f64)>,
    /// Seeds.
    pub count: usize,
}

impl Estimate {
    /// From one figure per seed; `None` without any, or when one is not finite.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len();
        if count == 0 || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let mean = values.iter().sum::<f64>() / count as f64;
        if count == 1 {
            return Some(Self { mean, std: None, interval: None, count });
        }
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1) as f64;
        let half = t_95(count - 1) * (variance / count as f64).sqrt();
        Some(Self { mean, std: Some(variance.sqrt()), interval: Some((mean - half, mean + half)), count })
    }

    /// Of the ratio a/b, seed by seed, by the mean and spread of its logarithm: seeds that are hard for one contender
    /// are hard for the other, so pairs tell more than means. `None` when a figure is not above 0.
    #[must_use]
    pub fn of_ratio(pairs: &[(f64, f64)]) -> Option<Self> {
        let logs: Vec<f64> = pairs.iter().map(|(a, b)| (a / b).ln()).collect();
        let Self { mean, std, interval, count } = Self::of(&logs)?;
        let mean = mean.exp();
        let interval = interval.map(|(low, high)| (low.exp(), high.exp()));
        Some(Self { mean, std: std.map(|std| std * mean), interval, count })
    }

    /// True when the whole interval lies below `limit`; false for one seed, which proves nothing.
    #[must_use]
    pub fn is_below(&self, limit: f64) -> bool {
        self.interval.is_some_and(|(_, high)| high < limit)
    }

    /// True when the whole interval lies above `limit`.
    #[must_use]
    pub fn is_above(&self, limit: f64) -> bool {
        self.interval.is_some_and(|(low, _)| low > limit)
    }
}

/// 97.5% quantile of Student's t, by degrees of freedom from 1; from 30 on nearly the normal's.
fn t_95(degrees: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
        2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
    ];
    TABLE.get(degrees.saturating_sub(1)).copied().unwrap_or(1.96)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn three_seeds_by_hand() {
        let estimate = Estimate::of(&[1.0, 2.0, 3.0]).unwrap();
        assert!((estimate.mean - 2.0).abs() < 1e-12 && (estimate.std.unwrap() - 1.0).abs() < 1e-12);
        // 4.303 / sqrt(3) = 2.484
        let (low, high) = estimate.interval.unwrap();
        assert!((low + 0.484).abs() < 1e-3 && (high - 4.484).abs() < 1e-3, "{low} to {high}");
        assert!(!estimate.is_below(4.0) && estimate.is_below(4.5) && estimate.is_above(-0.5));
    }

    #[test]
    fn pairs_tell_more_than_means() {
        // Seeds differ by a factor of ten, the contenders by a fifth on each.
        let pairs = [(0.8, 1.0), (8.1, 10.0), (0.079, 0.1)];
        let ratio = Estimate::of_ratio(&pairs).unwrap();
        assert!((ratio.mean - 0.8).abs() < 0.01 && ratio.is_below(0.85), "{ratio:?}");
    }

    #[test]
    fn one_seed_has_no_interval_and_none_no_estimate() {
        let one = Estimate::of(&[0.5]).unwrap();
        assert!(one.interval.is_none() && !one.is_below(1.0) && !one.is_above(0.0));
        assert_eq!(Estimate::of(&[]), None);
        assert_eq!(Estimate::of(&[1.0, f64::NAN]), None);
        assert_eq!(Estimate::of_ratio(&[(1.0, 0.0)]), None);
    }
}
