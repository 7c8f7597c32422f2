//! What a run needs whose weights lie on disk: memory, room on the disk, and the time of a step.

use egui::Ui;
use foretrain_engine::device::ComputeDevice;
use foretrain_engine::offload::DiskRoom;
use foretrain_engine::session::{Command, OffloadForecast, OffloadJob, Rehearsal};

use super::needs::{Offers, Take, gpu_plan_ui, plan_ui, rate_ui, row_ui};
use crate::state::{Draft, Live};
use crate::theme::{palette, space};
use crate::views::ViewCtx;
use crate::widgets::{Severity, expander_ui, hint_ui, notice_ui, number};

/// Shows the engine's answer for `job`. Returns what the user wants to take over into the form.
pub(super) fn needs_ui(
    ctx: &ViewCtx<'_>,
    (draft, job): (&Draft, &OffloadJob),
    is_old: bool,
    live: &mut Live,
    ui: &mut Ui,
) -> Option<Take> {
    if let Some(failure) = live.streamed_plan.failure() {
        notice_ui(ui, Severity::Error, &failure.message, |_| {});
        return None;
    }
    let Some(forecast) = live.streamed_plan.answer() else {
        hint_ui(ui, "Planning…");
        return None;
    };
    let take = ui.scope(|ui| {
        if is_old {
            ui.multiply_opacity(0.5);
        }
        forecast_ui(draft, forecast, ui)
    });
    let has_time = forecast.step_seconds.is_some();
    let fits = forecast.plan.fits() && forecast.disk.fits() && forecast.num_steps_left > 0;
    if is_old {
        hint_ui(ui, "Of the form before its last change; asked for again in a moment.");
    } else if live.streamed_plan.is_waiting() || (!has_time && fits) {
        rehearse_ui(ctx, job, live, ui);
    }
    take.inner
}

fn forecast_ui(draft: &Draft, forecast: &OffloadForecast, ui: &mut Ui) -> Option<Take> {
    let p = palette(ui);
    let OffloadForecast { plan, disk, .. } = forecast;
    plan_ui(&plan.memory, Offers::InWords, ui);
    if let Some(gpu) = &plan.gpu {
        ui.add_space(space::XS);
        gpu_plan_ui(gpu, ui);
    }
    let mut take = None;
    if !plan.fits() && draft.config.batch_size > 1 {
        let batch_size = draft.config.batch_size / 2;
        if ui
            .small_button(format!("Take batches of {batch_size}"))
            .on_hover_text("Half of the batch at a time")
            .clicked()
        {
            take = Some(Take::Batch(batch_size));
        }
    }
    ui.add_space(space::XS);
    let computes = match forecast.device {
        ComputeDevice::Cpu | ComputeDevice::Auto => "the processor".to_owned(),
        ComputeDevice::Cuda(index) => format!("GPU {index}"),
    };
    row_ui(ui, p, "Computes on", &computes);
    if let Some(why) = &forecast.why_there {
        hint_ui(ui, why);
    }
    let more = disk.needed_bytes.saturating_sub(disk.held_bytes);
    let free = disk.free_bytes.map_or_else(|| "an unknown part".to_owned(), number::bytes);
    row_ui(ui, p, "Disk, at most", &format!("{} of {free} free", number::bytes(more)));
    if disk.held_bytes > 0 {
        row_ui(ui, p, "Held there already", &number::bytes(disk.held_bytes));
    }
    row_ui(ui, p, "A step is committed", disk.commit.label());
    let snapshot = if disk.keeps_snapshot { "kept" } else { "no room" };
    row_ui(ui, p, "Snapshot to go back to", snapshot);
    row_ui(ui, p, "Model at the end", &number::bytes(forecast.model_bytes));
    let traffic = format!("{}, {}", number::bytes(plan.read_bytes), number::bytes(plan.written_bytes));
    row_ui(ui, p, "Read, written a step", &traffic);
    let about =
        |seconds: Option<f64>| seconds.map_or_else(|| "—".to_owned(), |s| format!("about {}", number::seconds(s)));
    row_ui(ui, p, "A step, rehearsed", &about(forecast.step_seconds));
    if let Some(predict) = plan.predict {
        row_ui(ui, p, "A Predict step", &about(forecast.predict_seconds));
        row_ui(ui, p, "Its memory", &number::bytes(predict.memory_bytes));
        if let Some(bytes) = predict.gpu_bytes {
            row_ui(ui, p, "Its GPU memory", &number::bytes(bytes));
        }
    }
    let left = forecast.num_steps_left;
    row_ui(ui, p, "All steps", &about(forecast.step_seconds.map(|seconds| seconds * left as f64)));
    if !forecast.costs.is_empty() {
        expander_ui(ui, "What saves memory, and its price", |ui| {
            for cost in &forecast.costs {
                let saved = format!("{}, {:+.2} s a step", number::bytes(cost.saved_bytes), cost.seconds);
                row_ui(ui, p, &cost.measure, &saved);
            }
        });
    }
    if let Err(error) = disk.check() {
        notice_ui(ui, Severity::Error, &error.to_string(), |_| {});
    }
    match (disk.num_steps, left) {
        (0, _) => {}
        (done, 0) => {
            let message = format!("This folder has done all of its {} steps.", number::count(done));
            notice_ui(ui, Severity::Info, &message, |_| {});
        }
        (done, left) => {
            let message = format!(
                "This folder holds a training after step {}: starting goes on with its {} steps left.",
                number::count(done),
                number::count(left)
            );
            notice_ui(ui, Severity::Info, &message, |_| {});
        }
    }
    take.or(before_ui(draft, disk, ui)).or(rate_ui(draft, plan.num_params, ui))
}

/// Says when the folder's training went at another rate than the form asks for, with that one to take.
fn before_ui(draft: &Draft, disk: &DiskRoom, ui: &mut Ui) -> Option<Take> {
    let asked = draft.config.optimizer.learning_rate;
    let before = disk.peak_learning_rate.filter(|before| disk.num_steps > 0 && before.to_bits() != asked.to_bits())?;
    let message =
        format!("So far its learning rate was {before:.1e}; the form asks for {asked:.1e}, which holds from here on.");
    let is_taken =
        notice_ui(ui, Severity::Warning, &message, |ui| ui.small_button(format!("Keep {before:.1e}")).clicked());
    is_taken.then_some(Take::LearningRate(before))
}

/// Offers to time a few steps: not done unasked, because it writes to the disk.
fn rehearse_ui(ctx: &ViewCtx<'_>, job: &OffloadJob, live: &mut Live, ui: &mut Ui) {
    if live.streamed_plan.is_waiting() {
        let what = live.streamed_plan.progress().map_or("Rehearsing…", |progress| &progress.what);
        let mut is_ended = false;
        ui.horizontal(|ui| {
            ui.spinner();
            hint_ui(ui, what);
            is_ended = ui.small_button("Cancel").on_hover_text("End the rehearsal").clicked();
        });
        if is_ended {
            live.streamed_plan.end(ctx);
        }
        return;
    }
    let is_free = ctx.active_run().is_none() && !live.is_experimenting();
    let hover = "Times steps of a few layers, in the folder of blocks: some seconds, and some hundred MB for as long";
    let button = ui.add_enabled(is_free, egui::Button::new("Rehearse a step").small());
    let button = button.on_hover_text(hover).on_disabled_hover_text("It would disturb the run that goes on");
    if button.clicked() {
        let job = Box::new(job.clone());
        live.streamed_plan.ask(ctx, |id| Command::PlanOffload(id, job, Rehearsal::OfSteps));
    }
}
