//! The direction in which weights have been moving: a running average of their moves, or the slope of a fitted line.

use candle_core::{Device, Tensor};

use super::Trajectory;
use crate::hybrid::HybridError;
use crate::models::{Params, host_copy};

/// Share of the past that a step keeps in the running average of moves.
const MOMENTUM: f64 = 0.9;

/// Share of its weight that a point of the fit keeps per step: a window of about 8 steps.
const FIT_DECAY: f64 = 0.875;

/// Moves needed before either says anything.
const MIN_MOVES: u64 = 5;

/// Names of the saved state.
const MOVES: &str = "trajectory.num_moves";
const LAST: &str = "trajectory.last.";
const FIRST_SUM: &str = "trajectory.sum.";
const SECOND_SUM: &str = "trajectory.timed_sum.";

/// Follows the weights from full step to full step.
#[derive(Debug)]
pub(super) struct Follower {
    kind: Trajectory,
    num_moves: u64,
    /// Weights after the last full step.
    last: Option<Params>,
    /// Momentum: the decayed sum of moves. Fitted: the decayed sum of weights.
    sum: Option<Params>,
    /// Fitted: the decayed sum of (age in steps, negative) · weights.
    timed_sum: Option<Params>,
}

impl Follower {
    pub(super) fn new(kind: Trajectory) -> Self {
        Self { kind, num_moves: 0, last: None, sum: None, timed_sum: None }
    }

    /// Takes in the weights after a full step (a deep copy).
    pub(super) fn follow(&mut self, weights: Params) -> Result<(), HybridError> {
        let Some(last) = self.last.take() else {
            if self.kind == Trajectory::Fitted {
                self.timed_sum = Some(combine(&weights, 0.0, &weights, 0.0)?);
                self.sum = Some(weights.map(|_, tensor| tensor.copy())?);
            }
            self.last = Some(weights);
            return Ok(());
        };
        match self.kind {
            Trajectory::Momentum => {
                let step = combine(&weights, 1.0, &last, -1.0)?;
                self.sum = Some(match &self.sum {
                    Some(sum) => combine(sum, MOMENTUM, &step, 1.0)?,
                    None => step,
                });
            }
            Trajectory::Fitted => {
                if let (Some(sum), Some(timed)) = (&self.sum, &self.timed_sum) {
                    // One step later every age is one more, so that this step's is 0.
                    let timed = combine(timed, FIT_DECAY, sum, -FIT_DECAY)?;
                    self.sum = Some(combine(sum, FIT_DECAY, &weights, 1.0)?);
                    self.timed_sum = Some(timed);
                }
            }
        }
        self.last = Some(weights);
        self.num_moves += 1;
        Ok(())
    }

    /// Forgets where the weights were.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.kind);
    }

    /// True once [`Self::direction`] says something.
    pub(super) fn is_ready(&self) -> bool {
        self.num_moves >= MIN_MOVES
    }

    /// The move of one step as the trajectory goes on; `None` before there were enough.
    pub(super) fn direction(&self) -> Result<Option<Params>, HybridError> {
        let Some(sum) = self.sum.as_ref().filter(|_| self.is_ready()) else { return Ok(None) };
        match self.kind {
            Trajectory::Momentum => {
                let total = (1.0 - MOMENTUM.powf(self.num_moves as f64)) / (1.0 - MOMENTUM);
                combine(sum, 1.0 / total, sum, 0.0).map(Some)
            }
            Trajectory::Fitted => {
                let Some(timed) = &self.timed_sum else { return Ok(None) };
                let (mut s0, mut s1, mut s2) = (0.0, 0.0, 0.0);
                for age in 0..=self.num_moves {
                    let (weight, time) = (FIT_DECAY.powf(age as f64), -(age as f64));
                    (s0, s1, s2) = (s0 + weight, s1 + weight * time, s2 + weight * time * time);
                }
                let spread = s0 * s2 - s1 * s1;
                combine(timed, s0 / spread, sum, -s1 / spread).map(Some)
            }
        }
    }

    /// Everything, by name; a deep copy in the machine's memory.
    pub(super) fn state(&self) -> Result<Params, HybridError> {
        let mut state = Params::default();
        state.insert(MOVES, Tensor::from_slice(&[self.num_moves as i64], 1, &Device::Cpu)?);
        for (prefix, params) in [(LAST, &self.last), (FIRST_SUM, &self.sum), (SECOND_SUM, &self.timed_sum)] {
            for (name, tensor) in params.iter().flat_map(Params::iter) {
                state.insert(format!("{prefix}{name}"), host_copy(tensor)?);
            }
        }
        Ok(state)
    }

    /// Restores what [`Self::state`] gave.
    pub(super) fn load_state(&mut self, saved: &Params) -> Result<(), HybridError> {
        self.forget();
        if let Some(moves) = saved.find(MOVES) {
            self.num_moves = moves.to_vec1::<i64>()?.first().map_or(0, |&moves| moves.max(0) as u64);
            [self.last, self.sum, self.timed_sum] = [LAST, FIRST_SUM, SECOND_SUM].map(|prefix| under(saved, prefix));
        }
        Ok(())
    }
}

