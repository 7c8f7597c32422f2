//! The forecaster: the best model's forecast, standing while Predict lasts.
//!
//! A forecast is made when Predict begins and stands while it lasts; each Correct takes in what was
//! measured meanwhile and makes it anew. The measured losses decide the confidence: the share of them
//! that fell where they were expected.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::super::exact;
use super::super::report::{Forecast, ForecastBias, Interval, Phase};
use super::calibration::Calibration;
use super::contest::{Contest, ROUND_STEPS};
use super::expected::{Bucket, Expected, ForecastModel, HORIZON, MIN_LOSS, Z_95};
use super::observed::{Ahead, Observed, Plan};
use super::panel::Panel;
use super::residuals::ResidualStore;

/// Losses that the confidence looks back on, and the fewest that give one.
const CONFIDENCE_WINDOW: usize = 20;
const MIN_CONFIDENCE_POINTS: usize = 10;

/// Standard deviations within which a loss counts as foreseen.
const INTERVAL_SIGMA: f64 = 2.0;

/// The model by which losses are odd or not: it forgets slowest, and odd losses hardly move it.
const COURSE: ForecastModel = ForecastModel::PowerLaw;

/// A loss this far above the course enters the models as if it were only so far: a divergence must not become the norm.
const WINSOR_SIGMA: f64 = 4.0;

/// What was expected of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::hybrid) struct Outlook {
    model: ForecastModel,
    /// By that model, and its 90% interval of ln(loss).
    expected: Expected,
    interval: Option<[f64; 2]>,
    /// By the power law, and the level that it starts from: the run's course.
    ///
    /// What is odd is judged by it, whatever forecasts best: a model that follows the losses closely soon expects a
    /// blow-up to go on.
    course: Expected,
    level: f64,
}

/// A loss against its forecast, in proportion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::hybrid) struct Excess {
    /// ln of the loss over its forecast, or over the level that was forecast from, where that is higher.
    pub ln_ratio: f64,
    /// The standard deviation of ln(loss) that the calibrated interval stands for; the forecast's own without one.
    pub sigma: f64,
}

impl Outlook {
    /// The forecast in nats: mean and standard deviation of a loss whose logarithm is normal.
    pub(in crate::hybrid) fn in_nats(&self) -> Forecast {
        let Expected { mean: center, variance, noise } = self.expected;
        let mean = (center + noise.min(1.0) / 2.0).exp();
        let interval = self.interval.map(|[low, high]| Interval {
            low: low.exp() as f32,
            median: center.exp() as f32,
            high: high.exp() as f32,
        });
        let std = (mean * variance.min(4.0).exp_m1().sqrt()) as f32;
        Forecast { mean: mean as f32, std, interval, model: Some(self.model) }
    }

    /// Standard deviations by which `loss` lies above the run's course.
    ///
    /// Where that lies below the level it started from, the level counts instead: a loss that stops falling
    /// disappoints, but has not diverged.
    pub(in crate::hybrid) fn surprise(&self, loss: f64) -> f64 {
        (loss.max(MIN_LOSS).ln() - self.course.mean.max(self.level)) / self.course.std()
    }

    /// ln(loss) beyond which a loss is not believed.
    fn highest(&self) -> f64 {
        self.course.mean.max(self.level) + WINSOR_SIGMA * self.course.std()
    }

    /// How far `loss` lies above the same, in proportion, and how far the calibrated interval lets it.
    pub(in crate::hybrid) fn excess(&self, loss: f64) -> Excess {
        let Expected { mean, .. } = self.expected;
        let half_width = self.interval.map_or(Z_95 * self.expected.std(), |[_, high]| high - mean);
        Excess { ln_ratio: loss.max(MIN_LOSS).ln() - mean.max(self.level), sigma: half_width / Z_95 }
    }

    fn foresaw(&self, loss: f64) -> bool {
        let distance = loss.max(MIN_LOSS).ln() - self.expected.mean;
        distance.abs() <= INTERVAL_SIGMA * self.expected.std()
    }
}

/// A forecast of the steps after one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Path {
    /// The step it was made after.
    origin: u64,
    model: ForecastModel,
    best: Branch,
    /// By the power law.
    course: Branch,
}

/// What a model said: where ln(loss) stood, and what would follow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Branch {
    #[serde(with = "exact")]
    level: f64,
    expected: Vec<Expected>,
}

impl Branch {
    /// `ahead` steps on, from 1; the last one for what is farther.
    fn at(&self, ahead: usize) -> Option<Expected> {
        self.expected.get(ahead - 1).or(self.expected.last()).copied()
    }
}

/// Learns from measured losses, forecasts the next ones.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::hybrid) struct Forecaster {
    last_step: u64,
    panel: Panel,
    contest: Contest,
    calibration: Calibration,
    foreseen: VecDeque<bool>,
    residuals: ResidualStore,
    /// The forecast in force, while one is.
    path: Option<Path>,
}

impl Forecaster {
    /// Makes the forecast that will stand from here on, through Predict.
    pub(in crate::hybrid) fn stand(&mut self, plan: &Plan) {
        self.path = self.look_ahead(&Ahead { plan, phase: Phase::Predict, steps: HORIZON });
    }

    /// Ends the standing forecast.
    pub(in crate::hybrid) fn withdraw(&mut self) {
        self.path = None;
    }

