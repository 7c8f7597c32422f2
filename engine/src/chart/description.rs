//! What a chart shows, as plain data: written to JSON beside a report, it can be drawn again.

use serde::{Deserialize, Serialize};

use super::ChartError;
use super::numbers::{many, one, rounded};

/// The color for what is neither good nor bad nor compared: gray.
pub const NEUTRAL: u8 = 8;

/// One picture: panels in rows, from left to right and top to bottom.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// Under which conditions: dataset, model, seed, machine.
    pub subtitle: String,
    /// Width, px.
    pub width: u32,
    /// Height, px; what titles and legends leave is shared by the rows of panels.
    pub height: u32,
    /// Panels side by side; 0 means 1.
    pub columns: u32,
    /// Whether the panels with curves share one x axis.
    pub x_axes: XAxes,
    /// Colored ranges of x behind all curves: the phases of a run.
    pub x_ranges: Vec<XRange>,
    /// The panels.
    pub panels: Vec<Panel>,
}

/// Whether panels share their x axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum XAxes {
    /// Each panel has its own.
    #[default]
    Own,
    /// All panels with curves cover the same range, labelled once a column: linked plots of a run.
    Shared,
}

/// A colored range of x.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct XRange {
    /// First x.
    #[serde(with = "one")]
    pub from: f64,
    /// Last x.
    #[serde(with = "one")]
    pub to: f64,
    /// Its name, in the legend once however often it occurs.
    pub label: String,
    /// Color index.
    pub color: u8,
}

/// A part of a chart with axes of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Panel {
    /// Curves and points.
    Curves(CurvePanel),
    /// Contenders compared by groups.
    Bars(BarPanel),
}

/// How an axis turns values into lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Scale {
    /// Equal differences are equal lengths.
    #[default]
    Linear,
    /// Equal ratios are equal lengths; values up to zero cannot be drawn and leave a mark.
    Log,
}

/// An axis.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Axis {
    /// What it counts.
    pub label: String,
    /// In which unit; empty for plain numbers.
    pub unit: String,
    /// Linear or logarithmic.
    pub scale: Scale,
    /// First and last value; `None` takes them from the data.
    pub range: Option<(f64, f64)>,
    /// True when there is nothing between two whole numbers, as with steps.
    pub is_whole: bool,
}

/// Curves, points, bands and limits over x.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CurvePanel {
    /// Its title; empty where the chart's says it all.
    pub title: String,
    /// The x axis.
    pub x: Axis,
    /// The y axis.
    pub y: Axis,
    /// The series, back to front.
    pub series: Vec<Series>,
    /// Values not to be crossed.
    pub limits: Vec<Limit>,
}

/// A horizontal line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Where.
    #[serde(with = "one")]
    pub y: f64,
    /// Its name.
    pub label: String,
}

/// Where values come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Source {
    /// Measured.
    #[default]
    Measured,
    /// Predicted: lines are dashed, points hollow, and the legend says so.
    Predicted,
}

/// How a series looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Style {
    /// A line; with ends, a band around it.
    #[default]
    Line,
    /// A thin pale line, behind its smoothed form.
    Faint,
    /// A dotted gray line that is no data: a diagonal, a baseline.
    Reference,
    /// Points; with ends, error bars.
    Points,
    /// Hollow points; with ends, error bars.
    OpenPoints,
    /// The band between the ends alone; y is left out.
    Band,
}

/// A series.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Series {
    /// Its name; a series without one is not in the legend.
    pub label: String,
    /// Color index, 0 to 7, or [`NEUTRAL`].
    pub color: u8,
    /// Where its values come from.
    pub source: Source,
    /// Its look.
    pub style: Style,
    /// Its values. A line breaks between two pieces.
    pub pieces: Vec<Piece>,
}

/// Values of a series without a gap, as columns of one length.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Piece {
    /// Where.
    #[serde(with = "many")]
    pub x: Vec<f64>,
    /// Values.
    #[serde(with = "many")]
    pub y: Vec<f64>,
    /// Lower ends of their uncertainty; empty, or one for each x.
    #[serde(with = "many", skip_serializing_if = "Vec::is_empty")]
    pub low: Vec<f64>,
    /// Upper ends of their uncertainty; empty, or one for each x.
    #[serde(with = "many", skip_serializing_if = "Vec::is_empty")]
    pub high: Vec<f64>,
}

/// How contenders are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum BarStyle {
    /// Bars from zero.
    #[default]
    Bars,
    /// Dots on an axis that need not hold zero: for values that lie close together.
    Dots,
}

/// Contenders compared by groups, in one unit.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BarPanel {
    /// Its title.
    pub title: String,
    /// The y axis.
    pub y: Axis,
    /// Bars or dots.
    pub style: BarStyle,
    /// What stands side by side on the x axis.
    pub groups: Vec<String>,
    /// Who is compared in each.
    pub contenders: Vec<Contender>,
}

