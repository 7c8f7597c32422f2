//! Icons drawn from strokes on a 16 x 16 grid: they follow the theme's color and any scale, and need no font.

use egui::{Align2, Color32, FontId, Painter, Pos2, Rect, Response, Sense, Shape, Stroke, Ui, WidgetInfo, pos2, vec2};

use crate::theme::{font, palette, radius, size, space};

/// An icon by what it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum Icon {
    Run,
    Data,
    Compare,
    Export,
    Try,
    Settings,
    Play,
    Pause,
    Stop,
    Save,
    Folder,
    File,
    Refresh,
    Resume,
    Close,
    Copy,
    Reset,
    Image,
    Table,
    Help,
    Info,
    Warning,
    Check,
    Dice,
}

impl Icon {
    /// Paints it into `rect`.
    pub fn paint(self, painter: &Painter, rect: Rect, color: Color32) {
        let scale = rect.width().min(rect.height()) / 16.0;
        let origin = rect.center() - vec2(8.0, 8.0) * scale;
        let at = |x: f32, y: f32| -> Pos2 { origin + vec2(x, y) * scale };
        let stroke = Stroke::new(1.4 * scale, color);
        let line = |points: &[(f32, f32)]| {
            painter.add(Shape::line(points.iter().map(|&(x, y)| at(x, y)).collect(), stroke));
        };
        let closed = |points: &[(f32, f32)]| {
            painter.add(Shape::closed_line(points.iter().map(|&(x, y)| at(x, y)).collect(), stroke));
        };
        let solid = |points: &[(f32, f32)]| {
            let points = points.iter().map(|&(x, y)| at(x, y)).collect();
            painter.add(Shape::convex_polygon(points, color, Stroke::NONE));
        };
        let circle = |x: f32, y: f32, r: f32| painter.circle_stroke(at(x, y), r * scale, stroke);
        let dot = |x: f32, y: f32, r: f32| painter.circle_filled(at(x, y), r * scale, color);
        let arc = |from: f32, to: f32, r: f32| {
            let points = (0..=16)
                .map(|i| {
                    let angle = (from + (to - from) * i as f32 / 16.0).to_radians();
                    at(8.0 + r * angle.cos(), 8.0 + r * angle.sin())
                })
                .collect();
            painter.add(Shape::line(points, stroke));
        };
        match self {
            Self::Run => {
                line(&[(2.0, 2.0), (2.0, 14.0), (14.0, 14.0)]);
                line(&[(4.5, 4.0), (6.5, 8.5), (9.0, 10.0), (14.0, 11.0)]);
            }
            Self::Data => {
                for (x, y) in [(2.0, 2.0), (9.0, 2.0), (2.0, 9.0), (9.0, 9.0)] {
                    closed(&[(x, y), (x + 5.0, y), (x + 5.0, y + 5.0), (x, y + 5.0)]);
                }
            }
            Self::Compare => {
                line(&[(1.5, 3.0), (5.0, 8.0), (9.0, 10.5), (14.5, 11.5)]);
                line(&[(1.5, 7.0), (5.0, 10.5), (9.0, 13.0), (14.5, 13.8)]);
                dot(5.0, 8.0, 1.3);
                dot(9.0, 13.0, 1.3);
            }
            Self::Export => {
                closed(&[(8.0, 1.5), (14.0, 4.5), (14.0, 11.5), (8.0, 14.5), (2.0, 11.5), (2.0, 4.5)]);
                line(&[(2.0, 4.5), (8.0, 7.5), (14.0, 4.5)]);
                line(&[(8.0, 7.5), (8.0, 14.5)]);
            }
            Self::Try => {
                closed(&[(2.5, 13.5), (3.2, 10.3), (11.0, 2.5), (13.5, 5.0), (5.7, 12.8)]);
                line(&[(9.3, 4.2), (11.8, 6.7)]);
            }
            Self::Settings => {
                for (y, x) in [(4.0, 10.5), (8.0, 5.5), (12.0, 9.0)] {
                    line(&[(2.0, y), (14.0, y)]);
                    dot(x, y, 1.9);
                }
            }
            Self::Play => solid(&[(4.0, 2.5), (13.5, 8.0), (4.0, 13.5)]),
            Self::Pause => {
                solid(&[(3.5, 3.0), (6.5, 3.0), (6.5, 13.0), (3.5, 13.0)]);
                solid(&[(9.5, 3.0), (12.5, 3.0), (12.5, 13.0), (9.5, 13.0)]);
            }
            Self::Stop => solid(&[(3.5, 3.5), (12.5, 3.5), (12.5, 12.5), (3.5, 12.5)]),
            Self::Save => {
                line(&[(8.0, 2.0), (8.0, 10.0)]);
                line(&[(4.5, 6.8), (8.0, 10.3), (11.5, 6.8)]);
                line(&[(2.5, 10.5), (2.5, 13.5), (13.5, 13.5), (13.5, 10.5)]);
            }
            Self::Folder => {
                closed(&[(1.8, 3.5), (6.3, 3.5), (7.8, 5.3), (14.2, 5.3), (14.2, 13.0), (1.8, 13.0)]);
            }
            Self::File => {
                closed(&[(3.2, 1.8), (9.2, 1.8), (12.8, 5.4), (12.8, 14.2), (3.2, 14.2)]);
                line(&[(9.2, 1.8), (9.2, 5.4), (12.8, 5.4)]);
            }
            Self::Refresh => {
                arc(-60.0, 230.0, 5.3);
                line(&[(10.6, 0.8), (10.7, 3.5), (13.4, 3.6)]);
            }
            Self::Resume => {
                line(&[(2.5, 2.5), (2.5, 13.5)]);
                closed(&[(5.5, 3.0), (13.8, 8.0), (5.5, 13.0)]);
            }
            Self::Close => {
                line(&[(3.5, 3.5), (12.5, 12.5)]);
                line(&[(12.5, 3.5), (3.5, 12.5)]);
            }
            Self::Copy => {
                closed(&[(5.5, 5.5), (13.5, 5.5), (13.5, 14.0), (5.5, 14.0)]);
                line(&[(10.5, 2.5), (2.5, 2.5), (2.5, 11.0)]);
            }
            Self::Reset => {
                line(&[(2.0, 6.0), (2.0, 2.0), (6.0, 2.0)]);
                line(&[(10.0, 2.0), (14.0, 2.0), (14.0, 6.0)]);
                line(&[(14.0, 10.0), (14.0, 14.0), (10.0, 14.0)]);
                line(&[(6.0, 14.0), (2.0, 14.0), (2.0, 10.0)]);
            }
            Self::Image => {
                closed(&[(1.8, 2.8), (14.2, 2.8), (14.2, 13.2), (1.8, 13.2)]);
                line(&[(2.0, 11.5), (6.0, 7.5), (8.5, 10.0), (10.5, 8.2), (14.0, 11.5)]);
                dot(10.8, 5.7, 1.1);
            }
            Self::Table => {
                closed(&[(1.8, 2.8), (14.2, 2.8), (14.2, 13.2), (1.8, 13.2)]);
                line(&[(1.8, 6.3), (14.2, 6.3)]);
                line(&[(1.8, 9.8), (14.2, 9.8)]);
                line(&[(6.5, 2.8), (6.5, 13.2)]);
            }
            Self::Help => {
                circle(8.0, 8.0, 6.2);
                line(&[(6.2, 6.2), (6.8, 5.0), (8.2, 4.6), (9.6, 5.3), (9.7, 6.8), (8.1, 8.0), (8.0, 9.2)]);
                dot(8.0, 11.4, 0.9);
            }
            Self::Info => {
                circle(8.0, 8.0, 6.2);
                line(&[(8.0, 7.2), (8.0, 11.4)]);
                dot(8.0, 4.9, 0.9);
            }
            Self::Warning => {
                closed(&[(8.0, 2.0), (14.5, 13.5), (1.5, 13.5)]);
                line(&[(8.0, 6.2), (8.0, 9.6)]);
                dot(8.0, 11.6, 0.8);
            }
            Self::Check => line(&[(3.0, 8.5), (6.5, 12.0), (13.0, 4.5)]),
            Self::Dice => {
                closed(&[(2.5, 2.5), (13.5, 2.5), (13.5, 13.5), (2.5, 13.5)]);
                for (x, y) in [(5.5, 5.5), (8.0, 8.0), (10.5, 10.5), (10.5, 5.5), (5.5, 10.5)] {
                    dot(x, y, 0.9);
                }
            }
        }
    }
}

