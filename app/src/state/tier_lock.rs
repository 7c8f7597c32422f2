//! The lock on the tier that is not proven: it opens for a recipe on which the corrections experiment showed enough,
//! or for whoever says of this recipe that they know what they do.
//!
//! Invariant: nothing but a measurement of this very recipe, or the user's own choice for it, opens the lock.

use std::collections::{BTreeMap, BTreeSet};

use foretrain_engine::experiment::{DEMANDED_OVERHEAD, DEMANDED_REDUCTION};
use foretrain_engine::session::RunConfig;
use serde::{Deserialize, Serialize};

/// Name of the tier behind the lock.
pub const LOCKED_TIER: &str = "aggressive";

/// Confidence threshold at which corrections must have been measured: that of the tier.
pub const PROOF_CONFIDENCE: f64 = 0.55;

/// Names a recipe by all that decides how well corrections can work on it: data, model, optimizer, steps and batches.
/// The tier, the seed, the name of the run and where its files go are no part of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecipeKey(String);

impl RecipeKey {
    /// The key of the recipe that `config` trains by.
    #[must_use]
    pub fn of(config: &RunConfig) -> Self {
        let parts = (
            (&config.data, &config.model, &config.optimizer, &config.schedule, config.augmentation),
            (config.num_steps, config.batch_size, config.num_micro_batches, config.sequence_length),
        );
        // Plain data: what cannot be written has a key that no other recipe has either.
        let mut text = ron::to_string(&parts).unwrap_or_else(|error| format!("{error}: {parts:?}"));
        if !config.precision.is_full() {
            // Only then, so that keys of earlier versions stay what they are.
            text.push_str(config.precision.label());
        }
        Self(format!("{:016x}", fnv_1a(text.as_bytes())))
    }
}

/// The same number for the same bytes in every version of the program.
/// Source: Fowler, Noll and Vo, FNV-1a, 64 bits.
fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What the corrections experiment measured on a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CorrectionFigures {
    /// Share of the forecasts' error that corrections took away, 1 at most; negative where they added to it.
    pub error_reduction: f64,
    /// What they took beyond full steps, as a share of the time that Predict took.
    pub overhead: f64,
    /// Divergences that the guard saw.
    pub num_divergences: u64,
}

/// One thing that is asked of the figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Demand {
    /// What is asked for, in words.
    pub what: &'static str,
    /// The figure; a share, or a count.
    pub found: Found,
    /// It is met.
    pub is_met: bool,
}

/// A figure of a [`Demand`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Found {
    /// A share of 1.
    Share(f64),
    /// How many.
    Count(u64),
}

impl CorrectionFigures {
    /// Each demand with what was found.
    #[must_use]
    pub fn demands(&self) -> [Demand; 3] {
        let Self { error_reduction, overhead, num_divergences } = *self;
        [
            Demand {
                what: "Corrections take away at least 95% of the forecasts' error",
                found: Found::Share(error_reduction),
                // NaN is no proof.
                is_met: error_reduction >= DEMANDED_REDUCTION,
            },
            Demand {
                what: "They cost less than 5% of the time of Predict",
                found: Found::Share(overhead),
                is_met: overhead < DEMANDED_OVERHEAD,
            },
            Demand { what: "No divergence", found: Found::Count(num_divergences), is_met: num_divergences == 0 },
        ]
    }

    /// True when all demands are met.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.demands().iter().all(|demand| demand.is_met)
    }
}

/// Whether a tier can be used on a recipe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Access {
    /// It has no lock.
    Free,
    /// The experiment showed enough.
    Proven(CorrectionFigures),
    /// It did not, or was not run; the user goes on all the same.
    Expert(Option<CorrectionFigures>),
    /// It did not show enough, or was not run.
    Locked(Option<CorrectionFigures>),
}

impl Access {
    /// True when the tier can be used.
    #[must_use]
    pub fn is_open(self) -> bool {
        match self {
            Self::Free | Self::Proven(_) | Self::Expert(_) => true,
            Self::Locked(_) => false,
        }
    }
}

