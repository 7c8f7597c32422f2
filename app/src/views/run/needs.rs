//! What a recipe needs: memory against the budget, and vanilla training time.

use egui::{Color32, RichText, Ui};
use foretrain_engine::memory::{MemoryPlan, MemorySettings, PlanKind, Remedy};
use foretrain_engine::optim::{OptimizerKind, usual_learning_rate};
use foretrain_engine::session::{OffloadForecast, PlanReport};

use super::needs_on_disk;
use crate::state::{Draft, Live, Planned, Wanted};
use crate::theme::{Palette, font, palette, space};
use crate::views::ViewCtx;
use crate::widgets::{Segment, Severity, expander_ui, hint_ui, notice_ui, number, stacked_bar_ui, swatch_ui};

/// The engine's answer for the form as it stands; `None` while it is about an earlier one.
pub fn settled<'a>(ctx: &ViewCtx<'_>, draft: &Draft, live: &'a Live) -> Option<&'a PlanReport> {
    let wanted = draft.wanted(ctx.settings).ok()?;
    let is_answered = !draft.is_streamed() && !live.plan.is_waiting() && live.plan.failure().is_none();
    live.plan.answer().filter(|_| is_answered && is_asked(&wanted, live)).map(|report| &**report)
}

/// True when `wanted` is what the engine was asked about last.
fn is_asked(wanted: &Wanted, live: &Live) -> bool {
    let is_about = |planned: &Planned| planned.due.is_infinite() && planned.wanted.needs_what(wanted);
    live.run.planned.as_ref().is_some_and(is_about)
}

/// True when the engine's last answer about weights on disk is about `wanted`, whatever it is asked meanwhile.
fn is_forecast_of(wanted: &Wanted, live: &Live) -> bool {
    live.streamed_plan_of.as_ref().is_some_and(|about| about.needs_what(wanted))
}

/// Trainable numbers of the form's model, once the engine has told.
pub(super) fn num_params(ctx: &ViewCtx<'_>, draft: &Draft, live: &Live) -> Option<u64> {
    if !draft.is_streamed() {
        return settled(ctx, draft, live).map(|report| report.num_params);
    }
    Some(forecast_on_disk(ctx, draft, live)?.plan.num_params)
}

/// Steps that are done in the folder of the form's weights, once the engine has told; `None` where none are left.
pub(super) fn steps_on_disk(ctx: &ViewCtx<'_>, draft: &Draft, live: &Live) -> Option<u64> {
    let forecast = forecast_on_disk(ctx, draft, live)?;
    (forecast.num_steps_left > 0).then_some(forecast.disk.num_steps)
}

/// The engine's answer for weights on disk; while steps are rehearsed it stands.
fn forecast_on_disk<'a>(ctx: &ViewCtx<'_>, draft: &Draft, live: &'a Live) -> Option<&'a OffloadForecast> {
    let wanted = draft.wanted(ctx.settings).ok().filter(|_| draft.is_streamed())?;
    live.streamed_plan.answer().filter(|_| is_forecast_of(&wanted, live)).map(|forecast| &**forecast)
}

/// What the user wants to take over into the form.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Take {
    /// Settings that make it fit.
    Settings(MemorySettings),
    /// Weights on disk, in batches of so many.
    OnDisk(usize),
    /// Batches of so many.
    Batch(usize),
    /// A learning rate.
    LearningRate(f64),
}

impl Take {
    /// Takes it over.
    pub(super) fn into_form(self, draft: &mut Draft) {
        match self {
            Self::Settings(settings) => draft.config.take_memory_settings(settings),
            Self::OnDisk(batch_size) => {
                draft.streaming.is_on = true;
                (draft.config.batch_size, draft.config.num_micro_batches) = (batch_size, 1);
                draft.config.optimizer.switch_to(OptimizerKind::AdamW);
            }
            Self::Batch(batch_size) => draft.config.batch_size = batch_size,
            Self::LearningRate(rate) => draft.config.optimizer.learning_rate = rate,
        }
    }
}