    /// After a rollback: nothing that was forecast holds, what was learned does.
    pub(in crate::hybrid) fn roll_back(&mut self) {
        self.withdraw();
        self.contest.forget();
    }

    /// What `step`, which runs in `phase`, is expected to be: by the standing forecast, else by all that was
    /// measured before it.
    pub(in crate::hybrid) fn outlook(&self, step: u64, phase: Phase, plan: &Plan) -> Option<Outlook> {
        if let Some(path) = &self.path {
            return self.read(path, step);
        }
        let steps = ahead_of(self.last_step, step);
        self.read(&self.look_ahead(&Ahead { plan, phase, steps })?, step)
    }

    /// Takes in a measured, finite loss and whether it was foreseen.
    pub(in crate::hybrid) fn observe(&mut self, observed: &Observed, outlook: Option<&Outlook>, plan: &Plan) {
        let measured = observed.loss.max(MIN_LOSS).ln();
        let mut ln_loss = measured;
        if let Some(outlook) = outlook {
            push_within(&mut self.foreseen, outlook.foresaw(observed.loss), CONFIDENCE_WINDOW);
            ln_loss = ln_loss.min(outlook.highest());
        }
        let Self { contest, calibration, panel, .. } = self;
        contest.score(observed.step, ln_loss, |due| calibration.learn(due, measured));
        panel.observe(observed, ln_loss, plan);
        self.last_step = observed.step;
        if observed.step.is_multiple_of(ROUND_STEPS) {
            let paths = ForecastModel::ALL.map(|model| self.path_of(model, observed.phase, plan));
            self.contest.enter(observed.step, &paths);
        }
    }

    /// Keeps by how much the standing forecast missed the `loss` of a Correct step, and corrects it by everything
    /// measured since it was made.
    /// Returns what it now says of `step`, which the measured loss of that step does not decide alone.
    pub(in crate::hybrid) fn correct(&mut self, step: u64, loss: f64, plan: &Plan) -> Option<Forecast> {
        if let Some(expected) = self.path.as_ref().and_then(|path| path.best.at(ahead_of(path.origin, step))) {
            self.residuals.keep(loss.max(MIN_LOSS).ln() - expected.mean);
        }
        self.stand(plan);
        let path = self.path.as_ref()?;
        let mut outlook = self.read(path, step)?;
        if step <= path.origin {
            outlook.expected.mean = path.best.level;
        }
        Some(outlook.in_nats())
    }

    /// Share of the last losses that fell within two standard deviations of their forecast.
    pub(in crate::hybrid) fn confidence(&self) -> Option<f64> {
        let hits = self.foreseen.iter().filter(|&&hit| hit).count();
        let count = self.foreseen.len();
        (count >= MIN_CONFIDENCE_POINTS).then(|| hits as f64 / count as f64)
    }

    /// Whether the forecasts lean to one side, by the Correct steps so far.
    pub(in crate::hybrid) fn bias(&self) -> Option<ForecastBias> {
        self.residuals.bias()
    }

    /// The model in use.
    pub(super) fn used(&self) -> ForecastModel {
        self.contest.used()
    }

    /// What `model` expects of the next steps, all in `phase`.
    pub(super) fn path_of(&self, model: ForecastModel, phase: Phase, plan: &Plan) -> Vec<Expected> {
        let mut path = Vec::with_capacity(HORIZON);
        self.panel.model(model).look_ahead(&Ahead { plan, phase, steps: HORIZON }, &mut path);
        path
    }

    /// 90% interval of ln(loss), when one can be claimed.
    pub(super) fn interval(&self, model: ForecastModel, bucket: Bucket, expected: &Expected) -> Option<[f64; 2]> {
        self.calibration.interval(model, bucket, expected)
    }

    fn look_ahead(&self, ahead: &Ahead<'_>) -> Option<Path> {
        let branch = |model| {
            let model = self.panel.model(model);
            let (level, mut expected) = (model.level()?, Vec::with_capacity(ahead.steps));
            model.look_ahead(ahead, &mut expected);
            Some(Branch { level, expected })
        };
        let model = self.contest.used();
        let (best, course) = (branch(model)?, branch(COURSE)?);
        Some(Path { origin: self.last_step, model, best, course })
    }

    fn read(&self, path: &Path, step: u64) -> Option<Outlook> {
        let ahead = ahead_of(path.origin, step);
        let expected = path.best.at(ahead)?;
        let interval = self.calibration.interval(path.model, Bucket::of(ahead), &expected);
        let (course, level) = (path.course.at(ahead)?, path.course.level);
        Some(Outlook { model: path.model, expected, interval, course, level })
    }
}

/// Steps from `origin` to `step`, 1 to [`HORIZON`].
fn ahead_of(origin: u64, step: u64) -> usize {
    usize::try_from(step.saturating_sub(origin)).unwrap_or(HORIZON).clamp(1, HORIZON)
}

/// Adds to the back and keeps the newest `capacity`.
pub(in crate::hybrid) fn push_within<T>(window: &mut VecDeque<T>, value: T, capacity: usize) {
    window.push_back(value);
    while window.len() > capacity {
        window.pop_front();
    }
}

#[cfg(test)]
#[path = "forecaster_tests.rs"]
mod tests;
