//! The recipe as it stands in the form, and the run that it makes.

use std::path::PathBuf;

use foretrain_engine::data::{DatasetSpec, TokenizerSpec};
use foretrain_engine::device::ComputeDevice;
use foretrain_engine::hybrid::TierPreset;
use foretrain_engine::models::ops::{Kept, Precision};
use foretrain_engine::models::{DataShape, ModelConfig, ModelPreset};
use foretrain_engine::optim::StatePlace;
use foretrain_engine::session::RunConfig;
use serde::{Deserialize, Serialize};

use super::{Catalog, RecipeEntry, Settings, Streaming};

/// Kinds of datasets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "`label` says what each is")]
pub enum DataKind {
    Glyphs,
    Grammar,
    Rounds,
    Idx,
    Cifar10,
    ImageFolder,
    Text,
    Jsonl,
}

impl DataKind {
    /// All kinds, in the order in which to offer them.
    pub const ALL: [Self; 8] = [
        Self::Glyphs,
        Self::Grammar,
        Self::Rounds,
        Self::Idx,
        Self::Cifar10,
        Self::ImageFolder,
        Self::Text,
        Self::Jsonl,
    ];

    /// The name to show.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Glyphs => "Glyphs (built in)",
            Self::Grammar => "Grammar (built in)",
            Self::Rounds => "Rounds (built in)",
            Self::Idx => "IDX images (MNIST)",
            Self::Cifar10 => "CIFAR-10 binary",
            Self::ImageFolder => "Image folder",
            Self::Text => "Text files",
            Self::Jsonl => "JSONL text",
        }
    }

    /// What it holds, in a line.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::Glyphs => "Digits drawn from stroke fonts: 20,000 + 4,000 images of 28x28",
            Self::Grammar => "2 MB of text from a stochastic grammar with long-range agreement",
            Self::Rounds => "1 MB of lines that repeat a random sequence of letters: depth matters",
            Self::Idx => "A folder with train-images, train-labels, t10k-images, t10k-labels, plain or .gz",
            Self::Cifar10 => "cifar-10-binary.tar.gz, or the folder it unpacks to",
            Self::ImageFolder => "One folder per class with PNG or JPEG files; split by rule",
            Self::Text => "A .txt file, or a folder of them",
            Self::Jsonl => "One JSON object a line, one field of which holds the text",
        }
    }

    /// True when a place on disk must be given.
    #[must_use]
    pub fn needs_path(self) -> bool {
        match self {
            Self::Glyphs | Self::Grammar | Self::Rounds => false,
            Self::Idx | Self::Cifar10 | Self::ImageFolder | Self::Text | Self::Jsonl => true,
        }
    }

    /// True for images, false for text.
    #[must_use]
    pub fn holds_images(self) -> bool {
        match self {
            Self::Glyphs | Self::Idx | Self::Cifar10 | Self::ImageFolder => true,
            Self::Grammar | Self::Rounds | Self::Text | Self::Jsonl => false,
        }
    }
}

/// Kinds of tokenizers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "`label` says what each is")]
pub enum TokenizerKind {
    Byte,
    Char,
    Gpt2,
    File,
}

impl TokenizerKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Char, Self::Byte, Self::Gpt2, Self::File];

    /// The name to show.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Byte => "Bytes",
            Self::Char => "Characters",
            Self::Gpt2 => "GPT-2 BPE",
            Self::File => "tokenizer.json",
        }
    }
}

/// A dataset as its form holds it: every field keeps its text when the kind changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DataForm {
    /// Kind.
    pub kind: DataKind,
    /// Place on disk.
    pub path: String,
    /// Side of square images, for image folders.
    pub image_size: usize,
    /// How text becomes tokens.
    pub tokenizer: TokenizerKind,
    /// Place of the tokenizer.
    pub tokenizer_path: String,
    /// Field with the text, for JSONL.
    pub field: String,
}

