//! Estimates as sentences and tables write them.

use super::Estimate;

/// "1.020 (0.981 to 1.060)", each times `factor`, with a 95% interval where there are seeds for one.
pub(super) fn interval(estimate: &Estimate, factor: f64, decimals: usize, unit: &str) -> String {
    let mean = factor * estimate.mean;
    match estimate.interval {
        Some((low, high)) => {
            format!("{mean:.decimals$}{unit} ({:.decimals$} to {:.decimals$})", factor * low, factor * high)
        }
        None => format!("{mean:.decimals$}{unit}"),
    }
}

/// "its loss is 3.1% lower than …'s (95% interval: 1.0% to 5.2% lower)": or that seeds do not tell.
pub(super) fn compared(subject: &str, ratio: &Estimate, than: &str) -> String {
    let change = |ratio: f64| {
        let percent = 100.0 * (ratio - 1.0);
        if percent < 0.0 { format!("{:.1}% lower", -percent) } else { format!("{percent:.1}% higher") }
    };
    match ratio.interval {
        None => format!("{subject} {} than {than}; one seed, so no interval.", change(ratio.mean)),
        Some((low, high)) => {
            let certainty =
                if ratio.is_below(1.0) || ratio.is_above(1.0) { "" } else { ": seeds do not tell them apart" };
            let (mean, low, high) = (change(ratio.mean), change(low), change(high));
            format!("{subject} {mean} than {than} (95% interval: {low} to {high}{certainty}).")
        }
    }
}

/// "0.0257 ± 0.0012" (standard deviation between seeds), or the mean alone for one seed.
pub(super) fn spread(estimate: Option<Estimate>, factor: f64, decimals: usize) -> String {
    match estimate {
        Some(Estimate { mean, std: Some(std), .. }) => {
            format!("{:.decimals$} ± {:.decimals$}", factor * mean, factor * std)
        }
        Some(Estimate { mean, .. }) => format!("{:.decimals$}", factor * mean),
        None => "–".to_owned(),
    }
}

/// [`spread`] of one figure per seed.
pub(super) fn with_spread(values: &[f64], decimals: usize) -> String {
    spread(Estimate::of(values), 1.0, decimals)
}

/// [`interval`], or a dash.
pub(super) fn with_interval(estimate: Option<Estimate>, factor: f64, decimals: usize, unit: &str) -> String {
    estimate.map_or_else(|| "–".to_owned(), |estimate| interval(&estimate, factor, decimals, unit))
}

/// "12.3", or a dash for what is not a number.
pub(super) fn number(value: f64, decimals: usize) -> String {
    if value.is_finite() { format!("{value:.decimals$}") } else { "–".to_owned() }
}

/// "0, 1, 2".
pub(super) fn list<T: ToString>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
