//! What a recipe needs: memory against the budget, and vanilla training time.

use egui::{Color32, RichText, Ui};
use foretrain_engine::memory::{MemoryPlan, PlanKind};
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

/// Shows the engine's answer for the recipe in the form.
pub fn needs_ui(ctx: &ViewCtx<'_>, draft: &Draft, live: &Live, ui: &mut Ui) {
    if let Err(message) = draft.run_config(ctx.settings) {
        notice_ui(ui, Severity::Info, &message, |_| {});
        return;
    }
    if let Some(failure) = live.plan.failure() {
        notice_ui(ui, Severity::Error, &failure.message, |ui| {
            if let Some(plan) = &failure.plan {
                plan_ui(plan, ui);
            }
        });
        return;
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
        return;
    };
    ui.scope(|ui| {
        if is_old {
            ui.multiply_opacity(0.5);
        }
        report_ui(report, ui);
    });
    if is_old {
        hint_ui(ui, "Of the form before its last change; asked for again in a moment.");
    } else if is_training && report.full_step_ms.is_none() {
        hint_ui(ui, "Times are measured when the run has ended: now it would disturb it.");
    }
}

fn report_ui(report: &PlanReport, ui: &mut Ui) {
    let p = palette(ui);
    plan_ui(&report.plan, ui);
    ui.add_space(space::XS);
    let time = report.vanilla_seconds.map(|seconds| format!("about {}", number::seconds(seconds)));
    row_ui(ui, p, "Vanilla training time", time.as_deref().unwrap_or("—"));
    let step = report.full_step_ms.map(number::milliseconds);
    row_ui(ui, p, "Full step, measured", step.as_deref().unwrap_or("—"));
    for warning in &report.warnings {
        notice_ui(ui, Severity::Warning, warning, |_| {});
    }
}

fn row_ui(ui: &mut Ui, p: &Palette, name: &str, value: &str) {
    ui.horizontal(|ui| {
        ui.label(RichText::new(name).size(font::SMALL + 0.5).color(p.text_weak));
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            ui.label(RichText::new(value).color(p.text_strong));
        });
    });
}

/// The plan as a bar against its budget, with its table to open.
pub fn plan_ui(plan: &MemoryPlan, ui: &mut Ui) {
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
    if !plan.fits() {
        let over = plan.total_bytes() - plan.budget_bytes;
        notice_ui(ui, Severity::Error, &format!("{} more than the budget allows.", number::bytes(over)), |ui| {
            remedies_ui(plan, ui);
        });
    }
    expander_ui(ui, "Memory by kind", |ui| table_ui(plan, ui));
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

/// What would make a plan fit.
pub fn remedies_ui(plan: &MemoryPlan, ui: &mut Ui) {
    for remedy in &plan.remedies {
        ui.add(egui::Label::new(RichText::new(format!("• {remedy}")).size(font::SMALL + 0.5)).wrap());
    }
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
