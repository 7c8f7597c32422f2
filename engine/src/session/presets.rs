//! Recipes, tiers and targets by name: preset files, built into the program.

use serde::{Deserialize, Serialize};

use super::RunConfig;
use crate::data::{Augmentation, DatasetSpec};
use crate::device::ComputeDevice;
use crate::export::{ExportError, TargetPreset};
use crate::hybrid::{HybridError, TierPreset};
use crate::models::ops::{Kept, Precision};
use crate::models::{DataShape, ModelError, ModelPreset};
use crate::optim::{OptimizerConfig, Schedule};
use crate::quant::QatConfig;

/// A preset that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PresetError {
    /// A file does not say what it should.
    #[error("recipe preset {file}: {what}")]
    Recipe {
        /// The file's name.
        file: String,
        /// Line, column, key and what was expected.
        what: String,
    },
    /// There is none of this name.
    #[error("{kind} preset: expected one of {known}, found {name:?}")]
    Unknown {
        /// "recipe" or "tier".
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A tier's file.
    #[error(transparent)]
    Tier(#[from] HybridError),
    /// A target's file.
    #[error(transparent)]
    Target(#[from] ExportError),
    /// Model and data do not go together.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// What to train on what, with numbers that work; the files say why each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name to show and to type.
    pub name: String,
    /// One sentence.
    pub summary: String,
    /// Model preset.
    pub model: ModelPreset,
    /// Dataset; a path is empty where the user must name one.
    pub data: DatasetSpec,
    /// How weights move.
    pub optimizer: OptimizerConfig,
    /// Learning rate over the run.
    pub schedule: Schedule,
    /// Quantization-aware training, where the recipe is one.
    #[serde(default)]
    pub qat: Option<QatConfig>,
    /// Optimizer steps.
    pub num_steps: u64,
    /// Images or sequences per step.
    pub batch_size: usize,
    /// Parts of a batch for gradient accumulation.
    pub num_micro_batches: usize,
    /// Tokens per sequence; unused for images.
    pub sequence_length: usize,
    /// Changes to training images.
    pub augmentation: Augmentation,
    /// Steps between two validations.
    pub validation_interval: u64,
    /// Most images or sequences per validation; the last one also measures all.
    pub max_validation_examples: usize,
    /// Steps between two checkpoints.
    pub checkpoint_interval: u64,
}

/// Files in the order in which to offer them.
const RECIPES: [(&str, &str); 9] = [
    ("glyphs-cnn.ron", include_str!("../../../presets/recipes/glyphs-cnn.ron")),
    ("glyphs-mlp.ron", include_str!("../../../presets/recipes/glyphs-mlp.ron")),
    ("grammar-gpt2-char.ron", include_str!("../../../presets/recipes/grammar-gpt2-char.ron")),
    ("mnist-cnn.ron", include_str!("../../../presets/recipes/mnist-cnn.ron")),
    ("cifar-resnet20.ron", include_str!("../../../presets/recipes/cifar-resnet20.ron")),
    ("cifar-resnet18.ron", include_str!("../../../presets/recipes/cifar-resnet18.ron")),
    ("shakespeare-gpt2-char.ron", include_str!("../../../presets/recipes/shakespeare-gpt2-char.ron")),
    ("demo-glyphs.ron", include_str!("../../../presets/recipes/demo-glyphs.ron")),
    ("demo-grammar.ron", include_str!("../../../presets/recipes/demo-grammar.ron")),
];

impl Recipe {
    /// Reads a recipe in RON. Errors: [`PresetError::Recipe`] with line, column and the key at fault.
    pub fn parse(file: &str, text: &str) -> Result<Self, PresetError> {
        ron::from_str(text).map_err(|error| PresetError::Recipe { file: file.to_owned(), what: error.to_string() })
    }

    /// A run of this recipe on `data`, predicting as `tier` says. The model's two ends are fitted again when the
    /// data is loaded. Errors: [`PresetError::Model`] when the recipe's model reads another kind of data.
    pub fn run_config(&self, tier: &TierPreset, data: DatasetSpec) -> Result<RunConfig, PresetError> {
        // Before the data is loaded, its shape is a guess that only a parameter count shows.
        let shape = if self.model.reads_images() {
            match data {
                DatasetSpec::Cifar10 { .. } => {
                    DataShape::Images { channels: 3, height: 32, width: 32, num_classes: 10 }
                }
                DatasetSpec::ImageFolder { image_size: (height, width), .. } => {
                    DataShape::Images { channels: 3, height, width, num_classes: 10 }
                }
                _ => DataShape::Images { channels: 1, height: 28, width: 28, num_classes: 10 },
            }
        } else {
            DataShape::Text { vocab_size: 65 }
        };
        Ok(RunConfig {
            name: self.name.clone(),
            data,
            model: self.model.config(shape)?,
            start_from: None,
            tier: tier.name.clone(),
            hybrid: tier.config(),
            optimizer: self.optimizer.clone(),
            schedule: self.schedule,
            qat: self.qat,
            num_steps: self.num_steps,
            batch_size: self.batch_size,
            num_micro_batches: self.num_micro_batches,
            precision: Precision::F32,
            kept: Kept::Activations,
            sequence_length: self.sequence_length,
            augmentation: self.augmentation,
            seed: 0,
            validation_interval: self.validation_interval,
            max_validation_examples: self.max_validation_examples,
            checkpoint_interval: self.checkpoint_interval,
            keep_last: 2,
            num_threads: 0,
            device: ComputeDevice::Cpu,
            memory_budget_bytes: 0,
            vram_limit_bytes: 0,
            runs_folder: std::path::PathBuf::new(),
        })
    }
}

/// All recipes, in the order in which to offer them.
pub fn recipes() -> Result<Vec<Recipe>, PresetError> {
    RECIPES.iter().map(|(file, text)| Recipe::parse(file, text)).collect()
}

/// The recipe called `name`.
pub fn recipe(name: &str) -> Result<Recipe, PresetError> {
    find("recipe", name, recipes()?, |recipe| &recipe.name)
}

/// All tiers, in the order in which to offer them.
pub fn tiers() -> Result<Vec<TierPreset>, PresetError> {
    Ok(TierPreset::all()?)
}

/// The tier called `name`.
pub fn tier(name: &str) -> Result<TierPreset, PresetError> {
    find("tier", name, tiers()?, |tier| &tier.name)
}

/// All hardware targets, in the order in which to offer them.
pub fn targets() -> Result<Vec<TargetPreset>, PresetError> {
    Ok(TargetPreset::all()?)
}

fn find<T>(kind: &'static str, name: &str, all: Vec<T>, name_of: impl Fn(&T) -> &str) -> Result<T, PresetError> {
    let known = all.iter().map(&name_of).collect::<Vec<_>>().join(", ");
    let found = all.into_iter().find(|preset| name_of(preset).eq_ignore_ascii_case(name));
    found.ok_or_else(|| PresetError::Unknown { kind, name: name.to_owned(), known })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_preset_parses_and_makes_a_run() {
        let tiers = tiers().unwrap();
        for (recipe, (file, _)) in recipes().unwrap().iter().zip(RECIPES) {
            assert_eq!(format!("{}.ron", recipe.name), file);
            for tier in &tiers {
                let config = recipe.run_config(tier, recipe.data.clone()).unwrap();
                assert!(config.batch_size.is_multiple_of(config.num_micro_batches));
                let text = ron::to_string(&config).unwrap();
                assert_eq!(ron::from_str::<RunConfig>(&text).unwrap(), config);
            }
        }
        assert!(!targets().unwrap().is_empty());
    }

    #[test]
    fn a_bad_recipe_names_file_and_key() {
        let text = RECIPES[0].1.replace("batch_size", "batch_width");
        let message = Recipe::parse("mine.ron", &text).unwrap_err().to_string();
        assert!(message.contains("mine.ron") && message.contains("batch_width"), "{message}");
        let message = recipe("no-such").unwrap_err().to_string();
        assert!(message.contains("glyphs-cnn"), "{message}");
    }
}