/// One contender's bars.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Contender {
    /// Its name.
    pub label: String,
    /// Color index, 0 to 7, or [`NEUTRAL`].
    pub color: u8,
    /// One for each group.
    pub bars: Vec<Bar>,
}

/// A value with its uncertainty.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bar {
    /// The value; NaN where nothing was measured.
    #[serde(with = "one")]
    pub value: f64,
    /// Lower and upper end.
    pub ends: Option<(f64, f64)>,
}

impl Chart {
    /// As JSON, for people and for [`Chart::from_json`].
    ///
    /// Errors: [`ChartError::Json`].
    pub fn to_json(&self) -> Result<String, ChartError> {
        serde_json::to_string_pretty(&self.rounded()).map_err(|source| ChartError::Json { source })
    }

    /// Reads what [`Chart::to_json`] wrote.
    ///
    /// Errors: [`ChartError::Json`].
    pub fn from_json(text: &str) -> Result<Self, ChartError> {
        serde_json::from_str(text).map_err(|source| ChartError::Json { source })
    }

    /// With the numbers that JSON keeps.
    pub(super) fn rounded(&self) -> Self {
        let mut chart = self.clone();
        for range in &mut chart.x_ranges {
            (range.from, range.to) = (rounded(range.from), rounded(range.to));
        }
        for panel in &mut chart.panels {
            match panel {
                Panel::Curves(panel) => panel.round(),
                Panel::Bars(panel) => panel.round(),
            }
        }
        chart
    }
}

impl CurvePanel {
    fn round(&mut self) {
        self.x.round();
        self.y.round();
        self.limits.iter_mut().for_each(|limit| limit.y = rounded(limit.y));
        for piece in self.series.iter_mut().flat_map(|series| &mut series.pieces) {
            for column in [&mut piece.x, &mut piece.y, &mut piece.low, &mut piece.high] {
                column.iter_mut().for_each(|value| *value = rounded(*value));
            }
        }
    }
}

impl BarPanel {
    fn round(&mut self) {
        self.y.round();
        for bar in self.contenders.iter_mut().flat_map(|contender| &mut contender.bars) {
            bar.value = rounded(bar.value);
            // JSON has no pair of which one is missing.
            bar.ends = bar.ends.map(|(low, high)| (rounded(low), rounded(high)));
            bar.ends = bar.ends.filter(|(low, high)| low.is_finite() && high.is_finite());
        }
    }
}

impl Axis {
    /// An axis that takes its range from the data.
    #[must_use]
    pub fn new(label: impl Into<String>, unit: impl Into<String>) -> Self {
        Self { label: label.into(), unit: unit.into(), ..Self::default() }
    }

    /// On a logarithmic scale.
    #[must_use]
    pub fn log(self) -> Self {
        Self { scale: Scale::Log, ..self }
    }

    /// From `low` to `high`.
    #[must_use]
    pub fn between(self, low: f64, high: f64) -> Self {
        Self { range: Some((low, high)), ..self }
    }

    /// In whole numbers.
    #[must_use]
    pub fn whole(self) -> Self {
        Self { is_whole: true, ..self }
    }

    fn round(&mut self) {
        self.range = self.range.map(|(low, high)| (rounded(low), rounded(high)));
    }
}

impl Series {
    /// A measured line in one piece.
    #[must_use]
    pub fn line(label: impl Into<String>, color: u8, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        Self { label: label.into(), color, pieces: vec![points.into_iter().collect()], ..Self::default() }
    }

    /// In another style.
    #[must_use]
    pub fn with_style(self, style: Style) -> Self {
        Self { style, ..self }
    }

    /// As predicted values.
    #[must_use]
    pub fn predicted(self) -> Self {
        Self { source: Source::Predicted, ..self }
    }
}

impl FromIterator<(f64, f64)> for Piece {
    fn from_iter<T: IntoIterator<Item = (f64, f64)>>(points: T) -> Self {
        let (x, y) = points.into_iter().unzip();
        Self { x, y, ..Self::default() }
    }
}

impl Piece {
    /// With the ends of each value's uncertainty.
    #[must_use]
    pub fn with_ends(self, low: Vec<f64>, high: Vec<f64>) -> Self {
        Self { low, high, ..self }
    }
}

impl Bar {
    /// A value without an uncertainty.
    #[must_use]
    pub fn of(value: f64) -> Self {
        Self { value, ends: None }
    }

    /// A value with the lower and the upper end of its uncertainty.
    #[must_use]
    pub fn within(value: f64, low: f64, high: f64) -> Self {
        Self { value, ends: Some((low, high)) }
    }
}
