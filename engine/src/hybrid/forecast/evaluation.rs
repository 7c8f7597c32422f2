//! How good the forecasts of a recorded run would have been: every model, every range of horizons.

use super::super::report::{Forecast, Phase};
use super::expected::{Bucket, Expected, ForecastModel, HORIZON, MIN_LOSS};
use super::forecaster::{Forecaster, Outlook};
use super::observed::{Observed, Plan, Rates};

/// Steps between two evaluated forecasts.
const EVALUATION_STEPS: u64 = 5;

/// A step of a recorded run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RecordedStep {
    /// From 1, rising.
    pub step: u64,
    /// Phase in which it ran.
    pub phase: Phase,
    /// Mean loss of the batch, nats.
    pub loss: f32,
    /// Gradient norm, when there was one.
    pub grad_norm: Option<f32>,
    /// Gate ratio; NaN when it was not measured.
    pub rho: f32,
    /// Learning rate over the run's peak.
    pub learning_rate_factor: f32,
}

/// Scores of one model over one range of horizons.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BucketScore {
    /// Forecasts that came due.
    pub num_forecasts: u64,
    /// Sum of their continuous ranked probability scores, in units of ln(loss).
    pub crps_sum: f64,
    /// Sum of |ln(loss) - its median forecast|.
    pub error_sum: f64,
    /// How many had a calibrated 90% interval, and how many losses fell inside it.
    pub num_intervals: u64,
    /// Of these, inside.
    pub num_inside: u64,
    /// Losses below the interval.
    pub num_below: u64,
    /// Sum of the intervals' widths, in units of ln(loss).
    pub width_sum: f64,
}

/// What the trainer would have shown at each step of `run`, seeded with `seed`: the forecast standing in Predict and
/// Correct, one step ahead elsewhere; `None` before there is one.
#[must_use]
pub fn replay(run: &[RecordedStep], seed: u64) -> Vec<Option<Forecast>> {
    let plan = plan_of(run, seed);
    let mut forecaster = Forecaster::default();
    let mut stands = false;
    let mut forecasts = Vec::with_capacity(run.len());
    for row in run {
        match (stands, row.phase.predicts()) {
            (false, true) => forecaster.stand(&plan),
            (true, false) => forecaster.withdraw(),
            (false, false) | (true, true) => {}
        }
        stands = row.phase.predicts();
        let outlook = take_in(&mut forecaster, row, &plan);
        forecasts.push(outlook.map(|outlook| outlook.in_nats()));
        if row.phase == Phase::Correct {
            forecaster.correct(row.step, f64::from(row.loss), &plan);
        }
    }
    forecasts
}

fn plan_of(run: &[RecordedStep], seed: u64) -> Plan {
    let factors = run.iter().map(|row| f64::from(row.learning_rate_factor)).collect();
    Plan { seed, num_steps: run.last().map_or(0, |last| last.step), rates: Rates::Recorded(factors) }
}

/// Observes a step, if its loss is finite; returns what was expected of it.
fn take_in(forecaster: &mut Forecaster, row: &RecordedStep, plan: &Plan) -> Option<Outlook> {
    let outlook = forecaster.outlook(row.step, row.phase, plan);
    if row.loss.is_finite() {
        let observed = Observed {
            step: row.step,
            phase: row.phase,
            loss: f64::from(row.loss),
            grad_norm: row.grad_norm.map(f64::from),
            rho: Some(f64::from(row.rho)),
            learning_rate_factor: f64::from(row.learning_rate_factor),
        };
        forecaster.observe(&observed, outlook.as_ref(), plan);
    }
    outlook
}

/// Scores of a run, to be added up over runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evaluation {
    by_model: [[BucketScore; 4]; 4],
    used: [BucketScore; 4],
    rounds: [u64; 4],
}

impl Evaluation {
    /// Replays `run`, seeded with `seed`, forecasting from every fifth step what was recorded after it.
    #[must_use]
    pub fn of(run: &[RecordedStep], seed: u64) -> Self {
        let mut evaluation = Self::default();
        let plan = plan_of(run, seed);
        let mut forecaster = Forecaster::default();
        for (index, row) in run.iter().enumerate() {
            take_in(&mut forecaster, row, &plan);
            if row.step.is_multiple_of(EVALUATION_STEPS) {
                evaluation.look_back(&forecaster, &plan, row, &run[index + 1..]);
            }
        }
        evaluation
    }

    /// Adds another run's scores.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.by_model.iter_mut().flatten().zip(other.by_model.iter().flatten()) {
            mine.add(theirs);
        }
        self.used.iter_mut().zip(&other.used).for_each(|(mine, theirs)| mine.add(theirs));
        self.rounds.iter_mut().zip(&other.rounds).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// Scores of one model, used or not.
    #[must_use]
    pub fn model(&self, model: ForecastModel, bucket: Bucket) -> &BucketScore {
        &self.by_model[model as usize][bucket as usize]
    }

    /// Scores of the model that was in use at the time.
    #[must_use]
    pub fn used(&self, bucket: Bucket) -> &BucketScore {
        &self.used[bucket as usize]
    }

    /// Share of the forecasts for which `model` was in use.
    #[must_use]
    pub fn share_used(&self, model: ForecastModel) -> f64 {
        self.rounds[model as usize] as f64 / self.rounds.iter().sum::<u64>().max(1) as f64
    }

    fn look_back(&mut self, forecaster: &Forecaster, plan: &Plan, row: &RecordedStep, future: &[RecordedStep]) {
        let used = forecaster.used();
        let mut is_made = false;
        for model in ForecastModel::ALL {
            let path = forecaster.path_of(model, row.phase, plan);
            is_made |= !path.is_empty();
            for later in future.iter().take(HORIZON) {
                let ahead = usize::try_from(later.step.saturating_sub(row.step)).unwrap_or(usize::MAX);
                let expected = ahead.checked_sub(1).and_then(|index| path.get(index));
                let Some(expected) = expected.filter(|_| later.loss.is_finite()) else { continue };
                let bucket = Bucket::of(ahead);
                let interval = forecaster.interval(model, bucket, expected);
                let score = BucketScore::of(expected, interval, f64::from(later.loss).max(MIN_LOSS).ln());
                self.by_model[model as usize][bucket as usize].add(&score);
                if model == used {
                    self.used[bucket as usize].add(&score);
                }
            }
        }
        if is_made {
            self.rounds[used as usize] += 1;
        }
    }
}

impl BucketScore {
    fn of(expected: &Expected, interval: Option<[f64; 2]>, ln_loss: f64) -> Self {
        let [low, high] = interval.unwrap_or([f64::NAN; 2]);
        Self {
            num_forecasts: 1,
            crps_sum: expected.crps(ln_loss),
            error_sum: (ln_loss - expected.mean).abs(),
            num_intervals: u64::from(interval.is_some()),
            num_inside: u64::from((low..=high).contains(&ln_loss)),
            num_below: u64::from(ln_loss < low),
            width_sum: interval.map_or(0.0, |[low, high]| high - low),
        }
    }

    fn add(&mut self, other: &Self) {
        self.num_forecasts += other.num_forecasts;
        self.crps_sum += other.crps_sum;
        self.error_sum += other.error_sum;
        self.num_intervals += other.num_intervals;
        self.num_inside += other.num_inside;
        self.num_below += other.num_below;
        self.width_sum += other.width_sum;
    }
}

#[cfg(test)]
#[path = "evaluation_tests.rs"]
mod tests;