impl Default for DataForm {
    fn default() -> Self {
        Self {
            kind: DataKind::Glyphs,
            path: String::new(),
            image_size: 32,
            tokenizer: TokenizerKind::Char,
            tokenizer_path: String::new(),
            field: "text".to_owned(),
        }
    }
}

impl DataForm {
    /// The form that makes `spec`.
    #[must_use]
    pub fn from_spec(spec: &DatasetSpec) -> Self {
        let mut form = Self::default();
        match spec {
            DatasetSpec::Glyphs => form.kind = DataKind::Glyphs,
            DatasetSpec::Grammar => form.kind = DataKind::Grammar,
            DatasetSpec::Rounds => form.kind = DataKind::Rounds,
            DatasetSpec::Idx { path } => form.set(DataKind::Idx, path),
            DatasetSpec::Cifar10 { path } => form.set(DataKind::Cifar10, path),
            DatasetSpec::ImageFolder { path, image_size } => {
                form.set(DataKind::ImageFolder, path);
                form.image_size = image_size.0;
            }
            DatasetSpec::Text { path, tokenizer } => {
                form.set(DataKind::Text, path);
                form.set_tokenizer(tokenizer);
            }
            DatasetSpec::Jsonl { path, field, tokenizer } => {
                form.set(DataKind::Jsonl, path);
                form.field.clone_from(field);
                form.set_tokenizer(tokenizer);
            }
        }
        form
    }

    fn set(&mut self, kind: DataKind, path: &std::path::Path) {
        self.kind = kind;
        self.path = path.display().to_string();
    }

    fn set_tokenizer(&mut self, tokenizer: &TokenizerSpec) {
        self.tokenizer = match tokenizer {
            TokenizerSpec::Byte => TokenizerKind::Byte,
            TokenizerSpec::Char => TokenizerKind::Char,
            TokenizerSpec::Gpt2 { folder } => {
                self.tokenizer_path = folder.display().to_string();
                TokenizerKind::Gpt2
            }
            TokenizerSpec::File { path } => {
                self.tokenizer_path = path.display().to_string();
                TokenizerKind::File
            }
        };
    }

    /// The dataset, or what is missing.
    pub fn spec(&self) -> Result<DatasetSpec, String> {
        let place = |text: &str, what: &str| {
            let text = text.trim();
            if text.is_empty() { Err(format!("Choose {what} first.")) } else { Ok(PathBuf::from(text)) }
        };
        let tokenizer = || {
            Ok::<_, String>(match self.tokenizer {
                TokenizerKind::Byte => TokenizerSpec::Byte,
                TokenizerKind::Char => TokenizerSpec::Char,
                TokenizerKind::Gpt2 => {
                    TokenizerSpec::Gpt2 { folder: place(&self.tokenizer_path, "the tokenizer's folder")? }
                }
                TokenizerKind::File => {
                    TokenizerSpec::File { path: place(&self.tokenizer_path, "the tokenizer.json file")? }
                }
            })
        };
        Ok(match self.kind {
            DataKind::Glyphs => DatasetSpec::Glyphs,
            DataKind::Grammar => DatasetSpec::Grammar,
            DataKind::Rounds => DatasetSpec::Rounds,
            DataKind::Idx => DatasetSpec::Idx { path: place(&self.path, "the folder with the IDX files")? },
            DataKind::Cifar10 => DatasetSpec::Cifar10 { path: place(&self.path, "the CIFAR-10 archive or folder")? },
            DataKind::ImageFolder => DatasetSpec::ImageFolder {
                path: place(&self.path, "the folder of images")?,
                image_size: (self.image_size, self.image_size),
            },
            DataKind::Text => {
                DatasetSpec::Text { path: place(&self.path, "the text file or folder")?, tokenizer: tokenizer()? }
            }
            DataKind::Jsonl => {
                let field = self.field.trim();
                if field.is_empty() {
                    return Err("Name the field that holds the text.".to_owned());
                }
                DatasetSpec::Jsonl {
                    path: place(&self.path, "the JSONL file")?,
                    field: field.to_owned(),
                    tokenizer: tokenizer()?,
                }
            }
        })
    }
}

