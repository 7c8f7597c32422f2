//! Settings: what holds for all runs.

use egui::{DragValue, RichText, ScrollArea, Ui};
use foretrain_engine::device::{ComputeDevice, Gpu};

use super::{ViewCtx, status_text};
use crate::dialogs::PickKind;
use crate::folders;
use crate::state::{Live, Machine, Saved, Settings};
use crate::theme::{ThemeChoice, palette, space};
use crate::widgets::{
    CheckLabel, Icon, PathField, card_ui, combo_ui, field_ui, hint_ui, icon_text_button_ui, number, path_field_ui,
};

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// Shows the screen.
pub fn settings_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &Live, ui: &mut Ui) {
    ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
        egui::Frame::new().inner_margin(space::LG).show(ui, |ui| {
            ui.set_max_width(ui.available_width().min(720.0));
            ui.spacing_mut().item_spacing.y = space::MD;
            ui.heading("Settings");
            appearance_ui(saved, ui);
            runs_ui(ctx, saved, ui);
            machine_ui(saved, &live.machine, ui);
            diagnostics_ui(ctx, saved, live, ui);
        });
    });
}

fn appearance_ui(saved: &mut Saved, ui: &mut Ui) {
    card_ui(ui, "Appearance", |ui| {
        field_ui(ui, "Theme", |ui| {
            for choice in ThemeChoice::ALL {
                ui.selectable_value(&mut saved.settings.theme, choice, choice.label());
            }
        });
        field_ui(ui, "Scale", |ui| {
            for percent in Settings::SCALES_PERCENT {
                let scale = f32::from(percent) / 100.0;
                let is_current = (saved.settings.ui_scale - scale).abs() < 0.001;
                if ui.selectable_label(is_current, format!("{percent}%")).clicked() {
                    saved.settings.ui_scale = scale;
                }
            }
        });
        CheckLabel { text: "Show expert options", hover: "Every field of a recipe, and every number of a tier." }
            .show(ui, &mut saved.settings.is_expert);
    });
}

fn runs_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, ui: &mut Ui) {
    card_ui(ui, "Runs", |ui| {
        let default = folders::default_runs().display().to_string();
        field_ui(ui, "Folder", |ui| {
            let field =
                PathField { salt: "runs-folder", what: "the folder for runs", kind: PickKind::Folder, hint: &default };
            path_field_ui(ui, ctx.dialogs, field, &mut saved.settings.runs_folder);
        });
        hint_ui(ui, "Each run makes a new folder here; none is ever written over. Empty takes the place shown.");
    });
}

fn machine_ui(saved: &mut Saved, machine: &Machine, ui: &mut Ui) {
    let (settings, all) = (&mut saved.settings, machine.num_threads);
    card_ui(ui, "Machine", |ui| {
        field_ui(ui, "Threads", |ui| {
            let name =
                move |threads: f64, _| if threads < 1.0 { format!("All {all}") } else { format!("{threads:.0}") };
            ui.add(DragValue::new(&mut settings.num_threads).range(0..=all * 2).speed(0.05).custom_formatter(name));
        });
        hint_ui(
            ui,
            "A seed gives the same run bit for bit on one number of threads. A change takes effect at the next run; a \
             run that is resumed keeps its own.",
        );
        field_ui(ui, "Memory budget", |ui| {
            let mut gib = settings.memory_budget_bytes as f64 / GIB;
            let name =
                |gib: f64, _| if gib < 0.05 { "80% of this machine's".to_owned() } else { format!("{gib:.1} GiB") };
            let drag = DragValue::new(&mut gib).range(0.0..=65_536.0).speed(0.1).custom_formatter(name);
            if ui.add(drag).changed() {
                settings.memory_budget_bytes = (gib * GIB) as u64;
            }
        });
        hint_ui(ui, "A run that would need more is refused before it allocates anything.");
        device_ui(settings, &machine.gpus, ui);
    });
}

