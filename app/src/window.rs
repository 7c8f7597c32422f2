//! Opens the window.

use std::sync::Arc;

use anyhow::{Context, bail};
use foretrain_engine::session::Engine;

use crate::app::App;
use crate::link::EngineLink;
use crate::state::Catalog;

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
        .with_min_inner_size([1024.0, 680.0])
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
            let engine = Engine::spawn(Arc::new(move || ctx.request_repaint()), crate::folders::cache())?;
            let app = App::new(&creation.egui_ctx, creation.storage, EngineLink::new(engine), Catalog::load());
            Ok(Box::new(app))
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

/// A falling curve that goes on as a forecast: drawn here, so that no image file is needed.
fn icon() -> egui::IconData {
    const SIDE: usize = 64;
    let mut rgba = Vec::with_capacity(SIDE * SIDE * 4);
    for y in 0..SIDE {
        for x in 0..SIDE {
            let (u, v) = (x as f32 / SIDE as f32, y as f32 / SIDE as f32);
            let curve = 0.78 - 0.6 * (-3.2 * u).exp();
            let is_forecast = u > 0.58;
            let is_dash = !is_forecast || ((u - 0.58) * 14.0).fract() < 0.6;
            let distance = (v - curve).abs();
            let corner = (u - 0.5).abs().max((v - 0.5).abs());
            let color: [u8; 4] = if corner > 0.48 {
                [0, 0, 0, 0]
            } else if distance < 0.045 && is_dash && (0.1..0.9).contains(&u) {
                if is_forecast { [0xf0, 0xa6, 0x30, 0xff] } else { [0x5a, 0xa9, 0xf0, 0xff] }
            } else {
                [0x13, 0x17, 0x1e, 0xff]
            };
            rgba.extend(color);
        }
    }
    egui::IconData { rgba, width: SIDE as u32, height: SIDE as u32 }
}
