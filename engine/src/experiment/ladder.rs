//! The ladder: does what holds for a small language model hold for the next size?
//!
//! GPT-2s of about 100 thousand, 1, 11 and 124 million parameters, from the smallest up. On each rung vanilla and the
//! hybrid train equally many steps, in turns, until the rung's time is over. A rung opens only while the one below kept
//! its quality: the hybrid's held-out loss at most a stated share above vanilla's after as many steps.

use std::sync::Arc;
use std::time::Duration;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::race::{Contender, Ground, OnRace, Terms, race_alone};
use super::stages::{Eyes, Stages};
use super::trial::{Exam, TrialResult};
use super::{ExperimentError, TrialRecipe};
use crate::data::Dataset;
use crate::device::{Lanes, Watch};
use crate::hybrid::{HybridConfig, Phase};
use crate::memory::{MemoryPlan, format_bytes};
use crate::models::{DataShape, Gpt2Config, ModelConfig, ModelError, ModelPreset, Network};

/// A size of GPT-2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the documentation; `label` spells them out")]
pub enum RungSize {
    P100K,
    P1M,
    P11M,
    P124M,
}

impl RungSize {
    /// All of them, smallest first.
    pub const ALL: [Self; 4] = [Self::P100K, Self::P1M, Self::P11M, Self::P124M];

    /// Name to type and to show.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::P100K => "100k",
            Self::P1M => "1m",
            Self::P11M => "11m",
            Self::P124M => "124m",
        }
    }

    /// The size called `label`, in either case; `None` when there is no such one.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|size| size.label().eq_ignore_ascii_case(label))
    }

    /// The network's config. The names count what a vocabulary of GPT-2's size makes of the largest, and one of
    /// characters of the others; the exact number is in the report.
    /// Errors: [`ModelError::Config`] for a vocabulary that cannot be.
    pub fn config(self, vocab_size: usize) -> Result<ModelConfig, ModelError> {
        let small = |n_layer, n_embd, n_head| {
            ModelConfig::Gpt2(Gpt2Config {
                vocab_size,
                n_positions: 256,
                n_embd,
                n_layer,
                n_head,
                layer_norm_epsilon: 1e-5,
                initializer_range: 0.02,
            })
        };
        match self {
            // A block has 12 x width² weights.
            Self::P100K => Ok(small(2, 64, 2)),
            Self::P1M => Ok(small(5, 128, 4)),
            Self::P11M => ModelPreset::Gpt2_11M.config(DataShape::Text { vocab_size }),
            Self::P124M => ModelPreset::Gpt2_124M.config(DataShape::Text { vocab_size }),
        }
    }
}

/// What to train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LadderPlan {
    /// Sizes, smallest first.
    pub sizes: Vec<RungSize>,
    /// The hybrid's recipe, for all sizes; only the parts that a batch is cut into may be more where memory asks for it.
    pub recipe: TrialRecipe,
    /// What vanilla's guard watches.
    pub vanilla: HybridConfig,
    /// Seconds that the two trainings of a rung may take together; measuring them on held-out data comes on top.
    pub seconds_per_rung: f64,
    /// Share by which the hybrid's loss may lie above vanilla's.
    pub loss_tolerance: f64,
    /// Most held-out sequences to measure on.
    pub max_examples: usize,
    /// Seed.
    pub seed: u64,
}

/// A rung before it is climbed.
#[derive(Debug)]
pub struct Rung {
    /// Its size.
    pub size: RungSize,
    /// Its network.
    pub network: Arc<Network>,
    /// Parts that a batch is cut into.
    pub num_micro_batches: usize,
    /// What both trainings side by side need.
    pub memory: MemoryPlan,
}

/// How a rung went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum RungOutcome {
    /// Both trained for equally many steps, all of the planned ones or as many as there was time for.
    Trained {
        /// All full steps.
        vanilla: Box<TrialResult>,
        /// The recipe, predicting.
        hybrid: Box<TrialResult>,
    },
    /// The memory plan is over the budget.
    NoMemory {
        /// Bytes that both trainings need.
        needed_bytes: u64,
        /// Bytes that there are.
        budget_bytes: u64,
        /// Where the budget comes from.
        budget_source: String,
    },
    /// A rung below it ended the climb.
    NotOpened,
}