/// What is known of recipes, and what the user chose for them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TierLock {
    measured: BTreeMap<RecipeKey, CorrectionFigures>,
    experts: BTreeSet<RecipeKey>,
}

impl TierLock {
    /// Whether `tier` can be used on the recipe of `config`.
    #[must_use]
    pub fn access(&self, tier: &str, config: &RunConfig) -> Access {
        if tier != LOCKED_TIER {
            return Access::Free;
        }
        let key = RecipeKey::of(config);
        match self.measured.get(&key).copied() {
            Some(figures) if figures.is_enough() => Access::Proven(figures),
            figures if self.experts.contains(&key) => Access::Expert(figures),
            figures => Access::Locked(figures),
        }
    }

    /// Keeps what was measured on a recipe; the last measurement counts.
    pub fn note(&mut self, key: RecipeKey, figures: CorrectionFigures) {
        self.measured.insert(key, figures);
    }

    /// Remembers for the recipe of `config` alone whether the user goes on without proof.
    pub fn set_expert(&mut self, config: &RunConfig, is_expert: bool) {
        let key = RecipeKey::of(config);
        if is_expert {
            self.experts.insert(key);
        } else {
            self.experts.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Catalog;

    fn config() -> RunConfig {
        Catalog::load().recipes.swap_remove(0).config
    }

    const GOOD: CorrectionFigures = CorrectionFigures { error_reduction: 0.95, overhead: 0.049, num_divergences: 0 };

    #[test]
    fn only_what_was_demanded_is_enough() {
        assert!(GOOD.is_enough());
        let bad = [
            CorrectionFigures { error_reduction: 0.949, ..GOOD },
            CorrectionFigures { error_reduction: f64::NAN, ..GOOD },
            CorrectionFigures { overhead: 0.05, ..GOOD },
            CorrectionFigures { overhead: f64::NAN, ..GOOD },
            CorrectionFigures { num_divergences: 1, ..GOOD },
        ];
        for figures in bad {
            assert!(!figures.is_enough(), "{figures:?}");
            assert_eq!(figures.demands().iter().filter(|demand| !demand.is_met).count(), 1, "{figures:?}");
        }
    }

    #[test]
    fn other_tiers_have_no_lock() {
        let lock = TierLock::default();
        for tier in ["vanilla", "conservative", "balanced"] {
            assert_eq!(lock.access(tier, &config()), Access::Free);
        }
        assert_eq!(lock.access(LOCKED_TIER, &config()), Access::Locked(None));
    }

    #[test]
    fn a_measurement_opens_it_for_its_recipe_whatever_seed_and_name() {
        let (config, mut lock) = (config(), TierLock::default());
        lock.note(RecipeKey::of(&config), GOOD);
        let mut same = config.clone();
        same.tier = "balanced".to_owned();
        (same.seed, same.name, same.num_threads, same.runs_folder) = (99, "other".to_owned(), 3, "/elsewhere".into());
        assert_eq!(lock.access(LOCKED_TIER, &same), Access::Proven(GOOD));
        let other = RunConfig { batch_size: config.batch_size * 2, ..config.clone() };
        assert_eq!(lock.access(LOCKED_TIER, &other), Access::Locked(None));
        let worse = CorrectionFigures { overhead: 0.2, ..GOOD };
        lock.note(RecipeKey::of(&config), worse);
        assert_eq!(lock.access(LOCKED_TIER, &config), Access::Locked(Some(worse)), "the last one counts");
    }

    #[test]
    fn an_expert_s_choice_holds_for_one_recipe_and_survives_the_window() {
        let (config, mut lock) = (config(), TierLock::default());
        lock.set_expert(&config, true);
        let back: TierLock = ron::to_string(&lock).ok().and_then(|text| ron::from_str(&text).ok()).unwrap_or_default();
        assert_eq!(back.access(LOCKED_TIER, &config), Access::Expert(None));
        let other = RunConfig { num_steps: config.num_steps + 1, ..config.clone() };
        assert!(!back.access(LOCKED_TIER, &other).is_open());
        lock.set_expert(&config, false);
        assert!(!lock.access(LOCKED_TIER, &config).is_open());
    }
}
