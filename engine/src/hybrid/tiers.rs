//! The tiers that come with the program: one file each, every number with its reason.

use super::{HybridError, TierPreset};

/// Name and text of each tier, in the order in which to offer them.
const TIERS: [(&str, &str); 4] = [
    ("vanilla", include_str!("../../../presets/tiers/vanilla.ron")),
    ("conservative", include_str!("../../../presets/tiers/conservative.ron")),
    ("balanced", include_str!("../../../presets/tiers/balanced.ron")),
    ("aggressive", include_str!("../../../presets/tiers/aggressive.ron")),
];

impl TierPreset {
    /// The built-in tiers: vanilla, conservative, balanced, aggressive.
    /// Errors: none with the files as they are (a test reads them).
    pub fn all() -> Result<Vec<Self>, HybridError> {
        TIERS.into_iter().map(|(name, text)| Self::parse(name, text)).collect()
    }

    /// The built-in tier called `name`; `None` when there is no such tier.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let (name, text) = TIERS.into_iter().find(|(known, _)| *known == name)?;
        Self::parse(name, text).ok()
    }

    /// Reads a tier from RON; `name` appears in errors only.
    /// Errors: [`HybridError::Tier`] naming an unknown or missing key; [`HybridError::Config`] for a number out of range.
    pub fn parse(name: &str, text: &str) -> Result<Self, HybridError> {
        let tier: Self = ron::from_str(text)
            .map_err(|source| HybridError::Tier { name: name.to_owned(), source: Box::new(source) })?;
        tier.config().check()?;
        Ok(tier)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::HybridConfig;
    use super::*;

    #[test]
    fn every_tier_reads_and_explains_itself() {
        let tiers = TierPreset::all().unwrap();
        assert_eq!(tiers.len(), 4);
        for (tier, (name, _)) in tiers.iter().zip(TIERS) {
            assert_eq!(tier.name, name);
            assert!(!tier.summary.is_empty());
            let reasons = [
                &tier.strategy.why,
                &tier.gate.why,
                &tier.max_predict_steps.why,
                &tier.confidence_threshold.why,
                &tier.correction_interval.why,
                &tier.divergence_sigma.why,
                &tier.check_interval.why,
                &tier.slice_fraction.why,
                &tier.min_slice_fraction.why,
                &tier.gate_cost.why,
                &tier.gate_hold_steps.why,
                &tier.warmup_fraction.why,
            ];
            assert!(reasons.iter().all(|why| why.ends_with('.')), "{name}: every reason is a sentence");
        }
        assert!(!tiers[3].caution.is_empty(), "aggressive warns");
    }

    #[test]
    fn the_numbers_of_the_tiers() {
        let numbers = |name: &str| {
            let config = TierPreset::named(name).unwrap().config();
            let HybridConfig { max_predict_steps, confidence_threshold, correction_interval, divergence_sigma, .. } =
                config;
            (max_predict_steps, confidence_threshold, correction_interval, divergence_sigma)
        };
        assert_eq!(numbers("conservative"), (50, 0.60, 15, 2.2));
        assert_eq!(numbers("balanced"), (75, 0.60, 10, 2.5));
        assert_eq!(numbers("aggressive"), (75, 0.55, 10, 2.2));
        assert!(!TierPreset::named("vanilla").unwrap().strategy.value.predicts());
    }

    #[test]
    fn a_wrong_tier_says_what_is_wrong() {
        let message = |text: &str| TierPreset::parse("mine", text).unwrap_err().to_string();
        let (_, good) = TIERS[1];
        assert!(message(&good.replace("gate_cost:", "gate_costs:")).contains("gate_costs"));
        assert!(message(&good.replace("value: 15,", "value: 0,")).contains("correction_interval"));
        assert!(message("(").contains("mine"));
    }
}
