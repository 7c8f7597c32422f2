//! The form of a run, what it would need, and the button that starts it.

use egui::{DragValue, Frame, Margin, Panel, ScrollArea, TextEdit, Ui};
use foretrain_engine::device::ComputeDevice;
use foretrain_engine::models::ModelPreset;
use foretrain_engine::models::ops::{Kept, Precision};
use foretrain_engine::optim::{OptimizerKind, Schedule, StatePlace, StatePrecision};
use foretrain_engine::session::{Command, Rehearsal, RunConfig};

use super::{control, needs, qat, run_recipe, tier, weights};
use crate::state::{Draft, Live, Planned, Replaced, RunLive, Saved, Wanted};
use crate::theme::{palette, space};
use crate::views::{ViewCtx, data_form_ui};
use crate::widgets::{
    CheckLabel, Icon, Severity, card_ui, combo_ui, expander_ui, field_ui, hint_ui, icon_button_ui, notice_ui, number,
    primary_button_ui,
};

/// Seconds without a change before the engine is asked what a recipe needs.
const SETTLE_SECONDS: f64 = 0.6;

/// Longest message beside the start button before it scrolls: the button stays in view.
const FAILURE_HEIGHT: f32 = 150.0;

/// Asks what the recipe needs once it has not changed for a moment. While a run goes on the engine answers without
/// measuring a step, which would disturb the run; it is asked again afterwards.
pub fn plan_when_settled(ctx: &ViewCtx<'_>, saved: &Saved, live: &mut Live, ui: &Ui) {
    let is_training = ctx.active_run().is_some();
    if is_training && !live.run.is_next_form {
        return;
    }
    // It would spoil the experiment's pace.
    if live.is_experimenting() {
        return;
    }
    // Before a start shows itself the engine would measure, and disturb the run's own probe.
    if live.start.is_waiting() && !is_training {
        return;
    }
    let Some(Ok(wanted)) = saved.draft.as_ref().map(|draft| draft.wanted(ctx.settings)) else {
        return;
    };
    let now = ui.input(|input| input.time);
    let num_run_changes = live.num_run_changes;
    let is_planned = |planned: &Planned| {
        let is_current = match wanted {
            Wanted::Run(_) => !planned.is_unmeasured,
            Wanted::Streamed(_) => planned.num_run_changes == num_run_changes,
        };
        planned.wanted.needs_what(&wanted) && (is_training || is_current)
    };
    if !live.run.planned.as_ref().is_some_and(is_planned) {
        live.plan.cancel(ctx);
        live.streamed_plan.cancel(ctx);
        let due = now + SETTLE_SECONDS;
        live.run.planned = Some(Planned { wanted, due, is_unmeasured: false, num_run_changes });
    }
    if let Some(planned) = &mut live.run.planned
        && planned.due.is_finite()
    {
        if now >= planned.due {
            planned.due = f64::INFINITY;
            match planned.wanted.clone() {
                Wanted::Run(config) => {
                    planned.is_unmeasured = is_training;
                    live.plan.ask(ctx, |job| Command::Plan(job, config));
                }
                // No step is measured unless the user asks for that.
                Wanted::Streamed(asked) => {
                    live.streamed_plan.ask(ctx, |job| Command::PlanOffload(job, asked, Rehearsal::None));
                }
            }
        } else {
            ui.ctx().request_repaint_after(std::time::Duration::from_secs_f64(planned.due - now));
        }
    }
}

