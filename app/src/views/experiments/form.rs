//! What to compare, and how thoroughly.

use egui::{Button, DragValue, RichText, Ui, vec2};
use foretrain_engine::experiment::RungSize;
use foretrain_engine::session::RunConfig;

use super::{estimate, start};
use crate::state::{ExperimentChoice, ExperimentsSaved, Live, Saved, Screen};
use crate::theme::{palette, size, space};
use crate::views::run::settled_plan;
use crate::views::{Action, RecipeCard, ViewCtx, recipe_fields};
use crate::widgets::{Severity, card_ui, chip_ui, field_ui, hint_ui, notice_ui, primary_button_ui};

/// Height of a chip.
const CHIP: f32 = 22.0;
/// Most seeds of a comparison.
const MAX_SEEDS: u64 = 20;
/// Most minutes of a rung: half a day.
const MAX_MINUTES: u32 = 720;

/// Shows the form with its button.
pub(super) fn form_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut Live, ui: &mut Ui) {
    let Some(draft) = saved.draft.clone() else { return };
    let config = draft.run_config(ctx.settings);
    card_ui(ui, "Experiment", |ui| {
        choice_ui(&mut saved.experiments.choice, ui);
        recipe_ui(ctx, &draft.config.name, &config, ui);
        thoroughness_ui(&mut saved.experiments, ui);
        match saved.experiments.choice {
            ExperimentChoice::Arena => grid_ui(&mut saved.experiments, draft.config.batch_size, ui),
            ExperimentChoice::Corrections => settings_ui(&mut saved.experiments, ui),
            ExperimentChoice::Tiers => {}
            ExperimentChoice::Ladder => ladder_ui(&mut saved.experiments, ui),
        }
        ui.add_space(space::XS);
        let step_ms = settled_plan(ctx, &draft, live).and_then(|plan| plan.full_step_ms);
        let extent = (draft.config.num_steps, ctx.catalog.tiers.len());
        for line in estimate::in_words(&saved.experiments, extent, step_ms) {
            hint_ui(ui, &line);
        }
        ui.add_space(space::XS);
        button_ui(ctx, saved, live, &config, ui);
    });
}

fn choice_ui(choice: &mut ExperimentChoice, ui: &mut Ui) {
    ui.horizontal_wrapped(|ui| {
        // All four beside each other.
        ui.spacing_mut().item_spacing.x = space::XS;
        ui.selectable_value(choice, ExperimentChoice::Arena, "Arena").on_hover_text("Does prediction pay?");
        ui.selectable_value(choice, ExperimentChoice::Corrections, "Corrections")
            .on_hover_text("How good are forecasts and corrections? This opens the lock of the aggressive tier.");
        ui.selectable_value(choice, ExperimentChoice::Tiers, "Tiers")
            .on_hover_text("What does more daring save and cost?");
        ui.selectable_value(choice, ExperimentChoice::Ladder, "Ladder")
            .on_hover_text("Does what holds for a small language model hold for the next size?");
    });
    let about = match choice {
        ExperimentChoice::Arena => {
            "Trains the recipe four ways, each tuned alike: as it is; with as many steps, all full; with as much time, all \
             full; and standing still where it would predict."
        }
        ExperimentChoice::Corrections => {
            "Trains the recipe and measures how much of the forecasts' error its corrections take away, what they cost, and \
             whether anything diverges: what the aggressive tier must have shown."
        }
        ExperimentChoice::Tiers => {
            "Trains the recipe with every tier, vanilla among them, in turns: time, loss, spread between seeds, corrections \
             and divergences of each. Learning rates are the recipe's, not tuned."
        }
        ExperimentChoice::Ladder => {
            "Trains language models of growing size on the recipe's text, with its tier and without. The next size opens when \
             the loss stayed within 1% of vanilla's."
        }
    };
    hint_ui(ui, about);
    ui.add_space(space::XS);
}

