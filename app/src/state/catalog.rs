//! What can be chosen: recipes and tiers, as their preset files give them.

use foretrain_engine::hybrid::TierPreset;
use foretrain_engine::models::ModelPreset;
use foretrain_engine::session::{PresetError, Recipe, RunConfig, recipes, tiers};

/// The tier that recipes start with.
const DEFAULT_TIER: &str = "conservative";

/// A recipe, ready to be changed.
#[derive(Debug, Clone, PartialEq)]
pub struct RecipeEntry {
    /// Name to show and to type.
    pub name: String,
    /// One sentence.
    pub summary: String,
    /// Its model by name.
    pub model: ModelPreset,
    /// Its run, with its own data, fitted to it as far as that is known without loading.
    pub config: RunConfig,
}

/// Everything that can be chosen.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// Recipes, in the order in which to offer them; the first is the default.
    pub recipes: Vec<RecipeEntry>,
    /// Tiers, in the order in which to offer them.
    pub tiers: Vec<TierPreset>,
    /// What kept something from being offered.
    pub problems: Vec<String>,
}

impl Catalog {
    /// What the preset files offer.
    #[must_use]
    pub fn load() -> Self {
        let mut catalog = Self::default();
        match tiers() {
            Ok(tiers) => catalog.tiers = tiers,
            Err(error) => catalog.problems.push(error.to_string()),
        }
        let Some(tier) = catalog.tiers.iter().find(|tier| tier.name == DEFAULT_TIER).or(catalog.tiers.first()) else {
            return catalog;
        };
        let entry = |recipe: Recipe| -> Result<RecipeEntry, PresetError> {
            let config = recipe.run_config(tier, recipe.data.clone())?;
            Ok(RecipeEntry { name: recipe.name, summary: recipe.summary, model: recipe.model, config })
        };
        match recipes().and_then(|recipes| recipes.into_iter().map(entry).collect()) {
            Ok(recipes) => catalog.recipes = recipes,
            Err(error) => catalog.problems.push(error.to_string()),
        }
        catalog
    }

    /// The recipe called `name`.
    #[must_use]
    pub fn recipe(&self, name: &str) -> Option<&RecipeEntry> {
        self.recipes.iter().find(|recipe| recipe.name == name)
    }

    /// The tier called `name`.
    #[must_use]
    pub fn tier(&self, name: &str) -> Option<&TierPreset> {
        self.tiers.iter().find(|tier| tier.name == name)
    }
}