/// Shows the form with the start button below it.
pub fn recipe_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut Live, ui: &mut Ui) {
    let p = palette(ui);
    let edge = space::MD as i8;
    Panel::bottom("run-start")
        .resizable(false)
        .frame(Frame::new().fill(p.panel).inner_margin(Margin::same(edge)))
        .show(ui, |ui| start_ui(ctx, saved, live, ui));
    egui::CentralPanel::no_frame().show(ui, |ui| {
        ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
            Frame::new().inner_margin(Margin::same(edge)).show(ui, |ui| {
                ui.spacing_mut().item_spacing.y = space::SM;
                if let Some(run) = ctx.active_run() {
                    run_recipe::switch_ui(live, ui);
                    if !live.run.is_next_form {
                        return run_recipe::run_recipe_ui(run, ui);
                    }
                }
                let is_expert = saved.settings.is_expert;
                match &mut saved.draft {
                    Some(draft) => {
                        card_ui(ui, "Recipe", |ui| recipe_choice_ui(ctx, draft, &mut live.run, ui));
                        card_ui(ui, "Data", |ui| data_ui(ctx, draft, ui));
                        card_ui(ui, "Model", |ui| model_ui(ctx, draft, live, ui));
                        if !draft.data.kind.holds_images() {
                            card_ui(ui, "Weights", |ui| weights::weights_ui(ctx, draft, ui));
                        }
                        let lock = &mut saved.tier_lock;
                        card_ui(ui, "Tier", |ui| tier::tier_ui(ctx, draft, lock, is_expert, ui));
                        card_ui(ui, "Training", |ui| training_ui(ctx, draft, is_expert, ui));
                        card_ui(ui, "Quantization", |ui| qat::qat_ui(&mut draft.config, ui));
                        if let Some(take) = card_ui(ui, "Needs", |ui| needs::needs_ui(ctx, draft, live, ui)) {
                            take.into_form(draft);
                        }
                    }
                    None => notice_ui(
                        ui,
                        Severity::Error,
                        "No recipe could be loaded. Settings shows why under Diagnostics.",
                        |_| {},
                    ),
                }
            });
        });
    });
}

fn start_ui(ctx: &ViewCtx<'_>, saved: &Saved, live: &mut Live, ui: &mut Ui) {
    failure_ui(live, ui);
    let is_running = live.is_running();
    let goes_on = saved.draft.as_ref().and_then(|draft| needs::steps_on_disk(ctx, draft, live));
    let text = match goes_on.filter(|step| *step > 0 && !is_running) {
        Some(step) => format!("Go on after step {}", number::count(step)),
        None => "Start training".to_owned(),
    };
    let button = primary_button_ui(ui, !is_running && saved.draft.is_some(), &text)
        .on_hover_text("Ctrl+Enter")
        .on_disabled_hover_text("A run is going on. Stop it first.");
    if button.clicked() {
        control::start(ctx, live, saved);
    }
}

/// Why the last start or resume came to nothing.
pub fn failure_ui(live: &mut Live, ui: &mut Ui) {
    let Some(failure) = live.start.failure() else { return };
    let mut is_dismissed = false;
    let scroll = ScrollArea::vertical().id_salt("start-failure");
    // As high as the message, whatever room its panel had in the last frame.
    scroll.max_height(FAILURE_HEIGHT).min_scrolled_height(FAILURE_HEIGHT).show(ui, |ui| {
        notice_ui(ui, Severity::Error, &failure.message, |ui| {
            for remedy in failure.plan.iter().flat_map(|plan| &plan.remedies) {
                needs::remedy_ui(remedy, ui);
            }
            is_dismissed = ui.small_button("Dismiss").clicked();
        });
    });
    ui.add_space(space::XS);
    if is_dismissed {
        live.start.dismiss();
    }
}

