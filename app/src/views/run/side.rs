//! Gauges and the savings card.

use egui::{Color32, Frame, Margin, RichText, ScrollArea, Ui};
use foretrain_engine::device::{ComputeDevice, GaugeReading};
use foretrain_engine::session::{DiskTraffic, RunSnapshot, RunStatus, ValidationFigures, ValidationPoint};

use super::{flames, forecasts, needs, savings};
use crate::state::{Live, is_active};
use crate::theme::{Palette, font, palette, space};
use crate::views::ViewCtx;
use crate::widgets::{card_ui, hint_ui, meter_of_parts_ui, number, stat_ui, swatch_ui};

/// Shows the panel.
pub fn side_ui(ctx: &ViewCtx<'_>, live: &Live, ui: &mut Ui) {
    ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
        Frame::new().inner_margin(Margin::same(space::MD as i8)).show(ui, |ui| {
            ui.spacing_mut().item_spacing.y = space::SM;
            card_ui(ui, "Savings", |ui| savings::savings_ui(ctx.snapshot.as_deref(), ui));
            if let Some(run) = ctx.snapshot.as_deref().filter(|_| live.run.series.times.total_ms() > 0.0) {
                let device = run.config.device;
                let is_on_disk = run.disk.is_some();
                let flames = |ui: &mut Ui| flames::flames_ui(&live.run.series.times, device, is_on_disk, ui);
                card_ui(ui, "Where the time goes", flames);
            }
            if let Some(disk) = ctx.snapshot.as_ref().and_then(|run| run.disk) {
                card_ui(ui, "Disk", |ui| disk_ui(&disk, ui));
            }
            card_ui(ui, "Validation", |ui| validation_ui(ctx.snapshot.as_deref(), ui));
            let has_forecasts = !live.run.series.forecast.is_empty();
            if has_forecasts {
                card_ui(ui, "Forecasts", |ui| forecasts::forecasts_ui(&live.run.series.reliability, ui));
            }
            card_ui(ui, "Memory and load", |ui| gauges_ui(ctx.snapshot.as_deref(), ui));
            if let Some(plan) = ctx.snapshot.as_ref().and_then(|run| run.plan.clone()) {
                card_ui(ui, "Estimate for this run", |ui| needs::plan_ui(&plan, needs::Offers::InWords, ui));
            }
            if let Some(plan) = ctx.snapshot.as_ref().and_then(|run| run.gpu_plan.clone()) {
                card_ui(ui, "Estimate for the GPU", |ui| needs::gpu_plan_ui(&plan, ui));
            }
            if let Some(run) = &ctx.snapshot {
                card_ui(ui, "This run", |ui| facts_ui(run, live, ui));
            }
        });
    });
}

/// What the disk did in a step, in the mean.
fn disk_ui(disk: &DiskTraffic, ui: &mut Ui) {
    let p = palette(ui);
    if disk.num_steps == 0 {
        hint_ui(ui, "No step yet.");
        return;
    }
    let share = disk.wait_seconds / disk.seconds.max(f64::MIN_POSITIVE);
    stat_ui(ui, "Waited for the disk", &number::percent(share), p.text_strong, "of the steps' time");
    ui.add_space(space::XS);
    pair_ui(ui, p, "Read a step", &number::bytes(disk.read_bytes / disk.num_steps));
    pair_ui(ui, p, "Written a step", &number::bytes(disk.written_bytes / disk.num_steps));
    pair_ui(ui, p, "Steps are committed", disk.commit.label());
    pair_ui(ui, p, "Snapshot to go back to", if disk.keeps_snapshot { "kept" } else { "no room" });
}

