//! Why a tier is locked on the recipe in the form, what was measured, and the way past it.

use egui::{RichText, Ui};

use crate::state::{Access, CorrectionFigures, Draft, Found, TierLock};
use crate::theme::{font, palette};
use crate::views::ViewCtx;
use crate::widgets::{CheckLabel, Severity, notice_ui, number};

/// Shows the lock of the draft's tier, if it has one.
pub(super) fn lock_ui(ctx: &ViewCtx<'_>, draft: &Draft, lock: &mut TierLock, ui: &mut Ui) {
    // A form that makes no run says so elsewhere, and is refused anyway.
    let Ok(config) = draft.run_config(ctx.settings) else { return };
    let (severity, message, figures) = match lock.access(&config.tier, &config) {
        Access::Free => return,
        Access::Proven(figures) => {
            notice_ui(ui, Severity::Good, "Proven on this recipe by the corrections experiment.", |ui| {
                demands_ui(&figures, ui);
            });
            return;
        }
        Access::Locked(Some(figures)) => {
            let message = "Locked: on this recipe the corrections experiment did not show what this tier needs.";
            (Severity::Warning, message, Some(figures))
        }
        Access::Locked(None) => {
            let message = "Locked until the corrections experiment on this very recipe shows that corrections take away \
                           at least 95% of the forecasts' error at less than 5% of the time of Predict, without a \
                           divergence. It was not measured yet: Corrections under Experiments on Compare does that.";
            (Severity::Warning, message, None)
        }
        Access::Expert(figures) => {
            let message = "Used without proof on this recipe: it may cost more than it saves, or diverge. Compare the \
                           result with vanilla.";
            (Severity::Warning, message, figures)
        }
    };
    let was_expert = matches!(lock.access(&config.tier, &config), Access::Expert(_));
    let mut is_expert = was_expert;
    notice_ui(ui, severity, message, |ui| {
        if let Some(figures) = &figures {
            demands_ui(figures, ui);
        }
        let label = CheckLabel {
            text: "Use it anyway (expert)",
            hover: "For this recipe alone, and remembered: another recipe is locked again",
        };
        label.show(ui, &mut is_expert);
    });
    if is_expert != was_expert {
        lock.set_expert(&config, is_expert);
    }
}

/// What was asked for, what was found, and whether it is enough.
fn demands_ui(figures: &CorrectionFigures, ui: &mut Ui) {
    let p = palette(ui);
    for demand in figures.demands() {
        let found = match demand.found {
            Found::Share(share) if share.is_nan() => "nothing to measure it by".to_owned(),
            Found::Share(share) => number::percent(share),
            Found::Count(count) => number::count(count),
        };
        let (word, color) = if demand.is_met { ("met", p.good) } else { ("not met", p.bad) };
        let line = format!("{}: {found}, {word}", demand.what);
        ui.add(egui::Label::new(RichText::new(line).size(font::SMALL + 0.5).color(color)).wrap());
    }
}
