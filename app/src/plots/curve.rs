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
    /// Lower and upper end of its uncertainty.
    pub band: Option<(&'a Series, &'a Series)>,
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
        Self { name, color, style, series, band: None, reach, is_read_out: true }
    }

    /// With an uncertainty band.
    #[must_use]
    pub fn with_band(self, low: &'a Series, high: &'a Series) -> Self {
        Self { band: Some((low, high)), ..self }
    }

    /// Left out of the read-out.
    #[must_use]
    pub fn silent(self) -> Self {
        Self { is_read_out: false, ..self }
    }
}