/// What is known of a dataset's shape before it is loaded; the engine fits the model to the real one.
#[must_use]
pub fn guessed_shape(spec: &DatasetSpec) -> DataShape {
    let images = |channels, side| DataShape::Images { channels, height: side, width: side, num_classes: 10 };
    let tokens = |tokenizer: &TokenizerSpec| {
        let vocab_size = match tokenizer {
            TokenizerSpec::Char => 96,
            TokenizerSpec::Byte => 256,
            TokenizerSpec::Gpt2 { .. } => 50_257,
            TokenizerSpec::File { .. } => 32_000,
        };
        DataShape::Text { vocab_size }
    };
    match spec {
        DatasetSpec::Glyphs | DatasetSpec::Idx { .. } => images(1, 28),
        DatasetSpec::Cifar10 { .. } => images(3, 32),
        DatasetSpec::ImageFolder { image_size, .. } => {
            DataShape::Images { channels: 3, height: image_size.0, width: image_size.1, num_classes: 10 }
        }
        DatasetSpec::Grammar => DataShape::Text { vocab_size: 64 },
        DatasetSpec::Rounds => DataShape::Text { vocab_size: 18 },
        DatasetSpec::Text { tokenizer, .. } | DatasetSpec::Jsonl { tokenizer, .. } => tokens(tokenizer),
    }
}

/// The preset that makes this model; `None` for one that was put together by hand.
#[must_use]
pub fn preset_of(model: &ModelConfig) -> Option<ModelPreset> {
    let shape = model.data_shape();
    ModelPreset::ALL.into_iter().find(|preset| preset.config(shape).is_ok_and(|config| config == *model))
}

/// The form of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    /// The recipe it came from.
    pub recipe: String,
    /// Its data.
    pub data: DataForm,
    /// Its model by name.
    pub model: ModelPreset,
    /// Everything else; its data and model are replaced by the two fields above.
    pub config: RunConfig,
    /// Where its weights lie.
    #[serde(default)]
    pub streaming: Streaming,
}

impl Draft {
    /// The form that makes `recipe` unchanged.
    #[must_use]
    pub fn of(recipe: &RecipeEntry) -> Self {
        Self {
            recipe: recipe.name.clone(),
            data: DataForm::from_spec(&recipe.config.data),
            model: recipe.model,
            config: recipe.config.clone(),
            streaming: Streaming::default(),
        }
    }

    /// The form that makes the run of `config`; `None` when its model is none of the presets. It counts as a change of
    /// the recipe that comes nearest.
    #[must_use]
    pub fn of_run(config: &RunConfig, catalog: &Catalog) -> Option<Self> {
        let (model, data) = (preset_of(&config.model)?, DataForm::from_spec(&config.data));
        let kind_of = |recipe: &RecipeEntry| DataForm::from_spec(&recipe.config.data).kind;
        let of_model = || catalog.recipes.iter().filter(|recipe| recipe.model == model);
        let nearest = of_model().find(|recipe| kind_of(recipe) == data.kind).or_else(|| of_model().next());
        let recipe = nearest.or(catalog.recipes.first())?.name.clone();
        Some(Self { recipe, data, model, config: config.clone(), streaming: Streaming::default() })
    }

    /// True when both make the same run, whatever it is called and whatever the settings add to it.
    #[must_use]
    pub fn makes_same_run(&self, other: &Self) -> bool {
        let own = self.config.clone();
        let like_this = RunConfig {
            name: own.name,
            data: own.data,
            model: own.model,
            num_threads: own.num_threads,
            device: own.device,
            memory_budget_bytes: own.memory_budget_bytes,
            vram_limit_bytes: own.vram_limit_bytes,
            runs_folder: own.runs_folder,
            ..other.config.clone()
        };
        self.model == other.model && self.data.spec() == other.data.spec() && self.config == like_this
    }

