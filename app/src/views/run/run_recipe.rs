//! The recipe of the run that goes on, to read; and the way from a run back to the form.

use egui::{Label, RichText, Ui};
use foretrain_engine::session::RunSnapshot;

use crate::state::{Draft, Live};
use crate::theme::palette;
use crate::views::{RecipeCard, RecipeField, ViewCtx, recipe_fields};
use crate::widgets::{card_ui, field_ui, hint_ui};

/// Switches between the recipe of the run that goes on and the form of the next one.
pub(super) fn switch_ui(live: &mut Live, ui: &mut Ui) {
    ui.horizontal(|ui| {
        ui.selectable_value(&mut live.run.is_next_form, false, "This run").on_hover_text("The recipe being trained");
        ui.selectable_value(&mut live.run.is_next_form, true, "Next run").on_hover_text("The form of the run after it");
    });
}

/// Shows all that decides `run`.
pub(super) fn run_recipe_ui(run: &RunSnapshot, ui: &mut Ui) {
    card_ui(ui, "Recipe", |ui| {
        hint_ui(ui, "As this run was begun; it cannot be changed while it goes on.");
        value_ui(ui, "Run name", &run.config.name);
    });
    let fields = recipe_fields(&run.config);
    for (card, title) in [
        (RecipeCard::Data, "Data"),
        (RecipeCard::Model, "Model"),
        (RecipeCard::Tier, "Tier"),
        (RecipeCard::Training, "Training"),
        (RecipeCard::Quantization, "Quantization"),
    ] {
        // A run in full precision has nothing to say there.
        if !fields.iter().any(|field| field.card == card) {
            continue;
        }
        card_ui(ui, title, |ui| {
            ui.spacing_mut().item_spacing.y = 0.0;
            for RecipeField { name, value, .. } in fields.iter().filter(|field| field.card == card) {
                value_ui(ui, name, value);
            }
        });
    }
}

fn value_ui(ui: &mut Ui, name: &str, value: &str) {
    let color = palette(ui).text;
    field_ui(ui, name, |ui| ui.add(Label::new(RichText::new(value).color(color)).truncate()));
}

/// Offers the recipe of the run shown as the form's, where it is another; returns it when the user takes it.
pub(super) fn offer_ui(ctx: &ViewCtx<'_>, draft: &Draft, ui: &mut Ui) -> Option<Draft> {
    let run = ctx.snapshot.as_ref().filter(|_| ctx.active_run().is_none())?;
    let Some(own) = Draft::of_run(&run.config, ctx.catalog) else {
        hint_ui(ui, "The model of the run shown is none of the presets: this form cannot make it.");
        return None;
    };
    if draft.makes_same_run(&own) {
        return None;
    }
    hint_ui(ui, "The run shown was made by another recipe.");
    let hover = "Begin the next run from the recipe of the run shown";
    ui.small_button("Take its recipe").on_hover_text(hover).clicked().then_some(own)
}
