//! The trend of a noisy loss: a power law through the last steps, with what is not known about it.
//!
//! Training losses fall like a power of the step, and a batch's loss scatters by a factor, not by an
//! amount; so the fit is a straight line of ln(loss) over ln(step). Its residuals are limited, so that one
//! odd batch does not bend it (Huber 1964), recent steps count more, and a slope that noise could explain
//! is drawn towards 0 by a normal prior.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::super::exact;
use super::expected::{Expected, MIN_NOISE};
use super::forecaster::push_within;
use super::observed::{Ahead, Observed, Plan};
use super::panel::Model;

/// Losses that the trend is fitted to, and the fewest that give one.
const WINDOW: usize = 64;
const MIN_POINTS: usize = 10;

/// Steps after which an observation counts half.
const HALF_LIFE_STEPS: f64 = 32.0;

/// Residuals beyond this many standard deviations pull no harder.
const HUBER_LIMIT: f64 = 2.0;

/// Standard deviation, before any data, of the power law's exponent.
const SLOPE_PRIOR: f64 = 1.0;

/// Share of the change it predicts that a trend may be wrong by.
const CHANGE_DOUBT: f64 = 0.5;

/// The last losses, and the trend through them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct PowerLaw {
    points: VecDeque<Point>,
    trend: Option<Trend>,
}

/// One measured loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Point {
    step: u64,
    #[serde(with = "exact")]
    ln_loss: f64,
}

impl Model for PowerLaw {
    fn observe(&mut self, observed: &Observed, ln_loss: f64, _: &Plan) {
        push_within(&mut self.points, Point { step: observed.step, ln_loss }, WINDOW);
        self.trend = (self.points.len() >= MIN_POINTS).then(|| Trend::fit(&self.points)).flatten();
    }

    fn level(&self) -> Option<f64> {
        self.trend.as_ref().map(|trend| trend.level)
    }

    fn look_ahead(&self, ahead: &Ahead<'_>, into: &mut Vec<Expected>) {
        let Some(trend) = &self.trend else { return };
        into.extend((1..=ahead.steps).map(|step| trend.at(trend.origin + step as f64)));
    }
}

/// A fitted trend: ln(loss) = level + slope·ln(step / origin).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Trend {
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
    /// Fits the points, oldest first; `None` for fewer than 3.
    fn fit(points: &VecDeque<Point>) -> Option<Self> {
        let origin = points.back().filter(|_| points.len() >= 3)?.step as f64;
        let rows: Vec<Row> = points
            .iter()
            .map(|&Point { step, ln_loss }| {
                let age = origin - step as f64;
                Row { x: (step as f64 / origin).ln(), y: ln_loss, weight: 0.5_f64.powf(age / HALF_LIFE_STEPS) }
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
    fn at(&self, step: f64) -> Expected {
        let x = (step / self.origin).ln();
        let change = self.slope * x;
        let doubt = CHANGE_DOUBT * change;
        let fit = self.level_variance + 2.0 * x * self.covariance + x * x * self.slope_variance;
        Expected { mean: self.level + change, variance: self.noise + fit + doubt * doubt, noise: self.noise }
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

    fn power_law(steps: std::ops::Range<u64>, exponent: f64) -> VecDeque<Point> {
        steps.map(|step| Point { step, ln_loss: 0.7 - exponent * (step as f64).ln() }).collect()
    }

    #[test]
    fn finds_a_power_law_and_continues_it() {
        let trend = Trend::fit(&power_law(100..164, 0.5)).unwrap();
        let expected = trend.at(230.0);
        let truth = 0.7 - 0.5 * 230.0_f64.ln();
        assert!((expected.mean - truth).abs() < 0.01, "{} is not {truth}", expected.mean);
        assert!(expected.variance > trend.at(164.0).variance, "farther is less certain");
    }

    #[test]
    fn one_odd_batch_does_not_bend_it() {
        let mut points = power_law(100..164, 0.5);
        let clean = Trend::fit(&points).unwrap().at(180.0).mean;
        points[60].ln_loss += 5.0;
        let bent = Trend::fit(&points).unwrap().at(180.0).mean;
        assert!((clean - bent).abs() < 0.02, "{clean} became {bent}");
    }

    #[test]
    fn needs_three_points() {
        assert_eq!(Trend::fit(&power_law(1..3, 0.5)), None);
        assert!(Trend::fit(&power_law(1..4, 0.5)).is_some());
    }
}
