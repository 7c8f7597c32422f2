//! Corrections: how good are the forecasts, and how much of their error does a Correct step take away?
//!
//! The recipe trains once for every confidence threshold, horizon and seed. For each Correct step, the loss forecast
//! before it, the loss forecast after it and the loss measured are compared; and how far the sampled gradient, by which
//! Predict moves, points along the full one. Demanded of a threshold of 0.55: an error reduction of at least 95%, at an
//! overhead below 5% of the time of Predict, without any divergence.

use serde::{Deserialize, Serialize};

use super::correction_figures::{CorrectionFigures, Overhead};
use super::race::{Contender, Ground, OnRace, Terms, race};
use super::stages::{Eyes, Stages};
use super::trial::{Reliability, TrialResult};
use super::{Estimate, ExperimentError, TrialRecipe};
use crate::device::Watch;
use crate::hybrid::forecast::ReliabilityPoint;
use crate::hybrid::{HybridConfig, Phase};

/// Least share of error that corrections are to take away.
pub const DEMANDED_REDUCTION: f64 = 0.95;

/// Share of the time of Predict below which corrections are to stay.
pub const DEMANDED_OVERHEAD: f64 = 0.05;

/// What to train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CorrectionsPlan {
    /// The hybrid's recipe, but for what is varied.
    pub recipe: TrialRecipe,
    /// Confidence thresholds.
    pub confidence_thresholds: Vec<f64>,
    /// Most predicted steps in a row, H.
    pub horizons: Vec<u32>,
    /// Seeds, the same for each setting.
    pub seeds: Vec<u64>,
}

/// What one setting gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SettingResult {
    /// Least confidence to enter Predict and to stay in it.
    pub confidence_threshold: f64,
    /// Most predicted steps in a row, H.
    pub max_predict_steps: u32,
    /// One for each seed.
    pub results: Vec<TrialResult>,
}

/// Everything measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CorrectionsResult {
    /// The plan.
    pub plan: CorrectionsPlan,
    /// Threshold by threshold, in each horizon by horizon, as the plan lists them.
    pub settings: Vec<SettingResult>,
}

/// What a setting's figures say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SettingFigures {
    /// Over the Correct steps of all seeds; `None` without any.
    pub corrections: Option<CorrectionFigures>,
    /// Error reduction, seed by seed.
    pub error_reduction: Option<Estimate>,
    /// [`Overhead::by_sums`], seed by seed.
    pub overhead: Option<Estimate>,
    /// [`Overhead::by_medians`], seed by seed.
    pub overhead_by_medians: Option<Estimate>,
    /// [`Overhead::by_counting`], seed by seed.
    pub overhead_by_counting: Option<Estimate>,
    /// Share of the steps that were predicted ones.
    pub predicted_share: f64,
    /// Divergences in all runs.
    pub num_divergences: usize,
}

impl CorrectionsPlan {
    /// Errors: [`ExperimentError::Plan`].
    pub fn check(&self) -> Result<(), ExperimentError> {
        let refuse = |expected, found: String| Err(ExperimentError::Plan { expected, found });
        if self.seeds.is_empty() {
            return refuse("at least one seed", "none".to_owned());
        }
        if self.confidence_thresholds.is_empty() || !self.confidence_thresholds.iter().all(|t| (0.0..=1.0).contains(t))
        {
            return refuse("confidence thresholds from 0 to 1", format!("{:?}", self.confidence_thresholds));
        }
        if self.horizons.is_empty() || self.horizons.contains(&0) {
            return refuse("horizons of at least 1 step", format!("{:?}", self.horizons));
        }
        let strategy = self.recipe.hybrid.strategy;
        if !strategy.samples() {
            let found = format!("strategy {}", strategy.label());
            return refuse(
                "a recipe that predicts by sampling, whose gradient Correct compares with the full one",
                found,
            );
        }
        Ok(())
    }

    fn settings(&self) -> impl Iterator<Item = (f64, u32)> {
        let horizons = |&threshold: &f64| self.horizons.iter().map(move |&horizon| (threshold, horizon));
        self.confidence_thresholds.iter().flat_map(horizons)
    }

    fn contender(&self, (confidence_threshold, max_predict_steps): (f64, u32)) -> Contender {
        let hybrid = HybridConfig { confidence_threshold, max_predict_steps, ..self.recipe.hybrid.clone() };
        let name = format!("confidence {confidence_threshold}, H {max_predict_steps}");
        Contender { name, what: String::new(), recipe: TrialRecipe { hybrid, ..self.recipe.clone() }, begins: None }
    }
}