/// a·`factor_a` + b·`factor_b`, tensor by tensor; names are those of `a`. A new copy.
pub(super) fn combine(a: &Params, factor_a: f64, b: &Params, factor_b: f64) -> Result<Params, HybridError> {
    a.map(|name, tensor| Ok(((tensor * factor_a)? + (b.get(name)? * factor_b)?)?))
}

/// Tensors whose names begin with `prefix`, without it; `None` when there are none.
pub(super) fn under(saved: &Params, prefix: &str) -> Option<Params> {
    let named = saved.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone())));
    let params: Params = named.collect();
    (!params.is_empty()).then_some(params)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn at(values: [f32; 2]) -> Params {
        [("w".to_owned(), Tensor::new(&values, &Device::Cpu).unwrap())].into_iter().collect()
    }

    fn direction(follower: &Follower) -> Vec<f32> {
        follower.direction().unwrap().unwrap().get("w").unwrap().to_vec1().unwrap()
    }

    #[test]
    fn a_straight_trajectory_goes_on_straight() {
        for kind in [Trajectory::Momentum, Trajectory::Fitted] {
            let mut follower = Follower::new(kind);
            for step in 0..12_u8 {
                assert_eq!(follower.direction().unwrap().is_some(), step > 5, "{kind:?} after {step} weights");
                follower.follow(at([1.0 + 0.5 * f32::from(step), -0.25 * f32::from(step)])).unwrap();
            }
            let found = direction(&follower);
            assert!((found[0] - 0.5).abs() < 1e-4 && (found[1] + 0.25).abs() < 1e-4, "{kind:?}: {found:?}");
        }
    }

    #[test]
    fn a_fit_is_less_shaken_by_noise_than_the_last_move() {
        let mut follower = Follower::new(Trajectory::Fitted);
        for step in 0..40_u8 {
            let noise = if step % 2 == 0 { 0.3 } else { -0.3 };
            follower.follow(at([0.1 * f32::from(step) + noise, 0.0])).unwrap();
        }
        assert!((direction(&follower)[0] - 0.1).abs() < 0.05, "the last move alone would say -0.5");
    }

    #[test]
    fn a_state_goes_on_as_if_unbroken() {
        for kind in [Trajectory::Momentum, Trajectory::Fitted] {
            let place = |step: u8| at([f32::from(step).sqrt(), f32::from(step).cos()]);
            let (mut unbroken, mut first) = (Follower::new(kind), Follower::new(kind));
            for step in 0..9 {
                unbroken.follow(place(step)).unwrap();
                first.follow(place(step)).unwrap();
            }
            let mut second = Follower::new(kind);
            second.load_state(&first.state().unwrap()).unwrap();
            for step in 9..12 {
                unbroken.follow(place(step)).unwrap();
                second.follow(place(step)).unwrap();
            }
            assert_eq!(direction(&second), direction(&unbroken), "{kind:?}");
        }
    }
}