    /// Takes another dataset; a model that cannot read it gives way to one that can.
    pub fn set_data(&mut self, data: DataForm) {
        if data.kind != self.data.kind && self.model.reads_images() != data.kind.holds_images() {
            self.set_model(if data.kind.holds_images() { ModelPreset::MnistCnn } else { ModelPreset::Gpt2Char });
        }
        self.data = data;
    }

    /// Takes another model, which cannot begin with the weights of the last one.
    pub fn set_model(&mut self, model: ModelPreset) {
        if model != self.model {
            self.config.start_from = None;
        }
        self.model = model;
    }

    /// Takes another tier's settings.
    pub fn set_tier(&mut self, tier: &TierPreset) {
        self.config.tier.clone_from(&tier.name);
        self.config.hybrid = tier.config();
    }

    /// The run that the form describes, or what it lacks.
    pub fn run_config(&self, settings: &Settings) -> Result<RunConfig, String> {
        let data = self.data.spec()?;
        let model = self.model.config(guessed_shape(&data)).map_err(|error| error.to_string())?;
        if self.config.num_micro_batches == 0 || !self.config.batch_size.is_multiple_of(self.config.num_micro_batches) {
            return Err(format!(
                "A batch of {} cannot be cut into {} equal parts.",
                self.config.batch_size, self.config.num_micro_batches
            ));
        }
        if let Some(longest) = model.max_positions().filter(|longest| self.config.sequence_length > *longest) {
            return Err(format!(
                "This model reads at most {longest} tokens; the sequence length is {}.",
                self.config.sequence_length
            ));
        }
        let mut config = self.config.clone();
        config.data = data;
        // Weights that are there already have their own model, whose ends fit their own data.
        if config.start_from.is_none() {
            config.model = model;
        }
        if !config.model.has_bf16_products() {
            // The form does not ask for it.
            config.precision = Precision::F32;
            config.kept = Kept::Activations;
        }
        config.num_threads = settings.num_threads;
        config.memory_budget_bytes = settings.memory_budget_bytes;
        config.device = settings.device;
        config.vram_limit_bytes = settings.vram_limit_bytes;
        if settings.device == ComputeDevice::Cpu {
            // What is about a GPU means nothing there.
            config.vram_limit_bytes = 0;
            config.optimizer.state_place = StatePlace::WithWeights;
        }
        config.runs_folder = settings.runs_folder_path();
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_make_the_dataset_they_came_from() {
        let specs = [
            DatasetSpec::Glyphs,
            DatasetSpec::Grammar,
            DatasetSpec::Rounds,
            DatasetSpec::Idx { path: "a".into() },
            DatasetSpec::Cifar10 { path: "b".into() },
            DatasetSpec::ImageFolder { path: "c".into(), image_size: (48, 48) },
            DatasetSpec::Text { path: "d".into(), tokenizer: TokenizerSpec::Gpt2 { folder: "e".into() } },
            DatasetSpec::Jsonl { path: "f".into(), field: "body".to_owned(), tokenizer: TokenizerSpec::Byte },
        ];
        for spec in specs {
            assert_eq!(DataForm::from_spec(&spec).spec(), Ok(spec));
        }
    }

    #[test]
    fn a_run_s_recipe_becomes_the_form_that_makes_it() {
        let catalog = Catalog::load();
        for recipe in &catalog.recipes {
            let draft = Draft::of(recipe);
            let mut config = recipe.config.clone();
            // As the engine notes it in the run's folder.
            (config.num_threads, config.runs_folder) = (7, PathBuf::new());
            let back = Draft::of_run(&config, &catalog);
            assert!(back.as_ref().is_some_and(|back| back.makes_same_run(&draft)), "{}", recipe.name);
            config.seed += 1;
            assert!(Draft::of_run(&config, &catalog).is_some_and(|back| !back.makes_same_run(&draft)));
        }
    }

    #[test]
    fn a_missing_path_is_named() {
        let form = DataForm { kind: DataKind::Idx, path: "  ".to_owned(), ..DataForm::default() };
        assert_eq!(form.spec(), Err("Choose the folder with the IDX files first.".to_owned()));
    }
}