/// Trains all settings with all seeds, as many at once as there are lanes: no time of one is compared with that of
/// another.
/// Errors: a plan that cannot be, and whatever a training fails with.
pub fn corrections(
    ground: &Ground,
    plan: &CorrectionsPlan,
    eyes: (Watch<'_>, OnRace<'_>),
) -> Result<CorrectionsResult, ExperimentError> {
    plan.check()?;
    let num_trainings = plan.confidence_thresholds.len() * plan.horizons.len() * plan.seeds.len();
    let stages = Stages::new(num_trainings as u64);
    let eyes = Eyes::new(eyes, &stages);
    let trainings: Vec<((f64, u32), u64)> =
        plan.settings().flat_map(|setting| plan.seeds.iter().map(move |&seed| (setting, seed))).collect();
    let train = |&(setting, seed): &((f64, u32), u64)| {
        let contender = plan.contender(setting);
        let what = format!("{}, seed {seed}", contender.name);
        race(ground, &[&contender], &Terms::new(&what, seed), eyes)
    };
    let mut results = ground.lanes.side_by_side(&trainings, train)?.into_iter().flatten();
    let of_setting = |(confidence_threshold, max_predict_steps)| SettingResult {
        confidence_threshold,
        max_predict_steps,
        results: results.by_ref().take(plan.seeds.len()).collect(),
    };
    let settings = plan.settings().map(of_setting).collect();
    Ok(CorrectionsResult { plan: plan.clone(), settings })
}

impl SettingResult {
    /// What its figures say.
    #[must_use]
    pub fn figures(&self) -> SettingFigures {
        let per_seed = |figure: &dyn Fn(&TrialResult) -> Option<f64>| {
            Estimate::of(&self.results.iter().filter_map(figure).collect::<Vec<_>>())
        };
        let reduction = |result: &TrialResult| {
            CorrectionFigures::of_results(std::slice::from_ref(result)).map(|figures| figures.error_reduction)
        };
        let predicted: u64 = self.results.iter().map(|result| result.phase(Phase::Predict).num_steps).sum();
        let all: u64 = self.results.iter().map(|result| result.num_steps).sum();
        SettingFigures {
            corrections: CorrectionFigures::of_results(&self.results),
            error_reduction: per_seed(&reduction),
            overhead: per_seed(&|result| Overhead::of(result).map(|overhead| overhead.by_sums)),
            overhead_by_medians: per_seed(&|result| Overhead::of(result).map(|overhead| overhead.by_medians)),
            overhead_by_counting: per_seed(&|result| Overhead::of(result).map(|overhead| overhead.by_counting)),
            predicted_share: predicted as f64 / all.max(1) as f64,
            num_divergences: self.results.iter().map(|result| result.divergences.len()).sum(),
        }
    }
}

impl CorrectionsResult {
    /// How far the forecasts of a threshold could be believed, all horizons and seeds together.
    #[must_use]
    pub fn reliability(&self, confidence_threshold: f64) -> Reliability {
        let settings = self.settings.iter().filter(|setting| setting.confidence_threshold == confidence_threshold);
        let parts: Vec<&Reliability> =
            settings.flat_map(|setting| &setting.results).map(|result| &result.reliability).collect();
        let num_forecasts: usize = parts.iter().map(|part| part.num_forecasts).sum();
        let longest = parts.iter().map(|part| part.curve.len()).max().unwrap_or(0);
        let pooled = |index: usize| {
            let points = parts.iter().filter_map(|part| Some((part.num_forecasts as f64, part.curve.get(index)?)));
            let (count, nominal, inside) = points.fold((0.0, f64::NAN, 0.0), |(count, _, inside), (more, point)| {
                (count + more, point.nominal, inside + more * point.observed)
            });
            ReliabilityPoint { nominal, observed: inside / count }
        };
        Reliability { num_forecasts, curve: (0..longest).map(pooled).collect() }
    }

    /// What the figures say about the demand, in words: of the lowest threshold, for which it was made.
    #[must_use]
    pub fn verdict(&self) -> String {
        let lowest = self.plan.confidence_thresholds.iter().copied().fold(f64::INFINITY, f64::min);
        let settings: Vec<&SettingResult> =
            self.settings.iter().filter(|setting| setting.confidence_threshold == lowest).collect();
        let results: Vec<TrialResult> = settings.iter().flat_map(|setting| setting.results.clone()).collect();
        let horizons = self.plan.horizons.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let Some(figures) = CorrectionFigures::of_results(&results) else {
            return format!(
                "At confidence {lowest} (H {horizons}) no Correct step took place, so there is no correction to judge: the \
                 gate stayed shut, or Predict ended before its first correction."
            );
        };
        let judged = |is_met: bool| if is_met { "met" } else { "not met" };
        let CorrectionFigures { count, error_before, error_after, error_reduction, median_reduction, .. } = figures;
        let mut text = format!(
            "At confidence {lowest} (H {horizons}), {count} corrections took away {:.1}% of the forecasts' error, from \
             {error_before:.4} to {error_after:.4} nats in the mean (median of single corrections {:.1}%); demanded: at least \
             {:.0}%, {}.",
            100.0 * error_reduction,
            100.0 * median_reduction,
            100.0 * DEMANDED_REDUCTION,
            judged(error_reduction >= DEMANDED_REDUCTION)
        );
        let figures_of: Vec<SettingFigures> = settings.iter().map(|setting| setting.figures()).collect();
        let timed = Span::of(figures_of.iter().filter_map(|figures| figures.overhead_by_medians));
        let counted = Span::of(figures_of.iter().filter_map(|figures| figures.overhead_by_counting));
        if let Some(timed) = timed {
            let counted = counted.map_or_else(String::new, |span| format!(", {} by counting passes", span.percent()));
            text.push_str(&format!(
                " They took {} of the time of Predict beyond full steps (by median steps{counted}); demanded: below {:.0}%, {}.",
                timed.percent(),
                100.0 * DEMANDED_OVERHEAD,
                judged(timed.most < DEMANDED_OVERHEAD)
            ));
            if timed.least < 0.0 {
                text.push_str(" Below zero is the machine's noise, so the times are no surer than that.");
            }
        }
        let divergences: usize = figures_of.iter().map(|figures| figures.num_divergences).sum();
        text.push_str(&format!(" Divergences: {divergences}; demanded: none, {}.", judged(divergences == 0)));
        text.push_str(&format!(
            " Sampled and full gradients agreed at a cosine of {:.3}, {:.3} at the lowest.",
            figures.cosine, figures.lowest_cosine
        ));
        text
    }
}

