//! What outlives the window. Every field has a default, so that an older file still loads.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use foretrain_engine::device::ComputeDevice;
use foretrain_engine::experiment::RungSize;
use foretrain_engine::export::ModelCard;
use foretrain_engine::quant::{
    PostTraining, QuantScheme, Rounding, Sparsity, StrayTables, Tables, TernaryRule, TernaryScales,
};
use foretrain_engine::session::QuantizeJob;
use serde::{Deserialize, Serialize};

use super::{DataForm, Draft, TierLock};
use crate::plots::PlotKind;
use crate::theme::ThemeChoice;

/// A screen of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "`label` names each")]
pub enum Screen {
    #[default]
    Run,
    Data,
    Compare,
    Ship,
    Try,
    Settings,
}

/// Settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Palette.
    pub theme: ThemeChoice,
    /// Size of everything, on top of the desktop's scaling.
    pub ui_scale: f32,
    /// Folder for runs; empty takes [`crate::folders::default_runs`].
    pub runs_folder: String,
    /// Processor threads; 0 uses all.
    pub num_threads: usize,
    /// Most memory a run may use, bytes; 0 takes 80% of the machine's.
    pub memory_budget_bytes: u64,
    /// Where runs compute.
    pub device: ComputeDevice,
    /// Most of a GPU's memory that a run may take, bytes; 0 takes what is free.
    pub vram_limit_bytes: u64,
    /// Show every field of a recipe.
    pub is_expert: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            theme: ThemeChoice::System,
            ui_scale: 1.0,
            runs_folder: String::new(),
            num_threads: 0,
            memory_budget_bytes: 0,
            device: ComputeDevice::Cpu,
            vram_limit_bytes: 0,
            is_expert: false,
        }
    }
}

impl Settings {
    /// Scales to choose from, percent.
    pub const SCALES_PERCENT: [u8; 8] = [80, 90, 100, 110, 125, 150, 175, 200];

    /// Takes the next larger scale, if there is one.
    pub fn enlarge(&mut self) {
        let larger = Self::SCALES_PERCENT.into_iter().find(|percent| scale_of(*percent) > self.ui_scale + 0.001);
        self.ui_scale = larger.map_or(self.ui_scale, scale_of);
    }

    /// Takes the next smaller scale, if there is one.
    pub fn reduce(&mut self) {
        let smaller = Self::SCALES_PERCENT.into_iter().rfind(|percent| scale_of(*percent) < self.ui_scale - 0.001);
        self.ui_scale = smaller.map_or(self.ui_scale, scale_of);
    }

    /// Where runs go.
    #[must_use]
    pub fn runs_folder_path(&self) -> PathBuf {
        let text = self.runs_folder.trim();
        if text.is_empty() { crate::folders::default_runs() } else { PathBuf::from(text) }
    }

    /// Where reports of experiments go, as the command line has it.
    #[must_use]
    pub fn reports_folder_path(&self) -> PathBuf {
        self.runs_folder_path().join("experiments")
    }
}

fn scale_of(percent: u8) -> f32 {
    f32::from(percent) / 100.0
}

/// How plots are shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlotsSaved {
    /// Plots shown.
    pub shown: BTreeSet<PlotKind>,
    /// Height of a plot, where it was changed.
    pub heights: BTreeMap<PlotKind, f32>,
    /// Weight of the past in the smoothed loss; 0 shows the raw curve alone.
    pub smoothing: f32,
    /// Loss on a log scale.
    pub is_log: bool,
}

impl Default for PlotsSaved {
    fn default() -> Self {
        Self { shown: PlotKind::DEFAULT.into_iter().collect(), heights: BTreeMap::new(), smoothing: 0.9, is_log: false }
    }
}

/// What the comparison screen compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum CompareTab {
    /// Past runs with each other.
    #[default]
    Runs,
    /// A recipe with its controls.
    Experiments,
}

