//! The event log: what happened, and why.

use std::sync::Arc;

use egui::{Align, Color32, FontId, Galley, Label, Layout, Pos2, Rect, RichText, ScrollArea, TextEdit, Ui, pos2, vec2};
use foretrain_engine::hybrid::HybridEvent;
use foretrain_engine::session::{LogEntry, LogKind, RunSnapshot, StopReason};
use jiff::tz::TimeZone;

use super::screen::Head;
use crate::state::{Live, LogFilter, LogKey};
use crate::theme::{Palette, font, palette, phase_label, phase_text, space};
use crate::views::ViewCtx;
use crate::widgets::{Icon, chip_ui, icon_button_ui, number};

/// Height of a line of an entry.
const ROW: f32 = font::MONO + 6.0;
/// Between two entries of several lines.
const GAP: f32 = 4.0;
/// From this width of a row on its text stands beside what comes before it.
const BESIDE: f32 = 400.0;
/// Narrower rows leave out the time of day.
const CLOCK_ROOM: f32 = 200.0;
/// Filters stand beside their title from this width on.
const ONE_LINE: f32 = 330.0;

/// Shows the log.
pub(super) fn log_ui(ctx: &ViewCtx<'_>, live: &mut Live, head: Head, ui: &mut Ui) {
    let p = palette(ui);
    let entries = ctx.snapshot.as_ref().map_or(&[][..], |run| &run.log);
    filters_ui(entries, live, head, ui);
    ui.add_space(2.0);
    egui::Frame::new().fill(p.inset).corner_radius(6).inner_margin(egui::Margin::symmetric(8, 4)).show(ui, |ui| {
        ui.spacing_mut().item_spacing.y = 0.0;
        ui.set_min_size(ui.available_size());
        let columns = Columns::of(ui);
        if let Some(run) = &ctx.snapshot {
            read_rows(run, live, columns, ui);
        }
        if entries.is_empty() || live.run.log_rows.all().is_empty() {
            let text = if entries.is_empty() { "Nothing happened yet." } else { "No event matches." };
            ui.add_space(space::XS);
            ui.label(RichText::new(text).size(font::SMALL).color(p.text_weak));
            return;
        }
        ScrollArea::vertical().auto_shrink(false).stick_to_bottom(true).show_viewport(ui, |ui, viewport| {
            let rows = &live.run.log_rows;
            ui.set_height(rows.height());
            let origin = ui.max_rect().min;
            let range = rows.between(viewport.top(), viewport.bottom());
            ui.skip_ahead_auto_ids(range.start);
            for row in rows.all().get(range).unwrap_or_default() {
                if let Some(entry) = entries.get(row.index) {
                    let corner = pos2(origin.x, origin.y + row.top);
                    columns.row_ui(ui, p, entry, corner, &live.machine.zone);
                }
            }
        });
    });
}

/// Finds rows for the entries that came since the last frame.
fn read_rows(run: &RunSnapshot, live: &mut Live, columns: Columns, ui: &Ui) {
    let search = live.run.log_search.trim().to_lowercase();
    let (filter, zone) = (live.run.log_filter, live.machine.zone.clone());
    let key = LogKey {
        job: run.job,
        filter,
        search: search.clone(),
        width: columns.width,
        pixels_per_point: ui.pixels_per_point(),
    };
    let height_of = |entry: &LogEntry| is_shown(entry, filter, &search, &zone).then(|| columns.height_of(ui, entry));
    live.run.log_rows.update(key, &run.log, height_of);
}

/// Where the parts of an entry stand. A text that is too long for its line goes on in the next.
#[derive(Debug, Clone, Copy)]
struct Columns {
    /// Of a row.
    width: f32,
    /// Of a letter of what stands before the text.
    letter: f32,
    /// The text has a line of its own.
    is_below: bool,
    /// There is room for the time of day.
    has_clock: bool,
}

impl Columns {
    fn of(ui: &Ui) -> Self {
        // The bar may come and go with the entries; a text must not be laid out anew for it.
        let width = ui.available_width() - ui.spacing().scroll.allocated_width();
        let ten = "0".repeat(10);
        let letter = ui.painter().layout_no_wrap(ten, mono(), Color32::PLACEHOLDER).size().x / 10.0;
        Self { width: width.max(80.0), letter, is_below: width < BESIDE, has_clock: width >= CLOCK_ROOM }
    }

    /// Where the step, the kind and the text begin: after "14:03:59", " 12,345" and "Diverged".
    fn starts(self) -> [f32; 3] {
        let step = if self.has_clock { 8.0 * self.letter + space::SM } else { 0.0 };
        let tag = step + 7.0 * self.letter + space::SM;
        [step, tag, if self.is_below { 0.0 } else { tag + 8.0 * self.letter + space::MD }]
    }

