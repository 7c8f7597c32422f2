//! An experiment's report as the window shows it: curves, a row for each contender, and the verdict.
//!
//! This is the only file that knows what kinds of reports there are.

use std::path::{Path, PathBuf};

use foretrain_engine::experiment::{
    ArenaResult, Conditions, CorrectionsResult, CurvePoint, Estimate, FROZEN, HYBRID, LadderResult, Report,
    RungOutcome, SAME_STEPS, SAME_TIME, TrialResult, Tuned,
};

use super::report_tables::{
    FigureTable, corrections_table, features_table, growth_table, ladder_table, quantization_table, tiers_table,
};
use super::series::Series;
use crate::state::{CorrectionFigures, PROOF_CONFIDENCE, RaceAxis};
use crate::widgets::number;

/// A contender's training loss, over each of the axes.
#[derive(Debug, Clone, Default)]
pub struct RaceCurve {
    /// The contender.
    pub name: String,
    /// Number of its color: the same in a race and in the report on it.
    pub color: usize,
    steps: Series,
    seconds: Series,
    cost: Series,
}

impl RaceCurve {
    fn of(name: &str, color: usize, points: &[CurvePoint]) -> Self {
        let mut curve = Self { name: name.to_owned(), color, ..Self::default() };
        for point in points {
            let loss = point.loss as f32;
            curve.steps.push(point.step as f64, loss);
            curve.seconds.push(point.seconds, loss);
            curve.cost.push(point.cost, loss);
        }
        curve
    }

    /// The loss over `axis`.
    #[must_use]
    pub fn over(&self, axis: RaceAxis) -> &Series {
        match axis {
            RaceAxis::Steps => &self.steps,
            RaceAxis::Seconds => &self.seconds,
            RaceAxis::Cost => &self.cost,
        }
    }
}

/// Names of an arena's contenders, in the order of its report.
const CONTENDERS: [(usize, &str); 4] =
    [(HYBRID, "hybrid"), (SAME_STEPS, "vanilla, same steps"), (SAME_TIME, "vanilla, same time"), (FROZEN, "frozen")];

/// Curves of a race, in which not all contenders need take part.
#[must_use]
pub fn race_curves(curves: &[(String, Vec<CurvePoint>)]) -> Vec<RaceCurve> {
    let known = |name: &str| CONTENDERS.into_iter().find(|(_, known)| *known == name).map(|(place, _)| place);
    // Others take no contender's color beside it.
    let first_free = if curves.iter().any(|(name, _)| known(name).is_some()) { CONTENDERS.len() } else { 0 };
    let color_of = |(index, name): (usize, &str)| known(name).unwrap_or(first_free + index);
    let curve = |(index, (name, points)): (usize, &(String, Vec<CurvePoint>))| {
        RaceCurve::of(name, color_of((index, name)), points)
    };
    curves.iter().enumerate().map(curve).collect()
}

/// A figure of a contender over seeds.
pub type Figure = Option<Estimate>;

/// A contender's figures.
#[derive(Debug, Clone, PartialEq)]
pub struct ContenderRow {
    /// Its name.
    pub name: String,
    /// What it is, in words.
    pub what: String,
    /// Held-out loss, nats.
    pub loss: Figure,
    /// Held-out accuracy, share of 1; `None` for text.
    pub accuracy: Figure,
    /// Training time, validation left out.
    pub seconds: Figure,
    /// In full steps of the recipe, as a share of all of its steps.
    pub cost: Figure,
    /// Example-backwards, as a share of those of the recipe's steps, all full.
    pub backwards: Figure,
    /// Divergences that the guard saw, over all seeds.
    pub num_divergences: usize,
    /// How it was tuned.
    pub tuning: Tuning,
}

impl ContenderRow {
    /// True when every example got its backward pass, with every seed.
    #[must_use]
    pub fn predicted_nothing(&self) -> bool {
        self.backwards.is_some_and(|share| share.mean >= 1.0)
    }
}

/// How a contender was tuned.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuning {
    /// What was tried, with the validation loss that it came to; `None` when it diverged.
    pub tried: Vec<(String, Option<f64>)>,
    /// Place of the one taken.
    pub best: usize,
    /// It lies at the end of the grid: a wider one might find a better one.
    pub is_at_edge: bool,
}

