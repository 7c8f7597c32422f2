//! Tables of the experiments other than the arena.

use foretrain_engine::experiment::{
    CorrectionFigures, CorrectionsResult, Estimate, FeatureFigures, FeaturesResult, GrowthResult, LadderResult,
    QuantizationFigures, QuantizationResult, RungOutcome, RungResult, SettingResult, TierFigures, TiersResult,
    TrialResult, Tuned,
};
use foretrain_engine::memory::format_bytes;

use crate::widgets::number;

/// Figures that are no contenders'.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FigureTable {
    /// What its lines are.
    pub title: &'static str,
    /// Heads of its columns.
    pub head: Vec<&'static str>,
    /// Its lines, a cell for each column.
    pub lines: Vec<Vec<String>>,
}

/// A figure, or a dash for what was not measured.
fn cell(figure: Option<f64>, shown: fn(f64) -> String) -> String {
    figure.filter(|figure| figure.is_finite()).map_or_else(|| "—".to_owned(), shown)
}

fn mean(estimate: Option<Estimate>) -> Option<f64> {
    estimate.map(|estimate| estimate.mean)
}

/// How many times as fast.
fn times(factor: f64) -> String {
    format!("{factor:.2}×")
}

/// Above or below, of a ratio.
fn change(ratio: f64) -> String {
    format!("{:+.2} %", 100.0 * (ratio - 1.0))
}

/// One line for each setting.
pub(super) fn corrections_table(result: &CorrectionsResult) -> FigureTable {
    let line = |setting: &SettingResult| {
        let figures = setting.figures();
        let found = |of: fn(&CorrectionFigures) -> f64| figures.corrections.as_ref().map(of);
        vec![
            format!("{:.2}", setting.confidence_threshold),
            setting.max_predict_steps.to_string(),
            figures.corrections.map_or(0, |found| found.count).to_string(),
            cell(found(|found| found.error_before), number::value),
            cell(found(|found| found.error_after), number::value),
            cell(found(|found| found.error_reduction), number::percent),
            cell(mean(figures.overhead_by_medians), number::percent),
            cell(Some(figures.predicted_share), number::percent),
            figures.num_divergences.to_string(),
        ]
    };
    FigureTable {
        title: "Settings",
        head: vec![
            "Confidence",
            "Horizon",
            "Corrections",
            "Error before, nats",
            "After, nats",
            "Error taken away",
            "Cost, of Predict",
            "Predicted steps",
            "Divergences",
        ],
        lines: result.settings.iter().map(line).collect(),
    }
}

/// One line for each tier, means over seeds.
pub(super) fn tiers_table(result: &TiersResult) -> FigureTable {
    let figures = result.figures();
    let is_text = figures.iter().any(|tier| tier.perplexity.is_some());
    let line = |tier: &TierFigures| {
        let quality = if is_text {
            cell(mean(tier.perplexity), number::value)
        } else {
            cell(mean(tier.accuracy), number::percent)
        };
        vec![
            tier.name.clone(),
            cell(mean(tier.seconds), number::seconds),
            cell(mean(tier.speed_up), times),
            cell(mean(tier.backwards_saved), number::percent),
            cell(mean(tier.loss), number::value),
            cell(mean(tier.loss_ratio), change),
            quality,
            cell(Some(tier.predicted_share), number::percent),
            cell(tier.corrections.map(|found| found.error_reduction), number::percent),
            tier.num_divergences.to_string(),
        ]
    };
    FigureTable {
        title: "Tiers",
        head: vec![
            "Tier",
            "Time",
            "Speed-up",
            "Backwards saved",
            "Loss, nats",
            "Against vanilla",
            if is_text { "Perplexity" } else { "Accuracy" },
            "Predicted steps",
            "Error taken away",
            "Divergences",
        ],
        lines: figures.iter().map(line).collect(),
    }
}

