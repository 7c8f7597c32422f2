//! What a recipe needs: memory against the budget, and vanilla training time.

use egui::{Color32, RichText, Ui};
use foretrain_engine::memory::{MemoryPlan, PlanKind};

use crate::state::{Draft, Live};
use crate::theme::{Palette, font, palette, space};
use crate::views::ViewCtx;
use crate::widgets::{Segment, Severity, expander_ui, hint_ui, notice_ui, number, stacked_bar_ui, swatch_ui};

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
    let Some(report) = live.plan.answer() else {
        let text = if live.is_running() { "Asked again when the run has ended." } else { "Measuring a few steps…" };
        hint_ui(ui, text);
        return;
    };
    let is_old = live.plan.is_waiting() || live.run.planned.as_ref().is_some_and(|(_, due)| due.is_finite());
    ui.scope(|ui| {
        if is_old {
            ui.multiply_opacity(0.5);
        }
        plan_ui(&report.plan, ui);
        ui.add_space(space::XS);
        let p = palette(ui);
        row_ui(
            ui,
            p,
            "Vanilla training time",
            &report
                .vanilla_seconds
                .map_or_else(|| "—".to_owned(), |seconds| format!("about {}", number::seconds(seconds))),
        );
        row_ui(ui, p, "Full step, measured", &report.full_step_ms.map_or_else(|| "—".to_owned(), number::milliseconds));
        for warning in &report.warnings {
            notice_ui(ui, Severity::Warning, warning, |_| {});
        }
    });
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
        PlanKind::RollbackSnapshot => p.series[7],
        PlanKind::Activations => p.series[3],
        PlanKind::Logits => p.series[5],
        PlanKind::Dataset => p.series[4],
        PlanKind::Runtime => p.warmup,
    }
}
