//! The tier: how far training may be predicted, each number with its reason.

use egui::{DragValue, RichText, Ui};
use foretrain_engine::hybrid::{Explained, GateRule, Strategy, TierPreset};

use super::lock::lock_ui;
use crate::state::{Draft, TierLock};
use crate::theme::{font, palette};
use crate::views::ViewCtx;
use crate::widgets::{Severity, combo_ui, expander_ui, field_ui, hint_ui, notice_ui};

/// Shows the choice and its numbers.
pub fn tier_ui(ctx: &ViewCtx<'_>, draft: &mut Draft, lock: &mut TierLock, is_expert: bool, ui: &mut Ui) {
    field_ui(ui, "Tier", |ui| {
        let mut chosen = None;
        combo_ui(ui, "tier", draft.config.tier.as_str(), |ui| {
            for tier in &ctx.catalog.tiers {
                let label = ui.selectable_label(tier.name == draft.config.tier, &tier.name);
                if label.on_hover_text(&tier.summary).clicked() {
                    chosen = Some(tier);
                }
            }
        });
        if let Some(tier) = chosen {
            draft.set_tier(tier);
        }
    });
    lock_ui(ctx, draft, lock, ui);
    let Some(tier) = ctx.catalog.tier(&draft.config.tier) else { return };
    hint_ui(ui, &tier.summary);
    if !tier.caution.is_empty() {
        notice_ui(ui, Severity::Warning, &tier.caution, |_| {});
    }
    if !tier.strategy.value.predicts() {
        return;
    }
    expander_ui(ui, "Its numbers, and why", |ui| {
        if is_expert {
            edit_ui(draft, tier, ui);
        } else {
            rows_ui(tier, ui);
        }
    });
}

/// Each number with its reason under it.
fn rows_ui(tier: &TierPreset, ui: &mut Ui) {
    let row = |ui: &mut Ui, name: &str, value: String, why: &str| number_ui(ui, name, &value, why);
    row(ui, "Strategy", tier.strategy.value.label().to_owned(), &tier.strategy.why);
    row(ui, "Longest Predict phase", steps(&tier.max_predict_steps), &tier.max_predict_steps.why);
    row(ui, "Correct every", steps(&tier.correction_interval), &tier.correction_interval.why);
    row(ui, "Confidence at least", share(&tier.confidence_threshold), &tier.confidence_threshold.why);
    row(ui, "Divergence at", format!("{} σ", tier.divergence_sigma.value), &tier.divergence_sigma.why);
    row(ui, "Check every", steps(&tier.check_interval), &tier.check_interval.why);
    row(ui, "Backward share", share(&tier.slice_fraction), &tier.slice_fraction.why);
    row(ui, "Least share", share(&tier.min_slice_fraction), &tier.min_slice_fraction.why);
    row(ui, "Predict must cost at most", share(&tier.gate_cost), &tier.gate_cost.why);
    row(ui, "Gate open for", steps(&tier.gate_hold_steps), &tier.gate_hold_steps.why);
    row(ui, "Warmup", share(&tier.warmup_fraction), &tier.warmup_fraction.why);
}

fn steps(number: &Explained<u32>) -> String {
    format!("{} steps", number.value)
}

fn share(number: &Explained<f64>) -> String {
    let text = format!("{:.4}", number.value);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn number_ui(ui: &mut Ui, name: &str, value: &str, why: &str) {
    let p = palette(ui);
    ui.horizontal(|ui| {
        ui.label(RichText::new(name).size(font::SMALL + 0.5).color(p.text));
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            ui.label(RichText::new(value).size(font::SMALL + 0.5).color(p.text_strong).strong());
        });
    });
    hint_ui(ui, why);
    ui.add_space(2.0);
}

/// The numbers to change, for experts; the reason is in the tooltip.
fn edit_ui(draft: &mut Draft, tier: &TierPreset, ui: &mut Ui) {
    let hybrid = &mut draft.config.hybrid;
    field_ui(ui, "Strategy", |ui| {
        combo_ui(ui, "strategy", hybrid.strategy.label(), |ui| {
            for strategy in Strategy::ALL {
                ui.selectable_value(&mut hybrid.strategy, strategy, strategy.label()).on_hover_text(strategy.summary());
            }
        });
    });
    field_ui(ui, "Predict without gate", |ui| {
        let mut is_open = hybrid.gate == GateRule::Open;
        let explained = "Predict whenever the forecast is trusted, also where sampling costs more than it saves: to see what that does.";
        if ui.checkbox(&mut is_open, "").on_hover_text(explained).changed() {
            hybrid.gate = if is_open { GateRule::Open } else { GateRule::ByCost };
        }
    });
    let whole = |ui: &mut Ui, name: &str, value: &mut u32, range, why: &str| {
        field_ui(ui, name, |ui| ui.add(DragValue::new(value).range(range).suffix(" steps")).on_hover_text(why));
    };
    whole(ui, "Predict at most", &mut hybrid.max_predict_steps, 1..=10_000, &tier.max_predict_steps.why);
    whole(ui, "Correct every", &mut hybrid.correction_interval, 1..=10_000, &tier.correction_interval.why);
    whole(ui, "Check every", &mut hybrid.check_interval, 1..=3, &tier.check_interval.why);
    whole(ui, "Gate open for", &mut hybrid.gate_hold_steps, 1..=10_000, &tier.gate_hold_steps.why);
    let real = |ui: &mut Ui, name: &str, value: &mut f64, range, why: &str| {
        field_ui(ui, name, |ui| ui.add(DragValue::new(value).range(range).speed(0.005)).on_hover_text(why));
    };
    real(ui, "Confidence", &mut hybrid.confidence_threshold, 0.0..=1.0, &tier.confidence_threshold.why);
    real(ui, "Divergence σ", &mut hybrid.divergence_sigma, 0.5..=20.0, &tier.divergence_sigma.why);
    real(ui, "Backward share", &mut hybrid.slice_fraction, 0.01..=1.0, &tier.slice_fraction.why);
    real(ui, "Least share", &mut hybrid.min_slice_fraction, 0.01..=1.0, &tier.min_slice_fraction.why);
    real(ui, "Cost at most", &mut hybrid.gate_cost, 0.1..=2.0, &tier.gate_cost.why);
    real(ui, "Warmup", &mut hybrid.warmup_fraction, 0.0..=0.9, &tier.warmup_fraction.why);
    if *hybrid != tier.config() && ui.small_button("Take the tier's numbers").clicked() {
        *hybrid = tier.config();
    }
}
