//! The trend of a noisy loss: a power law through the last steps, with what is not known about it.
//!
//! Training losses fall like a power of the step, and a batch's loss scatters by a factor, not by an
//! amount; so the fit is a straight line of ln(loss) over ln(step). Its residuals are limited, so that one
//! odd batch does not bend it (Huber 1964), recent steps count more, and a slope that noise could explain
//! is drawn towards 0 by a normal prior.

use serde::{Deserialize, Serialize};

use super::exact;

/// Steps after which an observation counts half.
const HALF_LIFE_STEPS: f64 = 32.0;

/// Residuals beyond this many standard deviations pull no harder.
const HUBER_LIMIT: f64 = 2.0;

/// Least noise of a batch's ln(loss): no forecast claims to be better than 1%.
const MIN_NOISE: f64 = 0.01;

/// Standard deviation, before any data, of the power law's exponent.
const SLOPE_PRIOR: f64 = 1.0;

/// Share of the change it predicts that a trend may be wrong by.
const CHANGE_DOUBT: f64 = 0.5;

/// ln(loss) expected at a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Expected {
    /// Center of ln(loss).
    pub mean: f64,
    /// Variance around it: the batch's noise, the fit's uncertainty, doubt about the trend.
    pub variance: f64,
    /// The part of it that is the batch's noise.
    pub noise: f64,
}

/// A fitted trend: ln(loss) = level + slope·ln(step / origin).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Trend {
    #[serde(with = "exact")]
    origin: f64,
    #[serde(with = "exact")]
    level: f64,
    #[serde(with = "exact")]
    slope: f64,
    #[serde(with = "exact")]
    level_variance: f64,
    #[serde(with = "exact")]
    covariance: f64,
    #[serde(with = "exact")]
    slope_variance: f64,
    #[serde(with = "exact")]
    noise: f64,
}

impl Trend {
    /// Fits `(step, ln(loss))`, oldest first; `None` for fewer than 3 points.
    pub(super) fn fit(points: &[(u64, f64)]) -> Option<Self> {
        let &[_, _, .., (last_step, _)] = points else { return None };
        let origin = last_step as f64;
        let rows: Vec<Row> = points
            .iter()
            .map(|&(step, y)| {
                let age = origin - step as f64;
                Row { x: (step as f64 / origin).ln(), y, weight: 0.5_f64.powf(age / HALF_LIFE_STEPS) }
            })
            .collect();
        // Three rounds: a plain fit finds the scatter, the next two limit what lies outside of it.
        let mut fit = Line::through(rows.iter().copied(), 0.0);
        let mut noise = fit.scatter(&rows);
        for _ in 0..2 {
            let limited = rows.iter().map(|row| {
                let distance = (row.y - fit.at(row.x)).abs() / noise.sqrt();
                Row { weight: row.weight * (HUBER_LIMIT / distance).min(1.0), ..*row }
            });
            fit = Line::through(limited, noise / (SLOPE_PRIOR * SLOPE_PRIOR));
            noise = fit.scatter(&rows);
        }
        Some(Self {
            origin,
            level: fit.level,
            slope: fit.slope,
            level_variance: noise * fit.inverse[0],
            covariance: noise * fit.inverse[1],
            slope_variance: noise * fit.inverse[2],
            noise,
        })
    }

    /// What it expects of `step`, at or after the last point.
    pub(super) fn at(&self, step: u64) -> Expected {
        let x = (step as f64 / self.origin).ln();
        let change = self.slope * x;
        let doubt = CHANGE_DOUBT * change;
        let fit = self.level_variance + 2.0 * x * self.covariance + x * x * self.slope_variance;
        Expected { mean: self.level + change, variance: self.noise + fit + doubt * doubt, noise: self.noise }
    }

    /// Where ln(loss) stood at the last point.
    pub(super) fn level(&self) -> f64 {
        self.level
    }
}

#[derive(Debug, Clone, Copy)]
struct Row {
    x: f64,
    y: f64,
    weight: f64,
}

/// Weighted least squares with a ridge on the slope.
struct Line {
    level: f64,
    slope: f64,
    /// Inverse of the normal matrix: level, both, slope.
    inverse: [f64; 3],
}

impl Line {
    fn through(rows: impl Iterator<Item = Row>, ridge: f64) -> Self {
        let [mut w, mut wx, mut wxx, mut wy, mut wxy] = [0.0; 5];
        for Row { x, y, weight } in rows {
            w += weight;
            wx += weight * x;
            wxx += weight * x * x;
            wy += weight * y;
            wxy += weight * x * y;
        }
        // The tiny term keeps steps that all coincide solvable.
        let slope_weight = wxx + ridge + 1e-12;
        let determinant = w * slope_weight - wx * wx;
        Self {
            level: (slope_weight * wy - wx * wxy) / determinant,
            slope: (w * wxy - wx * wy) / determinant,
            inverse: [slope_weight / determinant, -wx / determinant, w / determinant],
        }
    }

    fn at(&self, x: f64) -> f64 {
        self.level + self.slope * x
    }

    /// Variance around the line, by the median (odd batches do not widen it) but no less than limited residuals say.
    fn scatter(&self, rows: &[Row]) -> f64 {
        let mut distances: Vec<f64> = rows.iter().map(|row| (row.y - self.at(row.x)).abs()).collect();
        distances.sort_unstable_by(f64::total_cmp);
        let median = 1.4826 * distances[distances.len() / 2];
        let limit = 3.0 * median;
        let [mut weights, mut squares] = [0.0; 2];
        for row in rows {
            weights += row.weight;
            squares += row.weight * (row.y - self.at(row.x)).abs().min(limit).powi(2);
        }
        // Two numbers were fitted to the points; few points look less scattered than they are.
        let count = rows.len() as f64;
        let freedom = count / (count - 2.0);
        (freedom * squares / weights).max(MIN_NOISE * MIN_NOISE)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn power_law(steps: std::ops::Range<u64>, exponent: f64) -> Vec<(u64, f64)> {
        steps.map(|step| (step, 0.7 - exponent * (step as f64).ln())).collect()
    }

    #[test]
    fn finds_a_power_law_and_continues_it() {
        let trend = Trend::fit(&power_law(100..164, 0.5)).unwrap();
        let expected = trend.at(230);
        let truth = 0.7 - 0.5 * 230.0_f64.ln();
        assert!((expected.mean - truth).abs() < 0.01, "{} is not {truth}", expected.mean);
        assert!(expected.variance > trend.at(164).variance, "farther is less certain");
    }

    #[test]
    fn one_odd_batch_does_not_bend_it() {
        let mut points = power_law(100..164, 0.5);
        let clean = Trend::fit(&points).unwrap().at(180).mean;
        points[60].1 += 5.0;
        let bent = Trend::fit(&points).unwrap().at(180).mean;
        assert!((clean - bent).abs() < 0.02, "{clean} became {bent}");
    }

    #[test]
    fn needs_three_points() {
        assert_eq!(Trend::fit(&power_law(1..3, 0.5)), None);
        assert!(Trend::fit(&power_law(1..4, 0.5)).is_some());
    }
}
