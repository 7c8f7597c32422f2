//! Opens the window.

use std::sync::Arc;

use anyhow::{Context, bail};
use foretrain_engine::session::{Engine, Wake};

use crate::app::App;
use crate::link::EngineLink;
use crate::state::{Catalog, Machine};
use crate::{background, folders};

/// Least width and height, points: panels fold down to it.
const MIN_SIZE: [f32; 2] = [720.0, 480.0];

/// How to open it.
#[derive(Debug, Clone, Default)]
pub struct WindowOptions {
    /// Width and height in points; `None` takes what was used last.
    pub size: Option<(f32, f32)>,
}

/// What a window needs where it cannot open.
const NEEDS: &str = "\
The window needs a display (X11 or Wayland) and a Vulkan or OpenGL driver. On Debian or Ubuntu:
  sudo apt install libxkbcommon-x11-0 libwayland-client0 libgl1 mesa-vulkan-drivers
and, for file dialogs, xdg-desktop-portal or zenity.
Without a display, `foretrain demo` trains, quantizes and exports in the terminal; `foretrain --help` lists the rest.";

/// Shows the window until it is closed.
/// Errors: no display, no graphics driver, or no thread for the engine; the message says what to do.
pub fn run_window(options: &WindowOptions) -> anyhow::Result<()> {
    if !has_display() {
        bail!("opening the window: no display found (neither DISPLAY nor WAYLAND_DISPLAY is set).\n{NEEDS}");
    }
    let mut viewport = egui::ViewportBuilder::default()
        .with_title("Foretrain")
        .with_app_id("foretrain")
        .with_min_inner_size(MIN_SIZE)
        .with_icon(Arc::new(icon()));
    let (width, height) = options.size.unwrap_or((1480.0, 920.0));
    viewport = viewport.with_inner_size([width, height]);
    let native = eframe::NativeOptions {
        viewport,
        renderer: eframe::Renderer::Wgpu,
        persist_window: options.size.is_none(),
        ..Default::default()
    };
    let created = eframe::run_native(
        "foretrain",
        native,
        Box::new(|creation| {
            let ctx = creation.egui_ctx.clone();
            let wake: Wake = Arc::new(move || ctx.request_repaint());
            let engine = background::start(move || Engine::spawn(wake, folders::cache()))??;
            let app = App::new(&creation.egui_ctx, creation.storage, EngineLink::new(engine), Catalog::load());
            Ok(Box::new(app.with_machine(Machine::read())))
        }),
    );
    created.map_err(|error| anyhow::anyhow!("{error}")).with_context(|| format!("opening the window.\n{NEEDS}"))
}

#[cfg(all(unix, not(target_os = "macos")))]
fn has_display() -> bool {
    ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

#[cfg(not(all(unix, not(target_os = "macos"))))]
fn has_display() -> bool {
    true
}

/// The application icon.
const ICON_PNG: &[u8] = include_bytes!("../../assets/icon-256.png");

/// The icon's pixels; none when the picture cannot be read, because a window without one is still a window.
fn icon() -> egui::IconData {
    eframe::icon_data::from_png_bytes(ICON_PNG).unwrap_or_else(|error| {
        tracing::warn!("reading the built-in icon: {error}");
        egui::IconData::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_icon_can_be_read() {
        let icon = icon();
        assert_eq!((icon.width, icon.height), (256, 256));
    }
}