/// The recipe in the form of the run screen, in a line or two.
fn recipe_ui(ctx: &ViewCtx<'_>, name: &str, config: &Result<RunConfig, String>, ui: &mut Ui) {
    let p = palette(ui);
    field_ui(ui, "Recipe", |ui| ui.add(egui::Label::new(RichText::new(name).color(p.text_strong)).truncate()));
    if let Ok(config) = config {
        let fields = recipe_fields(config);
        let of = |card: RecipeCard| fields.iter().find(|field| field.card == card).map(|field| field.value.clone());
        let parts = [RecipeCard::Data, RecipeCard::Model, RecipeCard::Tier].into_iter().filter_map(of);
        let steps = format!("{} steps of {}", crate::widgets::number::count(config.num_steps), config.batch_size);
        let line = parts.chain([steps, format!("seed {}", config.seed)]).collect::<Vec<_>>().join(" · ");
        hint_ui(ui, &line);
    }
    if ui.button("Change it on Run").on_hover_text("The form there says what is compared here").clicked() {
        ctx.act(Action::Show(Screen::Run));
    }
    ui.add_space(space::XS);
}

fn thoroughness_ui(how: &mut ExperimentsSaved, ui: &mut Ui) {
    field_ui(ui, "Thoroughness", |ui| {
        // Side by side where there is room.
        ui.horizontal_wrapped(|ui| {
            ui.spacing_mut().item_spacing.x = space::XS;
            for (name, about, preset) in [
                ("Quick", "One seed, or the small sizes: a first look, without an interval", ExperimentsSaved::quick()),
                (
                    "Thorough",
                    "Three seeds and a wider grid, or all sizes: what a claim needs",
                    ExperimentsSaved::thorough(),
                ),
            ] {
                if ui.selectable_label(how.is_as_thorough_as(&preset), name).on_hover_text(about).clicked() {
                    how.measure_like(preset);
                }
            }
        });
    });
    if how.choice != ExperimentChoice::Ladder {
        field_ui(ui, "Seeds", |ui| {
            ui.add(DragValue::new(&mut how.num_seeds).range(1..=MAX_SEEDS))
                .on_hover_text("Each has its own weights and batches; in an arena one more tunes");
        });
    }
}

/// Learning rates and batch sizes that are tried.
fn grid_ui(how: &mut ExperimentsSaved, batch_size: usize, ui: &mut Ui) {
    let rates = "Learning rates tried for each contender, as multiples of the recipe's";
    field_ui(ui, "Learning rates", |ui| {
        ui.horizontal_wrapped(|ui| {
            ui.spacing_mut().item_spacing = vec2(space::XS, space::XS);
            // Lines as high as what stands in them.
            ui.spacing_mut().interact_size.y = CHIP;
            for rate in ExperimentsSaved::RATES {
                let is_on = how.rate_factors.contains(&rate);
                if chip_ui(ui, &format!("×{rate}"), None, is_on).on_hover_text(rates).clicked() {
                    how.rate_factors.retain(|known| *known != rate);
                    how.rate_factors.extend((!is_on).then_some(rate));
                    how.rate_factors.sort_by(f64::total_cmp);
                }
            }
        });
    });
    let sizes = "Batch sizes tried for vanilla with as much time: the recipe's, divided by this";
    field_ui(ui, "Batch sizes", |ui| {
        ui.horizontal_wrapped(|ui| {
            ui.spacing_mut().item_spacing = vec2(space::XS, space::XS);
            // Lines as high as what stands in them.
            ui.spacing_mut().interact_size.y = CHIP;
            for divisor in ExperimentsSaved::DIVISORS {
                let is_on = how.batch_divisors.contains(&divisor);
                // One that does not divide the batch can only be given up.
                if !is_on && !batch_size.is_multiple_of(divisor) {
                    continue;
                }
                let chip = chip_ui(ui, &format!("÷{divisor}"), None, is_on);
                if chip.on_hover_text(sizes).clicked() {
                    how.batch_divisors.retain(|known| *known != divisor);
                    how.batch_divisors.extend((!is_on).then_some(divisor));
                    how.batch_divisors.sort_unstable();
                }
            }
        });
    });
}