fn validation_ui(run: Option<&RunSnapshot>, ui: &mut Ui) {
    let p = palette(ui);
    let points = run.map_or(&[][..], |run| &run.validations);
    let Some(last) = points.last() else {
        stat_ui(ui, "Validation loss", "—", p.text_weak, "Not measured yet");
        return;
    };
    // What ships leads: quantized weights once the network computes with those alone.
    let is_quantized = ships_quantized(last);
    let of_weights = match last.quantized {
        Some(quantized) if is_quantized => format!(", {}", quantized.scheme.label()),
        Some(_) => ", full precision".to_owned(),
        None => String::new(),
    };
    let lead = last.on_curve();
    let alike = points.iter().filter(|point| ships_quantized(point) == is_quantized);
    let losses = alike.map(|point| point.on_curve().loss);
    let best = losses.filter(|loss| loss.is_finite()).fold(f64::INFINITY, f64::min);
    let below = format!("nats, at step {}; lowest {}", number::count(last.step), number::value(best));
    stat_ui(ui, &format!("Validation loss{of_weights}"), &number::value(lead.loss), p.text_strong, &below);
    if let Some(accuracy) = lead.accuracy {
        ui.add_space(space::XS);
        let below = format!("of {} images", number::count(lead.num_examples));
        stat_ui(ui, &format!("Accuracy{of_weights}"), &format!("{:.2}%", accuracy * 100.0), p.text_strong, &below);
    }
    let whole = last.quantized.filter(|_| is_quantized).map_or(last.whole, |quantized| quantized.whole);
    if let Some(whole) = whole {
        ui.add_space(space::XS);
        let name = format!("On all {}{of_weights}", number::count(whole.num_examples));
        stat_ui(ui, &name, &figures_text(whole), p.text_strong, "measured at the end");
    }
    other_weights_ui(last, ui);
}

/// True when quantized weights are what a package is made of.
fn ships_quantized(point: &ValidationPoint) -> bool {
    point.quantized.is_some_and(|quantized| quantized.strength >= 1.0)
}

/// In quantization-aware training: the weights that do not ship at this step, in a line.
fn other_weights_ui(point: &ValidationPoint, ui: &mut Ui) {
    let Some(quantized) = point.quantized else { return };
    let p = palette(ui);
    let full = ValidationFigures { loss: point.loss, accuracy: point.accuracy, num_examples: point.num_examples };
    let (name, on_curve, whole, about) = if ships_quantized(point) {
        let about = "The weights that go on learning. They do not ship: the quantized ones do.";
        ("In full precision".to_owned(), full, point.whole, about)
    } else {
        let about = "The same weights quantized, at a step that does not compute with those alone yet.";
        (format!("As {} by now", quantized.scheme.label()), quantized.curve, quantized.whole, about)
    };
    ui.add_space(space::XS);
    let row = ui.scope(|ui| {
        ui.spacing_mut().interact_size.y = 18.0;
        pair_ui(ui, p, &name, &figures_text(on_curve));
    });
    let whole = whole.map_or_else(String::new, |whole| {
        format!("\nOn all {}: {}.", number::count(whole.num_examples), figures_text(whole))
    });
    row.response.on_hover_text(format!("{about}{whole}"));
}

/// Loss and, for images, accuracy.
fn figures_text(figures: ValidationFigures) -> String {
    let accuracy = figures.accuracy.map_or_else(String::new, |share| format!(", {:.2}%", share * 100.0));
    format!("{}{accuracy}", number::value(figures.loss))
}

fn gauges_ui(run: Option<&RunSnapshot>, ui: &mut Ui) {
    let Some(run) = run else {
        hint_ui(ui, "Shown while a run goes on.");
        return;
    };
    let Some(gauges) = &run.gauges else {
        let p = palette(ui);
        for name in ["This program", "Machine memory", "Processor load"] {
            pair_ui(ui, p, name, "—");
        }
        return;
    };
    readings_ui(run, gauges, ui);
    if !is_active(&run.status) {
        hint_ui(ui, "As measured at the end of the run.");
    }
}

