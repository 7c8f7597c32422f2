//! What a comparison of memory features says, in figures and in words.

use super::trial::CurvePoint;
use super::words::{compared, interval};
use super::{Estimate, FeatureResult, FeatureRun, FeaturesResult, MemoryFeature};

/// What the figures of a feature, or of plain training, say.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureFigures {
    /// "plain", or the feature's name.
    pub name: &'static str,
    /// What it does, in words.
    pub what: &'static str,
    /// Loss on the validation part, nats; `None` when a training diverged.
    pub loss: Option<Estimate>,
    /// Its loss over plain training's, seed by seed.
    pub loss_ratio: Option<Estimate>,
    /// Seconds of its training over plain training's.
    pub time_ratio: Option<Estimate>,
    /// Seconds of a step.
    pub step_seconds: Option<Estimate>,
    /// Seeds with which its weights end with plain training's bits.
    pub num_equal: usize,
    /// Whether they have to, with every seed.
    pub must_be_equal: bool,
    /// Peak of memory that the plan says, bytes.
    pub planned_bytes: u64,
    /// Seeds.
    pub num_seeds: usize,
}

impl FeatureFigures {
    fn sentence(&self) -> String {
        let Self { name, num_equal, num_seeds, .. } = self;
        let time = self.time_ratio.map_or_else(String::new, |ratio| {
            let seeds = if ratio.interval.is_none() { " (one seed)" } else { "" };
            format!(", in {} times the time{seeds}", interval(&ratio, 1.0, 2, ""))
        });
        match (&self.loss_ratio, self.must_be_equal) {
            _ if num_equal == num_seeds => format!("{name} ends with plain training's weights, bit for bit{time}."),
            (_, true) => format!(
                "{name} changes no arithmetic, yet ended with other weights than plain training with {} of {num_seeds} seeds{time}.",
                num_seeds - num_equal
            ),
            (Some(ratio), false) => format!("With {name} {}", compared("the loss is", ratio, "plain training's")),
            (None, false) => format!("With {name} a training diverged."),
        }
    }
}

impl FeaturesResult {
    /// Name of the training without a feature.
    pub const PLAIN: &str = "plain";

    /// Plain training, then the features.
    #[must_use]
    pub fn figures(&self) -> Vec<FeatureFigures> {
        let plain = self.results.first().map_or(&[][..], |result| result.runs.as_slice());
        let steps = self.plan.recipe.num_steps.max(1) as f64;
        let figures = |result: &FeatureResult| {
            let pairs = |of: fn(&FeatureRun) -> f64| -> Vec<(f64, f64)> {
                result.runs.iter().zip(plain).map(|(mine, plain)| (of(mine), of(plain))).collect()
            };
            let each = |of: &dyn Fn(&FeatureRun) -> f64| Estimate::of(&result.runs.iter().map(of).collect::<Vec<_>>());
            FeatureFigures {
                name: result.feature.map_or(Self::PLAIN, MemoryFeature::label),
                what: result.feature.map_or("whole batches in memory, everything in f32", MemoryFeature::what),
                loss: each(&|run| run.loss),
                loss_ratio: Estimate::of_ratio(&pairs(|run| run.loss)),
                time_ratio: Estimate::of_ratio(&pairs(|run| run.seconds)),
                step_seconds: each(&|run| run.seconds / steps),
                num_equal: result.runs.iter().filter(|run| run.has_plain_weights).count(),
                must_be_equal: result.feature.is_none_or(MemoryFeature::is_exact),
                planned_bytes: result.planned_bytes,
                num_seeds: result.runs.len(),
            }
        };
        self.results.iter().map(figures).collect()
    }

    /// Names with the training loss of the first seed.
    pub fn first_curves(&self) -> impl Iterator<Item = (String, Vec<CurvePoint>)> {
        self.results.iter().filter_map(|result| {
            let name = result.feature.map_or(Self::PLAIN, MemoryFeature::label);
            Some((name.to_owned(), result.runs.first()?.curve.clone()))
        })
    }

    /// A sentence for each feature, and how far seeds scatter by themselves.
    #[must_use]
    pub fn verdict(&self) -> String {
        let figures = self.figures();
        let mut sentences: Vec<String> = figures.iter().skip(1).map(FeatureFigures::sentence).collect();
        if let Some(Estimate { mean, std: Some(std), .. }) = figures.first().and_then(|plain| plain.loss) {
            sentences.push(format!("Plain training's own seeds scatter by {:.2}% of their loss.", 100.0 * std / mean));
        }
        sentences.join(" ")
    }
}