/// The least and the most of a figure over settings.
struct Span {
    least: f64,
    most: f64,
}

impl Span {
    fn of(estimates: impl Iterator<Item = Estimate>) -> Option<Self> {
        let means: Vec<f64> = estimates.map(|estimate| estimate.mean).collect();
        let most = means.iter().copied().reduce(f64::max)?;
        Some(Self { least: means.iter().copied().fold(most, f64::min), most })
    }

    /// "1.2% to 3.4%", or one of them where they are written alike.
    fn percent(&self) -> String {
        let [least, most] = [self.least, self.most].map(|share| format!("{:.1}%", 100.0 * share));
        if least == most { most } else { format!("{least} to {most}") }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::literal;
    use super::*;

    #[test]
    fn the_verdict_judges_what_was_demanded() {
        let result = literal::corrections();
        let verdict = result.verdict();
        assert!(verdict.starts_with("At confidence 0.55 (H 30, 50), 4 corrections took away 66.7%"), "{verdict}");
        assert!(verdict.contains("at least 95%, not met") && verdict.contains("below 5%, met"), "{verdict}");
        assert!(verdict.contains("took 2.5% of the time") && verdict.contains("3.0% by counting"), "{verdict}");
        assert!(verdict.contains("Divergences: 0; demanded: none, met"), "{verdict}");
    }

    #[test]
    fn a_time_below_zero_is_said_to_be_noise() {
        let mut result = literal::corrections();
        assert!(!result.verdict().contains("noise"));
        for setting in result.settings.iter_mut().filter(|setting| setting.max_predict_steps == 30) {
            setting.results[0].phases[3].median_step_seconds = Some(0.2);
        }
        let verdict = result.verdict();
        assert!(verdict.contains("took -4.2% to 2.5% of the time") && verdict.contains("noise"), "{verdict}");
    }

    #[test]
    fn without_a_correction_nothing_is_judged() {
        let mut result = literal::corrections();
        result.settings.iter_mut().flat_map(|setting| &mut setting.results).for_each(|r| r.corrections.clear());
        let verdict = result.verdict();
        assert!(verdict.contains("no Correct step") && !verdict.contains("met"), "{verdict}");
    }

    #[test]
    fn reliability_is_pooled_by_the_number_of_forecasts() {
        let mut result = literal::corrections();
        let reliability = |num_forecasts, observed| Reliability {
            num_forecasts,
            curve: vec![ReliabilityPoint { nominal: 0.5, observed }],
        };
        result.settings.iter_mut().for_each(|setting| setting.results[0].reliability = Reliability::default());
        result.settings[0].results[0].reliability = reliability(30, 0.4);
        result.settings[1].results[0].reliability = reliability(10, 0.8);
        let pooled = result.reliability(result.settings[0].confidence_threshold);
        assert_eq!(pooled.num_forecasts, 40);
        assert!((pooled.curve[0].observed - 0.5).abs() < 1e-12 && pooled.curve[0].nominal == 0.5);
    }

    #[test]
    fn plans_that_cannot_be_are_refused() {
        let plan = literal::corrections().plan;
        plan.check().unwrap();
        let vanilla = HybridConfig { strategy: crate::hybrid::Strategy::None, ..plan.recipe.hybrid.clone() };
        let wrong = [
            CorrectionsPlan { seeds: vec![], ..plan.clone() },
            CorrectionsPlan { confidence_thresholds: vec![1.5], ..plan.clone() },
            CorrectionsPlan { horizons: vec![0], ..plan.clone() },
            CorrectionsPlan { recipe: TrialRecipe { hybrid: vanilla, ..plan.recipe.clone() }, ..plan.clone() },
        ];
        assert!(wrong.iter().all(|plan| plan.check().is_err()));
    }
}
