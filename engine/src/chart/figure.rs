//! The whole picture: titles above, panels in rows and columns, the meaning of x ranges below.

use super::ChartError;
use super::description::{Chart, Panel, XAxes};
use super::font::Face;
use super::geometry::Frame;
use super::legend;
use super::palette::{Palette, Theme};
use super::panel::{self, Place, Prepared, RIGHT, XTicks};
use super::scene::{Anchor, Scene, Shape};
use super::text::{clean, wrap};
use super::x_ranges;

/// Around everything, px.
const MARGIN: f64 = 20.0;
/// Sizes of text and heights of their lines, px.
const TITLE: (f64, f64) = (18.0, 24.0);
const SUBTITLE: (f64, f64) = (12.5, 17.0);
/// Below the titles.
const TITLE_GAP: f64 = 10.0;
/// Between columns, and between rows.
const COLUMN_GAP: f64 = 28.0;
const ROW_GAP: f64 = 12.0;
/// Least width of a column, and least height of a frame.
const LEAST_COLUMN: f64 = 160.0;
const LEAST_FRAME: f64 = 48.0;
/// Largest width or height of a picture, px.
const MOST: u32 = 10_000;

/// Lays out all of `chart`, whose numbers are rounded.
pub(super) fn lay_out(chart: &Chart, theme: Theme) -> Result<Scene, ChartError> {
    if chart.panels.is_empty() {
        return Err(ChartError::NoPanel);
    }
    let p = Palette::of(theme);
    let num_columns = (chart.columns.max(1) as usize).min(chart.panels.len());
    let (width, height) = (f64::from(chart.width), f64::from(chart.height));
    let gaps = COLUMN_GAP * (num_columns - 1) as f64;
    let least_width = 2.0 * MARGIN + gaps + LEAST_COLUMN * num_columns as f64;
    let size_error = |least_height: f64| ChartError::Size {
        width: chart.width,
        height: chart.height,
        least_width: least_width as u32,
        least_height: least_height.ceil() as u32,
        most: MOST,
    };
    if width < least_width || chart.width > MOST || chart.height > MOST {
        return Err(size_error(2.0 * MARGIN + LEAST_FRAME));
    }
    let room = width - 2.0 * MARGIN;
    let column = (room - gaps) / num_columns as f64;
    let mut shapes = Vec::new();
    let top = titles(chart, p, room, &mut shapes);
    let key = legend::lay_out(x_ranges::entries(chart, p), room);
    let rows = prepare(chart, p, num_columns, column)?;

    let heights = rows.iter().map(|row| {
        let header = row.iter().map(Prepared::header).fold(0.0, f64::max);
        (header, row.iter().map(Prepared::footer).fold(0.0, f64::max))
    });
    let heights: Vec<(f64, f64)> = heights.collect();
    let key_height = if key.num_rows > 0 { key.height() + 8.0 } else { 0.0 };
    let fixed = top + MARGIN + key_height + ROW_GAP * (rows.len() - 1) as f64;
    let fixed = fixed + heights.iter().map(|(header, footer)| header + footer).sum::<f64>();
    let frame_height = ((height - fixed) / rows.len() as f64).floor();
    if frame_height < LEAST_FRAME {
        return Err(size_error(fixed + LEAST_FRAME * rows.len() as f64));
    }

    // Frames in one column begin and end at the same x, so that linked plots line up.
    let left = |index: usize| {
        rows.iter().filter_map(|row| row.get(index)).map(|panel| panel.left(frame_height)).fold(0.0, f64::max)
    };
    let lefts: Vec<f64> = (0..num_columns).map(left).collect();
    let mut y = top;
    for (row, (header, footer)) in rows.iter().zip(&heights) {
        for (index, panel) in row.iter().enumerate() {
            let x = MARGIN + index as f64 * (column + COLUMN_GAP);
            let frame = Frame {
                left: (x + lefts[index]).round(),
                top: (y + header).round(),
                right: (x + column - RIGHT).round(),
                bottom: (y + header + frame_height).round(),
            };
            panel.draw(p, [x, y], column, frame, &mut shapes);
        }
        y += header + frame_height + footer + ROW_GAP;
    }
    key.draw(p, [MARGIN + lefts[0], height - MARGIN - key.height()], &mut shapes);
    let title = clean(&chart.title);
    let title = if title.is_empty() { "Chart".to_owned() } else { title };
    Ok(Scene { width: chart.width, height: chart.height, background: p.background, title, shapes })
}

/// Draws title and subtitle; returns where they end.
fn titles(chart: &Chart, p: &Palette, room: f64, shapes: &mut Vec<Shape>) -> f64 {
    let mut y = MARGIN;
    let (size, line) = TITLE;
    for text in wrap(&clean(&chart.title), Face::Bold, size, room, 2) {
        shapes.push(Shape::text([MARGIN, y + size * 0.8], Anchor::Start, (Face::Bold, size), p.title, &text));
        y += line;
    }
    let (size, line) = SUBTITLE;
    for text in wrap(&clean(&chart.subtitle), Face::Regular, size, room, 3) {
        shapes.push(Shape::text([MARGIN, y + size * 0.8], Anchor::Start, (Face::Regular, size), p.text_weak, &text));
        y += line;
    }
    if y > MARGIN { y + TITLE_GAP } else { y }
}

/// All panels in rows.
fn prepare<'a>(
    chart: &'a Chart,
    p: &Palette,
    num_columns: usize,
    column: f64,
) -> Result<Vec<Vec<Prepared<'a>>>, ChartError> {
    let shared = match chart.x_axes {
        XAxes::Own => None,
        XAxes::Shared => panel::shared_x(chart)?,
    };
    let has_curves = |index: usize| matches!(chart.panels.get(index), Some(Panel::Curves(_)));
    let prepared = chart.panels.iter().enumerate().map(|(index, panel)| {
        // The last panel of a column names the ticks of all above it.
        let is_named = shared.is_none() || !has_curves(index + num_columns);
        let x_ticks = if is_named { XTicks::Named } else { XTicks::Bare };
        let place = Place { shared, x_ticks, is_first_row: index < num_columns };
        Prepared::new(chart, panel, place, column, p)
    });
    let mut prepared = prepared.collect::<Result<Vec<_>, _>>()?.into_iter();
    let mut rows = Vec::new();
    loop {
        let row: Vec<_> = prepared.by_ref().take(num_columns).collect();
        if row.is_empty() {
            return Ok(rows);
        }
        rows.push(row);
    }
}
