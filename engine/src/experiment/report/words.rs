//! Numbers as a report writes them.

use crate::experiment::Estimate;

/// "0.0257 ± 0.0012" (standard deviation between seeds), or the mean alone for one seed.
pub(super) fn with_spread(values: &[f64], decimals: usize) -> String {
    match Estimate::of(values) {
        Some(Estimate { mean, std: Some(std), .. }) => format!("{mean:.decimals$} ± {std:.decimals$}"),
        Some(Estimate { mean, .. }) => format!("{mean:.decimals$}"),
        None => "–".to_owned(),
    }
}

/// "1.020 (0.981 to 1.060)", with a 95% interval where there are seeds for one.
pub(super) fn with_interval(estimate: Option<Estimate>, factor: f64, decimals: usize, unit: &str) -> String {
    match estimate {
        Some(Estimate { mean, interval: Some((low, high)), .. }) => {
            format!("{:.decimals$}{unit} ({:.decimals$} to {:.decimals$})", factor * mean, factor * low, factor * high)
        }
        Some(Estimate { mean, .. }) => format!("{:.decimals$}{unit}", factor * mean),
        None => "–".to_owned(),
    }
}

/// "0, 1, 2".
pub(super) fn list(numbers: &[u64]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