/// Settings of the trainer that are measured.
fn settings_ui(how: &mut ExperimentsSaved, ui: &mut Ui) {
    let about = "Least confidence to enter Predict and to stay in it; the lowest is that of the aggressive tier";
    field_ui(ui, "Confidence", |ui| {
        ui.horizontal_wrapped(|ui| {
            ui.spacing_mut().item_spacing = vec2(space::XS, space::XS);
            // Lines as high as what stands in them.
            ui.spacing_mut().interact_size.y = CHIP;
            for threshold in ExperimentsSaved::THRESHOLDS {
                let is_on = how.thresholds.contains(&threshold);
                if chip_ui(ui, &format!("{threshold:.2}"), None, is_on).on_hover_text(about).clicked() {
                    how.thresholds.retain(|known| *known != threshold);
                    how.thresholds.extend((!is_on).then_some(threshold));
                    how.thresholds.sort_by(f64::total_cmp);
                }
            }
        });
    });
    field_ui(ui, "Horizons", |ui| {
        ui.horizontal_wrapped(|ui| {
            ui.spacing_mut().item_spacing = vec2(space::XS, space::XS);
            // Lines as high as what stands in them.
            ui.spacing_mut().interact_size.y = CHIP;
            for horizon in ExperimentsSaved::HORIZONS {
                let is_on = how.horizons.contains(&horizon);
                let chip = chip_ui(ui, &format!("{horizon} steps"), None, is_on);
                if chip.on_hover_text("Most predicted steps in a row").clicked() {
                    how.horizons.retain(|known| *known != horizon);
                    how.horizons.extend((!is_on).then_some(horizon));
                    how.horizons.sort_unstable();
                }
            }
        });
    });
}

/// Sizes of the ladder, and their time.
fn ladder_ui(how: &mut ExperimentsSaved, ui: &mut Ui) {
    field_ui(ui, "Sizes", |ui| {
        ui.horizontal_wrapped(|ui| {
            ui.spacing_mut().item_spacing = vec2(space::XS, space::XS);
            // Lines as high as what stands in them.
            ui.spacing_mut().interact_size.y = CHIP;
            for size in RungSize::ALL {
                let is_on = how.rungs.contains(&size);
                let chip = chip_ui(ui, size.label(), None, is_on);
                if chip.on_hover_text("Parameters of a GPT-2").clicked() {
                    how.rungs.retain(|known| *known != size);
                    how.rungs.extend((!is_on).then_some(size));
                    how.rungs.sort_by_key(|size| RungSize::ALL.iter().position(|known| known == size));
                }
            }
        });
    });
    field_ui(ui, "Minutes per size", |ui| {
        ui.add(DragValue::new(&mut how.minutes_per_rung).range(1..=MAX_MINUTES))
            .on_hover_text("For its two trainings together; one that needs more says how far it got");
    });
}

fn button_ui(ctx: &ViewCtx<'_>, saved: &Saved, live: &mut Live, config: &Result<RunConfig, String>, ui: &mut Ui) {
    if live.is_experimenting() {
        let text = if live.experiments.is_stopping { "Cancelling…" } else { "Cancel the experiment" };
        // Not what the screen is about: in plain colors.
        let button = Button::new(text).min_size(vec2(ui.available_width(), size::PRIMARY));
        let cancel = ui.add_enabled(!live.experiments.is_stopping, button);
        if cancel.on_hover_text("End it without a report").clicked() {
            live.end_experiment(ctx);
        }
        return;
    }
    let obstacle = start::obstacle(config, &saved.experiments, live);
    if let Some(obstacle) = &obstacle {
        notice_ui(ui, Severity::Info, obstacle, |_| {});
    }
    let text = match saved.experiments.choice {
        ExperimentChoice::Arena => "Start the arena",
        ExperimentChoice::Corrections => "Start the corrections",
        ExperimentChoice::Tiers => "Compare the tiers",
        ExperimentChoice::Ladder => "Climb the ladder",
    };
    if primary_button_ui(ui, obstacle.is_none(), text).clicked() {
        start::start(ctx, saved, live, ui);
    }
}