/// A square button that shows only an icon; `name` is its tooltip and its accessible name.
pub fn icon_button_ui(ui: &mut Ui, icon: Icon, name: &str) -> Response {
    let (rect, response) = ui.allocate_exact_size(vec2(size::CONTROL, size::CONTROL), Sense::click());
    let enabled = ui.is_enabled();
    response.widget_info(|| WidgetInfo::labeled(egui::accesskit::Role::Button, enabled, name));
    if ui.is_rect_visible(rect) {
        let visuals = ui.style().interact(&response);
        if response.hovered() || response.has_focus() {
            ui.painter().rect(
                rect,
                f32::from(radius::CONTROL),
                visuals.weak_bg_fill,
                visuals.bg_stroke,
                egui::StrokeKind::Inside,
            );
        }
        let color = if response.hovered() { visuals.fg_stroke.color } else { palette(ui).text_weak };
        icon.paint(ui.painter(), Rect::from_center_size(rect.center(), egui::Vec2::splat(size::ICON)), color);
    }
    response.on_hover_text(name)
}

/// A button with an icon before its text.
pub fn icon_text_button_ui(ui: &mut Ui, icon: Icon, text: &str) -> Response {
    let font = FontId::proportional(font::BODY);
    let galley = ui.painter().layout_no_wrap(text.to_owned(), font.clone(), Color32::PLACEHOLDER);
    let wanted = vec2(galley.size().x + size::ICON + space::SM + 20.0, size::CONTROL);
    let (rect, response) = ui.allocate_exact_size(wanted, Sense::click());
    let enabled = ui.is_enabled();
    response.widget_info(|| WidgetInfo::labeled(egui::accesskit::Role::Button, enabled, text));
    if ui.is_rect_visible(rect) {
        let visuals = ui.style().interact(&response);
        let rounding = f32::from(radius::CONTROL);
        ui.painter().rect(rect, rounding, visuals.weak_bg_fill, visuals.bg_stroke, egui::StrokeKind::Inside);
        let icon_rect = Rect::from_center_size(
            pos2(rect.left() + 10.0 + size::ICON / 2.0, rect.center().y),
            egui::Vec2::splat(14.0),
        );
        icon.paint(ui.painter(), icon_rect, visuals.fg_stroke.color);
        ui.painter().text(
            pos2(rect.left() + 10.0 + size::ICON + space::SM - 2.0, rect.center().y),
            Align2::LEFT_CENTER,
            text,
            font,
            visuals.fg_stroke.color,
        );
    }
    response
}