/// What the x axis of an experiment's curves counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RaceAxis {
    /// Optimizer steps.
    #[default]
    Steps,
    /// Seconds spent in steps.
    Seconds,
    /// Forward and backward passes, in full steps of the recipe.
    Cost,
}

/// Which experiment to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ExperimentChoice {
    /// The recipe against its controls.
    #[default]
    Arena,
    /// How much of the forecasts' error corrections take away: what opens the lock of the tier that is not proven.
    Corrections,
    /// The recipe with each tier.
    Tiers,
    /// Language models from small to large.
    Ladder,
}

/// How an experiment is done and shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExperimentsSaved {
    /// Which.
    pub choice: ExperimentChoice,
    /// Seeds of the comparison; in an arena one more tunes.
    pub num_seeds: u64,
    /// Learning rates tried for each contender, as factors of the recipe's; rising.
    pub rate_factors: Vec<f64>,
    /// Batch sizes tried for vanilla with as much time: the recipe's divided by these; rising.
    pub batch_divisors: Vec<usize>,
    /// Confidence thresholds of a corrections experiment; rising.
    pub thresholds: Vec<f64>,
    /// Its horizons: most predicted steps in a row; rising.
    pub horizons: Vec<u32>,
    /// Sizes of a ladder, smallest first.
    pub rungs: Vec<RungSize>,
    /// Minutes that the two trainings of one of its rungs may take together.
    pub minutes_per_rung: u32,
    /// Axis of the curves.
    pub axis: RaceAxis,
    /// Losses on a logarithmic axis.
    pub is_log: bool,
}

impl Default for ExperimentsSaved {
    fn default() -> Self {
        Self::quick()
    }
}

impl ExperimentsSaved {
    /// Learning-rate factors to choose from.
    pub const RATES: [f64; 6] = [0.25, 0.5, 1.0, 2.0, 4.0, 8.0];
    /// Divisors of the batch size to choose from.
    pub const DIVISORS: [usize; 4] = [1, 2, 4, 8];
    /// Confidence thresholds to choose from; the lowest is that of the tier behind the lock.
    pub const THRESHOLDS: [f64; 3] = [0.55, 0.6, 0.65];
    /// Horizons to choose from.
    pub const HORIZONS: [u32; 3] = [30, 50, 75];

    /// A first look: one seed, which has no interval.
    #[must_use]
    pub fn quick() -> Self {
        Self {
            choice: ExperimentChoice::Arena,
            num_seeds: 1,
            rate_factors: vec![1.0, 2.0],
            batch_divisors: vec![1, 2],
            thresholds: vec![0.55],
            horizons: vec![75],
            rungs: vec![RungSize::P100K, RungSize::P1M],
            minutes_per_rung: 3,
            axis: RaceAxis::Steps,
            is_log: true,
        }
    }

    /// What a claim needs.
    #[must_use]
    pub fn thorough() -> Self {
        let (rate_factors, batch_divisors) = (vec![0.5, 1.0, 2.0, 4.0], vec![1, 2, 4]);
        let (thresholds, horizons) = (Self::THRESHOLDS.to_vec(), Self::HORIZONS.to_vec());
        let (rungs, minutes_per_rung) = (RungSize::ALL.to_vec(), 10);
        let quick = Self::quick();
        Self { num_seeds: 3, rate_factors, batch_divisors, thresholds, horizons, rungs, minutes_per_rung, ..quick }
    }

    /// True when its experiment would be as thorough as that of `other`.
    #[must_use]
    pub fn is_as_thorough_as(&self, other: &Self) -> bool {
        let are_same_seeds = self.num_seeds == other.num_seeds;
        match self.choice {
            ExperimentChoice::Arena => {
                let is_same_grid =
                    (&self.rate_factors, &self.batch_divisors) == (&other.rate_factors, &other.batch_divisors);
                is_same_grid && are_same_seeds
            }
            ExperimentChoice::Corrections => {
                (&self.thresholds, &self.horizons) == (&other.thresholds, &other.horizons) && are_same_seeds
            }
            ExperimentChoice::Tiers => are_same_seeds,
            // It trains each size with one seed.
            ExperimentChoice::Ladder => (&self.rungs, self.minutes_per_rung) == (&other.rungs, other.minutes_per_rung),
        }
    }

