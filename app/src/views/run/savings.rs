//! The savings card: what prediction saved, whether Predict is in use and why.

use egui::{Color32, Label, RichText, Ui};
use foretrain_engine::hybrid::{HybridEvent, Phase};
use foretrain_engine::session::{LogEntry, LogKind, RunSnapshot, Savings};

use crate::state::is_active;
use crate::theme::{Palette, font, palette, space};
use crate::widgets::{number, stat_ui};

/// Shows it.
pub(super) fn savings_ui(run: Option<&RunSnapshot>, ui: &mut Ui) {
    figures_ui(run, ui);
    let Some(run) = run else { return };
    ui.add_space(space::SM);
    ui.spacing_mut().item_spacing.y = 3.0;
    ui.spacing_mut().interact_size.y = 18.0;
    strategy_ui(run, ui);
}

fn figures_ui(run: Option<&RunSnapshot>, ui: &mut Ui) {
    let savings = run.map_or_else(Savings::default, |run| run.savings);
    let share = savings.backward_share_saved();
    let unit = if run.is_some_and(|run| run.config.model.max_positions().is_some()) { "tokens" } else { "examples" };
    let below = format!(
        "{} of {} {unit} got a backward pass",
        number::short_count(savings.backward_examples as f64),
        number::short_count(savings.vanilla_examples as f64)
    );
    figure_ui(ui, "Example-backwards saved", share, "No step yet", &below);
    ui.add_space(space::XS);
    let time = savings.time_share_saved();
    let reason = match (savings.vanilla_step_ms, savings.num_steps) {
        (None, _) => "Not measured: no vanilla probe at this run's start",
        (Some(_), 0) => "No step yet",
        (Some(_), _) => "Nothing was predicted yet",
    };
    let below = savings.vanilla_ms.filter(|_| time.is_some()).map_or_else(String::new, |vanilla_ms| {
        let a_step = |ms: f64| number::milliseconds(ms / savings.num_steps as f64);
        let word = if time.is_some_and(|share| share < 0.0) { "Slower" } else { "Measured" };
        format!("{word}: {} a step against {} vanilla", a_step(savings.measured_ms), a_step(vanilla_ms))
    });
    let name = if time.is_some_and(|share| share < 0.0) { "Time saved (negative: lost)" } else { "Time saved" };
    figure_ui(ui, name, time, reason, &below);
}

/// A figure with the reason when it is not known.
fn figure_ui(ui: &mut Ui, name: &str, share: Option<f64>, reason: &str, below: &str) {
    let p = palette(ui);
    match share {
        Some(share) => {
            let color = share_color(p, share);
            stat_ui(ui, name, &number::percent(share), color, below);
        }
        None => stat_ui(ui, name, "—", p.text_weak, reason),
    }
}

fn share_color(p: &Palette, share: f64) -> Color32 {
    if share > 0.0005 {
        p.good
    } else if share < -0.0005 {
        p.bad
    } else {
        p.text
    }
}

/// The strategy, and whether Predict is in use.
fn strategy_ui(run: &RunSnapshot, ui: &mut Ui) {
    let p = palette(ui);
    let strategy = run.config.hybrid.strategy;
    let small = |text: &str, color| RichText::new(text).size(font::SMALL + 0.5).color(color);
    ui.horizontal(|ui| {
        ui.label(small("Strategy", p.text_weak));
        ui.label(small(strategy.label(), p.text)).on_hover_text(strategy.summary());
    });
    if !strategy.predicts() {
        ui.label(small(strategy.summary(), p.text_weak));
        return;
    }
    let use_now = use_of_predict(run.phase, &run.log, is_active(&run.status));
    let (ink, word) = if use_now.is_in_use { (p.text, "in use") } else { (p.text, "not in use") };
    let tense = if is_active(&run.status) { "Predict is" } else { "At the end Predict was" };
    ui.label(small(&format!("{tense} {word}"), ink));
    if !use_now.why.is_empty() {
        ui.add(Label::new(RichText::new(&use_now.why).size(font::SMALL).color(p.text_weak)).wrap());
    }
}

/// Whether Predict is in use, and why it is or is not.
#[derive(Debug, Clone, PartialEq, Eq)]
struct UseOfPredict {
    is_in_use: bool,
    /// In words, with the step since when; empty where the log does not tell.
    why: String,
}

/// `phase`: of the last step; `log`: all that happened.
fn use_of_predict(phase: Phase, log: &[LogEntry], is_going_on: bool) -> UseOfPredict {
    let is_in_use = match phase {
        Phase::Predict | Phase::Correct => true,
        Phase::Warmup | Phase::Full => false,
    };
    if phase == Phase::Warmup {
        let why = if is_going_on { "Warmup: nothing is predicted while the learning rate rises." } else { "" };
        return UseOfPredict { is_in_use, why: why.to_owned() };
    }
    let decided = log.iter().rev().find_map(|entry| {
        let LogKind::Hybrid(event) = &entry.kind else { return None };
        let why = match event {
            HybridEvent::Phase { why, .. } | HybridEvent::Note(why) => why,
            // The phase that follows says the same.
            HybridEvent::Diverged { .. } => return None,
        };
        Some((entry.step, why))
    });
    let why = match decided {
        Some((step, why)) if !why.is_empty() => format!("Since step {}: {why}", number::count(step)),
        Some(_) | None => String::new(),
    };
    UseOfPredict { is_in_use, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(step: u64, to: Phase, why: &str) -> LogEntry {
        let kind = LogKind::Hybrid(HybridEvent::Phase { from: Phase::Full, to, why: why.to_owned() });
        LogEntry { step, unix_ms: 0, kind }
    }

    #[test]
    fn the_last_decision_says_why() {
        let note =
            |step, why: &str| LogEntry { step, unix_ms: 0, kind: LogKind::Hybrid(HybridEvent::Note(why.to_owned())) };
        let saved = LogEntry { step: 900, unix_ms: 0, kind: LogKind::Saved("/runs/a".into()) };
        let log = [phase(60, Phase::Full, "warmup is over"), note(700, "staying in Full: it costs more"), saved];
        let found = use_of_predict(Phase::Full, &log, true);
        assert_eq!(
            found,
            UseOfPredict { is_in_use: false, why: "Since step 700: staying in Full: it costs more".into() }
        );
        let log = [phase(1_200, Phase::Predict, "the gate was open")];
        let found = use_of_predict(Phase::Correct, &log, true);
        assert_eq!(found, UseOfPredict { is_in_use: true, why: "Since step 1,200: the gate was open".into() });
    }

    #[test]
    fn in_warmup_what_was_noted_before_is_no_reason() {
        let log = [phase(0, Phase::Warmup, "measured here")];
        let found = use_of_predict(Phase::Warmup, &log, true);
        assert!(!found.is_in_use && found.why.starts_with("Warmup:"), "{found:?}");
        assert_eq!(use_of_predict(Phase::Full, &[], true).why, "");
    }
}
