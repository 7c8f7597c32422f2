//! Which phase ran when, as a strip over the plots. Where several phases fall on one pixel, it
//! shows their shares stacked, so that zooming out neither hides nor invents a phase.

use egui::{Align2, FontId, Rect, Response, Sense, Stroke, Ui, WidgetInfo, pos2, vec2};
use foretrain_engine::hybrid::Phase;

use super::plot_card::CARD_EDGE;
use crate::theme::{Palette, font, on_phase, palette, phase_color, phase_label, size, space};

const PHASES: [Phase; 4] = [Phase::Warmup, Phase::Full, Phase::Predict, Phase::Correct];

fn index_of(phase: Phase) -> usize {
    match phase {
        Phase::Warmup => 0,
        Phase::Full => 1,
        Phase::Predict => 2,
        Phase::Correct => 3,
    }
}

/// Phases of all steps, countable in any range at once.
#[derive(Debug, Clone, Default)]
pub struct PhaseTrack {
    xs: Vec<f64>,
    /// Steps of each phase up to and with this one.
    totals: Vec<[u32; 4]>,
}

impl PhaseTrack {
    /// Adds a step.
    pub fn push(&mut self, x: f64, phase: Phase) {
        if self.xs.last().is_some_and(|&last| x <= last) {
            return;
        }
        let mut total = self.totals.last().copied().unwrap_or_default();
        total[index_of(phase)] += 1;
        self.xs.push(x);
        self.totals.push(total);
    }

    /// Steps of each phase (Warmup, Full, Predict, Correct) with x in `from..to`.
    #[must_use]
    pub fn counts(&self, from: f64, to: f64) -> [u32; 4] {
        let before = |x: f64| {
            let index = self.xs.partition_point(|&known| known < x);
            index.checked_sub(1).map_or([0; 4], |index| self.totals[index])
        };
        let (low, high) = (before(from), before(to));
        std::array::from_fn(|i| high[i].saturating_sub(low[i]))
    }

    /// Which phase ran from where to where within `from..=to`, a step reaching half a step to both sides. Of more than
    /// `max_columns` steps, neighbours are taken together; their phases keep their shares, in a fixed order.
    #[must_use]
    pub fn spans(&self, from: f64, to: f64, max_columns: u32) -> Vec<(f64, f64, Phase)> {
        let width = ((to - from) / f64::from(max_columns.max(1))).ceil().max(1.0);
        let mut spans: Vec<(f64, f64, Phase)> = Vec::new();
        let mut x = from.floor();
        // Columns without a step are few: a range is one of steps.
        while x <= to {
            let mut start = x - 0.5;
            for (phase, count) in PHASES.into_iter().zip(self.counts(x, x + width)) {
                let end = start + f64::from(count);
                match spans.last_mut().filter(|last| last.2 == phase && last.1 == start) {
                    Some(last) => last.1 = end,
                    None if count > 0 => spans.push((start, end, phase)),
                    None => {}
                }
                start = end;
            }
            x += width;
        }
        spans
    }

    /// Phase of the step at `x`.
    #[must_use]
    pub fn at(&self, x: f64) -> Option<Phase> {
        let counts = self.counts(x.round(), x.round() + 1.0);
        PHASES.into_iter().find(|phase| counts[index_of(*phase)] > 0)
    }
}

/// One phase's share of some columns: pixels, from top to bottom.
struct Column {
    left: f32,
    right: f32,
    counts: [u32; 4],
}

/// Makes room for the strip, which is drawn once the plots below it tell what is in view.
pub fn phase_strip_room_ui(ui: &mut Ui, height: f32) -> Response {
    let (_, response) = ui.allocate_exact_size(vec2(ui.available_width(), height), Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(egui::accesskit::Role::Image, true, "Phases over steps"));
    response
}

/// What a strip shows.
#[derive(Debug, Clone, Copy)]
pub struct StripView {
    /// Steps from its left to its right end.
    pub range: (f64, f64),
    /// Pixels of these ends; `None` takes those of a plot as wide as the strip.
    pub pixels: Option<(f32, f32)>,
    /// Where the cursor is.
    pub cursor: Option<f64>,
}

