//! What a comparison of quantizations says, in figures and in words.

use serde::{Deserialize, Serialize};

use super::words::interval;
use super::{Estimate, Form, QuantizationResult, StoredForm};
use crate::evaluation::Evaluation;
use crate::quant::{QuantScheme, Rounding};

/// What fewer bits may cost at most: points of accuracy of images, percent of perplexity of text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Demand {
    /// Points of accuracy.
    pub points: f64,
    /// Percent of perplexity.
    pub percent: f64,
}

impl Demand {
    /// Of ternary weights that were trained for.
    pub const TERNARY_TRAINED: Self = Self { points: 1.0, percent: 5.0 };
    /// Of 8 bits after training.
    pub const INT8: Self = Self { points: 0.3, percent: 0.5 };
    /// Of 4 bits after training, errors compensated.
    pub const INT4_COMPENSATED: Self = Self { points: 3.0, percent: 3.0 };
}

/// What the figures of one way to come to fewer bits say. Runs that diverged are counted, and left out of everything else.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizationFigures {
    /// Name: "full precision", "ternary, trained for", "int4, after training, gptq".
    pub name: String,
    /// Bits per number over all tensors, scales counted.
    pub bits_per_weight: f64,
    /// Held-out loss, nats.
    pub loss: Option<Estimate>,
    /// Held-out accuracy, share of 1; `None` for text.
    pub accuracy: Option<Estimate>,
    /// Held-out perplexity, exp(loss) per token; `None` for images.
    pub perplexity: Option<Estimate>,
    /// What it costs against full precision, seed by seed: points of accuracy, or percent of perplexity.
    pub lost: Option<Estimate>,
    /// What it may cost, in the same unit; `None` where nothing is demanded.
    pub limit: Option<f64>,
    /// Seconds of training; `None` for what is stored after training.
    pub seconds: Option<Estimate>,
    /// Cost of training over full precision's, by counting; `None` likewise.
    pub cost_ratio: Option<Estimate>,
    /// Runs that the guard ended.
    pub num_diverged: usize,
}

impl QuantizationFigures {
    /// Whether the mean over seeds is within what is demanded; `None` where nothing is, or nothing was measured.
    #[must_use]
    pub fn is_met(&self) -> Option<bool> {
        Some(self.lost?.mean <= self.limit?)
    }

    /// Perplexity, or accuracy in percent, with the unit of what is lost of it.
    #[must_use]
    pub fn quality_unit(&self) -> &'static str {
        if self.perplexity.is_some() { "% of perplexity" } else { "points" }
    }

    fn sentence(&self) -> Option<String> {
        let limit = self.limit?;
        let Some(lost) = self.lost else {
            return Some(format!("{} has no run to compare: {} diverged.", self.name, self.num_diverged));
        };
        let unit = self.quality_unit();
        let verdict = if lost.mean <= limit { "within the" } else { "more than the" };
        let cost = interval(&lost, 1.0, 2, "");
        Some(format!("{} costs {cost} {unit}, {verdict} {limit} demanded.", capitalized(&self.name)))
    }
}

impl QuantizationResult {
    /// Everything side by side: full precision, what was trained for, and what was stored after training.
    #[must_use]
    pub fn figures(&self) -> Vec<QuantizationFigures> {
        let full: Vec<Option<&Evaluation>> = self.evaluations(0);
        let trained = self.plan.contenders.iter().enumerate().map(|(index, contender)| {
            let results = self.trained.get(index).map_or(&[][..], Vec::as_slice);
            let ended = || results.iter().filter(|result| !result.has_diverged);
            let scheme = contender.recipe.qat.map(|qat| qat.scheme);
            let costs = results.iter().zip(self.trained.first().into_iter().flatten());
            let costs: Vec<(f64, f64)> = costs
                .filter(|(mine, full)| !(mine.has_diverged || full.has_diverged))
                .map(|(mine, full)| (mine.example_cost, full.example_cost))
                .collect();
            QuantizationFigures {
                seconds: Estimate::of(&ended().map(|result| result.seconds).collect::<Vec<_>>()),
                cost_ratio: Estimate::of_ratio(&costs),
                num_diverged: results.iter().filter(|result| result.has_diverged).count(),
                ..figures(
                    (&contender.name, self.bits_per_weight.get(index).copied().unwrap_or(f64::NAN)),
                    &self.evaluations(index),
                    &full,
                    (scheme == Some(QuantScheme::Ternary)).then_some(Demand::TERNARY_TRAINED),
                )
            }
        });
        let stored = self.stored.iter().map(|StoredForm { form, bits_per_weight, results }| {
            let evaluations: Vec<Option<&Evaluation>> =
                results.iter().map(|result| result.as_ref().map(|result| result.figures())).collect();
            figures((&form.name(), *bits_per_weight), &evaluations, &full, form.demand())
        });
        trained.chain(stored).collect()
    }

    /// A sentence for each demand.
    #[must_use]
    pub fn verdict(&self) -> String {
        self.figures().iter().filter_map(QuantizationFigures::sentence).collect::<Vec<_>>().join(" ")
    }