/// One rung.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RungResult {
    /// Its size.
    pub size: RungSize,
    /// Trainable numbers.
    pub num_params: u64,
    /// Parts that a batch was cut into.
    pub num_micro_batches: usize,
    /// How it went.
    pub outcome: RungOutcome,
}

/// Everything measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LadderResult {
    /// The plan.
    pub plan: LadderPlan,
    /// Smallest first.
    pub rungs: Vec<RungResult>,
}

impl LadderPlan {
    /// Errors: [`ExperimentError::Plan`].
    pub fn check(&self) -> Result<(), ExperimentError> {
        let refuse = |expected, found: String| Err(ExperimentError::Plan { expected, found });
        if self.sizes.is_empty() || !self.sizes.is_sorted_by(|a, b| a < b) {
            let found = self.sizes.iter().map(|size| size.label()).collect::<Vec<_>>().join(", ");
            return refuse(
                "rungs from the smallest up, each once",
                if found.is_empty() { "none".into() } else { found },
            );
        }
        if !(self.seconds_per_rung.is_finite() && self.seconds_per_rung > 0.0) {
            return refuse("a time for each rung", format!("{} s", self.seconds_per_rung));
        }
        if !(self.loss_tolerance.is_finite() && self.loss_tolerance >= 0.0) {
            return refuse("a loss tolerance of at least 0", self.loss_tolerance.to_string());
        }
        if !self.recipe.hybrid.strategy.predicts() {
            return refuse("a recipe that predicts, to compare with vanilla", "strategy none".to_owned());
        }
        Ok(())
    }

    fn contender(&self, name: &str, hybrid: &HybridConfig, num_micro_batches: usize) -> Contender {
        let recipe = TrialRecipe { hybrid: hybrid.clone(), num_micro_batches, ..self.recipe.clone() };
        Contender { name: name.to_owned(), what: String::new(), recipe, begins: None }
    }
}

/// Climbs the rungs, one for each size of the plan. Errors: a plan that cannot be, and whatever a training fails with;
/// a rung without memory, without time or without quality is a result.
pub fn ladder(
    (dataset, device, lanes): (&Arc<Dataset>, &Device, &Arc<Lanes>),
    plan: &LadderPlan,
    rungs: Vec<Rung>,
    eyes: (Watch<'_>, OnRace<'_>),
) -> Result<LadderResult, ExperimentError> {
    plan.check()?;
    let stages = Stages::new(rungs.len() as u64);
    let eyes = Eyes::new(eyes, &stages);
    let mut results = Vec::new();
    let mut is_open = true;
    for Rung { size, network, num_micro_batches, memory } in rungs {
        let num_params = network.num_params() as u64;
        let outcome = if !is_open {
            eyes.skip(1);
            RungOutcome::NotOpened
        } else if !memory.fits() {
            eyes.skip(1);
            let (needed_bytes, MemoryPlan { budget_bytes, budget_source, .. }) = (memory.total_bytes(), memory);
            RungOutcome::NoMemory { needed_bytes, budget_bytes, budget_source }
        } else {
            let (dataset, lanes) = (Arc::clone(dataset), Arc::clone(lanes));
            let ground = Ground { network, dataset, device: device.clone(), lanes };
            climb(&ground, plan, (size, num_micro_batches), eyes)?
        };
        let rung = RungResult { size, num_params, num_micro_batches, outcome };
        is_open = is_open && rung.has_kept_quality(plan.loss_tolerance);
        results.push(rung);
    }
    Ok(LadderResult { plan: plan.clone(), rungs: results })
}