/// Where runs compute. Without a GPU to choose, the reason stands below, and only a choice that came from elsewhere can
/// still be taken back.
fn device_ui(settings: &mut Settings, gpus: &Result<Vec<Gpu>, String>, ui: &mut Ui) {
    let can_choose = gpus.as_ref().is_ok_and(|gpus| !gpus.is_empty());
    let known = gpus.as_deref().unwrap_or_default();
    let name = |device: ComputeDevice| match device {
        ComputeDevice::Cpu => "Processor".to_owned(),
        ComputeDevice::Auto => "Automatic: a GPU with room, else the processor".to_owned(),
        ComputeDevice::Cuda(index) => known.iter().find(|gpu| gpu.index == index).map_or_else(
            || format!("GPU {index}, which is not there"),
            |gpu| format!("{gpu}, {}", number::bytes(gpu.total_bytes)),
        ),
    };
    field_ui(ui, "Compute on", |ui| {
        ui.add_enabled_ui(can_choose || settings.device != ComputeDevice::Cpu, |ui| {
            combo_ui(ui, "device", name(settings.device), |ui| {
                let mut choices = vec![ComputeDevice::Cpu];
                if can_choose {
                    choices.push(ComputeDevice::Auto);
                    choices.extend(known.iter().map(|gpu| ComputeDevice::Cuda(gpu.index)));
                }
                for choice in choices {
                    ui.selectable_value(&mut settings.device, choice, name(choice));
                }
            });
        });
    });
    match gpus {
        Ok(gpus) if gpus.is_empty() => hint_ui(ui, "No GPU: the driver knows of none."),
        Ok(_) => hint_ui(ui, "Takes effect at the next run. Results on a GPU are not the same bit for bit."),
        Err(why) => hint_ui(ui, &format!("No GPU: {why}.")),
    };
    if settings.device == ComputeDevice::Cpu {
        return;
    }
    field_ui(ui, "GPU limit", |ui| {
        let mut gib = settings.vram_limit_bytes as f64 / GIB;
        let name = |gib: f64, _| if gib < 0.05 { "What is free".to_owned() } else { format!("{gib:.1} GiB") };
        if ui.add(DragValue::new(&mut gib).range(0.0..=65_536.0).speed(0.1).custom_formatter(name)).changed() {
            settings.vram_limit_bytes = (gib * GIB) as u64;
        }
    });
    hint_ui(ui, "A run that would need more is refused; one that takes more all the same is saved and ends.");
}

fn diagnostics_ui(ctx: &ViewCtx<'_>, saved: &Saved, live: &Live, ui: &mut Ui) {
    card_ui(ui, "Diagnostics", |ui| {
        let text = diagnostics(ctx, saved, live);
        ui.label(RichText::new(&text).monospace().color(palette(ui).text_weak));
        ui.add_space(space::XS);
        if icon_text_button_ui(ui, Icon::Copy, "Copy diagnostics").clicked() {
            ui.ctx().copy_text(text);
        }
    });
}

/// What a bug report needs; no names of files but the runs folder.
fn diagnostics(ctx: &ViewCtx<'_>, saved: &Saved, live: &Live) -> String {
    let cores = live.machine.num_threads;
    let mut lines = vec![
        format!("Foretrain {}", env!("CARGO_PKG_VERSION")),
        format!("{} {}, {cores} cores", std::env::consts::OS, std::env::consts::ARCH),
        format!("runs in {}", saved.settings.runs_folder_path().display()),
        format!("{} recipes, {} tiers", ctx.catalog.recipes.len(), ctx.catalog.tiers.len()),
    ];
    lines.extend(ctx.catalog.problems.iter().map(|problem| format!("problem: {problem}")));
    if let Some(rate) = live.frames.latest() {
        lines.push(format!("window: {rate}"));
    }
    if let Some(gauges) = live.snapshot.as_ref().and_then(|run| run.gauges.as_ref()) {
        lines.push(format!(
            "memory: process {}, machine {} of {}",
            number::bytes(gauges.process_bytes),
            number::bytes(gauges.system_used_bytes),
            number::bytes(gauges.system_total_bytes)
        ));
        lines.extend(gauges.gpus.iter().map(|gpu| format!("GPU: {}, {}", gpu.name, number::bytes(gpu.total_bytes))));
    }
    if let Some(run) = &live.snapshot {
        let state = status_text(&run.status);
        lines.push(format!("last run: step {} of {}, {state}", run.step, run.config.num_steps));
    }
    lines.join("\n")
}