    /// Held-out figures of a contender, seed by seed; `None` of what diverged.
    fn evaluations(&self, contender: usize) -> Vec<Option<&Evaluation>> {
        let results = self.trained.get(contender).into_iter().flatten();
        results.map(|result| (!result.has_diverged).then(|| result.held_out())).collect()
    }
}

impl Form {
    /// "int4, after training, gptq"
    #[must_use]
    pub fn name(&self) -> String {
        let rounding = match self.rounding {
            Rounding::Nearest => "",
            Rounding::Compensated => ", gptq",
        };
        format!("{}, after training{rounding}", self.scheme.label())
    }

    fn demand(&self) -> Option<Demand> {
        const INT8: Form = Form { scheme: QuantScheme::Int8, rounding: Rounding::Nearest };
        const INT4: Form = Form { scheme: QuantScheme::Int4, rounding: Rounding::Compensated };
        let demands = [(INT8, Demand::INT8), (INT4, Demand::INT4_COMPENSATED)];
        demands.into_iter().find(|(form, _)| form == self).map(|(_, demand)| demand)
    }
}

fn figures(
    (name, bits_per_weight): (&str, f64),
    mine: &[Option<&Evaluation>],
    full: &[Option<&Evaluation>],
    demand: Option<Demand>,
) -> QuantizationFigures {
    let over_seeds = |of: &dyn Fn(&Evaluation) -> Option<f64>| {
        Estimate::of(&mine.iter().flatten().filter_map(|found| of(found)).collect::<Vec<_>>())
    };
    let accuracy = over_seeds(&|found| found.accuracy);
    let is_text = mine.iter().flatten().all(|found| found.accuracy.is_none());
    let perplexity = over_seeds(&|found| Some(found.loss.exp())).filter(|_| is_text);
    let pairs = mine.iter().zip(full).filter_map(|(mine, full)| Some(((*mine)?, (*full)?)));
    let lost = pairs.map(|(mine, full)| match (mine.accuracy, full.accuracy) {
        (Some(mine), Some(full)) => 100.0 * (full - mine),
        _ => 100.0 * ((mine.loss - full.loss).exp() - 1.0),
    });
    QuantizationFigures {
        name: name.to_owned(),
        bits_per_weight,
        loss: over_seeds(&|found| Some(found.loss)),
        accuracy,
        perplexity,
        lost: Estimate::of(&lost.collect::<Vec<_>>()),
        limit: demand.map(|demand| if is_text { demand.percent } else { demand.points }),
        seconds: None,
        cost_ratio: None,
        num_diverged: 0,
    }
}

fn capitalized(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::literal;

    #[test]
    fn costs_are_seed_by_seed_in_points_of_images() {
        let figures = literal::quantization().figures();
        let of = |name: &str| figures.iter().find(|figures| figures.name == name).unwrap();
        let full = of("full precision");
        assert!(full.lost.unwrap().mean.abs() < 1e-12 && full.limit.is_none() && full.is_met().is_none());
        // 98 and 96 percent against 97.5 and 94.5: half a point and one and a half.
        let trained = of("ternary, trained for");
        assert!((trained.lost.unwrap().mean - 1.0).abs() < 1e-9 && trained.limit == Some(1.0), "{trained:?}");
        assert!((trained.cost_ratio.unwrap().mean - 1.0).abs() < 1e-12 && trained.perplexity.is_none());
        let int8 = of("int8, after training");
        assert_eq!((int8.is_met(), int8.seconds), (Some(true), None));
        assert_eq!(of("int4, after training, gptq").is_met(), Some(false));
        assert_eq!(of("ternary, after training").limit, None);
    }

    #[test]
    fn text_is_judged_by_perplexity() {
        let mut result = literal::quantization();
        let trained = result.trained.iter_mut().flatten().map(|trial| &mut trial.validation);
        let stored = result.stored.iter_mut().flat_map(|form| form.results.iter_mut().flatten());
        for found in trained.chain(stored.map(|found| &mut found.validation)) {
            found.accuracy = None;
        }
        let figures = result.figures();
        let trained = figures.iter().find(|figures| figures.name == "ternary, trained for").unwrap();
        // Losses of 0.13 and 0.23 against 0.1 and 0.2.
        assert!((trained.lost.unwrap().mean - 100.0 * (0.03_f64.exp() - 1.0)).abs() < 1e-9, "{trained:?}");
        assert_eq!((trained.limit, trained.is_met()), (Some(5.0), Some(true)));
    }

    #[test]
    fn the_verdict_tells_what_is_met_and_what_is_missed() {
        let verdict = literal::quantization().verdict();
        assert!(
            verdict.contains("Int8, after training costs 0.10") && verdict.contains("within the 0.3 demanded"),
            "{verdict}"
        );
        assert!(verdict.contains("points, more than the 3 demanded."), "{verdict}");
        let mut diverged = literal::quantization();
        diverged.trained[1].iter_mut().for_each(|trial| trial.has_diverged = true);
        assert!(diverged.verdict().contains("ternary, trained for has no run to compare: 2 diverged."));
    }
}