/// Shows the engine's answer for the recipe in the form. Returns what the user wants to take over into it.
pub(super) fn needs_ui(ctx: &ViewCtx<'_>, draft: &Draft, live: &mut Live, ui: &mut Ui) -> Option<Take> {
    match draft.wanted(ctx.settings) {
        Ok(Wanted::Run(_)) => {}
        Ok(Wanted::Streamed(job)) => {
            let is_old = !is_forecast_of(&Wanted::Streamed(job.clone()), live);
            return needs_on_disk::needs_ui(ctx, (draft, &job), is_old, live, ui);
        }
        Err(message) => {
            notice_ui(ui, Severity::Info, &message, |_| {});
            return None;
        }
    }
    if let Some(failure) = live.plan.failure() {
        return notice_ui(ui, Severity::Error, &failure.message, |ui| {
            failure.plan.as_ref().and_then(|plan| plan_ui(plan, Offers::Settings(None), ui))
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
    let offers = if is_old { Offers::InWords } else { Offers::Settings(report.remedy_step_ms) };
    let wanted = ui.scope(|ui| {
        if is_old {
            ui.multiply_opacity(0.5);
        }
        report_ui(draft, report, offers, ui)
    });
    if is_old {
        hint_ui(ui, "Of the form before its last change; asked for again in a moment.");
    } else if is_training && report.full_step_ms.is_none() {
        hint_ui(ui, "Times are measured when the run has ended: now it would disturb it.");
    }
    wanted.inner
}

fn report_ui(draft: &Draft, report: &PlanReport, offers: Offers, ui: &mut Ui) -> Option<Take> {
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
    wanted.or_else(|| rate_ui(draft, report.num_params, ui))
}

/// Says when the rate is one for smaller models, with the usual one for this size to take.
pub(super) fn rate_ui(draft: &Draft, num_params: u64, ui: &mut Ui) -> Option<Take> {
    let optimizer = &draft.config.optimizer;
    let usual = usual_learning_rate(num_params).filter(|usual| optimizer.learning_rate > 2.0 * usual)?;
    if optimizer.kind != OptimizerKind::AdamW || draft.data.kind.holds_images() {
        return None;
    }
    let message = format!(
        "A learning rate of {:.1e} is one for small models. Usual for {} weights is {usual:.1e} (Brown et al. 2020).",
        optimizer.learning_rate,
        number::short_count(num_params as f64)
    );
    let is_taken =
        notice_ui(ui, Severity::Warning, &message, |ui| ui.small_button(format!("Take {usual:.1e}")).clicked());
    is_taken.then_some(Take::LearningRate(usual))
}

pub(super) fn row_ui(ui: &mut Ui, p: &Palette, name: &str, value: &str) {
    ui.horizontal(|ui| {
        ui.label(RichText::new(name).size(font::SMALL + 0.5).color(p.text_weak));
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            ui.label(RichText::new(value).color(p.text_strong));
        });
    });
}

/// What a plan that does not fit offers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Offers {
    /// What would make it fit, with a button where settings do, and the milliseconds that a step with them was measured to
    /// take: the plan is that of the form as it stands.
    Settings(Option<f64>),
    /// The same without buttons.
    InWords,
}

/// The plan as a bar against its budget, with its table to open. Returns what the user wants to take over.
pub(super) fn plan_ui(plan: &MemoryPlan, offers: Offers, ui: &mut Ui) -> Option<Take> {
    named_plan_ui(["Memory at its peak", "Planned memory against the budget", "Memory by kind"], plan, offers, ui)
}

/// The same of a GPU's share beside the plan of the machine's memory.
pub(super) fn gpu_plan_ui(plan: &MemoryPlan, ui: &mut Ui) {
    let names = ["GPU memory at its peak", "Planned GPU memory against the budget", "GPU memory by kind"];
    named_plan_ui(names, plan, Offers::InWords, ui);
}

fn named_plan_ui([peak, bar, by_kind]: [&str; 3], plan: &MemoryPlan, offers: Offers, ui: &mut Ui) -> Option<Take> {
    let p = palette(ui);
    row_ui(ui, p, peak, &number::bytes(plan.total_bytes()));
    let segments: Vec<Segment> = plan
        .items
        .iter()
        .map(|item| Segment {
            name: format!("{}: {}\n{}", item.kind.label(), number::bytes(item.bytes), item.how),
            amount: item.bytes as f64,
            color: kind_color(p, item.kind),
        })
        .collect();
    stacked_bar_ui(ui, bar, &segments, plan.budget_bytes as f64);
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
    expander_ui(ui, by_kind, |ui| table_ui(plan, ui));
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

/// What would make a plan fit. Returns what the user wants to take over.
fn remedies_ui(plan: &MemoryPlan, offers: Offers, ui: &mut Ui) -> Option<Take> {
    let mut wanted = None;
    for remedy in &plan.remedies {
        remedy_ui(remedy, ui);
        let Offers::Settings(step_ms) = offers else { continue };
        if let Some(settings) = remedy.settings {
            if let Some(step_ms) = step_ms {
                hint_ui(ui, &format!("A step with them takes {}, measured now.", number::milliseconds(step_ms)));
            }
            let hover = "Changes these settings of the form and nothing else";
            if ui.small_button("Use these settings").on_hover_text(hover).clicked() {
                wanted = Some(Take::Settings(settings));
            }
        }
        if let Some(batch_size) = remedy.streamed_batch {
            let hover = "The form then says what it takes, and its price";
            if ui.small_button("Put the weights on disk").on_hover_text(hover).clicked() {
                wanted = Some(Take::OnDisk(batch_size));
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
