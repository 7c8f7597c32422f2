//! What can be chosen: recipes, tiers and targets, as their preset files give them.

use foretrain_engine::export::TargetPreset;
use foretrain_engine::hybrid::TierPreset;
use foretrain_engine::models::ModelPreset;
use foretrain_engine::session::{self, RunConfig};

/// The tier that a recipe starts with.
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
    /// Hardware targets, in the order in which to offer them.
    pub targets: Vec<TargetPreset>,
    /// What kept something from being offered.
    pub problems: Vec<String>,
}

impl Catalog {
    /// What the preset files offer; what cannot be read becomes a problem, and the rest is offered.
    #[must_use]
    pub fn load() -> Self {
        let mut catalog = Self::default();
        match session::tiers() {
            Ok(tiers) => catalog.tiers = tiers,
            Err(error) => catalog.problems.push(error.to_string()),
        }
        match session::targets() {
            Ok(targets) => catalog.targets = targets,
            Err(error) => catalog.problems.push(error.to_string()),
        }
        let recipes = session::recipes().unwrap_or_else(|error| {
            catalog.problems.push(error.to_string());
            Vec::new()
        });
        let tier = catalog.tiers.iter().find(|tier| tier.name == DEFAULT_TIER).or(catalog.tiers.first()).cloned();
        for recipe in recipes {
            let Some(tier) = &tier else { break };
            match recipe.run_config(tier, recipe.data.clone()) {
                Ok(config) => catalog.recipes.push(RecipeEntry {
                    name: recipe.name,
                    summary: recipe.summary,
                    model: recipe.model,
                    config,
                }),
                Err(error) => catalog.problems.push(error.to_string()),
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preset_files_are_offered() {
        let catalog = Catalog::load();
        assert!(catalog.problems.is_empty(), "{:?}", catalog.problems);
        assert!(catalog.tier("vanilla").is_some_and(|tier| !tier.strategy.value.predicts()));
        let first = catalog.recipes.first().map(|recipe| recipe.config.data.clone());
        assert_eq!(first, Some(foretrain_engine::data::DatasetSpec::Glyphs), "one click must train without any file");
        assert!(!catalog.targets.is_empty());
    }
}