/// One line for each rung.
pub(super) fn ladder_table(result: &LadderResult) -> FigureTable {
    let planned = result.plan.recipe.num_steps;
    let line = |rung: &RungResult| {
        let (steps, losses) = match &rung.outcome {
            RungOutcome::Trained { vanilla, hybrid } => {
                let done = vanilla.num_steps.min(hybrid.num_steps);
                let steps = format!("{} of {}", number::count(done), number::count(planned));
                (steps, [Some(vanilla.held_out().loss), Some(hybrid.held_out().loss)])
            }
            RungOutcome::NoMemory { needed_bytes, .. } => (format!("needs {}", format_bytes(*needed_bytes)), [None; 2]),
            RungOutcome::NotOpened => ("not opened".to_owned(), [None; 2]),
        };
        let [vanilla, hybrid] = losses.map(|loss| cell(loss, number::value));
        vec![
            rung.size.label().to_owned(),
            number::count(rung.num_params),
            steps,
            vanilla,
            hybrid,
            cell(rung.loss_ratio(), change),
            cell(rung.speed_up(), times),
        ]
    };
    FigureTable {
        title: "Rungs",
        head: vec!["Rung", "Parameters", "Steps", "Loss, vanilla", "Loss, hybrid", "Against vanilla", "Speed-up"],
        lines: result.rungs.iter().map(line).collect(),
    }
}

/// One line for each contender, means over seeds.
pub(super) fn growth_table(result: &GrowthResult) -> FigureTable {
    let full = result.flops.get(GrowthResult::FULL_SAME_STEPS).copied().unwrap_or(f64::NAN);
    let line = |((tuned, results), flops): ((&Tuned, &Vec<TrialResult>), &f64)| {
        let over_seeds = |of: &dyn Fn(&TrialResult) -> f64| Estimate::of(&results.iter().map(of).collect::<Vec<_>>());
        vec![
            tuned.contender.name.clone(),
            tuned.tried.get(tuned.best).map_or_else(String::new, |tried| tried.setting.clone()),
            number::count(tuned.contender.recipe.num_steps),
            cell(mean(over_seeds(&|result| result.held_out().loss)), number::value),
            cell(mean(over_seeds(&|result| result.seconds)), number::seconds),
            cell(Some(flops / full), number::percent),
        ]
    };
    FigureTable {
        title: "Contenders",
        head: vec!["Contender", "Setting", "Steps", "Loss, nats", "Time", "Operations"],
        lines: result.tuned.iter().zip(&result.results).zip(&result.flops).map(line).collect(),
    }
}

/// One line for each way to fewer bits, means over seeds.
pub(super) fn quantization_table(result: &QuantizationResult) -> FigureTable {
    let figures = result.figures();
    let is_text = figures.iter().any(|figures| figures.perplexity.is_some());
    let line = |figures: &QuantizationFigures| {
        let quality = if is_text {
            cell(mean(figures.perplexity), number::value)
        } else {
            cell(mean(figures.accuracy), number::percent)
        };
        vec![
            figures.name.clone(),
            format!("{:.2}", figures.bits_per_weight),
            quality,
            cell(mean(figures.loss), number::value),
            cell(mean(figures.lost), |lost| format!("{lost:+.2}")),
            cell(figures.limit, |limit| format!("{limit}")),
            cell(mean(figures.seconds), number::seconds),
            cell(mean(figures.cost_ratio), times),
        ]
    };
    FigureTable {
        title: "Weights",
        head: vec![
            "Weights",
            "Bits",
            if is_text { "Perplexity" } else { "Accuracy" },
            "Loss, nats",
            if is_text { "Costs, %" } else { "Costs, points" },
            "At most",
            "Time",
            "Cost",
        ],
        lines: figures.iter().map(line).collect(),
    }
}

/// One line for plain training and each feature, means over seeds.
pub(super) fn features_table(result: &FeaturesResult) -> FigureTable {
    let line = |figures: &FeatureFigures| {
        vec![
            figures.name.to_owned(),
            cell(mean(figures.loss), number::value),
            cell(mean(figures.loss_ratio), change),
            format!("{} of {} seeds", figures.num_equal, figures.num_seeds),
            cell(mean(figures.step_seconds), number::seconds),
            cell(mean(figures.time_ratio), times),
            format_bytes(figures.planned_bytes),
        ]
    };
    FigureTable {
        title: "Trainings",
        head: vec![
            "Training",
            "Loss, nats",
            "Against plain",
            "Plain's weights",
            "Step",
            "Time of plain's",
            "Memory, planned",
        ],
        lines: result.figures().iter().map(line).collect(),
    }
}