fn readings_ui(run: &RunSnapshot, gauges: &GaugeReading, ui: &mut Ui) {
    let p = palette(ui);
    for gpu in &gauges.gpus {
        hint_ui(ui, &gpu.name);
        let share = ratio(gpu.used_bytes, gpu.total_bytes);
        let index = gpu.index;
        let text = format!("{} of {}", number::bytes(gpu.used_bytes), number::bytes(gpu.total_bytes));
        let limit = Some(run.config.vram_limit_bytes).filter(|_| run.config.device == ComputeDevice::Cuda(index));
        // Where this program comes to its limit, others staying as they are.
        let mark = limit.filter(|limit| *limit > 0).map(|limit| ratio(gpu.others_bytes() + limit, gpu.total_bytes));
        gauge_ui(ui, p, &format!("GPU {index} memory"), share, &text, mark);
        pair_ui(ui, p, "This program", &number::bytes(gpu.own_bytes));
        pair_ui(ui, p, "Others", &number::bytes(gpu.others_bytes()));
        let plan = run.gpu_plan.as_ref().or(run.plan.as_ref());
        if let Some(plan) = plan.filter(|_| run.config.device == ComputeDevice::Cuda(index)) {
            pair_ui(ui, p, "Planned for the run", &number::bytes(plan.total_bytes()));
        }
        load_ui(ui, p, &format!("GPU {index} load"), gpu.load);
        if let Some(celsius) = gpu.temperature_c {
            pair_ui(ui, p, "Temperature", &format!("{celsius} °C"));
        }
        if let Some(watts) = gpu.power_w {
            pair_ui(ui, p, "Power", &format!("{watts:.0} W"));
        }
    }
    program_ui(run, gauges, ui);
    let text = format!("{} of {}", number::bytes(gauges.system_used_bytes), number::bytes(gauges.system_total_bytes));
    gauge_ui(ui, p, "Machine memory", ratio(gauges.system_used_bytes, gauges.system_total_bytes), &text, None);
    load_ui(ui, p, "Processor load", gauges.cpu_load);
}

/// What a run did not take: said wherever its memory is shown beside the estimate.
const BEFORE: &str = "Measured right before the run began: this program with its window and graphics driver, and data \
    that was loaded already. No part of the estimate.";

/// What a run took: what came on top since it began.
const SINCE: &str = "What this program has taken since the run began: this is what the estimate is about. The window, \
    whose plots grow with the run, has a small part in it that is not measured apart.";

/// The memory of this program: what the run took and what was there before, as far as that was measured.
fn program_ui(run: &RunSnapshot, gauges: &GaugeReading, ui: &mut Ui) {
    let p = palette(ui);
    // The plan of a run on a GPU is about the GPU's memory, unless weights lie on disk.
    let plan = run.plan.as_ref().filter(|_| run.config.device == ComputeDevice::Cpu || run.gpu_plan.is_some());
    let budget = plan.map_or(gauges.system_total_bytes, |plan| plan.budget_bytes);
    let estimate = plan.map(|plan| plan.total_bytes());
    let mark = estimate.map(|bytes| ratio(bytes, budget));
    let text = format!("{} of {}", number::bytes(gauges.process_bytes), number::bytes(budget));
    let color = fullness_color(p, ratio(gauges.process_bytes, budget));
    // It may have given back some of what it held.
    let before = run.memory_before_bytes.map(|before| before.min(gauges.process_bytes));
    let own = gauges.process_bytes - before.unwrap_or(0);
    let parts = match before {
        Some(before) => vec![(ratio(own, budget), color), (ratio(before, budget), p.text_weak)],
        None => vec![(ratio(own, budget), color)],
    };
    bar_of_parts_ui(ui, "This program", &parts, &text, mark);
    if let Some(before) = before {
        ui.spacing_mut().interact_size.y = 16.0;
        part_ui(ui, color, "This run", &number::bytes(own), SINCE);
        part_ui(ui, p.text_weak, "Before it: program, window", &number::bytes(before), BEFORE);
    }
    if let Some(estimate) = estimate {
        let (estimate, peak) = (number::bytes(estimate), number::bytes(gauges.process_peak_bytes));
        let whole =
            if before.is_some() { "" } else { " The bar holds the window, too, which the estimate leaves out." };
        let text =
            format!("The mark is the estimate for the run alone, {estimate}. Peak of the program: {peak}.{whole}");
        hint_ui(ui, &text);
    }
}