    /// Becomes as thorough as `other`.
    pub fn measure_like(&mut self, other: Self) {
        *self = Self { choice: self.choice, axis: self.axis, is_log: self.is_log, ..other };
    }
}

/// What the x axis of a comparison counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum CompareAxis {
    /// Optimizer steps.
    #[default]
    Steps,
    /// Seconds spent in steps.
    Seconds,
}

/// What the comparison shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CompareSaved {
    /// What is compared.
    pub tab: CompareTab,
    /// Folders of the runs shown.
    pub runs: BTreeSet<PathBuf>,
    /// Axis of the plots.
    pub axis: CompareAxis,
    /// Weight of the past in the smoothed curves; 0 shows them as they were measured.
    pub smoothing: f32,
}

impl Default for CompareSaved {
    fn default() -> Self {
        Self { tab: CompareTab::Runs, runs: BTreeSet::new(), axis: CompareAxis::Steps, smoothing: 0.9 }
    }
}

/// Choices of the quantize and export screen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShipSaved {
    /// Folder in which packages are made; empty takes the one beside the runs.
    pub folder: String,
    /// Most validation examples to measure on.
    pub max_examples: usize,
    /// Precisions to measure.
    pub schemes: BTreeSet<QuantScheme>,
    /// Round with error compensation (GPTQ), not each weight by itself.
    pub is_compensated: bool,
    /// Scale channels against each other first.
    pub is_equalized: bool,
    /// Give each tensor its own precision, within `budget_bits`.
    pub is_mixed: bool,
    /// Bits per weight of the whole file, at most.
    pub budget_bits: f64,
    /// Images or sequences of the training part to calibrate on.
    pub calibration_samples: usize,
    /// Ternary weights that share a scale.
    pub ternary_scales: TernaryScales,
    /// Weights become trits by a threshold, not by their mean magnitude, when each is rounded by itself.
    pub is_threshold: bool,
    /// Weights of quantized matrices that become zero.
    pub sparsity: Option<Sparsity>,
    /// How token embedding and head of language models are stored.
    pub tables: Tables,
}

impl Default for ShipSaved {
    fn default() -> Self {
        Self {
            folder: String::new(),
            max_examples: QuantizeJob::DEFAULT_EXAMPLES,
            schemes: BTreeSet::from([QuantScheme::Int8, QuantScheme::Ternary]),
            is_compensated: false,
            is_equalized: false,
            is_mixed: false,
            budget_bits: 5.0,
            calibration_samples: PostTraining::DEFAULT_SAMPLES,
            ternary_scales: TernaryScales::default(),
            is_threshold: false,
            sparsity: None,
            tables: Tables::default(),
        }
    }
}

impl ShipSaved {
    /// The settings as the engine takes them, without types of tables that this model lacks.
    #[must_use]
    pub fn post_training(&self, card: &ModelCard, stray_tables: StrayTables) -> PostTraining {
        let options = PostTraining {
            rounding: if self.is_compensated { Rounding::Compensated } else { Rounding::Nearest },
            calibration_samples: self.calibration_samples.max(1),
            is_equalized: self.is_equalized,
            budget_bits: self.is_mixed.then_some(self.budget_bits),
            ternary_scales: self.ternary_scales,
            ternary_rule: if self.is_threshold { TernaryRule::Threshold } else { TernaryRule::AbsMean },
            sparsity: self.sparsity,
            tables: self.tables_of(card),
            stray_tables,
        };
        // A field that is greyed out asks for nothing, and needs no note that it was not heeded.
        let samples = if options.is_calibrated() { options.calibration_samples } else { PostTraining::DEFAULT_SAMPLES };
        PostTraining { calibration_samples: samples, ..options }
    }

