//! A window of steps through one network: measured at first, then on its own, as a forecast runs; and backward
//! through all of it.
//!
//! The network corrects a trend that follows the losses and fades by D as [`EmaTrend`](super::ema_trend::EmaTrend) does:
//!
//! ```text
//! trend_k     = level + D slope
//! h           = cell((level, slope, last surprise, last change, what is known of step k), h)
//! mean, ln_variance = head(h)
//! expected_k  = trend_k + mean,  variance exp(ln_variance) + what the trend may have drifted since measured
//! value_k     = the measured ln(loss), or expected_k once on its own;  surprise = value_k - trend_k
//! level       = trend_k + A surprise;  slope = D slope + B surprise, or D slope once on its own
//! ```
//! Untrained, it is that trend. Losses here are in units of their usual scatter.

use super::ema_trend::{LEVEL_RATE, Reach, SLOPE_RATE, fading};
use super::gru::{self, HIDDEN, INPUTS, Inputs, State, Trace};

/// Inputs that the network's own expectations decide: level, slope, surprise, change.
const OWN_INPUTS: usize = 4;
pub(super) const KNOWN_INPUTS: usize = INPUTS - OWN_INPUTS;

/// Surprises and changes beyond this many scatters are all the same.
const LIMIT: f64 = 4.0;

/// Bounds of the head's log-variance, in squared scatters.
const LN_VARIANCE: [f64; 2] = [-4.0, 3.0];

/// Sizes at which level and slope enter: over a run a level moves by many scatters, a slope is a small part of one.
const LEVEL_INPUT: f64 = 0.1;
const SLOPE_INPUT: f64 = 10.0;

/// What is carried from step to step.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Carry {
    pub state: State,
    /// Level and slope of the trend.
    pub level: f64,
    pub slope: f64,
    /// Last value, and its surprise: value minus the trend's.
    pub value: f64,
    pub surprise: f64,
    /// Last value minus the one before.
    pub change: f64,
    /// Step before the next.
    pub step: u64,
    /// Distance from the last measured value, and what the trend may have drifted since then, as a variance.
    pub reach: Reach,
    pub drift: f64,
}

/// What a network expects of a step: mean, variance, and of that the batch's noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Step {
    pub mean: f64,
    pub variance: f64,
    pub noise: f64,
}

/// One step on: what is expected, the carry after `measured` (or after what was expected), and the trace.
pub(super) fn advance(
    weights: &[f64],
    carry: &Carry,
    known: &[f64; KNOWN_INPUTS],
    measured: Option<f64>,
) -> (Step, Carry, Trace) {
    let mut inputs: Inputs = [0.0; INPUTS];
    inputs[0] = (LEVEL_INPUT * carry.level).clamp(-LIMIT, LIMIT);
    inputs[1] = (SLOPE_INPUT * carry.slope).clamp(-LIMIT, LIMIT);
    inputs[2] = carry.surprise.clamp(-LIMIT, LIMIT);
    inputs[3] = carry.change.clamp(-LIMIT, LIMIT);
    inputs[OWN_INPUTS..].copy_from_slice(known);
    let trace = gru::forward(weights, &inputs, &carry.state);
    let [mean, ln_variance] = gru::head(weights, &trace.after);
    let noise = ln_variance.clamp(LN_VARIANCE[0], LN_VARIANCE[1]).exp();
    let fading = fading(carry.step + 1);
    let trend = carry.level + fading * carry.slope;
    let step = Step { mean: trend + mean, variance: noise + carry.drift, noise };
    let value = measured.unwrap_or(step.mean);
    let surprise = value - trend;
    let mut reach = carry.reach;
    let (reach, drift) = match measured {
        Some(_) => (Reach::default(), 0.0),
        None => {
            let weight = reach.advance(fading);
            (reach, carry.drift + weight * noise)
        }
    };
    let slope_rate = if measured.is_some() { SLOPE_RATE } else { 0.0 };
    let after = Carry {
        state: trace.after,
        level: trend + LEVEL_RATE * surprise,
        slope: fading * carry.slope + slope_rate * surprise,
        value,
        surprise,
        change: value - carry.value,
        step: carry.step + 1,
        reach,
        drift,
    };
    (step, after, trace)
}

/// A window to learn from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window<'a> {
    /// Before its first step.
    pub start: Carry,
    /// Of each step, what is known and its ln(loss).
    pub steps: &'a [([f64; KNOWN_INPUTS], f64)],
    /// Steps at its beginning that are fed the measured values; the rest runs on its own.
    pub num_measured: usize,
}

/// What a step leaves for the way back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passed {
    step: Step,
    trace: Trace,
    target: f64,
    is_measured: bool,
    is_bounded: bool,
    fading: f64,
    drift_weight: f64,
}

