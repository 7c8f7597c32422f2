//! What a plot card draws: named curves over one series each.

use egui::Color32;

use super::series::Series;

/// How a curve looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CurveStyle {
    /// Measured.
    Solid,
    /// Measured, behind its smoothed form.
    Faint,
    /// Forecast.
    Dashed,
    /// Single measurements.
    Marks,
    /// Single measurements of a second kind.
    OpenMarks,
}

/// What a band of uncertainty says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BandKind {
    /// 90% of values are to lie in it, and did so far.
    Calibrated,
    /// Two standard deviations around the curve, as the forecaster claims: nobody checked yet.
    Deviations,
}

impl BandKind {
    /// Behind the name of its curve.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Calibrated => "90% interval",
            Self::Deviations => "± 2 σ (not calibrated)",
        }
    }

    /// In the name of a table's column.
    #[must_use]
    pub fn column(self) -> &'static str {
        match self {
            Self::Calibrated => "90",
            Self::Deviations => "2_sigma",
        }
    }
}

/// A band of uncertainty.
#[derive(Debug, Clone, Copy)]
pub struct Band<'a> {
    /// What it says.
    pub kind: BandKind,
    /// Its lower end.
    pub low: &'a Series,
    /// Its upper end.
    pub high: &'a Series,
}

/// A named curve.
#[derive(Debug, Clone, Copy)]
pub struct Curve<'a> {
    /// The name to show.
    pub name: &'a str,
    /// Its color.
    pub color: Color32,
    /// Its look.
    pub style: CurveStyle,
    /// Its values.
    pub series: &'a Series,
    /// Its uncertainty: at each x at most one of them has values.
    pub bands: [Option<Band<'a>>; 2],
    /// How far back the read-out may look for a value, in steps.
    pub reach: f64,
    /// False leaves it out of the read-out.
    pub is_read_out: bool,
}

impl<'a> Curve<'a> {
    /// A curve with a value at every step.
    #[must_use]
    pub fn new(name: &'a str, color: Color32, style: CurveStyle, series: &'a Series) -> Self {
        let reach = match style {
            CurveStyle::Solid | CurveStyle::Faint | CurveStyle::Dashed => 0.0,
            CurveStyle::Marks | CurveStyle::OpenMarks => f64::INFINITY,
        };
        Self { name, color, style, series, bands: [None; 2], reach, is_read_out: true }
    }

    /// With a band of uncertainty, or a second one.
    #[must_use]
    pub fn with_band(self, kind: BandKind, low: &'a Series, high: &'a Series) -> Self {
        let [first, _] = self.bands;
        let new = Some(Band { kind, low, high });
        Self { bands: if first.is_none() { [new, None] } else { [first, new] }, ..self }
    }

    /// Left out of the read-out.
    #[must_use]
    pub fn silent(self) -> Self {
        Self { is_read_out: false, ..self }
    }
}