    /// The types of those tables that this model has.
    #[must_use]
    pub fn tables_of(&self, card: &ModelCard) -> Tables {
        Tables {
            embedding: self.tables.embedding.filter(|_| card.is_language_model()),
            head: self.tables.head.filter(|_| card.model.has_head_of_its_own()),
        }
    }
}

/// What to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum TrySource {
    /// A run or checkpoint, in several precisions side by side.
    #[default]
    Run,
    /// A package as it was exported.
    Package,
}

/// Choices of the trial screen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrySaved {
    /// What to try.
    pub source: TrySource,
    /// Place of a package.
    pub package: String,
    /// Radius of the brush, pixels of the model's image.
    pub brush: f32,
    /// Ask after every stroke.
    pub is_live: bool,
    /// Text to go on from.
    pub prompt: String,
    /// Tokens to add.
    pub max_tokens: usize,
    /// 0 picks the likeliest token.
    pub temperature: f32,
    /// Seed of the sampling.
    pub seed: u64,
}

impl Default for TrySaved {
    fn default() -> Self {
        Self {
            source: TrySource::Run,
            package: String::new(),
            brush: 1.3,
            is_live: true,
            prompt: "The ".to_owned(),
            max_tokens: 80,
            temperature: 0.8,
            seed: 0,
        }
    }
}

/// Everything that is saved.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Saved {
    /// Screen in view.
    pub screen: Screen,
    /// Settings.
    pub settings: Settings,
    /// The form of the next run; `None` takes the default recipe. Saved apart from the rest (see `App::save`).
    #[serde(skip)]
    pub draft: Option<Draft>,
    /// Plots of the run screen.
    pub plots: PlotsSaved,
    /// The dataset looked at.
    pub data: DataForm,
    /// The comparison.
    pub compare: CompareSaved,
    /// The experiments.
    pub experiments: ExperimentsSaved,
    /// The lock on the tier that is not proven.
    pub tier_lock: TierLock,
    /// The model to quantize, export or try: a run folder or a checkpoint folder.
    pub model_path: String,
    /// The quantize and export screen.
    pub ship: ShipSaved,
    /// The trial screen.
    pub trial: TrySaved,
    /// The recipe panel is folded.
    pub is_recipe_hidden: bool,
    /// The gauges panel is folded.
    pub is_side_hidden: bool,
    /// The log panel is folded.
    pub is_log_hidden: bool,
}

#[cfg(test)]
mod tests {
    use foretrain_engine::quant::TableType;

    use super::*;

    #[test]
    fn an_older_file_still_loads() {
        let saved: Saved = ron::from_str("(settings: (ui_scale: 1.25), ship: (is_mixed: true))").unwrap_or_default();
        assert!(saved.ship.is_mixed && saved.ship.tables == Tables::default());
        assert_eq!(saved.settings.ui_scale.to_bits(), 1.25f32.to_bits());
        assert_eq!(saved.plots, PlotsSaved::default());
    }

    #[test]
    fn the_scale_goes_by_steps_and_ends_at_the_last() {
        let mut settings = Settings::default();
        let mut scales = Vec::new();
        for _ in 0..6 {
            settings.enlarge();
            scales.push((settings.ui_scale * 100.0).round() as u8);
        }
        assert_eq!(scales, [110, 125, 150, 175, 200, 200]);
        settings.ui_scale = 0.95;
        settings.reduce();
        assert_eq!(settings.ui_scale.to_bits(), 0.9f32.to_bits());
        settings.reduce();
        settings.reduce();
        assert_eq!(settings.ui_scale.to_bits(), 0.8f32.to_bits());
    }

    #[test]
    fn what_is_saved_comes_back() {
        let mut saved = Saved { screen: Screen::Settings, ..Saved::default() };
        saved.plots.heights.insert(PlotKind::Loss, 321.0);
        saved.plots.shown.remove(&PlotKind::Correction);
        saved.ship.tables = Tables { embedding: Some(TableType::Int3K), head: None };
        let text = ron::to_string(&saved).unwrap_or_default();
        assert_eq!(ron::from_str::<Saved>(&text).ok(), Some(saved));
    }
}
