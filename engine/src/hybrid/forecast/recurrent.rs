//! The recurrent model: five small networks that learn the run's dynamics while it runs, and dream its future.
//!
//! Each is a deterministic recurrent state with a stochastic head (mean and variance of the next change of
//! ln(loss)), rolled out on its own expectations, as the dynamics models of Hafner et al. 2019 (arXiv 1811.04551)
//! are. The members start from their own weights and learn from their own windows; where they disagree, the
//! forecast is less certain (Lakshminarayanan et al. 2017, arXiv 1612.01474).

use std::collections::VecDeque;

use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::super::exact;
use super::super::report::Phase;
use super::ema_trend::{EmaTrend, fading};
use super::expected::{Expected, MIN_NOISE};
use super::forecaster::push_within;
use super::member::Member;
use super::observed::{Ahead, Observed, Plan};
use super::panel::Model;
use super::rollout::{Carry, KNOWN_INPUTS, Window, advance};
use crate::device::seed::{Stream, stream};

const NUM_MEMBERS: usize = 5;

/// Steps remembered to learn from, steps of a window, and those of them that are fed what was measured.
const MEMORY: usize = 192;
const WINDOW: usize = 64;
const MIN_MEASURED: usize = 8;

/// Steps remembered before learning begins.
const MIN_MEMORY: usize = 24;

/// Share of a gradient norm that moves its usual size.
const NORM_RATE: f64 = 0.05;

/// The ensemble and what it has observed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Recurrent {
    /// What the networks correct.
    trend: EmaTrend,
    /// The first ln(loss).
    #[serde(with = "exact")]
    origin: f64,
    /// Usual ln of the gradient norm, and how far the last one lay above it.
    #[serde(with = "exact")]
    usual_norm: Option<f64>,
    #[serde(with = "exact")]
    norm: f64,
    #[serde(with = "exact")]
    rho: f64,
    /// Learning rate over the planned one: what divergences cut.
    #[serde(with = "exact")]
    rate_cut: f64,
    memory: VecDeque<Moment>,
    members: Vec<Member>,
}

/// A step to learn from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Moment {
    step: u64,
    #[serde(with = "exact")]
    known: [f64; KNOWN_INPUTS],
    #[serde(with = "exact")]
    ln_loss: f64,
    /// Trend before it.
    #[serde(with = "exact")]
    level: f64,
    #[serde(with = "exact")]
    slope: f64,
}

impl Model for Recurrent {
    fn observe(&mut self, observed: &Observed, ln_loss: f64, plan: &Plan) {
        let is_first = self.members.is_empty();
        if is_first {
            self.members = (0..NUM_MEMBERS as u64).map(|index| Member::new(plan.seed, index)).collect();
            (self.origin, self.rate_cut) = (ln_loss, 1.0);
        }
        let known =
            self.known(&Ahead { plan, phase: observed.phase, steps: 1 }, observed.step, observed.learning_rate_factor);
        let (level, slope) = if is_first { (ln_loss, 0.0) } else { (self.trend.level, self.trend.slope) };
        self.trend.observe(observed, ln_loss, plan);
        let (carry, scale) = (self.carry_before(self.memory.len(), level, slope), self.trend.scatter());
        for member in &mut self.members {
            let carry = Carry { state: member.state, ..carry };
            let (_, after, _) = advance(&member.weights, &carry, &known, Some((ln_loss - self.origin) / scale));
            member.state = after.state;
        }
        push_within(&mut self.memory, Moment { step: observed.step, known, ln_loss, level, slope }, MEMORY);
        self.remember_inputs(observed, plan);
        self.train(plan.seed);
    }

    fn level(&self) -> Option<f64> {
        self.trend.level()
    }

    fn look_ahead(&self, ahead: &Ahead<'_>, into: &mut Vec<Expected>) {
        if self.level().is_none() {
            return;
        }
        let EmaTrend { step, level, slope, .. } = self.trend;
        let (carry, scale) = (self.carry_before(self.memory.len(), level, slope), self.trend.scatter());
        let mut carries: Vec<Carry> =
            self.members.iter().map(|member| Carry { state: member.state, ..carry }).collect();
        for step in step + 1..=step + ahead.steps as u64 {
            let rate = self.rate_cut * ahead.plan.learning_rate_factor(step);
            let known = self.known(ahead, step, rate);
            let [mut mean, mut square, mut variance, mut noise] = [0.0; 4];
            for (member, carry) in self.members.iter().zip(&mut carries) {
                let (expected, after, _) = advance(&member.weights, carry, &known, None);
                *carry = after;
                mean += expected.mean;
                square += expected.mean * expected.mean;
                variance += expected.variance;
                noise += expected.noise;
            }
            let share = 1.0 / NUM_MEMBERS as f64;
            mean *= share;
            let disagreement = (share * square - mean * mean).max(0.0);
            let least = MIN_NOISE * MIN_NOISE;
            into.push(Expected {
                mean: self.origin + scale * mean,
                variance: (scale * scale * (share * variance + disagreement)).max(least),
                noise: (scale * scale * share * noise).max(least),
            });
        }
    }
}

impl Recurrent {
    /// Where the networks stood before the step at `index` of the memory, when the trend was `level` and `slope`.
    fn carry_before(&self, index: usize, level: f64, slope: f64) -> Carry {
        let scale = self.trend.scatter();
        let scaled = |ln_loss: f64| (ln_loss - self.origin) / scale;
        let at = |back: usize| index.checked_sub(back).and_then(|index| self.memory.get(index));
        let (level, slope) = (scaled(level), slope / scale);
        let Some(last) = at(1) else { return Carry { level, slope, value: level, ..Carry::default() } };
        let value = scaled(last.ln_loss);
        let surprise = (last.ln_loss - last.level - fading(last.step) * last.slope) / scale;
        let change = at(2).map_or(0.0, |before| value - scaled(before.ln_loss));
        Carry { level, slope, value, surprise, change, step: last.step, ..Carry::default() }
    }