fn recipe_choice_ui(ctx: &ViewCtx<'_>, draft: &mut Draft, live: &mut RunLive, ui: &mut Ui) {
    let mut chosen = None;
    field_ui(ui, "Preset", |ui| {
        combo_ui(ui, "recipe", draft.recipe.as_str(), |ui| {
            for recipe in &ctx.catalog.recipes {
                let label = ui.selectable_label(recipe.name == draft.recipe, &recipe.name);
                if label.on_hover_text(&recipe.summary).clicked() {
                    chosen = Some(Draft::of(recipe));
                }
            }
        });
    });
    if let Some(recipe) = ctx.catalog.recipe(&draft.recipe) {
        hint_ui(ui, &recipe.summary);
        let original = Draft::of(recipe);
        if *draft != original && ui.small_button("Undo changes").on_hover_text("Take the preset as it is").clicked() {
            chosen = Some(original);
        }
    }
    if let Some(chosen) = chosen {
        replace(ctx, draft, chosen, live, "the preset");
    }
    if let Some(own) = run_recipe::offer_ui(ctx, draft, ui) {
        replace(ctx, draft, own, live, "the recipe of the run");
    }
    replaced_ui(draft, live, ui);
    field_ui(ui, "Run name", |ui| {
        ui.add(TextEdit::singleline(&mut draft.config.name).desired_width(f32::INFINITY));
    });
    if let Some(checkpoint) = &draft.config.start_from {
        let place = checkpoint.display().to_string();
        let is_dropped = field_ui(ui, "Begin with", |ui| {
            let is_dropped =
                ui.small_button("Draw weights").on_hover_text("Begin with fresh weights instead").clicked();
            ui.add(egui::Label::new(&place).truncate()).on_hover_text(&place);
            is_dropped
        });
        if is_dropped {
            draft.config.start_from = None;
        }
    }
}

/// Puts `chosen` in place of the form; what was changed there can be had back.
fn replace(ctx: &ViewCtx<'_>, draft: &mut Draft, chosen: Draft, live: &mut RunLive, by: &'static str) {
    let is_changed = ctx.catalog.recipe(&draft.recipe).is_none_or(|recipe| Draft::of(recipe) != *draft);
    let old = std::mem::replace(draft, chosen);
    live.replaced = is_changed.then(|| Replaced { draft: Box::new(old), by });
}

/// Says that changes went, with the way back.
fn replaced_ui(draft: &mut Draft, live: &mut RunLive, ui: &mut Ui) {
    let Some(Replaced { draft: old, by }) = &live.replaced else { return };
    let message = format!("Your changes to {} were replaced by {by}.", old.recipe);
    let (is_undone, is_dismissed) = notice_ui(ui, Severity::Info, &message, |ui| {
        ui.horizontal(|ui| (ui.small_button("Undo").clicked(), ui.small_button("Dismiss").clicked())).inner
    });
    if is_undone || is_dismissed {
        let old = live.replaced.take().filter(|_| is_undone);
        if let Some(old) = old {
            *draft = *old.draft;
        }
    }
}

fn data_ui(ctx: &ViewCtx<'_>, draft: &mut Draft, ui: &mut Ui) {
    let mut data = draft.data.clone();
    data_form_ui(ctx, "recipe", &mut data, ui);
    draft.set_data(data);
}

fn model_ui(ctx: &ViewCtx<'_>, draft: &mut Draft, live: &Live, ui: &mut Ui) {
    let holds_images = draft.data.kind.holds_images();
    field_ui(ui, "Model", |ui| {
        combo_ui(ui, "model", draft.model.label(), |ui| {
            for model in ModelPreset::ALL {
                let fits = model.reads_images() == holds_images;
                let label = ui.add_enabled(fits, egui::Button::selectable(model == draft.model, model.label()));
                let reason = if model.reads_images() {
                    "Reads images; this dataset holds text"
                } else {
                    "Reads text; this dataset holds images"
                };
                if label.on_disabled_hover_text(reason).clicked() {
                    draft.set_model(model);
                }
            }
        });
    });
    field_ui(ui, "Parameters", |ui| {
        let num_params = needs::num_params(ctx, draft, live);
        ui.label(num_params.map_or_else(|| "…".to_owned(), number::count));
    });
    if !holds_images {
        field_ui(ui, "Sequence", |ui| {
            ui.add(DragValue::new(&mut draft.config.sequence_length).range(8..=8192).suffix(" tokens"));
        });
    }
}

