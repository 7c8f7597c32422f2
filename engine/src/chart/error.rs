//! What keeps a chart from being drawn.

/// A description that cannot be drawn. Values never are the reason: those that are not numbers leave a mark.
#[derive(Debug, thiserror::Error)]
pub enum ChartError {
    /// Too small or too large a picture.
    #[error(
        "drawing a chart: {width} x {height} px were asked for, between {least_width} x {least_height} and {most} x \
         {most} are possible with this content. Change its size, or leave out panels"
    )]
    Size {
        /// Width asked for.
        width: u32,
        /// Height asked for.
        height: u32,
        /// Least width for the panels in it.
        least_width: u32,
        /// Least height for the panels and texts in it.
        least_height: u32,
        /// Largest width or height.
        most: u32,
    },
    /// A scale out of range.
    #[error("drawing a chart as PNG: a scale of {scale} was asked for, {least} to {most} are possible")]
    Scale {
        /// Pixels per px asked for.
        scale: f64,
        /// Least scale.
        least: f64,
        /// Largest scale, for this chart's size.
        most: f64,
    },
    /// Nothing to draw.
    #[error("drawing a chart: it has no panel. Give it at least one")]
    NoPanel,
    /// Columns of one piece that do not belong together.
    #[error(
        "drawing the series {series:?}: {num_x} x values, {num_y} y values, {num_low} lower and {num_high} upper ends. \
         Give one y for each x, and either no ends or one of each"
    )]
    Lengths {
        /// The series' label.
        series: String,
        /// Its x values.
        num_x: usize,
        /// Its y values.
        num_y: usize,
        /// Its lower ends.
        num_low: usize,
        /// Its upper ends.
        num_high: usize,
    },
    /// Bars that belong to no group.
    #[error("drawing the bars of {contender:?}: {num_bars} bars for {num_groups} groups. Give one for each group")]
    Bars {
        /// The contender's label.
        contender: String,
        /// Its bars.
        num_bars: usize,
        /// The panel's groups.
        num_groups: usize,
    },
    /// Bars on an axis without a zero.
    #[error("drawing the bars of {panel:?}: a logarithmic axis has no zero for bars to stand on. Draw them as dots")]
    LogBars {
        /// The panel's title, or its axis's.
        panel: String,
    },
    /// A range that no axis can have.
    #[error(
        "drawing the axis {axis:?}: its range is {low} to {high}. Give two finite numbers, the smaller one first, both \
         above zero on a logarithmic axis"
    )]
    Range {
        /// The axis's label.
        axis: String,
        /// Lower end.
        low: f64,
        /// Upper end.
        high: f64,
    },
    /// A description that is none.
    #[error("reading a chart: {source}. Was it written by this version?")]
    Json {
        /// Where and why.
        source: serde_json::Error,
    },
    /// The writer of PNG files gave up.
    #[error("writing a chart as PNG: {source}")]
    Png {
        /// Why.
        source: image::ImageError,
    },
    /// Not enough memory for the pixels.
    #[error("drawing a chart: no memory for {width} x {height} pixels. Ask for a smaller scale")]
    Pixels {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
}