/// A report in view.
#[derive(Debug, Clone)]
pub struct ShownReport {
    /// Its folder.
    pub folder: PathBuf,
    /// Its title.
    pub title: String,
    /// Command that runs it again.
    pub command: String,
    /// What a reader must know to judge it: a name and a text each.
    pub conditions: Vec<(&'static str, String)>,
    /// What it says, with its uncertainty: a sentence each.
    pub verdict: Vec<String>,
    /// Seeds that it compares with.
    pub num_seeds: usize,
    /// A row for each contender of an arena, the recipe first.
    pub rows: Vec<ContenderRow>,
    /// Figures of another experiment.
    pub table: Option<FigureTable>,
    /// Their losses with the first seed.
    pub curves: Vec<RaceCurve>,
}

impl ShownReport {
    /// What of `report` in `folder` is shown.
    #[must_use]
    pub fn of(report: &Report, folder: &Path) -> Self {
        let conditions = report.conditions();
        let (num_seeds, rows, curves) = match report {
            Report::Arena(report) => arena_of(&report.result),
            Report::Corrections(report) => {
                (report.result.plan.seeds.len(), Vec::new(), first_curves(corrections_results(&report.result)))
            }
            Report::Tiers(report) => {
                let results = report.result.plan.tiers.iter().zip(&report.result.results);
                let named = results.map(|(tier, results)| (tier.name.clone(), results.first()));
                (report.result.plan.seeds.len(), Vec::new(), first_curves(named))
            }
            Report::Ladder(report) => (1, Vec::new(), first_curves(ladder_results(&report.result))),
            Report::Growth(report) => {
                let results = report.result.tuned.iter().zip(&report.result.results);
                let named = results.map(|(tuned, results)| (tuned.contender.name.clone(), results.first()));
                (report.result.plan.seeds.len(), Vec::new(), first_curves(named))
            }
            Report::Quantization(report) => {
                let results = report.result.plan.contenders.iter().zip(&report.result.trained);
                let named = results.map(|(contender, results)| (contender.name.clone(), results.first()));
                (report.result.plan.seeds.len(), Vec::new(), first_curves(named))
            }
            Report::Features(report) => {
                let curves: Vec<_> = report.result.first_curves().collect();
                (report.result.plan.seeds.len(), Vec::new(), race_curves(&curves))
            }
        };
        let table = match report {
            Report::Arena(_) => None,
            Report::Corrections(report) => Some(corrections_table(&report.result)),
            Report::Tiers(report) => Some(tiers_table(&report.result)),
            Report::Ladder(report) => Some(ladder_table(&report.result)),
            Report::Growth(report) => Some(growth_table(&report.result)),
            Report::Quantization(report) => Some(quantization_table(&report.result)),
            Report::Features(report) => Some(features_table(&report.result)),
        };
        let version = match &conditions.commit {
            Some(commit) => format!("{}, commit {commit}", conditions.version),
            None => conditions.version.clone(),
        };
        Self {
            folder: folder.to_owned(),
            title: conditions.title.clone(),
            command: conditions.command.clone(),
            conditions: vec![
                ("Dataset", conditions.dataset.clone()),
                ("Model", conditions.model.clone()),
                ("Machine", machine_words(conditions)),
                ("Program", version),
                ("Day", conditions.day.clone()),
                ("Took", number::seconds(conditions.seconds)),
            ],
            verdict: sentences(&report.verdict()),
            num_seeds,
            rows,
            table,
            curves,
        }
    }
}

/// Seeds, rows and curves of an arena.
fn arena_of(result: &ArenaResult) -> (usize, Vec<ContenderRow>, Vec<RaceCurve>) {
    let plan = &result.plan;
    let all = (plan.recipe.num_steps * plan.recipe.batch_size as u64) as f64;
    let contenders = || result.tuned.iter().zip(&result.results);
    let first = contenders().map(|(tuned, results)| {
        let curve = results.first().map_or_else(Vec::new, |result| result.curve.clone());
        (tuned.contender.name.clone(), curve)
    });
    let rows = contenders().map(|(tuned, results)| row(tuned, results, all)).collect();
    (plan.seeds.len(), rows, race_curves(&first.collect::<Vec<_>>()))
}

/// Curves of these trainings; what has none is left out.
fn first_curves<'a>(named: impl Iterator<Item = (String, Option<&'a TrialResult>)>) -> Vec<RaceCurve> {
    let curves = named.filter_map(|(name, result)| Some((name, result?.curve.clone())));
    race_curves(&curves.collect::<Vec<_>>())
}

/// Each setting with its first training.
fn corrections_results(result: &CorrectionsResult) -> impl Iterator<Item = (String, Option<&TrialResult>)> {
    result.settings.iter().map(|setting| {
        let name = format!("confidence {}, H {}", setting.confidence_threshold, setting.max_predict_steps);
        (name, setting.results.first())
    })
}

/// Both trainings of each rung.
fn ladder_results(result: &LadderResult) -> impl Iterator<Item = (String, Option<&TrialResult>)> {
    result.rungs.iter().flat_map(|rung| {
        let (vanilla, hybrid) = match &rung.outcome {
            RungOutcome::Trained { vanilla, hybrid } => (Some(&**vanilla), Some(&**hybrid)),
            RungOutcome::NoMemory { .. } | RungOutcome::NotOpened => (None, None),
        };
        let size = rung.size.label();
        [(format!("{size}, vanilla"), vanilla), (format!("{size}, hybrid"), hybrid)]
    })
}