/// Draws the strip into its `room`.
pub fn phase_strip_ui(ui: &Ui, room: Response, track: &PhaseTrack, view: StripView) {
    let StripView { range, pixels, cursor } = view;
    let p = palette(ui);
    let outer = room.rect;
    let (left, right) =
        pixels.unwrap_or((outer.left() + CARD_EDGE + size::PLOT_AXIS, outer.right() - CARD_EDGE - space::SM));
    let rect = Rect::from_min_max(pos2(left, outer.top()), pos2(right, outer.bottom()));
    if !ui.is_rect_visible(outer) || rect.width() < 1.0 || range.1 <= range.0 {
        return;
    }
    let label = FontId::proportional(font::SMALL);
    ui.painter().text(pos2(left - 6.0, rect.center().y), Align2::RIGHT_CENTER, "Phase", label.clone(), p.text_weak);
    let painter = ui.painter().with_clip_rect(rect.intersect(ui.clip_rect()));
    painter.rect_filled(rect, 3.0, p.inset);
    let per_pixel = (range.1 - range.0) / f64::from(rect.width());
    // A step is drawn from half a step before it to half a step after it.
    let x_at = |pixel: f32| range.0 + f64::from(pixel - rect.left()) * per_pixel + 0.5;
    for column in columns(track, rect, x_at) {
        draw_column(&painter, p, &column, rect, &label);
    }
    if let Some(cursor) = cursor {
        let x = rect.left() + ((cursor - range.0) / per_pixel) as f32;
        painter.vline(x, rect.y_range(), Stroke::new(1.0, p.text_strong));
    }
    if let Some(pointer) = room.hover_pos().filter(|pointer| rect.contains(*pointer)) {
        let step = x_at(pointer.x) - 0.5;
        if let Some(phase) = track.at(step) {
            room.on_hover_text_at_pointer(format!("Step {step:.0}: {}", phase_label(phase)));
        }
    }
}

/// Columns of a pixel each, merged while they hold the same single phase.
fn columns(track: &PhaseTrack, rect: Rect, x_at: impl Fn(f32) -> f64) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    let mut pixel = rect.left();
    while pixel < rect.right() {
        let right = (pixel + 1.0).min(rect.right());
        let (from, to) = (x_at(pixel), x_at(right));
        let mut counts = track.counts(from, to);
        if counts == [0; 4] {
            // Steps are wider than pixels: this one lies inside the step at its left.
            counts = track.counts(from.floor(), to);
        }
        let single = |counts: &[u32; 4]| counts.iter().filter(|count| **count > 0).count() == 1;
        let same_phase =
            |a: &[u32; 4], b: &[u32; 4]| single(a) && single(b) && (0..4).all(|i| (a[i] > 0) == (b[i] > 0));
        match columns.last_mut() {
            Some(last) if last.right == pixel && same_phase(&last.counts, &counts) => last.right = right,
            _ if counts == [0; 4] => {}
            _ => columns.push(Column { left: pixel, right, counts }),
        }
        pixel = right;
    }
    columns
}

fn draw_column(painter: &egui::Painter, p: &Palette, column: &Column, rect: Rect, label: &FontId) {
    let total: u32 = column.counts.iter().sum();
    let mut bottom = rect.bottom();
    for phase in PHASES {
        let count = column.counts[index_of(phase)];
        if count == 0 {
            continue;
        }
        let top = bottom - rect.height() * count as f32 / total as f32;
        let part = Rect::from_min_max(pos2(column.left, top), pos2(column.right, bottom));
        painter.rect_filled(part, 0.0, phase_color(p, phase));
        if count == total && part.width() > 58.0 {
            painter.text(part.center(), Align2::CENTER_CENTER, phase_label(phase), label.clone(), on_phase(p, phase));
        }
        bottom = top;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_the_range() {
        let mut track = PhaseTrack::default();
        for step in 1..=100 {
            let phase = match step {
                1..=5 => Phase::Warmup,
                6..=40 => Phase::Full,
                _ if step % 10 == 0 => Phase::Correct,
                _ => Phase::Predict,
            };
            track.push(f64::from(step), phase);
        }
        assert_eq!(track.counts(0.0, 101.0), [5, 35, 54, 6]);
        assert_eq!(track.counts(5.0, 7.0), [1, 1, 0, 0]);
        assert_eq!(track.counts(200.0, 300.0), [0; 4]);
        assert_eq!(track.at(50.0), Some(Phase::Correct));
        assert_eq!(track.at(0.0), None);
    }

    #[test]
    fn wide_steps_fill_their_pixels() {
        let mut track = PhaseTrack::default();
        track.push(1.0, Phase::Full);
        track.push(2.0, Phase::Predict);
        let rect = Rect::from_min_max(pos2(0.0, 0.0), pos2(200.0, 10.0));
        // 100 pixels a step, from half before step 1 to half after step 2; see `x_at` above.
        let columns = columns(&track, rect, |pixel| 0.5 + f64::from(pixel) / 100.0 + 0.5);
        assert_eq!(columns.len(), 2);
        assert!((columns[0].right - 100.0).abs() <= 1.0);
    }
}