    /// What is known of `step` before it runs.
    fn known(&self, ahead: &Ahead<'_>, step: u64, learning_rate_factor: f64) -> [f64; KNOWN_INPUTS] {
        let flag = |phases: &[Phase]| if phases.contains(&ahead.phase) { 1.0 } else { 0.0 };
        [
            self.norm.clamp(-2.0, 2.0),
            self.rho,
            learning_rate_factor.clamp(0.0, 2.0),
            flag(&[Phase::Warmup]),
            flag(&[Phase::Full]),
            flag(&[Phase::Predict, Phase::Correct]),
            ahead.plan.progress(step),
            (step as f64).ln() / 7.0,
        ]
    }

    fn remember_inputs(&mut self, observed: &Observed, plan: &Plan) {
        let planned = plan.learning_rate_factor(observed.step);
        if planned > 0.0 {
            self.rate_cut = observed.learning_rate_factor / planned;
        }
        if let Some(norm) = observed.grad_norm.filter(|norm| norm.is_finite() && *norm > 0.0) {
            let usual = self.usual_norm.get_or_insert(norm.ln());
            self.norm = norm.ln() - *usual;
            *usual += NORM_RATE * self.norm;
        }
        if let Some(rho) = observed.rho.filter(|rho| rho.is_finite()) {
            self.rho = rho;
        }
    }

    /// One member learns from one window.
    fn train(&mut self, seed: u64) {
        if self.memory.len() < MIN_MEMORY {
            return;
        }
        let mut rng = stream(seed, Stream::Forecaster, NUM_MEMBERS as u64 + self.trend.step);
        let length = WINDOW.min(self.memory.len());
        let begin = rng.random_range(0..=self.memory.len() - length);
        let num_measured = rng.random_range(MIN_MEASURED..=length / 2);
        let scale = self.trend.scatter();
        let moments = self.memory.range(begin..begin + length);
        let steps: Vec<_> = moments.map(|moment| (moment.known, (moment.ln_loss - self.origin) / scale)).collect();
        let Some(first) = self.memory.get(begin) else { return };
        let window = Window { start: self.carry_before(begin, first.level, first.slope), steps: &steps, num_measured };
        let index = self.trend.step as usize % NUM_MEMBERS;
        if let Some(member) = self.members.get_mut(index) {
            member.learn(&window);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::ema_trend::EmaTrend;
    use super::super::observed::Rates;
    use super::*;

    fn observed(step: u64) -> Observed {
        let rho = Some(0.5);
        Observed { step, phase: Phase::Full, loss: 1.0, grad_norm: Some(1.0), rho, learning_rate_factor: 1.0 }
    }

    fn plan(seed: u64) -> Plan {
        Plan { seed, num_steps: 3000, rates: Rates::Recorded(vec![1.0]) }
    }

    fn path_of(model: &dyn Model, plan: &Plan) -> Vec<Expected> {
        let mut path = Vec::new();
        model.look_ahead(&Ahead { plan, phase: Phase::Full, steps: 75 }, &mut path);
        path
    }

    #[test]
    fn untrained_it_is_the_ema_trend() {
        let (mut recurrent, mut trend) = (Recurrent::default(), EmaTrend::default());
        for step in 1..MIN_MEMORY as u64 {
            let ln_loss = -0.4 * (step as f64).ln() + 0.1 * (step as f64 * 2.4).sin();
            recurrent.observe(&observed(step), ln_loss, &plan(1));
            trend.observe(&observed(step), ln_loss, &plan(1));
        }
        let paths = [path_of(&recurrent, &plan(1)), path_of(&trend, &plan(1))];
        assert_eq!(paths[0].len(), 75);
        for (recurrent, trend) in paths[0].iter().zip(&paths[1]) {
            assert!((recurrent.mean - trend.mean).abs() < 1e-9 && (recurrent.variance - trend.variance).abs() < 1e-9);
        }
    }

    #[test]
    fn it_learns_what_no_trend_can_follow() {
        // Every other step is hard, as with data whose shards take turns.
        let ln_loss = |step: u64| if step.is_multiple_of(2) { 0.3 } else { -0.3 };
        let (mut recurrent, mut trend) = (Recurrent::default(), EmaTrend::default());
        for step in 1..=2500 {
            recurrent.observe(&observed(step), ln_loss(step), &plan(1));
            trend.observe(&observed(step), ln_loss(step), &plan(1));
        }
        let error = |model: &dyn Model| {
            let path = path_of(model, &plan(1));
            let errors = path.iter().zip(2501..).map(|(expected, step)| (expected.mean - ln_loss(step)).abs());
            errors.sum::<f64>() / 75.0
        };
        let (learned, plain) = (error(&recurrent), error(&trend));
        assert!(learned < 0.7 * plain, "{learned} is not below {plain}");
    }

    #[test]
    fn members_and_runs_have_their_own_seeds() {
        let trained = |seed| {
            let mut recurrent = Recurrent::default();
            (1..=60).for_each(|step| recurrent.observe(&observed(step), 1.0 / step as f64, &plan(seed)));
            recurrent
        };
        let (one, again, other) = (trained(1), trained(1), trained(2));
        assert_eq!(one, again);
        assert!(one.members[0].weights != other.members[0].weights);
        assert!(one.members[0].weights != one.members[1].weights);
        assert!(one.members.iter().all(|member| member.num_updates > 0));
    }
}
