//! Charts as files, for reports and for the window's exports: a plain description in, SVG text or PNG bytes out.
//!
//! Invariants: equal descriptions give equal bytes, also after a way through JSON; predicted values are dashed or
//! hollow and say so; legends stand outside the data; a value that is not a number breaks its line and leaves a mark;
//! thinning keeps each column's smallest and largest value; no text of a description reaches the SVG unescaped.
//! This room reads no file and knows no other room.
//!
//! Both formats are written from one [`scene`], so that they show the same. Of the libraries, `plotters` draws jagged
//! lines and legends over data, and `resvg` brings a text shaper and a font database; a rasterizer and letter outlines
//! do.

mod axis;
mod bars;
mod curves;
mod description;
mod error;
mod figure;
mod font;
mod geometry;
mod legend;
mod marks;
mod numbers;
mod palette;
mod panel;
mod pixels;
mod scene;
mod svg;
mod text;
mod thinning;
mod ticks;
mod x_ranges;

#[cfg(test)]
mod tests;

pub use description::{
    Axis, Bar, BarPanel, BarStyle, Chart, Contender, CurvePanel, Limit, NEUTRAL, Panel, Piece, Scale, Series, Source,
    Style, XAxes, XRange,
};
pub use error::ChartError;
pub use palette::Theme;

use figure::lay_out;

/// Draws `chart` as SVG text, `chart.width` x `chart.height` px.
///
/// Errors: what [`ChartError`] lists; never because of the values in it.
pub fn render_svg(chart: &Chart, theme: Theme) -> Result<String, ChartError> {
    Ok(svg::write(&lay_out(&chart.rounded(), theme)?))
}

/// Draws `chart` as the bytes of a PNG file, `chart.width * scale` x `chart.height * scale` pixels, rounded.
/// `scale` 2 suits most screens and print.
///
/// Errors: what [`ChartError`] lists, and [`ChartError::Scale`].
pub fn render_png(chart: &Chart, theme: Theme, scale: f64) -> Result<Vec<u8>, ChartError> {
    pixels::write(&lay_out(&chart.rounded(), theme)?, scale)
}
