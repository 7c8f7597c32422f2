//! Tiers compared: what does more daring save, and what does it cost?
//!
//! The same recipe trains with each tier, with the same seeds, in turns in one process. Nothing is tuned: tiers are what
//! a user would pick from, at the recipe's learning rate.

use serde::{Deserialize, Serialize};

use super::correction_figures::CorrectionFigures;
use super::race::{Contender, Ground, OnRace, race_seeds};
use super::stages::{Eyes, Stages};
use super::trial::TrialResult;
use super::words::{compared, interval};
use super::{Estimate, ExperimentError};
use crate::device::Watch;
use crate::hybrid::Phase;

/// What to train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TiersPlan {
    /// Vanilla, which the others are compared with, then the others.
    pub tiers: Vec<Contender>,
    /// Seeds, the same for each tier.
    pub seeds: Vec<u64>,
}

/// Everything measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TiersResult {
    /// The plan.
    pub plan: TiersPlan,
    /// For each tier, in that order, one result per seed.
    pub results: Vec<Vec<TrialResult>>,
}

/// What a tier's figures say. Runs that diverged are counted, and left out of everything else.
#[derive(Debug, Clone, PartialEq)]
pub struct TierFigures {
    /// Name.
    pub name: String,
    /// Seconds of training.
    pub seconds: Option<Estimate>,
    /// Vanilla's seconds over the tier's, seed by seed: 1.5 is half again as fast.
    pub speed_up: Option<Estimate>,
    /// Share of vanilla's example-backwards that it saved.
    pub backwards_saved: Option<Estimate>,
    /// Held-out loss, nats.
    pub loss: Option<Estimate>,
    /// The tier's loss over vanilla's, seed by seed.
    pub loss_ratio: Option<Estimate>,
    /// Held-out accuracy, share of 1; `None` for text.
    pub accuracy: Option<Estimate>,
    /// Held-out perplexity, exp(loss) per token; `None` for images.
    pub perplexity: Option<Estimate>,
    /// Steps in Predict, as a share of all.
    pub predicted_share: f64,
    /// Divergences in all runs.
    pub num_divergences: usize,
    /// Runs that the guard ended.
    pub num_diverged: usize,
    /// What its Correct steps found; `None` without any.
    pub corrections: Option<CorrectionFigures>,
}

impl TiersPlan {
    /// Errors: [`ExperimentError::Plan`].
    pub fn check(&self) -> Result<(), ExperimentError> {
        let refuse = |expected, found: String| Err(ExperimentError::Plan { expected, found });
        if self.seeds.is_empty() {
            return refuse("at least one seed", "none".to_owned());
        }
        let predicts: Vec<bool> = self.tiers.iter().map(|tier| tier.recipe.hybrid.strategy.predicts()).collect();
        if !matches!(predicts.as_slice(), [false, true, ..]) {
            let names: Vec<&str> = self.tiers.iter().map(|tier| tier.name.as_str()).collect();
            return refuse("vanilla and then tiers that predict", names.join(", "));
        }
        Ok(())
    }
}

/// Trains all tiers with every seed. Errors: a plan that cannot be, and whatever a training fails with.
pub fn tiers(ground: &Ground, plan: &TiersPlan, eyes: (Watch<'_>, OnRace<'_>)) -> Result<TiersResult, ExperimentError> {
    plan.check()?;
    let stages = Stages::new(plan.seeds.len() as u64);
    let eyes = Eyes::new(eyes, &stages);
    let contenders: Vec<&Contender> = plan.tiers.iter().collect();
    let what = |seed| format!("all tiers in turns, seed {seed}");
    let results = race_seeds(ground, &contenders, &plan.seeds, what, eyes)?;
    Ok(TiersResult { plan: plan.clone(), results })
}

impl TiersResult {
    /// What the figures of each tier say, vanilla first.
    #[must_use]
    pub fn figures(&self) -> Vec<TierFigures> {
        let vanilla = self.results.first().map_or(&[][..], Vec::as_slice);
        let tiers = self.plan.tiers.iter().zip(&self.results);
        tiers.map(|(tier, results)| TierFigures::of(&tier.name, results, vanilla)).collect()
    }

    /// What daring saved and cost, in words.
    #[must_use]
    pub fn verdict(&self) -> String {
        let sentences = self.figures().into_iter().skip(1).map(|tier| tier.verdict());
        sentences.collect::<Vec<_>>().join(" ")
    }
}

