//! The event log: what happened, and why.

use egui::{Align, Color32, Layout, RichText, ScrollArea, TextEdit, Ui};
use foretrain_engine::hybrid::{DivergenceKind, HybridEvent, Recovery};
use foretrain_engine::session::{LogEntry, LogKind, RunSnapshot, StopReason};
use jiff::tz::TimeZone;

use crate::state::{Live, LogFilter};
use crate::theme::{Palette, font, palette, phase_label, phase_text, space};
use crate::views::ViewCtx;
use crate::widgets::{Icon, chip_ui, icon_button_ui, number};

/// Height of an entry.
const ROW: f32 = font::MONO + 6.0;
/// Filters stand beside their title from this width on.
const ONE_LINE: f32 = 330.0;

/// Shows the log.
pub fn log_ui(ctx: &ViewCtx<'_>, live: &mut Live, ui: &mut Ui) {
    let p = palette(ui);
    let entries = ctx.snapshot.as_ref().map_or(&[][..], |run| &run.log);
    filters_ui(entries, live, ui);
    ui.add_space(2.0);
    let rows: Vec<&LogEntry> = shown(entries, live).collect();
    egui::Frame::new().fill(p.inset).corner_radius(6).inner_margin(egui::Margin::symmetric(8, 4)).show(ui, |ui| {
        ui.spacing_mut().item_spacing.y = 0.0;
        if rows.is_empty() {
            let text = if entries.is_empty() { "Nothing happened yet." } else { "No event matches." };
            ui.add_space(space::XS);
            ui.label(RichText::new(text).size(font::SMALL).color(p.text_weak));
        }
        ScrollArea::vertical().auto_shrink(false).stick_to_bottom(true).show_rows(ui, ROW, rows.len(), |ui, range| {
            for entry in rows.get(range).unwrap_or_default() {
                row_ui(ui, p, entry, &live.machine.zone);
            }
        });
    });
}

/// Which entries to show, and a button to copy them.
fn filters_ui(entries: &[LogEntry], live: &mut Live, ui: &mut Ui) {
    let p = palette(ui);
    let is_one_line = ui.available_width() >= ONE_LINE;
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = space::XS;
        ui.label(RichText::new("Events").strong().color(p.text_strong));
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
    let saved = run.log.iter().rev().find(|entry| matches!(entry.kind, LogKind::Saved(_)));
    saved.map_or_else(|| "none yet".to_owned(), |entry| format!("step {}", number::count(entry.step)))
}

fn shown<'a>(entries: &'a [LogEntry], live: &'a Live) -> impl Iterator<Item = &'a LogEntry> {
    let search = live.run.log_search.trim().to_lowercase();
    entries.iter().filter(move |entry| {
        let matches_kind = match live.run.log_filter {
            LogFilter::All => true,
            LogFilter::Phases => matches!(entry.kind, LogKind::Hybrid(HybridEvent::Phase { .. })),
            LogFilter::Warnings => {
                matches!(entry.kind, LogKind::Hybrid(HybridEvent::Diverged { .. }) | LogKind::Warning(_))
            }
            LogFilter::Saves => matches!(entry.kind, LogKind::Saved(_)),
        };
        let matches_text = || line_of(entry, &live.machine.zone).to_lowercase().contains(&search);
        matches_kind && (search.is_empty() || matches_text())
    })
}

fn row_ui(ui: &mut Ui, p: &Palette, entry: &LogEntry, zone: &TimeZone) {
    let (tag, color) = tag_of(&entry.kind, p);
    let text = text_of(&entry.kind);
    ui.allocate_ui_with_layout(egui::vec2(ui.available_width(), ROW), Layout::left_to_right(Align::Center), |ui| {
        ui.spacing_mut().item_spacing.x = space::SM;
        let mono = |text: String, color: Color32| RichText::new(text).monospace().size(font::SMALL).color(color);
        ui.label(mono(number::clock(entry.unix_ms, zone), p.text_weak));
        ui.label(mono(format!("{:>7}", number::count(entry.step)), p.text_weak));
        ui.label(RichText::new(format!("{tag:<9}")).monospace().size(font::SMALL).color(color));
        let label = egui::Label::new(RichText::new(&text).size(font::SMALL + 0.5).color(p.text)).truncate();
        ui.add(label).on_hover_text(&text);
    });
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
            let what = match divergence.kind {
                DivergenceKind::NotFinite => "NaN or infinity".to_owned(),
                DivergenceKind::LossSpike => limits("loss spike", divergence.value, divergence.limit),
                DivergenceKind::GradientExplosion => limits("gradient explosion", divergence.value, divergence.limit),
                DivergenceKind::GradientVanishing => limits("gradient vanishing", divergence.value, divergence.limit),
                DivergenceKind::Oscillation => limits("oscillation", divergence.value, divergence.limit),
                DivergenceKind::Regression => limits("progress lost", divergence.value, divergence.limit),
            };
            let answer = match recovery {
                Recovery::BackToFull => "back to Full",
                Recovery::CutLearningRate => "learning rate halved",
                Recovery::Restore => "learning rate cut to a quarter, last good weights restored",
                Recovery::Stop => "run ended with the last good weights",
            };
            let back = |step: &u64| format!(" (of step {})", number::count(*step));
            format!("{what}; {answer}{}", restored_step.as_ref().map_or_else(String::new, back))
        }
        LogKind::Started { step: 0 } => "New run".to_owned(),
        LogKind::Started { step } => format!("Went on after step {}", number::count(*step)),
        LogKind::Saved(path) => {
            path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
        }
        LogKind::Paused => "Waiting for you".to_owned(),
        LogKind::Resumed => "Going on".to_owned(),
        LogKind::Warning(text) => text.clone(),
        LogKind::Ended(reason) => match reason {
            StopReason::Finished => "All steps done".to_owned(),
            StopReason::User => "By you; resumable".to_owned(),
            StopReason::Diverged => "Diverged; ended with the last good weights".to_owned(),
            StopReason::Failed(message) => message.clone(),
            StopReason::Crashed(message) => format!("Crashed: {message}"),
        },
    }
}

fn limits(what: &str, value: f32, limit: f32) -> String {
    format!("{what} ({} against a limit of {})", number::value(value.into()), number::value(limit.into()))
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
        LogKind::Warning(_) => "warning",
        LogKind::Ended(_) => "ended",
    };
    format!("{} step {} {tag}: {}", number::clock(entry.unix_ms, zone), entry.step, text_of(&entry.kind))
}

#[cfg(test)]
mod tests {
    use foretrain_engine::hybrid::{Divergence, Phase};

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