/// A part of a bar: its color, name and size.
fn part_ui(ui: &mut Ui, color: Color32, name: &str, value: &str, about: &str) {
    let p = palette(ui);
    let row = ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = space::XS;
        swatch_ui(ui, color);
        pair_ui(ui, p, name, value);
    });
    row.response.on_hover_text(about);
}

fn ratio(part: u64, whole: u64) -> f32 {
    if whole == 0 { 0.0 } else { part as f32 / whole as f32 }
}

/// A full load is what training wants: no warning color.
fn load_ui(ui: &mut Ui, p: &Palette, name: &str, share: f32) {
    bar_ui(ui, name, share, &number::percent(share.into()), None, p.measured);
}

/// A memory gauge, which warns when it is nearly full.
fn gauge_ui(ui: &mut Ui, p: &Palette, name: &str, share: f32, text: &str, mark: Option<f32>) {
    bar_ui(ui, name, share, text, mark, fullness_color(p, share));
}

fn fullness_color(p: &Palette, share: f32) -> Color32 {
    if share > 0.95 {
        p.bad
    } else if share > 0.8 {
        p.warn
    } else {
        p.measured
    }
}

fn bar_ui(ui: &mut Ui, name: &str, share: f32, text: &str, mark: Option<f32>, color: Color32) {
    bar_of_parts_ui(ui, name, &[(share, color)], text, mark);
}

fn bar_of_parts_ui(ui: &mut Ui, name: &str, parts: &[(f32, Color32)], text: &str, mark: Option<f32>) {
    let p = palette(ui);
    ui.vertical(|ui| {
        ui.spacing_mut().item_spacing.y = 3.0;
        ui.spacing_mut().interact_size.y = 18.0;
        pair_ui(ui, p, name, text);
        meter_of_parts_ui(ui, name, parts, mark);
    });
}

/// A name at the left, its value at the right.
fn pair_ui(ui: &mut Ui, p: &Palette, name: &str, value: &str) {
    ui.horizontal(|ui| {
        ui.label(RichText::new(name).size(font::SMALL + 0.5).color(p.text_weak));
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            ui.add(egui::Label::new(RichText::new(value).size(font::SMALL + 0.5).color(p.text)).truncate());
        });
    });
}

fn facts_ui(run: &RunSnapshot, live: &Live, ui: &mut Ui) {
    let p = palette(ui);
    ui.spacing_mut().item_spacing.y = 2.0;
    ui.spacing_mut().interact_size.y = 18.0;
    let mut row = |name: &str, value: String| pair_ui(ui, p, name, &value);
    row("Parameters", number::count(run.num_params));
    row("Tier", run.config.tier.clone());
    row("Batch", number::count(run.config.batch_size as u64));
    if let Some(last) = run.history.last() {
        row("Learning rate", number::value(last.learning_rate.into()));
        row("Step", number::milliseconds(last.step_ms.into()));
    }
    if let Some((_, rate)) = live.run.series.throughput.last() {
        row("Examples a second", number::short_count(rate.into()));
    }
    row("Divergences", number::count(run.num_divergences()));
    let state = match &run.status {
        RunStatus::Preparing { what } => what.clone(),
        RunStatus::Training => "Training".to_owned(),
        RunStatus::Validating => "Validating".to_owned(),
        RunStatus::Paused => "Paused".to_owned(),
        RunStatus::Unsaved { .. } => "Not saved".to_owned(),
        RunStatus::Ended(_) => "Ended".to_owned(),
    };
    row("State", state);
    if let Some(folder) = &run.folder {
        let name = folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        ui.add(egui::Label::new(RichText::new(name).size(font::SMALL).color(p.text_weak)).truncate())
            .on_hover_text(folder.display().to_string());
        if ui.small_button("Copy folder's path").clicked() {
            ui.ctx().copy_text(folder.display().to_string());
        }
    }
}
