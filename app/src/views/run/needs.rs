//! What a recipe needs: memory against the budget, and vanilla training time.

use egui::{Color32, RichText, Ui};
use foretrain_engine::memory::{MemoryPlan, MemorySettings, PlanKind, Remedy};
use foretrain_engine::session::PlanReport;

use crate::state::{Draft, Live, Planned};
use crate::theme::{Palette, font, palette, space};
use crate::views::ViewCtx;
use crate::widgets::{Segment, Severity, expander_ui, hint_ui, notice_ui, number, stacked_bar_ui, swatch_ui};

/// The engine's answer for the form as it stands; `None` while it is about an earlier one.
pub fn settled<'a>(ctx: &ViewCtx<'_>, draft: &Draft, live: &'a Live) -> Option<&'a PlanReport> {
    let config = draft.run_config(ctx.settings).ok()?;
    let is_asked = |planned: &Planned| planned.due.is_infinite() && planned.is_about(&config);
    let is_answered = !live.plan.is_waiting() && live.plan.failure().is_none();
    live.plan
        .answer()
        .filter(|_| is_answered && live.run.planned.as_ref().is_some_and(is_asked))
        .map(|report| &**report)
}

/// Shows the engine's answer for the recipe in the form. Returns settings that the user wants to take over into it.
pub fn needs_ui(ctx: &ViewCtx<'_>, draft: &Draft, live: &Live, ui: &mut Ui) -> Option<MemorySettings> {
    if let Err(message) = draft.run_config(ctx.settings) {
        notice_ui(ui, Severity::Info, &message, |_| {});
        return None;
    }
    if let Some(failure) = live.plan.failure() {
        return notice_ui(ui, Severity::Error, &failure.message, |ui| {
            failure.plan.as_ref().and_then(|plan| plan_ui(plan, Offers::Settings, ui))
        });
    }
    let is_training = ctx.active_run().is_some();
    let is_starting = live.start.is_waiting() && !is_training;
    let is_old = settled(ctx, draft, live).is_none();
    let Some(report) = live.plan.answer().filter(|_| !is_starting || !is_old) else {
        hint_ui(
            ui,
            match (is_starting, is_training) {
                (true, _) => "Asked for when the run has begun.",
                (false, true) => "Planning…",
                (false, false) => "Measuring a few steps…",
            },
        );
        return None;
    };
    let offers = if is_old { Offers::InWords } else { Offers::Settings };
    let wanted = ui.scope(|ui| {
        if is_old {
            ui.multiply_opacity(0.5);
        }
        report_ui(report, offers, ui)
    });
    if is_old {
        hint_ui(ui, "Of the form before its last change; asked for again in a moment.");
    } else if is_training && report.full_step_ms.is_none() {
        hint_ui(ui, "Times are measured when the run has ended: now it would disturb it.");
    }
    wanted.inner
}

fn report_ui(report: &PlanReport, offers: Offers, ui: &mut Ui) -> Option<MemorySettings> {
    let p = palette(ui);
    let wanted = plan_ui(&report.plan, offers, ui);
    ui.add_space(space::XS);
    let time = report.vanilla_seconds.map(|seconds| format!("about {}", number::seconds(seconds)));
    row_ui(ui, p, "Vanilla training time", time.as_deref().unwrap_or("—"));
    let step = report.full_step_ms.map(number::milliseconds);
    row_ui(ui, p, "Full step, measured", step.as_deref().unwrap_or("—"));
    for warning in &report.warnings {
        notice_ui(ui, Severity::Warning, warning, |_| {});
    }
    wanted
}

fn row_ui(ui: &mut Ui, p: &Palette, name: &str, value: &str) {
    ui.horizontal(|ui| {
        ui.label(RichText::new(name).size(font::SMALL + 0.5).color(p.text_weak));
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            ui.label(RichText::new(value).color(p.text_strong));
        });
    });
}

/// What a plan that does not fit offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offers {
    /// What would make it fit, with a button where settings do: the plan is that of the form as it stands.
    Settings,
    /// The same without buttons.
    InWords,
}

/// The plan as a bar against its budget, with its table to open. Returns settings that the user wants.
pub fn plan_ui(plan: &MemoryPlan, offers: Offers, ui: &mut Ui) -> Option<MemorySettings> {
    let p = palette(ui);
    row_ui(ui, p, "Memory at its peak", &number::bytes(plan.total_bytes()));
    let segments: Vec<Segment> = plan
        .items
        .iter()
        .map(|item| Segment {
            name: format!("{}: {}\n{}", item.kind.label(), number::bytes(item.bytes), item.how),
            amount: item.bytes as f64,
            color: kind_color(p, item.kind),
        })
        .collect();
    stacked_bar_ui(ui, "Planned memory against the budget", &segments, plan.budget_bytes as f64);
    let share = plan.total_bytes() as f64 / (plan.budget_bytes as f64).max(1.0);
    let budget = number::bytes(plan.budget_bytes);
    hint_ui(ui, &format!("{} of the budget of {budget} ({})", number::percent(share), plan.budget_source));
    let wanted = if plan.fits() {
        None
    } else {
        let over = plan.total_bytes() - plan.budget_bytes;
        let message = format!("{} more than the budget allows.", number::bytes(over));
        notice_ui(ui, Severity::Error, &message, |ui| remedies_ui(plan, offers, ui))
    };
    expander_ui(ui, "Memory by kind", |ui| table_ui(plan, ui));
    wanted
}

fn table_ui(plan: &MemoryPlan, ui: &mut Ui) {
    let p = palette(ui);
    for item in &plan.items {
        ui.horizontal(|ui| {
            swatch_ui(ui, kind_color(p, item.kind));
            ui.label(RichText::new(item.kind.label()).size(font::SMALL + 0.5)).on_hover_text(&item.how);
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                ui.label(RichText::new(number::bytes(item.bytes)).size(font::SMALL + 0.5).color(p.text_strong));
            });
        });
    }
}

/// What would make a plan fit. Returns settings that the user wants to take over.
fn remedies_ui(plan: &MemoryPlan, offers: Offers, ui: &mut Ui) -> Option<MemorySettings> {
    let mut wanted = None;
    for remedy in &plan.remedies {
        remedy_ui(remedy, ui);
        if offers == Offers::Settings && remedy.settings.is_some() {
            let hover = "Changes these settings of the form and nothing else";
            if ui.small_button("Use these settings").on_hover_text(hover).clicked() {
                wanted = remedy.settings;
            }
        }
    }
    wanted
}

/// One of them in words.
pub fn remedy_ui(remedy: &Remedy, ui: &mut Ui) {
    ui.add(egui::Label::new(RichText::new(format!("• {remedy}")).size(font::SMALL + 0.5)).wrap());
}

fn kind_color(p: &Palette, kind: PlanKind) -> Color32 {
    match kind {
        PlanKind::Weights => p.series[0],
        PlanKind::Gradients => p.series[1],
        PlanKind::Optimizer => p.series[2],
        PlanKind::WeightAverage => p.series[6],
        PlanKind::QuantizedWeights => p.predict,
        PlanKind::RollbackSnapshot => p.series[7],
        PlanKind::Activations => p.series[3],
        PlanKind::Logits => p.series[5],
        PlanKind::Dataset => p.series[4],
        PlanKind::Runtime => p.warmup,
        PlanKind::Evaluation => p.correct,
    }
}
