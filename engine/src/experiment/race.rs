//! Trains several contenders side by side in one process: they take turns of a few steps, so that whatever else the
//! machine does disturbs all of them alike, and the ratio of their times holds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::stages::Eyes;
use super::trial::{CurvePoint, Exam, Trial, TrialResult};
use super::{ExperimentError, TrialRecipe};
use crate::data::Dataset;
use crate::device::Lanes;
use crate::models::{Growth, ModelConfig, Network};

/// Turns that each contender gets in a race.
const NUM_TURNS: u64 = 50;

/// Progress is told this often, however long a turn takes.
const TELL_INTERVAL: Duration = Duration::from_millis(200);

/// Who trains, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contender {
    /// Name in tables and plots.
    pub name: String,
    /// What it is, in words.
    pub what: String,
    /// How it trains.
    pub recipe: TrialRecipe,
    /// The network it begins with, where that is not the ground's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begins: Option<Beginning>,
}

/// A contender's own network, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Beginning {
    /// The network.
    pub model: ModelConfig,
    /// Steps after which it grows into the ground's network, and how; `None` when it stays as it is.
    pub grows: Option<(u64, Growth)>,
}

/// What all contenders of an experiment share.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The network of all contenders that bring none of their own, and that into which those grow that do.
    pub network: Arc<Network>,
    /// The data.
    pub dataset: Arc<Dataset>,
    /// Where to compute.
    pub device: Device,
    /// Threads for one race, as often as the machine has cores for them.
    pub lanes: Arc<Lanes>,
}

/// How a race stands, for whoever watches it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RaceView {
    /// What is going on: "tuning vanilla, learning rate x2".
    pub what: String,
    /// Contenders' names with their curves so far.
    pub curves: Vec<(String, Vec<CurvePoint>)>,
}

/// Who sees the race while it goes on.
pub type OnRace<'a> = &'a (dyn Fn(RaceView) + Sync);

/// How a race is run.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// What it is for: "tuning vanilla, learning rate x2".
    pub what: &'a str,
    /// Seed of all contenders.
    pub seed: u64,
    /// What is measured at the end.
    pub exam: Exam,
    /// Ends all trainings when this much time has passed since the start, after equally many steps of each; at least
    /// one. Measuring the end comes on top. Contenders with a limit take turns of one step.
    pub time_limit: Option<Duration>,
}

impl<'a> Terms<'a> {
    /// Whole trainings, measured on the validation part.
    #[must_use]
    pub fn new(what: &'a str, seed: u64) -> Self {
        Self { what, seed, exam: Exam::VALIDATION, time_limit: None }
    }
}

/// One race, with all threads of a lane and the other lanes at rest: for times that decide something.
pub fn race_alone(
    ground: &Ground,
    contenders: &[&Contender],
    terms: &Terms<'_>,
    eyes: Eyes<'_>,
) -> Result<Vec<TrialResult>, ExperimentError> {
    ground.lanes.alone(|| race(ground, contenders, terms, eyes))
}

/// Trains `contenders` with each seed, in turns within a seed, and as many seeds at once as there are lanes.
/// `what` says what the race with a seed is for. Returns for each contender, in that order, one result per seed.
pub fn race_seeds(
    ground: &Ground,
    contenders: &[&Contender],
    seeds: &[u64],
    what: impl Fn(u64) -> String + Sync,
    eyes: Eyes<'_>,
) -> Result<Vec<Vec<TrialResult>>, ExperimentError> {
    let with_seed =
        |&seed: &u64| race(ground, contenders, &Terms { exam: Exam::FINAL, ..Terms::new(&what(seed), seed) }, eyes);
    let mut results = vec![Vec::new(); contenders.len()];
    for finished in ground.lanes.side_by_side(seeds, with_seed)? {
        for (results, result) in results.iter_mut().zip(finished) {
            results.push(result);
        }
    }
    Ok(results)
}

/// Trains `contenders` with the same seed, in turns, on the threads of the caller; returns their results in the same
/// order.
pub fn race(
    ground: &Ground,
    contenders: &[&Contender],
    terms: &Terms<'_>,
    eyes: Eyes<'_>,
) -> Result<Vec<TrialResult>, ExperimentError> {
    let trials = trained(ground, contenders, terms, eyes)?;
    trials.into_iter().map(|trial| trial.finish(terms.exam, eyes.watch())).collect()
}

/// [`race`] up to its end, where nothing is measured yet.
pub(super) fn trained(
    ground: &Ground,
    contenders: &[&Contender],
    terms: &Terms<'_>,
    eyes: Eyes<'_>,
) -> Result<Vec<Trial>, ExperimentError> {
    let started = Instant::now();
    let stage = eyes.begin(terms.what);
    eyes.tell(&stage, 0.0)?;
    let begin = |contender: &&Contender| Trial::begin(contender, ground, terms.seed, eyes.watch());
    let mut trials = contenders.iter().map(begin).collect::<Result<Vec<_>, _>>()?;
    let total: u64 = contenders.iter().map(|contender| contender.recipe.num_steps).sum();
    // Share of the time there is; 0 without a limit.
    let time_share =
        || terms.time_limit.map_or(0.0, |limit| started.elapsed().as_secs_f64() / limit.as_secs_f64().max(1e-9));
    let share = |done: u64| time_share().max(done as f64 / total.max(1) as f64);
    let (mut done, mut told) = (0, Instant::now());
    while trials.iter().any(|trial| !trial.is_done()) {
        for (trial, contender) in trials.iter_mut().zip(contenders) {
            let turn = if terms.time_limit.is_some() { 1 } else { contender.recipe.num_steps.div_ceil(NUM_TURNS) };
            for _ in 0..turn {
                if trial.is_done() {
                    break;
                }
                trial.advance(eyes.watch())?;
                done += 1;
                if told.elapsed() >= TELL_INTERVAL {
                    told = Instant::now();
                    eyes.tell(&stage, share(done))?;
                }
            }
        }
        eyes.tell(&stage, share(done))?;
        let curves = contenders.iter().zip(&trials);
        let curves = curves.map(|(contender, trial)| (contender.name.clone(), trial.curve().to_vec())).collect();
        eyes.show(&stage, RaceView { what: terms.what.to_owned(), curves });
        if time_share() >= 1.0 {
            break;
        }
    }
    eyes.end(&stage);
    Ok(trials)
}