fn climb(
    ground: &Ground,
    plan: &LadderPlan,
    (size, num_micro_batches): (RungSize, usize),
    eyes: Eyes<'_>,
) -> Result<RungOutcome, ExperimentError> {
    let vanilla = plan.contender("vanilla", &plan.vanilla, num_micro_batches);
    let hybrid = plan.contender("hybrid", &plan.recipe.hybrid, num_micro_batches);
    let what = format!("rung {}", size.label());
    let terms = Terms {
        exam: Exam { with_test: false, max_examples: plan.max_examples },
        time_limit: Some(Duration::from_secs_f64(plan.seconds_per_rung)),
        ..Terms::new(&what, plan.seed)
    };
    match <[TrialResult; 2]>::try_from(race_alone(ground, &[&vanilla, &hybrid], &terms, eyes)?) {
        Ok([vanilla, hybrid]) => Ok(RungOutcome::Trained { vanilla: Box::new(vanilla), hybrid: Box::new(hybrid) }),
        Err(other) => Err(ExperimentError::Plan { expected: "two trainings", found: other.len().to_string() }),
    }
}

impl RungResult {
    /// The hybrid's held-out loss over vanilla's, after equally many steps; `None` unless both trained that far.
    #[must_use]
    pub fn loss_ratio(&self) -> Option<f64> {
        match &self.outcome {
            RungOutcome::Trained { vanilla, hybrid } => {
                let is_even = !vanilla.has_diverged && !hybrid.has_diverged;
                Some(hybrid.held_out().loss / vanilla.held_out().loss).filter(|ratio| is_even && ratio.is_finite())
            }
            RungOutcome::NoMemory { .. } | RungOutcome::NotOpened => None,
        }
    }

    /// True when the hybrid's loss is at most `tolerance` above vanilla's.
    #[must_use]
    pub fn has_kept_quality(&self, tolerance: f64) -> bool {
        self.loss_ratio().is_some_and(|ratio| ratio <= 1.0 + tolerance)
    }

    /// Vanilla's seconds over the hybrid's, for equally many steps.
    #[must_use]
    pub fn speed_up(&self) -> Option<f64> {
        match &self.outcome {
            RungOutcome::Trained { vanilla, hybrid } if self.loss_ratio().is_some() => {
                Some(vanilla.seconds / hybrid.seconds)
            }
            RungOutcome::Trained { .. } | RungOutcome::NoMemory { .. } | RungOutcome::NotOpened => None,
        }
    }
}

impl LadderResult {
    /// How each rung went, in words.
    #[must_use]
    pub fn verdict(&self) -> String {
        self.rungs.iter().map(|rung| self.verdict_of(rung)).collect::<Vec<_>>().join(" ")
    }

    fn verdict_of(&self, rung: &RungResult) -> String {
        let name = rung.size.label();
        let planned = self.plan.recipe.num_steps;
        match &rung.outcome {
            RungOutcome::NotOpened => format!("Rung {name} was not opened."),
            RungOutcome::NoMemory { needed_bytes, budget_bytes, budget_source } => format!(
                "Rung {name} needs {} of memory for its two trainings, the budget is {} ({budget_source}): it did not train.",
                format_bytes(*needed_bytes),
                format_bytes(*budget_bytes)
            ),
            RungOutcome::Trained { vanilla, hybrid } => {
                let done = vanilla.num_steps.min(hybrid.num_steps);
                let how_far = if done >= planned {
                    format!("all {planned} steps")
                } else {
                    format!("{done} of {planned} steps, the loss so far {:.4} nats", hybrid.held_out().loss)
                };
                let Some((ratio, speed_up)) = rung.loss_ratio().zip(rung.speed_up()) else {
                    return format!("Rung {name} diverged after {done} of {planned} steps.");
                };
                let tolerance = 100.0 * self.plan.loss_tolerance;
                let judged = if rung.has_kept_quality(self.plan.loss_tolerance) { "within" } else { "not within" };
                let change = 100.0 * (ratio - 1.0);
                let predicted = hybrid.phase(Phase::Predict).num_steps;
                let predicted = if predicted == 0 {
                    "it never predicted".to_owned()
                } else {
                    format!("{predicted} steps predicted")
                };
                format!(
                    "Rung {name}: {how_far}; the hybrid's loss is {change:+.2}% against vanilla's ({judged} {tolerance}%), at \
                     {speed_up:.2} times its speed ({predicted})."
                )
            }
        }
    }
}

#[cfg(test)]
#[path = "ladder_tests.rs"]
mod tests;