impl TierFigures {
    fn of(name: &str, results: &[TrialResult], vanilla: &[TrialResult]) -> Self {
        let ended = || results.iter().filter(|result| !result.has_diverged);
        let estimate = |figure: &dyn Fn(&TrialResult) -> f64| Estimate::of(&ended().map(figure).collect::<Vec<_>>());
        let pairs = |figure: &dyn Fn(&TrialResult) -> f64| -> Vec<(f64, f64)> {
            let pairs = results.iter().zip(vanilla).filter(|(mine, full)| !(mine.has_diverged || full.has_diverged));
            pairs.map(|(mine, full)| (figure(mine), figure(full))).collect()
        };
        let loss = |result: &TrialResult| result.held_out().loss;
        let saved = pairs(&|result| result.example_backwards as f64);
        let saved: Vec<f64> = saved.iter().map(|(mine, full)| 1.0 - mine / full).collect();
        let seconds: Vec<(f64, f64)> =
            pairs(&|result| result.seconds).into_iter().map(|(mine, full)| (full, mine)).collect();
        let accuracies: Vec<f64> = ended().filter_map(|result| result.held_out().accuracy).collect();
        let is_text = accuracies.is_empty();
        let predicted: u64 = results.iter().map(|result| result.phase(Phase::Predict).num_steps).sum();
        let all: u64 = results.iter().map(|result| result.num_steps).sum();
        Self {
            name: name.to_owned(),
            seconds: estimate(&|result| result.seconds),
            speed_up: Estimate::of_ratio(&seconds),
            backwards_saved: Estimate::of(&saved),
            loss: estimate(&loss),
            loss_ratio: Estimate::of_ratio(&pairs(&loss)),
            accuracy: Estimate::of(&accuracies),
            perplexity: if is_text { estimate(&|result| loss(result).exp()) } else { None },
            predicted_share: predicted as f64 / all.max(1) as f64,
            num_divergences: results.iter().map(|result| result.divergences.len()).sum(),
            num_diverged: results.iter().filter(|result| result.has_diverged).count(),
            corrections: CorrectionFigures::of_results(results),
        }
    }

    fn verdict(&self) -> String {
        let Self { name, num_diverged, num_divergences, .. } = self;
        let mut text = match (self.speed_up, self.loss_ratio) {
            (Some(speed_up), Some(_)) if self.predicted_share == 0.0 => {
                let speed = interval(&speed_up, 1.0, 2, "");
                format!("{name} never predicted, so it trained as vanilla does, {speed} times as fast.")
            }
            (Some(speed_up), Some(ratio)) => {
                let speed = interval(&speed_up, 1.0, 2, "");
                let loss = compared("its loss is", &ratio, "vanilla's");
                format!("{name} trained {speed} times as fast as vanilla; {loss}")
            }
            _ => format!("{name} has no run to compare: {num_diverged} of its runs, or vanilla's, diverged."),
        };
        if *num_divergences > 0 {
            text.push_str(&format!(" Its guard saw {num_divergences} divergences and ended {num_diverged} runs."));
        }
        text
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::literal;

    #[test]
    fn ratios_are_seed_by_seed_against_vanilla() {
        let figures = literal::tiers().figures();
        let [vanilla, conservative, aggressive] = figures.as_slice() else { panic!("{figures:?}") };
        assert!((vanilla.speed_up.unwrap().mean - 1.0).abs() < 1e-12 && vanilla.corrections.is_none());
        assert!((conservative.speed_up.unwrap().mean - 2.0).abs() < 1e-12);
        assert!((conservative.loss_ratio.unwrap().mean - 1.1).abs() < 1e-12);
        assert!((conservative.backwards_saved.unwrap().mean - 0.5).abs() < 1e-12);
        assert!(conservative.perplexity.is_none() && conservative.accuracy.is_some());
        assert_eq!((aggressive.num_diverged, aggressive.num_divergences), (1, 1));
        // The diverged seed is left out, not averaged in.
        assert_eq!(aggressive.loss.unwrap().count, 1);
    }

    #[test]
    fn text_is_judged_by_perplexity() {
        let mut result = literal::tiers();
        for trial in result.results.iter_mut().flatten() {
            trial.validation.accuracy = None;
            trial.test = None;
        }
        let first = result.figures().swap_remove(0);
        let losses = result.results[0].iter().map(|trial| trial.validation.loss.exp());
        let mean = losses.sum::<f64>() / 2.0;
        assert!((first.perplexity.unwrap().mean - mean).abs() < 1e-12 && first.accuracy.is_none());
    }

    #[test]
    fn the_verdict_has_a_sentence_for_each_tier_that_predicts() {
        let verdict = literal::tiers().verdict();
        assert!(verdict.contains("conservative trained 2.00") && verdict.contains("10.0% higher"), "{verdict}");
        assert!(verdict.contains("aggressive") && verdict.contains("ended 1 runs"), "{verdict}");
    }

    #[test]
    fn a_tier_that_never_predicted_says_so() {
        let mut result = literal::tiers();
        result.results[1] = result.results[0].clone();
        let verdict = result.verdict();
        assert!(verdict.starts_with("conservative never predicted") && !verdict.contains("0.0%"), "{verdict}");
    }

    #[test]
    fn vanilla_must_be_there_to_compare_with() {
        let mut plan = literal::tiers().plan;
        plan.check().unwrap();
        plan.tiers.remove(0);
        plan.check().unwrap_err();
    }
}
