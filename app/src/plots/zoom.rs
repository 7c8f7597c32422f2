//! How a plot is zoomed beyond what `egui_plot` does by itself: a range of x by a right drag, y by a drag of its axis.
//!
//! Invariant: y fits what is in view until the user drags the y axis; x is that of all linked plots.

use egui::emath::GuiRounding;
use egui::{CursorIcon, Id, PointerButton, Rect, Sense, Stroke, Ui, Vec2b, WidgetInfo, pos2};
use egui_plot::{PlotTransform, PlotUi};

use crate::theme::{Palette, size};

/// Shorter drags are clicks with an unsteady hand, pixels.
const LEAST_DRAG: f32 = 4.0;

/// Zoom of y for each pixel that its axis is dragged.
const ZOOM_A_PIXEL: f64 = 0.01;

/// What is remembered of a plot from frame to frame.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    /// y as the user zoomed it; `None` fits it to what is in view.
    y: Option<(f64, f64)>,
    /// Where a drag over a range of x began.
    from_x: Option<f64>,
}

/// The zoom of one plot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Zoom {
    id: Id,
}

impl Zoom {
    /// Of the plot called `title` of the group `link`; on another scale y is another.
    pub(super) fn of(link: Id, title: &str, is_log: bool) -> Self {
        Self { id: link.with(("zoom", title, is_log)) }
    }

    /// The values that the user zoomed to, lowest and highest; `None` where y fits what is in view.
    pub(super) fn y(self, ctx: &egui::Context) -> Option<(f64, f64)> {
        self.load(ctx).y
    }

    fn load(self, ctx: &egui::Context) -> Held {
        ctx.data(|data| data.get_temp(self.id)).unwrap_or_default()
    }

    fn store(self, ctx: &egui::Context, held: Held) {
        ctx.data_mut(|data| data.insert_temp(self.id, held));
    }

    /// Takes what the pointer does on the plot; `is_reset` shows everything again.
    pub(super) fn build(self, plot_ui: &mut PlotUi<'_>, is_reset: bool) {
        let ctx = plot_ui.ctx().clone();
        let mut held = self.load(&ctx);
        let response = plot_ui.response().clone();
        if is_reset || response.double_clicked() {
            held = Held::default();
        }
        match held.y {
            Some((low, high)) => plot_ui.set_plot_bounds_y(low..=high),
            None if !plot_ui.auto_bounds().y => {
                let x = plot_ui.auto_bounds().x;
                plot_ui.set_auto_bounds(Vec2b::new(x, true));
            }
            None => {}
        }
        held.from_x = self.select_x(plot_ui, held.from_x);
        // A wheel that goes sideways, or one held with Shift.
        let scrolled = ctx.input(|input| input.smooth_scroll_delta.x);
        if scrolled != 0.0 && response.contains_pointer() {
            let bounds = plot_ui.plot_bounds();
            let by = -f64::from(scrolled) / plot_ui.transform().dpos_dvalue_x();
            plot_ui.set_plot_bounds_x(bounds.min()[0] + by..=bounds.max()[0] + by);
        }
        self.store(&ctx, held);
    }

    /// Zooms into a range of x when the right drag over it ends; returns where a drag that goes on began.
    fn select_x(self, plot_ui: &mut PlotUi<'_>, from_x: Option<f64>) -> Option<f64> {
        let response = plot_ui.response();
        let button = PointerButton::Secondary;
        let (origin, now) = plot_ui.ctx().input(|input| (input.pointer.press_origin(), input.pointer.latest_pos()));
        let from_x = match origin {
            Some(origin) if response.drag_started_by(button) => Some(plot_ui.plot_from_screen(origin).x),
            Some(_) | None => from_x,
        }?;
        if response.dragged_by(button) {
            return Some(from_x);
        }
        if response.drag_stopped_by(button) {
            let transform = plot_ui.transform();
            let from = transform.position_from_point_x(from_x);
            let to = now.map_or(from, |now| transform.frame().x_range().clamp(now.x));
            if (to - from).abs() >= LEAST_DRAG {
                let to_x = plot_ui.plot_from_screen(pos2(to, 0.0)).x;
                plot_ui.set_plot_bounds_x(from_x.min(to_x)..=from_x.max(to_x));
            }
        }
        None
    }

    /// Shows a drag over a range, and takes what the pointer does on the y axis; `name` is the plot's.
    pub(super) fn show(self, ui: &Ui, p: &Palette, name: &str, transform: &PlotTransform) {
        let mut held = self.load(ui.ctx());
        let frame = *transform.frame();
        if let (Some(from_x), Some(now)) = (held.from_x, ui.input(|input| input.pointer.latest_pos())) {
            let (from, to) = (transform.position_from_point_x(from_x), frame.x_range().clamp(now.x));
            let range = Rect::from_two_pos(pos2(from, frame.top()), pos2(to, frame.bottom()));
            let painter = ui.painter().with_clip_rect(frame);
            painter.rect_filled(range, 0.0, p.accent.gamma_multiply(0.25));
            for x in [range.left(), range.right()] {
                painter.vline(x.round_to_pixels(ui.pixels_per_point()), frame.y_range(), Stroke::new(1.0, p.accent));
            }
            ui.ctx().set_cursor_icon(CursorIcon::ResizeHorizontal);
        }
        let axis = frame.with_max_x(frame.left()).with_min_x(frame.left() - size::PLOT_AXIS);
        // Not in the order of the Tab key, which could do nothing with it.
        let axis = ui.interact(axis, self.id.with("y axis"), Sense::CLICK | Sense::DRAG);
        axis.widget_info(|| {
            let name = format!("Scale of {}", name.to_lowercase());
            WidgetInfo::labeled(egui::accesskit::Role::ScrollBar, true, name)
        });
        let by = f64::from(axis.drag_delta().y);
        if axis.double_clicked() {
            held.y = None;
            ui.ctx().request_repaint();
        } else if axis.dragged() && by != 0.0 {
            let bounds = transform.bounds();
            let (low, high) = held.y.unwrap_or((bounds.min()[1], bounds.max()[1]));
            let origin = ui.input(|input| input.pointer.press_origin()).unwrap_or(axis.rect.center());
            let center = transform.value_from_position(origin).y;
            let zoom = (ZOOM_A_PIXEL * by).exp();
            held.y = Some((center + (low - center) / zoom, center + (high - center) / zoom));
            ui.ctx().request_repaint();
        }
        axis.on_hover_and_drag_cursor(CursorIcon::ResizeVertical)
            .on_hover_text("Drag up or down to zoom this axis; double click fits it to what is in view");
        self.store(ui.ctx(), held);
    }
}
