//! Trains several contenders side by side in one process: they take turns of a few steps, so that whatever else the
//! machine does disturbs all of them alike, and the ratio of their times holds.

use std::sync::Arc;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::trial::{CurvePoint, Trial, TrialResult};
use super::{ExperimentError, TrialRecipe};
use crate::data::Dataset;
use crate::device::Watch;
use crate::models::Network;

/// Turns that each contender gets in a race.
const NUM_TURNS: u64 = 50;

/// Who trains, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contender {
    /// Name in tables and plots.
    pub name: String,
    /// What it is, in words.
    pub what: String,
    /// How it trains.
    pub recipe: TrialRecipe,
}

/// What all contenders of an experiment share.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The network.
    pub network: Arc<Network>,
    /// The data.
    pub dataset: Arc<Dataset>,
    /// Where to compute.
    pub device: Device,
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

/// Trains `contenders` with the same `seed`, in turns; returns their results in the same order.
pub fn race(
    ground: &Ground,
    contenders: &[&Contender],
    seed: u64,
    with_test: bool,
    what: &str,
    (watch, on_race): (Watch<'_>, OnRace<'_>),
) -> Result<Vec<TrialResult>, ExperimentError> {
    let begin = |contender: &&Contender| {
        Trial::begin(&contender.recipe, &ground.network, &ground.dataset, seed, ground.device.clone())
    };
    let mut trials = contenders.iter().map(begin).collect::<Result<Vec<_>, _>>()?;
    let total: u64 = contenders.iter().map(|contender| contender.recipe.num_steps).sum();
    while trials.iter().any(|trial| !trial.is_done()) {
        for (trial, contender) in trials.iter_mut().zip(contenders) {
            trial.advance(contender.recipe.num_steps.div_ceil(NUM_TURNS), watch)?;
        }
        watch.step(what, trials.iter().map(Trial::num_steps).sum(), Some(total))?;
        let curves = contenders.iter().zip(&trials);
        let curves = curves.map(|(contender, trial)| (contender.name.clone(), trial.curve().to_vec())).collect();
        on_race(RaceView { what: what.to_owned(), curves });
    }
    trials.into_iter().map(|trial| trial.finish(with_test, watch)).collect()
}
