//! The experiment that goes on: what it does, how far it is, and the curves of its race.

use std::time::Duration;

use egui::{Align, Layout, RichText, Ui};

use super::curves::curves_ui;
use crate::state::{Live, Saved, StageTrack};
use crate::theme::{font, palette, space};
use crate::views::ViewCtx;
use crate::widgets::{Icon, Severity, card_ui, icon_text_button_ui, meter_ui, notice_ui, number, pill_ui};

/// Before this much is done, or has passed, what is left is a guess.
const LEAST_SHARE: f64 = 0.03;
const LEAST_SECONDS: f64 = 3.0;
/// Height of a stage's line.
const ROW: f32 = 16.0;

/// Shows it.
pub(super) fn race_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut Live, ui: &mut Ui) {
    header_ui(ctx, live, ui);
    match live.experiments.race.clone() {
        Some(race) => {
            let curves = std::mem::take(&mut live.experiments.curves);
            curves_ui(&race.what, &curves, &mut saved.experiments, &mut live.experiments, ui);
            live.experiments.curves = curves;
        }
        None => {
            ui.label(RichText::new("The curves appear with the first steps.").color(palette(ui).text_weak));
        }
    }
    let track = &live.experiments.track;
    if track.stages.len() > 1 {
        card_ui(ui, "Stages", |ui| stages_ui(track, ui));
    }
}

fn header_ui(ctx: &ViewCtx<'_>, live: &mut Live, ui: &mut Ui) {
    let p = palette(ui);
    let experiments = &live.experiments;
    let title = experiments.asked.as_ref().map_or("Experiment", |asked| asked.title.as_str());
    ui.add(egui::Label::new(RichText::new(title).size(font::HEADING).color(p.text_strong)).wrap());
    ui.horizontal_wrapped(|ui| {
        if experiments.is_stopping {
            pill_ui(ui, "Ending", p.warn_soft, p.warn);
        } else {
            pill_ui(ui, "Running", p.good_soft, p.good);
        }
        ui.label(RichText::new(what(ctx, live)).color(p.text));
    });
    let share = experiments.track.share();
    meter_ui(ui, "Progress of the experiment", share.unwrap_or(0.0) as f32, p.accent, None);
    let elapsed = experiments.asked.as_ref().map_or(0.0, |asked| ui.input(|input| input.time) - asked.since);
    let is_stopping = experiments.is_stopping;
    ui.horizontal(|ui| {
        ui.label(RichText::new(pace(share, elapsed)).size(font::SMALL + 0.5).color(p.text_weak));
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            let cancel = ui.add_enabled_ui(!is_stopping, |ui| icon_text_button_ui(ui, Icon::Stop, "Cancel")).inner;
            if cancel.on_hover_text("End it without a report").clicked() {
                live.end_experiment(ctx);
            }
        });
    });
    ui.ctx().request_repaint_after(Duration::from_secs(1));
}

/// The finest that is known of what the engine does.
fn what(ctx: &ViewCtx<'_>, live: &Live) -> String {
    match live.experiments.run.progress() {
        Some(progress) => capitalized(&progress.what),
        None if ctx.is_busy => "The engine is busy; this waits for it".to_owned(),
        None => "Waiting for the engine".to_owned(),
    }
}

/// "31% done, 40 s so far, about 1 min 30 s left at this pace".
fn pace(share: Option<f64>, elapsed: f64) -> String {
    let Some(share) = share else { return format!("{} so far", number::seconds(elapsed)) };
    let mut text = format!("{:.0}% done, {} so far", 100.0 * share, number::seconds(elapsed));
    if share >= LEAST_SHARE && elapsed >= LEAST_SECONDS {
        let left = elapsed * (1.0 - share) / share;
        text.push_str(&format!(", about {} left at this pace", number::seconds(left)));
    }
    text
}

/// What is done, what goes on and what is still to come.
fn stages_ui(track: &StageTrack, ui: &mut Ui) {
    let p = palette(ui);
    let current = track.current;
    ui.spacing_mut().interact_size.y = ROW;
    egui::Grid::new("stages").num_columns(2).spacing([space::XL, 2.0]).show(ui, |ui| {
        for (index, stage) in track.stages.iter().enumerate() {
            let (state, state_ink, ink) = match current {
                Some(current) if index < current => ("done".to_owned(), p.good, p.text),
                Some(current) if index == current => {
                    (format!("{:.0}%", 100.0 * track.share_of_stage()), p.text_strong, p.text_strong)
                }
                Some(_) | None => ("to come".to_owned(), p.text_weak, p.text_weak),
            };
            let name = capitalized(stage.what.split(':').next().unwrap_or_default());
            let name = if stage.num_races > 1 { format!("{name}, {} times", stage.num_races) } else { name };
            ui.label(RichText::new(name).size(font::SMALL + 0.5).color(ink));
            ui.label(RichText::new(state).size(font::SMALL + 0.5).color(state_ink));
            ui.end_row();
        }
    });
}

/// Why the last experiment came to nothing.
pub(super) fn failure_ui(live: &mut Live, ui: &mut Ui) {
    let experiments = &mut live.experiments;
    if experiments.run.is_waiting() && ui.button("Back to the experiment that goes on").clicked() {
        experiments.is_report_wanted = false;
    }
    let Some(failure) = experiments.run.failure() else { return };
    let is_dismissed = notice_ui(ui, Severity::Error, &failure.message, |ui| {
        for remedy in failure.plan.iter().flat_map(|plan| &plan.remedies) {
            ui.label(format!("• {remedy}"));
        }
        ui.small_button("Dismiss").clicked()
    });
    ui.add_space(space::SM);
    if is_dismissed {
        experiments.run.dismiss();
    }
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_once_it_is_more_than_a_guess() {
        assert_eq!(pace(None, 2.0), "2.0 s so far");
        assert_eq!(pace(Some(0.02), 60.0), "2% done, 60 s so far".replace("60 s", "1 min 00 s"));
        assert_eq!(pace(Some(0.25), 30.0), "25% done, 30 s so far, about 1 min 30 s left at this pace");
    }
}
