//! The measurement: warm up, then turns of ours and theirs, round by round.

use std::path::PathBuf;

use super::case::Case;
use super::peer::{Peer, PeerPlan};
use super::turn::{Turn, median};
use super::{
    BenchError, BenchModel, BenchSize, CaseSpeed, PeerOutcome, PeerSpeed, ScalePoint, TorchVariant, TrainSpeed,
    TurnTimes,
};
use crate::device::{Cancelled, MachineRecord, Watch, compute_pool, resolved_num_threads};
use crate::hybrid::HybridConfig;
use crate::models::ops::{self, Precision};

/// What to measure, and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainBenchPlan {
    /// Models.
    pub models: Vec<BenchModel>,
    /// Of our matrix products.
    pub precision: Precision,
    /// Compute threads of each side; 0 means one per core.
    pub num_threads: usize,
    /// Times that each side has its turn.
    pub rounds: usize,
    /// Seconds of a turn; at least two steps are timed in any case.
    pub seconds_per_turn: f64,
    /// PyTorch to compare with, if any.
    pub peer: Option<PeerPlan>,
    /// Folder for weights that the other side reads; files of ours in it are deleted afterwards.
    pub scratch: PathBuf,
}

impl TrainBenchPlan {
    fn check(&self) -> Result<(), BenchError> {
        let refuse = |expected, found: String| Err(BenchError::Plan { expected, found });
        if self.models.is_empty() {
            return refuse("at least one model", "none".to_owned());
        }
        if let Some(missing) = self.precision.missing() {
            return refuse("instructions for the precision", missing.to_owned());
        }
        if !self.precision.is_full()
            && let Some(model) = self.models.iter().find(|model| !model.has_bf16_products())
        {
            return refuse("language models alone in bf16", model.label().to_owned());
        }
        if self.rounds == 0 {
            return refuse("at least one round", "0".to_owned());
        }
        if !(self.seconds_per_turn.is_finite() && self.seconds_per_turn >= 0.0) {
            return refuse("seconds of at least 0", self.seconds_per_turn.to_string());
        }
        Ok(())
    }
}

/// Measures training steps of known models, `vanilla` being the tier without prediction.
/// Errors: [`BenchError`]; a way of computing that PyTorch does not have here is part of the result instead.
pub fn bench_train(plan: &TrainBenchPlan, vanilla: &HybridConfig, watch: Watch<'_>) -> Result<TrainSpeed, BenchError> {
    plan.check()?;
    // As a run does where there is room.
    ops::keep_freed_pages();
    let pool = compute_pool(plan.num_threads)?;
    let mut peer = plan.peer.as_ref().map(|peer| Peer::start(peer, plan.num_threads, watch)).transpose()?;
    let mut cases = Vec::with_capacity(plan.models.len());
    for (index, &model) in plan.models.iter().enumerate() {
        let tell = |what: &str| {
            let what = format!("{}: {what}", model.label());
            watch.step(&what, index as u64, Some(plan.models.len() as u64))
        };
        // The peer's process waits while ours computes, and the reverse.
        let case = pool.install(|| measure(plan, model, vanilla, (watch, &tell), peer.as_mut()))?;
        cases.push(case);
    }
    Ok(TrainSpeed {
        machine: MachineRecord::here(),
        num_threads: resolved_num_threads(plan.num_threads),
        precision: plan.precision,
        rounds: plan.rounds,
        seconds_per_turn: plan.seconds_per_turn,
        torch: peer.map(|peer| peer.version().to_owned()),
        cases,
    })
}

/// Says what is being done.
pub(super) type Tell<'a> = &'a (dyn Fn(&str) -> Result<(), Cancelled> + Sync);

fn measure(
    plan: &TrainBenchPlan,
    model: BenchModel,
    vanilla: &HybridConfig,
    (watch, tell): (Watch<'_>, Tell<'_>),
    mut peer: Option<&mut Peer>,
) -> Result<CaseSpeed, BenchError> {
    tell("drawing weights")?;
    let mut case = Case::new(model, vanilla, plan.precision)?;
    let size = model.size();
    let batch = case.batch(size)?;
    let loss = case.forward(&batch)?;
    let theirs = peer.as_mut().map(|peer| peer.prepare(&case, &batch, loss, (watch, tell), &plan.scratch));
    let mut theirs = theirs.transpose()?.unwrap_or_default();
    // The first step also builds buffers and pages.
    case.step(&batch)?;
    let seconds = plan.seconds_per_turn;
    let (mut steps, mut forwards) = (Vec::new(), Vec::new());
    let mut their_turns: Vec<Vec<Turn>> = vec![Vec::new(); theirs.len()];
    for round in 1..=plan.rounds {
        tell(&format!("round {round} of {}", plan.rounds))?;
        steps.push(Turn::take(seconds, watch, || case.step(&batch))?);
        forwards.push(Turn::take(seconds / 3.0, watch, || case.forward(&batch).map(drop))?);
        for (turns, (variant, outcome)) in their_turns.iter_mut().zip(&mut theirs) {
            if let (Some(peer), Ok(_)) = (&mut peer, &outcome) {
                turns.push(peer.turn(*variant, seconds, watch)?);
            }
        }
    }
    if let Some(peer) = peer {
        peer.release(watch)?;
    }
    tell("smaller batches")?;
    let mut scaling = Vec::new();
    for size in smaller(size) {
        let batch = case.batch(size)?;
        case.step(&batch)?;
        scaling.push(ScalePoint { size, step: TurnTimes::of(&[Turn::take(seconds, watch, || case.step(&batch))?]) });
    }
    let peers = theirs.into_iter().zip(their_turns).map(|((variant, prepared), turns)| PeerSpeed {
        variant,
        outcome: match prepared {
            Ok(their_loss) => compared(&steps, &turns, their_loss - loss),
            Err(why) => PeerOutcome::Unavailable(why),
        },
    });
    Ok(CaseSpeed {
        model,
        num_params: case.num_params(),
        size,
        step: TurnTimes::of(&steps),
        forward: TurnTimes::of(&forwards),
        scaling,
        peers: peers.collect(),
    })
}

/// Half and a quarter of the batch, and of the tokens.
fn smaller(size: BenchSize) -> Vec<BenchSize> {
    let parts = [4, 2].into_iter();
    let batches = parts.clone().map(|part| BenchSize { batch: size.batch / part, ..size });
    let tokens = parts.map(|part| BenchSize { tokens: size.tokens / part, ..size });
    batches.chain(tokens.filter(|size| size.tokens > 0)).filter(|size| size.batch > 0).collect()
}

fn compared(ours: &[Turn], theirs: &[Turn], loss_difference: f64) -> PeerOutcome {
    // The two of a round are neighbors in time: what else the machine does disturbs them alike.
    let ratios: Vec<f64> =
        ours.iter().zip(theirs).map(|(ours, theirs)| theirs.median_ms() / ours.median_ms()).collect();
    PeerOutcome::Measured {
        step: TurnTimes::of(theirs),
        ratio_least: ratios.iter().copied().fold(f64::INFINITY, f64::min),
        ratio_most: ratios.iter().copied().fold(0.0, f64::max),
        ratio: median(ratios),
        loss_difference,
    }
}

/// A way of computing with PyTorch: its first loss, or why there is none.
pub(super) type Prepared = Vec<(TorchVariant, Result<f64, String>)>;
