//! Plots as files: a table of all values, or a picture of what is shown. Files are written on
//! their own thread, into the run's folder, each under a new name.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use egui::{ColorImage, Context, Rect};
use foretrain_engine::session::RunSnapshot;

use super::{PlotKind, RunSeries, SeriesKey, csv_of, curves_of};
use crate::theme::DARK;

/// What became of an export.
pub type ExportResult = Result<PathBuf, String>;

/// An export under way, and its result once its thread has it.
#[derive(Debug, Clone, Default)]
pub struct ExportSlot(Arc<OnceLock<ExportResult>>);

impl ExportSlot {
    /// The result, when there is one.
    #[must_use]
    pub fn result(&self) -> Option<&ExportResult> {
        self.0.get()
    }

    fn run(&self, ctx: &Context, work: impl FnOnce() -> ExportResult + Send + 'static) {
        let (slot, ctx) = (Arc::clone(&self.0), ctx.clone());
        let spawned = std::thread::Builder::new().name("plot-export".to_owned()).spawn(move || {
            // The slot is this thread's alone to fill.
            let _ = slot.set(work());
            ctx.request_repaint();
        });
        if let Err(error) = spawned {
            let _ = self.0.set(Err(format!("starting a thread for the export: {error}")));
        }
    }
}

/// Writes every value of a plot of `run` as CSV into `folder`.
pub fn export_csv(ctx: &Context, folder: &Path, kind: PlotKind, run: &Arc<RunSnapshot>) -> ExportSlot {
    let slot = ExportSlot::default();
    let (folder, run) = (folder.to_owned(), Arc::clone(run));
    slot.run(ctx, move || {
        // Made anew here: a copy of the window's curves would take as long as the run, in a frame.
        let mut series = RunSeries::default();
        series.update(SeriesKey::Job(run.job), &run.history, &run.validations, 0.0);
        // Smoothing is a way of looking; the table holds what was measured.
        let text = csv_of(&curves_of(kind, &series, &DARK, false));
        let name = kind.title().to_lowercase().replace([' ', 'ρ'], "-").trim_matches('-').to_owned();
        write_new(&folder, &name, "csv", |path| std::fs::write(path, text).map_err(|error| error.to_string()))
    });
    slot
}

/// Writes a table as CSV into `folder`; `text` makes it on the writing thread.
pub fn export_table(
    ctx: &Context,
    folder: &Path,
    name: &'static str,
    text: impl FnOnce() -> String + Send + 'static,
) -> ExportSlot {
    let slot = ExportSlot::default();
    let folder = folder.to_owned();
    slot.run(ctx, move || {
        write_new(&folder, name, "csv", |path| std::fs::write(path, text()).map_err(|error| error.to_string()))
    });
    slot
}

/// Takes a picture of the window's part `rect`, in points, as it is in view, and writes it as PNG into `folder`.
pub fn export_png(ctx: &Context, folder: &Path, rect: Rect) -> ExportSlot {
    let slot = ExportSlot::default();
    let (folder, scale, inner) = (folder.to_owned(), ctx.pixels_per_point(), slot.clone());
    let repaint = ctx.clone();
    ctx.request_screenshot(move |image| {
        inner.run(&repaint, move || write_new(&folder, "plots", "png", |path| save_png(&image, rect, scale, path)));
    });
    slot
}

/// Saves the part `rect` (points) of `image` (`scale` pixels a point).
fn save_png(image: &ColorImage, rect: Rect, scale: f32, path: &Path) -> Result<(), String> {
    let pixels = |points: f32, most: usize| ((points * scale).round().max(0.0) as usize).min(most);
    let [width, height] = image.size;
    let (left, right) = (pixels(rect.left(), width), pixels(rect.right(), width));
    let (top, bottom) = (pixels(rect.top(), height), pixels(rect.bottom(), height));
    let mut picture = image::RgbaImage::new((right - left) as u32, (bottom - top) as u32);
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        let color = image.pixels.get((top + y as usize) * width + left + x as usize);
        pixel.0 = color.map_or([0; 4], |color| color.to_srgba_unmultiplied());
    }
    picture.save(path).map_err(|error| error.to_string())
}

/// Writes `folder/name.ending`, or `name-2`, `name-3` … when that exists.
fn write_new(folder: &Path, name: &str, ending: &str, write: impl FnOnce(&Path) -> Result<(), String>) -> ExportResult {
    std::fs::create_dir_all(folder).map_err(|error| format!("making the folder for plots: {error}. {folder:?}"))?;
    let mut path = folder.join(format!("{name}.{ending}"));
    let mut number = 2;
    while path.exists() {
        path = folder.join(format!("{name}-{number}.{ending}"));
        number += 1;
    }
    write(&path).map_err(|error| format!("writing a plot: {error}. {path:?}"))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_never_written_over() -> Result<(), String> {
        let folder = std::env::temp_dir().join(format!("foretrain-plots-{}", std::process::id()));
        let write = |text: &'static str| {
            write_new(&folder, "loss", "csv", |path| std::fs::write(path, text).map_err(|error| error.to_string()))
        };
        let (first, second) = (write("a")?, write("b")?);
        assert_ne!(first, second);
        assert_eq!(std::fs::read_to_string(first).ok().as_deref(), Some("a"));
        std::fs::remove_dir_all(&folder).map_err(|error| error.to_string())
    }
}
