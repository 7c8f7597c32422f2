//! What is to be done with the weights of a trained network, beside choosing a scheme.

use foretrain_ternary::TernaryRule;
use serde::{Deserialize, Serialize};

use super::Sparsity;
use crate::quant::{Container, QuantError, QuantScheme, StrayTables, Tables, TensorPlan};

/// How weights find their codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Rounding {
    /// Each weight by itself: the nearest code.
    #[default]
    Nearest,
    /// Column by column, later columns making up for the errors of earlier ones, by what the layers read.
    /// Source: Frantar et al. 2022, arXiv 2210.17323 (GPTQ).
    Compensated,
}

impl Rounding {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Nearest, Self::Compensated];

    /// The name to show and to type.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Compensated => "gptq",
        }
    }

    /// The method called `label`.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.label() == label)
    }
}

/// Ternary weights that share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum TernaryScales {
    /// The whole tensor.
    #[default]
    Tensor,
    /// An output row. Its length must fill blocks of 256, which is where TQ2_0 has scales; other tensors keep one.
    Row,
    /// A block of 256 weights, likewise.
    Block,
}

impl TernaryScales {
    /// All of them, coarsest first.
    pub const ALL: [Self; 3] = [Self::Tensor, Self::Row, Self::Block];

    /// The name to show and to type.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Tensor => "tensor",
            Self::Row => "row",
            Self::Block => "256",
        }
    }

    /// The one called `label`.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scales| scales.label() == label)
    }

    /// What rows of `row_len` can have.
    #[must_use]
    pub fn fitting(self, row_len: usize) -> Self {
        if row_len > 0 && row_len.is_multiple_of(foretrain_ternary::BLOCK_LEN) { self } else { Self::Tensor }
    }
}

/// Post-training quantization: what it may use beside the weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PostTraining {
    /// How weights find their codes.
    pub rounding: Rounding,
    /// Images or sequences of the training part that are looked at, where something is calibrated.
    pub calibration_samples: usize,
    /// Channels are scaled against each other beforehand, without changing what the network computes.
    pub is_equalized: bool,
    /// Bits per weight that the whole file may take; tensors then get the storage that costs least by measured
    /// sensitivity. `None` stores every tensor as the scheme says.
    pub budget_bits: Option<f64>,
    /// Ternary weights that share a scale.
    pub ternary_scales: TernaryScales,
    /// How they become trits when each is rounded by itself.
    pub ternary_rule: TernaryRule,
    /// Weights of quantized matrices that become zero. Their files are as large as without: no storage here has room to
    /// save on zeros.
    pub sparsity: Option<Sparsity>,
    /// How token embedding and head of a language model are stored.
    pub tables: Tables,
    /// What becomes of `tables` where there is no choice of them.
    pub stray_tables: StrayTables,
}

impl PostTraining {
    /// Images or sequences when nobody says.
    pub const DEFAULT_SAMPLES: usize = 1000;

    /// True when a calibration set is looked at.
    #[must_use]
    pub fn is_calibrated(&self) -> bool {
        self.rounding == Rounding::Compensated || self.is_equalized || self.budget_bits.is_some()
    }

    /// These for the one way to store a model that `plans` are of, with a note on each that was left out there.
    /// Errors: those of [`Tables::fitting`].
    pub fn fitting(
        &self,
        plans: &[TensorPlan],
        scheme: QuantScheme,
        container: Container,
    ) -> Result<(Self, Vec<String>), QuantError> {
        let (tables, note) = self.tables.fitting(self.stray_tables, plans, scheme, container)?;
        let mut fitting = Self { tables, stray_tables: StrayTables::default(), ..*self };
        let unheeded = fitting.leave_out_unheeded(plans, scheme);
        Ok((fitting, note.into_iter().chain(unheeded).collect()))
    }

    /// Errors: [`QuantError::Setting`] for a calibration on nothing, or a budget that is no positive number.
    pub fn check(&self) -> Result<(), QuantError> {
        let refuse = |setting, expected: &str, found: String| {
            Err(QuantError::Setting { setting, expected: expected.to_owned(), found })
        };
        if self.is_calibrated() && self.calibration_samples == 0 {
            return refuse("calibration samples", "at least 1", "0".to_owned());
        }
        self.sparsity.map_or(Ok(()), Sparsity::check)?;
        match self.budget_bits {
            Some(bits) if !(bits > 0.0 && bits <= 32.0) => {
                refuse("budget", "bits per weight above 0, up to 32", bits.to_string())
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Default for PostTraining {
    fn default() -> Self {
        Self {
            rounding: Rounding::default(),
            calibration_samples: Self::DEFAULT_SAMPLES,
            is_equalized: false,
            budget_bits: None,
            ternary_scales: TernaryScales::default(),
            ternary_rule: TernaryRule::default(),
            sparsity: None,
            tables: Tables::default(),
            stray_tables: StrayTables::default(),
        }
    }
}
