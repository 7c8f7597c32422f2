//! Where the time goes: phases, and below each what its steps were busy with, as measured.

use egui::{Align, Color32, Layout, RichText, Ui};
use foretrain_engine::device::ComputeDevice;
use foretrain_engine::session::{Operation, RunPart, RunTimes};

use crate::theme::{Palette, font, palette, phase_color, phase_label, space};
use crate::widgets::{Flame, Segment, hint_ui, number, swatch_ui};

/// Shares below this stand in the bar, and under the pointer, but not in the list.
const LEAST_LISTED: f64 = 0.005;

/// Shows it; there is time to show.
pub(super) fn flames_ui(times: &RunTimes, device: ComputeDevice, is_on_disk: bool, ui: &mut Ui) {
    ui.spacing_mut().item_spacing.y = 3.0;
    ui.spacing_mut().interact_size.y = 18.0;
    let p = palette(ui);
    let total = times.total_ms();
    let used: Vec<RunPart> = RunPart::ALL.into_iter().filter(|part| times.part_ms(*part) > 0.0).collect();
    let flames: Vec<Flame> = used.iter().map(|part| flame(p, times, *part)).collect();
    crate::widgets::flames_ui(ui, "Shares of the time by phase and by operation", &flames);
    let phases = used.iter().map(|part| Listed {
        name: part_label(*part),
        about: part_about(*part),
        share: times.part_ms(*part) / total,
        color: part_color(p, *part),
    });
    phases_ui(ui, phases);
    let mut operations = times.operations();
    operations.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    if operations.is_empty() {
        let why = match device {
            _ if is_on_disk => "Operations are not timed while weights lie on disk.",
            ComputeDevice::Cpu | ComputeDevice::Auto => "Operations are timed in one of 20 steps: none yet.",
            ComputeDevice::Cuda(_) => "Operations are timed on the processor only.",
        };
        hint_ui(ui, why);
        return;
    }
    let listed = operations.into_iter().map(|(operation, share)| Listed {
        name: operation.label(),
        about: operation.about(),
        share,
        color: operation_color(p, operation),
    });
    operations_ui(ui, listed);
    let num_sampled = times.num_sampled();
    let steps = if num_sampled == 1 { "step" } else { "steps" };
    hint_ui(ui, &format!("Operations: measured in {} sampled {steps}", number::count(num_sampled)));
}

fn flame(p: &Palette, times: &RunTimes, part: RunPart) -> Flame {
    let (ms, total) = (times.part_ms(part), times.total_ms());
    let name = part_label(part);
    let parts = times.operations_of(part).into_iter().map(|(operation, share)| {
        let segment = Segment {
            name: format!(
                "{} in {name}: {} of its steps' time, about {}\n{}",
                operation.label(),
                number::percent(share),
                number::seconds(share * ms / 1e3),
                operation.about()
            ),
            amount: share,
            color: operation_color(p, operation),
        };
        (segment, operation.label().to_owned())
    });
    Flame {
        segment: Segment {
            name: format!(
                "{name}: {} of the time, {}\n{}",
                number::percent(ms / total),
                number::seconds(ms / 1e3),
                part_about(part)
            ),
            amount: ms,
            color: part_color(p, part),
        },
        label: name.to_owned(),
        parts: parts.collect(),
    }
}

/// A line of a list.
struct Listed {
    name: &'static str,
    about: &'static str,
    share: f64,
    color: Color32,
}

impl Listed {
    fn is_listed(&self) -> bool {
        self.share >= LEAST_LISTED
    }
}

/// In two columns: short names.
fn phases_ui(ui: &mut Ui, lines: impl Iterator<Item = Listed>) {
    title_ui(ui, "Time by phase");
    egui::Grid::new("time by phase").num_columns(2).spacing([space::MD, 2.0]).show(ui, |ui| {
        for (index, line) in lines.filter(Listed::is_listed).enumerate() {
            let row = ui.horizontal(|ui| {
                ui.spacing_mut().item_spacing.x = space::XS;
                swatch_ui(ui, line.color);
                small_ui(ui, &format!("{} {}", line.name, number::percent(line.share)));
            });
            row.response.on_hover_text(line.about);
            if index % 2 == 1 {
                ui.end_row();
            }
        }
    });
}

/// A line for each, its share at the right.
fn operations_ui(ui: &mut Ui, lines: impl Iterator<Item = Listed>) {
    title_ui(ui, "Time of all threads in steps");
    for line in lines.filter(Listed::is_listed) {
        let row = ui.horizontal(|ui| {
            ui.spacing_mut().item_spacing.x = space::XS;
            swatch_ui(ui, line.color);
            small_ui(ui, line.name);
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| small_ui(ui, &number::percent(line.share)));
        });
        row.response.on_hover_text(line.about);
    }
}

fn title_ui(ui: &mut Ui, title: &str) {
    ui.add_space(space::XS);
    ui.label(RichText::new(title).size(font::SMALL + 0.5).color(palette(ui).text_weak));
}

fn small_ui(ui: &mut Ui, text: &str) {
    ui.label(RichText::new(text).size(font::SMALL).color(palette(ui).text));
}

fn part_label(part: RunPart) -> &'static str {
    match part {
        RunPart::Steps(phase) => phase_label(phase),
        RunPart::Validation => "Validation",
        RunPart::Between => "Other",
    }
}

fn part_about(part: RunPart) -> &'static str {
    match part {
        RunPart::Steps(_) => "Steps in this phase, from the batch to the update.",
        RunPart::Validation => "Measuring on the validation part.",
        RunPart::Between => "Between steps: checkpoints, samples, records. Pauses are left out.",
    }
}

fn part_color(p: &Palette, part: RunPart) -> Color32 {
    match part {
        RunPart::Steps(phase) => phase_color(p, phase),
        RunPart::Validation => p.validation,
        RunPart::Between => p.border_strong,
    }
}

/// The largest take colors that no phase has. No network has both attention and convolutions, or both embeddings and pooling:
/// these share a color.
fn operation_color(p: &Palette, operation: Operation) -> Color32 {
    match operation {
        Operation::MatrixProducts => p.series[7],
        Operation::Attention | Operation::Convolutions => p.series[6],
        Operation::Embeddings | Operation::Pooling => p.series[5],
        Operation::Activations => p.series[4],
        Operation::Norms => p.series[2],
        Operation::Optimizer => p.series[3],
        Operation::Loss => p.series[1],
        Operation::Data => p.series[0],
        Operation::Decisions => p.text_weak,
        Operation::Other => p.border_strong,
    }
}