fn training_ui(ctx: &ViewCtx<'_>, draft: &mut Draft, is_expert: bool, ui: &mut Ui) {
    let config = &mut draft.config;
    field_ui(ui, "Optimizer", |ui| {
        for (kind, label) in [(OptimizerKind::AdamW, "AdamW"), (OptimizerKind::Muon, "Muon")] {
            if ui.selectable_label(config.optimizer.kind == kind, label).clicked() {
                config.optimizer.switch_to(kind);
            }
        }
    });
    field_ui(ui, "Steps", |ui| {
        ui.add(DragValue::new(&mut config.num_steps).range(1..=10_000_000).speed(5.0));
    });
    field_ui(ui, "Batch size", |ui| {
        let what = if draft.data.kind.holds_images() { " images" } else { " sequences" };
        ui.add(DragValue::new(&mut config.batch_size).range(1..=65_536).suffix(what));
    });
    let rate_label = match config.optimizer.kind {
        OptimizerKind::AdamW => "Learning rate",
        OptimizerKind::Muon => "Rate, matrices",
    };
    field_ui(ui, rate_label, |ui| rate_ui(&mut config.optimizer.learning_rate, ui));
    if config.optimizer.kind == OptimizerKind::Muon {
        field_ui(ui, "Rate, others", |ui| rate_ui(&mut config.optimizer.adam_learning_rate, ui));
    }
    field_ui(ui, "Schedule", |ui| schedule_ui(&mut config.schedule, ui));
    field_ui(ui, "Seed", |ui| {
        ui.add(DragValue::new(&mut config.seed).range(0..=u64::from(u32::MAX)));
        if icon_button_ui(ui, Icon::Dice, "Take another seed").clicked() {
            // Any other number will do; a step of a linear congruential generator makes one.
            config.seed = (config.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)) & u64::from(u32::MAX);
        }
    });
    let (holds_images, device) = (draft.data.kind.holds_images(), ctx.settings.device);
    if is_expert {
        expert_ui(config, holds_images, device, ui);
    } else {
        expander_ui(ui, "More", |ui| expert_ui(config, holds_images, device, ui));
    }
}

fn rate_ui(rate: &mut f64, ui: &mut Ui) {
    let speed = (*rate * 0.01).max(1e-7);
    ui.add(DragValue::new(rate).range(1e-7..=1.0).speed(speed).custom_formatter(|rate, _| format!("{rate:.2e}")));
}

fn schedule_ui(schedule: &mut Schedule, ui: &mut Ui) {
    let is_cosine = matches!(schedule, Schedule::Cosine { .. });
    if ui.selectable_label(is_cosine, "Cosine").on_hover_text("Warmup, then a cosine down to a tenth").clicked()
        && !is_cosine
    {
        *schedule = Schedule::Cosine { warmup_fraction: 0.05, final_fraction: 0.1 };
    }
    let hover = "Warmup, then constant; validation uses an average of the weights";
    if ui.selectable_label(!is_cosine, "Constant + EMA").on_hover_text(hover).clicked() && is_cosine {
        *schedule = Schedule::ConstantEma { warmup_fraction: 0.05, ema_decay: 0.99 };
    }
}

/// What the processor lacks is there where a GPU may compute.
fn precision_ui(precision: &mut Precision, device: ComputeDevice, ui: &mut Ui) {
    for candidate in Precision::ALL {
        let missing = candidate.missing().filter(|_| device == ComputeDevice::Cpu);
        let is_there = missing.is_none();
        let choice =
            ui.add_enabled_ui(is_there, |ui| ui.selectable_value(precision, candidate, candidate.label())).inner;
        if let Some(missing) = missing {
            choice.on_disabled_hover_text(missing);
        }
    }
}