    fn text(self, ui: &Ui, entry: &LogEntry, color: Color32) -> Arc<Galley> {
        let [.., start] = self.starts();
        let font = FontId::proportional(font::SMALL + 0.5);
        ui.painter().layout(text_of(&entry.kind), font, color, self.width - start)
    }

    fn height_of(self, ui: &Ui, entry: &LogEntry) -> f32 {
        let text = self.text(ui, entry, Color32::PLACEHOLDER).size().y;
        if self.is_below { ROW + text + GAP } else { (text + GAP).max(ROW) }
    }

    fn row_ui(self, ui: &mut Ui, p: &Palette, entry: &LogEntry, corner: Pos2, zone: &TimeZone) {
        let (tag, color) = tag_of(&entry.kind, p);
        let [step, kind, text] = self.starts();
        let clock = if self.has_clock { number::clock(entry.unix_ms, zone) } else { String::new() };
        for (left, part, color) in [
            (0.0, clock, p.text_weak),
            (step, format!("{:>7}", number::count(entry.step)), p.text_weak),
            (kind, tag.to_owned(), color),
        ] {
            let part = ui.painter().layout_no_wrap(part, mono(), color);
            label_ui(ui, corner + vec2(left, (ROW - part.size().y) / 2.0), part);
        }
        let galley = self.text(ui, entry, p.text);
        let line = galley.size().y / galley.rows.len().max(1) as f32;
        let top = if self.is_below { ROW } else { (ROW - line) / 2.0 };
        label_ui(ui, corner + vec2(text, top), galley);
    }
}

fn label_ui(ui: &mut Ui, corner: Pos2, galley: Arc<Galley>) {
    ui.put(Rect::from_min_size(corner, galley.size()), Label::new(galley));
}

fn mono() -> FontId {
    FontId::monospace(font::SMALL)
}

/// Which entries to show, and a button to copy them.
fn filters_ui(entries: &[LogEntry], live: &mut Live, head: Head, ui: &mut Ui) {
    let is_one_line = head == Head::Title && ui.available_width() >= ONE_LINE;
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = space::XS;
        head.show("Events", &mut live.run.is_samples_open, ui);
        ui.add_space(space::SM);
        if is_one_line {
            kinds_ui(live, ui);
        }
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            if icon_button_ui(ui, Icon::Copy, "Copy the events shown").clicked() {
                let lines: Vec<String> = shown(entries, live).map(|entry| line_of(entry, &live.machine.zone)).collect();
                ui.ctx().copy_text(lines.join("\n"));
            }
            let width = ui.available_width().min(160.0);
            if width > 60.0 {
                let search =
                    TextEdit::singleline(&mut live.run.log_search).hint_text("Filter").desired_width(width - 12.0);
                ui.add(search).accessible_name("Filter events");
            }
        });
    });
    if !is_one_line {
        ui.horizontal_wrapped(|ui| {
            ui.spacing_mut().item_spacing.x = space::XS;
            kinds_ui(live, ui);
        });
    }
}

fn kinds_ui(live: &mut Live, ui: &mut Ui) {
    for (filter, label) in [
        (LogFilter::All, "All"),
        (LogFilter::Phases, "Phases"),
        (LogFilter::Warnings, "Warnings"),
        (LogFilter::Saves, "Saves"),
    ] {
        if chip_ui(ui, label, None, live.run.log_filter == filter).clicked() {
            live.run.log_filter = filter;
        }
    }
}

/// The newest checkpoint in words: "step 800", "none yet".
pub(in crate::views) fn last_checkpoint(run: &RunSnapshot) -> String {
    if run.disk.is_some() {
        // Every step is on disk by its end.
        return format!("step {}", number::count(run.step));
    }
    let saved = run.log.iter().rev().find(|entry| matches!(entry.kind, LogKind::Saved(_)));
    saved.map_or_else(|| "none yet".to_owned(), |entry| format!("step {}", number::count(entry.step)))
}

fn shown<'a>(entries: &'a [LogEntry], live: &'a Live) -> impl Iterator<Item = &'a LogEntry> {
    let search = live.run.log_search.trim().to_lowercase();
    entries.iter().filter(move |entry| is_shown(entry, live.run.log_filter, &search, &live.machine.zone))
}

/// `search` is in lower case.
fn is_shown(entry: &LogEntry, filter: LogFilter, search: &str, zone: &TimeZone) -> bool {
    let matches_kind = match filter {
        LogFilter::All => true,
        LogFilter::Phases => matches!(entry.kind, LogKind::Hybrid(HybridEvent::Phase { .. })),
        LogFilter::Warnings => {
            matches!(entry.kind, LogKind::Hybrid(HybridEvent::Diverged { .. }) | LogKind::Warning(_))
        }
        LogFilter::Saves => matches!(entry.kind, LogKind::Saved(_)),
    };
    matches_kind && (search.is_empty() || line_of(entry, zone).to_lowercase().contains(search))
}