/// Mean negative log-likelihood of the window's losses, in nats; adds its gradient to `gradient`.
/// `passed` is working memory.
/// Source: backpropagation through time, Werbos 1990; training on one's own rollouts as in Hafner et al. 2019,
/// arXiv 1811.04551.
pub(super) fn learn(weights: &[f64], window: &Window<'_>, gradient: &mut [f64], passed: &mut Vec<Passed>) -> f64 {
    passed.clear();
    let mut carry = window.start;
    let mut total = 0.0;
    for (index, (known, target)) in window.steps.iter().enumerate() {
        let is_measured = index < window.num_measured;
        let (step, after, trace) = advance(weights, &carry, known, is_measured.then_some(*target));
        let miss = target - step.mean;
        total += 0.5 * (step.variance.ln() + miss * miss / step.variance);
        let [_, ln_variance] = gru::head(weights, &trace.after);
        let fading = fading(carry.step + 1);
        let mut reach = carry.reach;
        let drift_weight = reach.advance(fading);
        let is_bounded = !(LN_VARIANCE[0]..=LN_VARIANCE[1]).contains(&ln_variance);
        passed.push(Passed { step, trace, target: *target, is_measured, is_bounded, fading, drift_weight });
        carry = after;
    }
    let share = 1.0 / window.steps.len().max(1) as f64;
    let mut owed = Owed::default();
    for passed in passed.iter().rev() {
        owed = step_back(weights, passed, share, &owed, gradient);
    }
    share * total
}

/// Gradient of the loss by each part of a carry.
#[derive(Debug, Clone, Copy, Default)]
struct Owed {
    state: [f64; HIDDEN],
    level: f64,
    slope: f64,
    value: f64,
    surprise: f64,
    change: f64,
    drift: f64,
}

/// From what the carry after a step is owed to what the carry before it is.
fn step_back(weights: &[f64], passed: &Passed, share: f64, after: &Owed, gradient: &mut [f64]) -> Owed {
    let Passed { step, trace, target, is_measured, is_bounded, fading, drift_weight } = passed;
    let miss = target - step.mean;
    let mut to_mean = -share * miss / step.variance;
    let to_variance = 0.5 * share * (1.0 - miss * miss / step.variance) / step.variance;
    let mut to_noise = to_variance;
    let mut before = Owed { drift: to_variance, ..Owed::default() };

    // level' = trend + A surprise;  slope' = D slope + B surprise;  change' = value - value before;
    // surprise' = surprise = value - trend
    let slope_rate = if *is_measured { SLOPE_RATE } else { 0.0 };
    let to_surprise = after.surprise + LEVEL_RATE * after.level + slope_rate * after.slope;
    let mut to_trend = after.level - to_surprise;
    before.slope = fading * after.slope;
    before.value = -after.change;
    if !is_measured {
        to_mean += after.value + after.change + to_surprise;
        before.drift += after.drift;
        to_noise += drift_weight * after.drift;
    }
    // expected = trend + mean;  trend = level + D slope
    to_trend += to_mean;
    before.level = to_trend;
    before.slope += fading * to_trend;
    let to_ln_variance = if *is_bounded { 0.0 } else { to_noise * step.noise };
    let mut to_after = after.state;
    gru::head_backward(weights, &trace.after, [to_mean, to_ln_variance], gradient, &mut to_after);
    let (to_inputs, to_state) = gru::backward(weights, trace, &to_after, gradient);
    before.state = to_state;
    // A limited input passes nothing on.
    let passes = |index: usize| if trace.inputs[index].abs() < LIMIT { to_inputs[index] } else { 0.0 };
    before.level += LEVEL_INPUT * passes(0);
    before.slope += SLOPE_INPUT * passes(1);
    before.surprise = passes(2);
    before.change = passes(3);
    before
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::super::gru::{NUM_WEIGHTS, initial_weights};
    use super::*;
    use crate::device::seed::{Stream, stream};

    #[test]
    fn the_gradient_is_what_small_changes_measure() {
        let mut rng = stream(7, Stream::Forecaster, 0);
        let mut weights = initial_weights(&mut rng);
        weights.iter_mut().for_each(|weight| *weight += 0.3 * (rng.random::<f64>() - 0.5));
        let mut number = || 2.0 * rng.random::<f64>() - 1.0;
        let steps: Vec<_> = (0..12).map(|_| (std::array::from_fn(|_| number()), 2.0 * number())).collect();
        let state = std::array::from_fn(|_| number());
        let start = Carry { state, level: 0.2, slope: -0.01, value: 0.5, surprise: 0.3, step: 20, ..Carry::default() };
        // All measured; all on its own; half and half.
        for num_measured in [12, 0, 6] {
            let window = Window { start, steps: &steps, num_measured };
            let mut gradient = vec![0.0; NUM_WEIGHTS];
            learn(&weights, &window, &mut gradient, &mut Vec::new());
            for index in 0..NUM_WEIGHTS {
                let nudged = |change: f64| {
                    let mut weights = weights.clone();
                    weights[index] += change;
                    learn(&weights, &window, &mut vec![0.0; NUM_WEIGHTS], &mut Vec::new())
                };
                let measured = (nudged(1e-5) - nudged(-1e-5)) / 2e-5;
                let error = (gradient[index] - measured).abs();
                assert!(error < 1e-7 * (1.0 + 100.0 * measured.abs()), "{index}: {} {measured}", gradient[index]);
            }
            assert!(gradient.iter().filter(|value| value.abs() > 1e-6).count() > NUM_WEIGHTS / 2);
        }
    }
}