fn machine_words(conditions: &Conditions) -> String {
    let threads = conditions.num_threads;
    let side_by_side = match conditions.num_side_by_side {
        0 | 1 => String::new(),
        count => format!(" for each of {count} trainings side by side"),
    };
    let threads = format!("{threads} {}", if threads == 1 { "thread" } else { "threads" });
    let gpu = conditions.machine.gpu.as_ref().map_or_else(String::new, |gpu| format!("{gpu}, beside "));
    format!("{gpu}{}, {threads}{side_by_side}", conditions.machine.processor)
}

/// What the corrections experiment measured: the worst of its settings with the confidence threshold of the tier behind
/// the lock, or a lower one. A figure that could not be measured is NaN, which proves nothing. `None` for a report of
/// another kind, and without such a setting.
#[must_use]
pub fn corrections_of(report: &Report) -> Option<CorrectionFigures> {
    let Report::Corrections(report) = report else { return None };
    let mut worst: Option<CorrectionFigures> = None;
    for setting in report.result.settings.iter().filter(|setting| setting.confidence_threshold <= PROOF_CONFIDENCE) {
        let figures = setting.figures();
        let error_reduction = figures.corrections.map_or(f64::NAN, |found| found.error_reduction);
        let overhead = figures.overhead_by_medians.map_or(f64::NAN, |overhead| overhead.mean);
        let num_divergences = figures.num_divergences as u64;
        let this = CorrectionFigures { error_reduction, overhead, num_divergences };
        worst = Some(worst.map_or(this, |worst| CorrectionFigures {
            error_reduction: least(worst.error_reduction, error_reduction),
            overhead: -least(-worst.overhead, -overhead),
            num_divergences: worst.num_divergences + num_divergences,
        }));
    }
    worst
}

/// The smaller of both; NaN where one of them is.
fn least(a: f64, b: f64) -> f64 {
    if a.is_nan() || a <= b { a } else { b }
}

/// `all`: example units of the recipe's steps.
fn row(tuned: &Tuned, results: &[TrialResult], all: f64) -> ContenderRow {
    let figure = |of: &dyn Fn(&TrialResult) -> f64| Estimate::of(&results.iter().map(of).collect::<Vec<_>>());
    let share = |examples: f64, result: &TrialResult| examples / all / result.examples_per_unit as f64;
    let tried = tuned.tried.iter().map(|tried| (tried.setting.clone(), tried.validation_loss)).collect();
    ContenderRow {
        name: tuned.contender.name.clone(),
        what: tuned.contender.what.clone(),
        loss: figure(&|result| result.held_out().loss),
        accuracy: figure(&|result| result.held_out().accuracy.unwrap_or(f64::NAN)),
        seconds: figure(&|result| result.seconds),
        cost: figure(&|result| share(result.example_cost, result)),
        backwards: figure(&|result| share(result.example_backwards as f64, result)),
        num_divergences: results.iter().map(|result| result.divergences.len()).sum(),
        tuning: Tuning { tried, best: tuned.best, is_at_edge: tuned.is_at_edge },
    }
}

/// One for each full stop that a capital follows: figures have points, too.
fn sentences(text: &str) -> Vec<String> {
    let mut sentences = vec![String::new()];
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if let Some(last) = sentences.last_mut() {
            last.push(letter);
        }
        if letter == '.' && letters.peek() == Some(&' ') {
            letters.next();
            sentences.push(String::new());
        }
    }
    sentences.retain(|sentence| !sentence.is_empty());
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_told_apart_from_figures() {
        let found = sentences("It saved 12.5% (1.0 to 2.5). Its loss is 3.1% higher than that.");
        assert_eq!(found, ["It saved 12.5% (1.0 to 2.5).", "Its loss is 3.1% higher than that."]);
        assert!(sentences("").is_empty());
    }

    #[test]
    fn what_was_not_measured_is_the_worst() {
        assert_eq!((least(0.9, 0.8), least(0.8, 0.9)), (0.8, 0.8));
        assert!(least(f64::NAN, 0.5).is_nan() && least(0.5, f64::NAN).is_nan());
    }

    #[test]
    fn a_contender_keeps_its_color_whoever_else_races() {
        let point = CurvePoint { step: 1, seconds: 0.5, cost: 0.4, loss: 2.0 };
        let curves = race_curves(&[("frozen".to_owned(), vec![point]), ("batch 64".to_owned(), vec![point])]);
        assert_eq!(curves.iter().map(|curve| curve.color).collect::<Vec<_>>(), [FROZEN, CONTENDERS.len() + 1]);
        let others = race_curves(&[("batch 64".to_owned(), vec![point]), ("batch 32".to_owned(), vec![point])]);
        assert_eq!(others.iter().map(|curve| curve.color).collect::<Vec<_>>(), [0, 1]);
        let last = [RaceAxis::Steps, RaceAxis::Seconds, RaceAxis::Cost].map(|axis| curves[0].over(axis).last());
        assert_eq!(last, [Some((1.0, 2.0)), Some((0.5, 2.0)), Some((0.4, 2.0))]);
    }
}