fn tag_of(kind: &LogKind, p: &Palette) -> (&'static str, Color32) {
    match kind {
        LogKind::Hybrid(HybridEvent::Phase { to, .. }) => (phase_label(*to), phase_text(p, *to)),
        LogKind::Hybrid(HybridEvent::Note(_)) => ("Note", p.text_weak),
        LogKind::Hybrid(HybridEvent::Diverged { .. }) => ("Diverged", p.bad),
        LogKind::Started { .. } => ("Started", p.good),
        LogKind::Saved(_) => ("Saved", p.text_weak),
        LogKind::Paused => ("Paused", p.warn),
        LogKind::Resumed => ("Resumed", p.good),
        LogKind::Placed(_) => ("Device", p.text_weak),
        LogKind::Warning(_) => ("Warning", p.warn),
        LogKind::Ended(reason) => match reason {
            StopReason::Finished => ("Finished", p.good),
            StopReason::User => ("Stopped", p.text_weak),
            StopReason::Diverged | StopReason::Failed(_) | StopReason::Crashed(_) => ("Ended", p.bad),
        },
    }
}

fn text_of(kind: &LogKind) -> String {
    match kind {
        LogKind::Hybrid(HybridEvent::Phase { from, to, why }) => {
            format!("{} to {}: {why}", phase_label(*from), phase_label(*to))
        }
        LogKind::Hybrid(HybridEvent::Note(what)) => what.clone(),
        LogKind::Hybrid(HybridEvent::Diverged { divergence, recovery, restored_step }) => {
            let back = |step: &u64| format!(" (of step {})", number::count(*step));
            format!("{divergence}; {recovery}{}", restored_step.as_ref().map_or_else(String::new, back))
        }
        LogKind::Started { step: 0 } => "New run".to_owned(),
        LogKind::Started { step } => format!("Went on after step {}", number::count(*step)),
        LogKind::Saved(path) => {
            path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
        }
        LogKind::Paused => "Waiting for you".to_owned(),
        LogKind::Resumed => "Going on".to_owned(),
        LogKind::Placed(text) | LogKind::Warning(text) => text.clone(),
        LogKind::Ended(reason) => match reason {
            StopReason::Finished => "All steps done".to_owned(),
            StopReason::User => "By you; resumable".to_owned(),
            StopReason::Diverged => "Diverged; ended with the last good weights".to_owned(),
            StopReason::Failed(message) => message.clone(),
            StopReason::Crashed(message) => format!("Crashed: {message}"),
        },
    }
}

fn line_of(entry: &LogEntry, zone: &TimeZone) -> String {
    let tag = match &entry.kind {
        LogKind::Hybrid(HybridEvent::Phase { .. }) => "phase",
        LogKind::Hybrid(HybridEvent::Note(_)) => "note",
        LogKind::Hybrid(HybridEvent::Diverged { .. }) => "diverged",
        LogKind::Started { .. } => "started",
        LogKind::Saved(_) => "saved",
        LogKind::Paused => "paused",
        LogKind::Resumed => "resumed",
        LogKind::Placed(_) => "device",
        LogKind::Warning(_) => "warning",
        LogKind::Ended(_) => "ended",
    };
    format!("{} step {} {tag}: {}", number::clock(entry.unix_ms, zone), entry.step, text_of(&entry.kind))
}

#[cfg(test)]
mod tests {
    use foretrain_engine::hybrid::{Divergence, DivergenceKind, Phase, Recovery};

    use super::*;

    #[test]
    fn lines_say_what_happened_and_why() {
        let entry = |kind| LogEntry { step: 120, unix_ms: 3_723_000, kind };
        let phase =
            HybridEvent::Phase { from: Phase::Full, to: Phase::Predict, why: "gate open for 20 steps".to_owned() };
        assert_eq!(
            line_of(&entry(LogKind::Hybrid(phase)), &TimeZone::UTC),
            "01:02:03 step 120 phase: Full to Predict: gate open for 20 steps"
        );
        let divergence = Divergence { kind: DivergenceKind::LossSpike, value: 6.5, limit: 4.0 };
        for (recovery, restored_step, answer) in [
            (Recovery::BackToFull, None, "back to Full"),
            (Recovery::Restore, Some(80), "learning rate cut to a quarter, last good weights restored (of step 80)"),
        ] {
            let diverged = HybridEvent::Diverged { divergence, recovery, restored_step };
            assert_eq!(
                line_of(&entry(LogKind::Hybrid(diverged)), &TimeZone::UTC),
                format!("01:02:03 step 120 diverged: loss spike (6.500 against a limit of 4.000); {answer}")
            );
        }
    }
}
