//! The rail at the left: one entry for each screen.

use egui::{Align2, FontId, Rect, Sense, Ui, Vec2, WidgetInfo, pos2, vec2};

use super::{Action, ViewCtx};
use crate::state::Screen;
use crate::theme::{font, palette, radius, size, space};
use crate::widgets::Icon;

/// An entry of the rail.
#[derive(Debug, Clone, Copy)]
pub struct ScreenEntry {
    /// The screen.
    pub screen: Screen,
    /// Its name.
    pub label: &'static str,
    /// Its icon.
    pub icon: Icon,
}

/// All screens, from top to bottom; Ctrl+1 is the first.
pub const SCREENS: [ScreenEntry; 6] = [
    ScreenEntry { screen: Screen::Run, label: "Run", icon: Icon::Run },
    ScreenEntry { screen: Screen::Data, label: "Data", icon: Icon::Data },
    ScreenEntry { screen: Screen::Compare, label: "Compare", icon: Icon::Compare },
    ScreenEntry { screen: Screen::Ship, label: "Export", icon: Icon::Export },
    ScreenEntry { screen: Screen::Try, label: "Try it", icon: Icon::Try },
    ScreenEntry { screen: Screen::Settings, label: "Settings", icon: Icon::Settings },
];

/// Room left free below the entries.
const BELOW: f32 = 12.0;

/// Shows the rail.
pub fn navigation_ui(ctx: &ViewCtx<'_>, current: Screen, is_help_open: &mut bool, ui: &mut Ui) {
    ui.spacing_mut().item_spacing = vec2(0.0, space::XS);
    ui.add_space(space::MD);
    mark_ui(ui);
    ui.add_space(space::MD);
    // In a low window the entries move together.
    let height = ((ui.available_height() - BELOW) / (SCREENS.len() + 1) as f32 - space::XS).clamp(38.0, 54.0);
    let (last, first) = SCREENS.split_last().map_or((None, &SCREENS[..0]), |(last, first)| (Some(last), first));
    for (index, entry) in first.iter().enumerate() {
        let is_running = entry.screen == Screen::Run && ctx.active_run().is_some();
        let state = EntryState { height, is_current: current == entry.screen, is_running };
        if entry_ui(ui, entry.icon, entry.label, state)
            .on_hover_text(format!("{} (Ctrl+{})", entry.label, index + 1))
            .clicked()
        {
            ctx.act(Action::Show(entry.screen));
        }
    }
    ui.with_layout(egui::Layout::bottom_up(egui::Align::Min), |ui| {
        ui.add_space(space::SM);
        let help = EntryState { height, is_current: *is_help_open, is_running: false };
        if entry_ui(ui, Icon::Help, "Help", help).on_hover_text("Shortcuts (F1)").clicked() {
            *is_help_open = !*is_help_open;
        }
        let state = |entry: &ScreenEntry| EntryState { height, is_current: current == entry.screen, is_running: false };
        if let Some(entry) = last
            && entry_ui(ui, entry.icon, entry.label, state(entry))
                .on_hover_text(format!("{} (Ctrl+{})", entry.label, SCREENS.len()))
                .clicked()
        {
            ctx.act(Action::Show(entry.screen));
        }
    });
}

/// The product's mark: a falling curve that goes on as a forecast.
fn mark_ui(ui: &mut Ui) {
    let p = palette(ui);
    let (rect, _) = ui.allocate_exact_size(vec2(size::RAIL, 34.0), Sense::hover());
    let rect = Rect::from_center_size(rect.center(), Vec2::splat(30.0));
    let at =
        |x: f32| pos2(rect.left() + rect.width() * x, rect.top() + rect.height() * (0.85 - 0.75 * (-3.4 * x).exp()));
    let solid = (0..=20).map(|i| at(0.02 + 0.52 * i as f32 / 20.0)).collect();
    ui.painter().add(egui::Shape::line(solid, egui::Stroke::new(2.6, p.measured)));
    for dash in 0..3 {
        let from = 0.60 + 0.14 * dash as f32;
        ui.painter().line_segment([at(from), at(from + 0.08)], egui::Stroke::new(2.6, p.forecast));
    }
}

/// How an entry looks.
#[derive(Debug, Clone, Copy)]
struct EntryState {
    height: f32,
    is_current: bool,
    /// A run goes on there.
    is_running: bool,
}

fn entry_ui(ui: &mut Ui, icon: Icon, label: &str, state: EntryState) -> egui::Response {
    let EntryState { height, is_current, is_running } = state;
    let p = palette(ui);
    let (rect, response) = ui.allocate_exact_size(vec2(size::RAIL, height), Sense::click());
    let name = label.to_owned();
    response.widget_info(|| WidgetInfo::selected(egui::accesskit::Role::Tab, true, is_current, &name));
    if ui.is_rect_visible(rect) {
        let inner = rect.shrink2(vec2(7.0, 1.0));
        let round = f32::from(radius::CARD);
        if is_current {
            ui.painter().rect_filled(inner, round, p.accent_soft);
        } else if response.hovered() || response.has_focus() {
            ui.painter().rect_filled(inner, round, p.control);
        }
        let color = if is_current || response.hovered() { p.text_strong } else { p.text_weak };
        // The icon keeps its distance from the name, and both their distance from the edge as far as there is room.
        let edge = ((height - 42.0) / 2.0).clamp(0.0, 6.0);
        let middle = inner.center_top() + vec2(0.0, edge + 11.0);
        icon.paint(ui.painter(), Rect::from_center_size(middle, Vec2::splat(20.0)), color);
        ui.painter().text(
            inner.center_bottom() - vec2(0.0, edge),
            Align2::CENTER_BOTTOM,
            label,
            FontId::proportional(font::SMALL),
            color,
        );
        if is_running {
            ui.painter().circle_filled(inner.right_top() + vec2(-9.0, 9.0), 3.5, p.good);
        }
    }
    response
}
