//! Lays out the trial screen.

use std::sync::Arc;

use egui::Ui;
use foretrain_engine::models::DataShape;
use foretrain_engine::quant::QuantScheme;
use foretrain_engine::session::{Command, InferInput, InferJob, ModelReport, ModelSource};

use super::{answers, input};
use crate::state::{HeldChange, Live, Saved, TrialLive, TrySaved, TrySource};
use crate::views::{
    ViewCtx, empty_ui, job_ui, model_card_ui, model_choice_ui, newer_model_ui, package_choice_ui, panes_ui,
};
use crate::widgets::{field_ui, hint_ui};

/// Precisions compared.
const SCHEMES: [QuantScheme; 3] = [QuantScheme::F32, QuantScheme::Int8, QuantScheme::Ternary];

/// Shows the screen.
pub fn trial_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut Live, ui: &mut Ui) {
    let mut state = (saved, live, None);
    panes_ui(
        ui,
        "trial",
        &mut state,
        |(saved, live, model), ui| {
            ui.heading("Try it");
            source_ui(&mut saved.trial.source, ui);
            let found = match saved.trial.source {
                TrySource::Run => model_choice_ui(ctx, &mut saved.model_path, live, ui),
                TrySource::Package => package_choice_ui(ctx, &mut saved.trial.package, &mut live.package, ui),
            };
            if let Some(found) = found {
                see_model(ctx, &mut live.trial, &found);
                *model = live.trial.model.of(path_of(saved)).cloned();
            }
            if let Some(model) = &*model {
                model_card_ui(model, ui);
                input::options_ui(ctx, &mut saved.trial, &mut live.trial, model.card.model.data_shape(), ui);
            }
        },
        |(saved, live, model), ui| match model {
            Some(model) => trial_of_ui(ctx, &mut saved.trial, &mut live.trial, model, ui),
            None => empty_ui(
                ui,
                "No model yet",
                "Train a run, or choose a checkpoint or a package at the left: then draw a digit or type a prompt here.",
            ),
        },
    );
}

/// Run or package.
fn source_ui(source: &mut TrySource, ui: &mut Ui) {
    field_ui(ui, "Try", |ui| {
        ui.selectable_value(source, TrySource::Run, "A run").on_hover_text("In full precision, int8 and ternary");
        ui.selectable_value(source, TrySource::Package, "A package").on_hover_text("As it was exported");
    });
}

/// What is chosen.
fn path_of(saved: &Saved) -> &str {
    match saved.trial.source {
        TrySource::Run => &saved.model_path,
        TrySource::Package => &saved.trial.package,
    }
}

/// Answers of another model do not belong to this one; the drawing stays. A newer checkpoint of the same run waits to
/// be taken.
fn see_model(ctx: &ViewCtx<'_>, live: &mut TrialLive, found: &Arc<ModelReport>) {
    let has_results = live.has_results();
    match live.model.see(found, has_results) {
        HeldChange::Kept => {}
        HeldChange::Replaced => forget_answers(ctx, live),
    }
}

fn forget_answers(ctx: &ViewCtx<'_>, live: &mut TrialLive) {
    live.infer.cancel(ctx);
    live.infer.clear();
}

/// Offers the newer checkpoint, which is asked what the older one was asked. True when the user takes it.
fn newer_ui(ctx: &ViewCtx<'_>, live: &mut TrialLive, ui: &mut Ui) -> bool {
    let is_taken = newer_model_ui(&live.model, ui);
    if is_taken {
        live.model.take_newer();
        forget_answers(ctx, live);
        live.is_stale = true;
        ui.ctx().request_repaint();
    }
    is_taken
}

fn trial_of_ui(ctx: &ViewCtx<'_>, saved: &mut TrySaved, live: &mut TrialLive, model: &ModelReport, ui: &mut Ui) {
    // This frame still has the older model.
    let is_replaced = newer_ui(ctx, live, ui);
    let is_image = match model.card.model.data_shape() {
        DataShape::Images { channels, height, width, .. } => {
            live.canvas.set_shape((channels, height, width));
            input::canvas_ui(ctx, saved, live, ui);
            true
        }
        DataShape::Text { .. } => {
            input::prompt_ui(saved, live, ui);
            false
        }
    };
    // One question at a time: a stroke during an answer is asked about once that has come.
    if live.is_stale && !live.infer.is_waiting() && !is_replaced {
        live.is_stale = false;
        ask(ctx, saved, live, model, is_image);
    }
    job_ui(ctx, "Answering", &mut live.infer, ui);
    match live.infer.answer() {
        Some(found) => answers::answers_ui(found, ui),
        None if !live.infer.is_waiting() => {
            let what = match model.source {
                ModelSource::Checkpoint => {
                    "The answers of the model in full precision, int8 and ternary appear here side by side."
                }
                ModelSource::Package(_) => "The package's answer appears here.",
            };
            hint_ui(ui, what);
        }
        None => {}
    }
}

fn ask(ctx: &ViewCtx<'_>, saved: &TrySaved, live: &mut TrialLive, model: &ModelReport, is_image: bool) {
    let prompt = if is_image {
        InferInput::Image { pixels: live.canvas.pixels().to_vec() }
    } else {
        if saved.prompt.is_empty() {
            return live.infer.fail("Type a prompt first: the model goes on from it.".to_owned());
        }
        InferInput::Prompt {
            text: saved.prompt.clone(),
            max_tokens: saved.max_tokens,
            temperature: saved.temperature,
            seed: saved.seed,
        }
    };
    let input = model.folder.clone();
    live.infer.ask(ctx, |job| Command::Infer(job, InferJob { input, schemes: SCHEMES.to_vec(), prompt }));
}
