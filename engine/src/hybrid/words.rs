//! Phases, divergences and recoveries as people read them. Files keep the names of the types.

use std::fmt::{Display, Formatter, Result};

use super::report::{Divergence, DivergenceKind, Phase, Recovery};

impl Display for Phase {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.pad(match self {
            Self::Warmup => "Warmup",
            Self::Full => "Full",
            Self::Predict => "Predict",
            Self::Correct => "Correct",
        })
    }
}

impl Display for DivergenceKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.pad(match self {
            Self::NotFinite => "NaN or infinity",
            Self::LossSpike => "loss spike",
            Self::GradientExplosion => "gradient explosion",
            Self::GradientVanishing => "vanishing gradient",
            Self::Oscillation => "oscillation",
            Self::Regression => "progress lost",
            Self::AboveStart => "loss far above the first",
            Self::RelativeError => "relative forecast error",
            Self::WeightsNotFinite => "NaN or infinity in the weights",
        })
    }
}

/// What was seen, with the figures that decided: "loss spike (6.500 against a limit of 4.000)".
impl Display for Divergence {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { kind, value, limit } = *self;
        match kind {
            DivergenceKind::NotFinite | DivergenceKind::WeightsNotFinite => write!(f, "{kind}"),
            DivergenceKind::LossSpike
            | DivergenceKind::GradientExplosion
            | DivergenceKind::GradientVanishing
            | DivergenceKind::Oscillation
            | DivergenceKind::Regression
            | DivergenceKind::AboveStart
            | DivergenceKind::RelativeError => {
                write!(f, "{kind} ({} against a limit of {})", figure(value), figure(limit))
            }
        }
    }
}

impl Display for Recovery {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.pad(match self {
            Self::BackToFull => "back to Full",
            Self::CutLearningRate => "learning rate halved",
            Self::RestoreWeights => "last good weights restored",
            Self::Restore => "learning rate cut to a quarter, last good weights restored",
            Self::Stop => "run ended with the last good weights",
            Self::End => "training ended; the weights stay as they are",
        })
    }
}

/// Four significant digits: limits lie between a thousandth and a few hundred.
fn figure(value: f32) -> String {
    let size = value.abs();
    if !value.is_finite() || size == 0.0 {
        return value.to_string();
    }
    if !(1e-4..1e6).contains(&size) {
        return format!("{value:.2e}");
    }
    let decimals = (3 - size.log10().floor() as i32).clamp(0, 7) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergences_are_told_in_words_with_their_figures() {
        let told = |kind, value, limit| Divergence { kind, value, limit }.to_string();
        assert_eq!(told(DivergenceKind::LossSpike, 6.5, 4.0), "loss spike (6.500 against a limit of 4.000)");
        let vanished = told(DivergenceKind::GradientVanishing, 3.4e-7, 1e-3);
        assert_eq!(vanished, "vanishing gradient (3.40e-7 against a limit of 0.001000)");
        assert_eq!(told(DivergenceKind::NotFinite, f32::NAN, f32::MAX), "NaN or infinity");
        let missed = told(DivergenceKind::RelativeError, 1.25, 0.5);
        assert_eq!(missed, "relative forecast error (1.250 against a limit of 0.5000)");
        assert_eq!(told(DivergenceKind::WeightsNotFinite, f32::NAN, f32::MAX), "NaN or infinity in the weights");
        assert_eq!(Recovery::BackToFull.to_string(), "back to Full");
        assert_eq!(format!("{:<8}|", Phase::Full), "Full    |");
    }
}