/// Where the optimizer's state is, which is a choice where a GPU may compute.
fn state_place_ui(place: &mut StatePlace, device: ComputeDevice, ui: &mut Ui) {
    let is_choice = device != ComputeDevice::Cpu;
    let mut shown = if is_choice { *place } else { StatePlace::WithWeights };
    ui.add_enabled_ui(is_choice, |ui| {
        for (candidate, text, hover) in [
            (StatePlace::WithWeights, "with weights", "In the GPU's memory, where it computes"),
            (
                StatePlace::HostMemory,
                "on the host",
                "Optimizer offload: the machine's memory holds the moments and the processor moves them, which leaves the GPU's \
                 memory to other things. Each step moves up to 12 bytes a weight between the two",
            ),
        ] {
            let choice = ui.selectable_value(&mut shown, candidate, text).on_hover_text(hover);
            choice.on_disabled_hover_text("The processor computes: they are in the machine's memory anyway");
        }
    });
    if is_choice {
        *place = shown;
    }
}

fn expert_ui(config: &mut RunConfig, holds_images: bool, device: ComputeDevice, ui: &mut Ui) {
    field_ui(ui, "Weight decay", |ui| {
        ui.add(DragValue::new(&mut config.optimizer.weight_decay).range(0.0..=1.0).speed(0.001));
    });
    field_ui(ui, "Clip norm", |ui| {
        let mut is_on = config.optimizer.clip_norm.is_some();
        let mut value = config.optimizer.clip_norm.unwrap_or(1.0);
        ui.checkbox(&mut is_on, "");
        ui.add_enabled(is_on, DragValue::new(&mut value).range(0.01..=100.0).speed(0.01));
        config.optimizer.clip_norm = is_on.then_some(value);
    });
    field_ui(ui, "Batch parts", |ui| {
        ui.add(DragValue::new(&mut config.num_micro_batches).range(1..=1_000_000));
        hint_ui(ui, "gradient accumulation");
    });
    field_ui(ui, "Moments in", |ui| {
        for states in StatePrecision::ALL {
            let (text, hover) = match states {
                StatePrecision::F32 => ("f32", "4 bytes each"),
                StatePrecision::EightBit => (
                    "8 bits",
                    "A quarter of the memory for the optimizer's state, rounded block by block; on the processor, or in host \
                     memory",
                ),
            };
            ui.selectable_value(&mut config.optimizer.states, states, text).on_hover_text(hover);
        }
    });
    field_ui(ui, "Moments kept", |ui| state_place_ui(&mut config.optimizer.state_place, device, ui));
    if !holds_images {
        field_ui(ui, "Products in", |ui| precision_ui(&mut config.precision, device, ui));
        field_ui(ui, "Recompute", |ui| {
            let mut is_on = config.kept == Kept::Input;
            let hover = "Activation checkpointing: layers keep their input alone and compute the rest again on the way back. \
                         Far less memory, about a third more computing, the same result";
            ui.checkbox(&mut is_on, "layers, to save memory").on_hover_text(hover);
            config.kept = if is_on { Kept::Input } else { Kept::Activations };
        });
    }
    field_ui(ui, "Validate", |ui| {
        ui.add(DragValue::new(&mut config.validation_interval).range(1..=1_000_000).prefix("every ").suffix(" steps"));
    });
    field_ui(ui, "On at most", |ui| {
        ui.add(DragValue::new(&mut config.max_validation_examples).range(1..=10_000_000).suffix(" examples"));
    });
    field_ui(ui, "Checkpoint", |ui| {
        ui.add(DragValue::new(&mut config.checkpoint_interval).range(1..=1_000_000).prefix("every ").suffix(" steps"));
    });
    field_ui(ui, "Keep last", |ui| {
        ui.add(DragValue::new(&mut config.keep_last).range(1..=100));
        hint_ui(ui, "beside the best");
    });
    if holds_images {
        field_ui(ui, "Augment", |ui| {
            CheckLabel { text: "Mirror", hover: "Mirror half of the training images" }
                .show(ui, &mut config.augmentation.flip);
            ui.add(DragValue::new(&mut config.augmentation.shift_pixels).range(0..=16).prefix("shift ").suffix(" px"));
        });
    }
}
