//! Makes egui look like us.

use egui::style::{HandleShape, Selection, WidgetVisuals};
use egui::{Color32, CornerRadius, FontFamily, FontId, Margin, Shadow, Stroke, TextStyle, Theme, Visuals, vec2};
use serde::{Deserialize, Serialize};

use super::palette::{DARK, LIGHT, Palette};
use super::{font, radius, size, space};

/// Which palette.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ThemeChoice {
    /// As the desktop says.
    #[default]
    System,
    /// Dark.
    Dark,
    /// Light.
    Light,
}

impl ThemeChoice {
    /// All choices.
    pub const ALL: [Self; 3] = [Self::System, Self::Dark, Self::Light];

    /// The name to show.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::System => "System",
            Self::Dark => "Dark",
            Self::Light => "Light",
        }
    }

    /// For egui.
    #[must_use]
    pub fn preference(self) -> egui::ThemePreference {
        match self {
            Self::System => egui::ThemePreference::System,
            Self::Dark => egui::ThemePreference::Dark,
            Self::Light => egui::ThemePreference::Light,
        }
    }
}

/// The palette of what is being drawn.
#[must_use]
pub fn palette(ui: &egui::Ui) -> &'static Palette {
    if ui.visuals().dark_mode { &DARK } else { &LIGHT }
}

/// The palette of the window.
#[must_use]
pub fn palette_of(ctx: &egui::Context) -> &'static Palette {
    match ctx.theme() {
        Theme::Dark => &DARK,
        Theme::Light => &LIGHT,
    }
}

/// Sets both styles.
pub fn apply(ctx: &egui::Context) {
    for (theme, palette) in [(Theme::Dark, &DARK), (Theme::Light, &LIGHT)] {
        ctx.style_mut_of(theme, |style| {
            style.visuals = visuals(palette);
            style.text_styles = [
                (TextStyle::Small, FontId::new(font::SMALL, FontFamily::Proportional)),
                (TextStyle::Body, FontId::new(font::BODY, FontFamily::Proportional)),
                (TextStyle::Button, FontId::new(font::BODY, FontFamily::Proportional)),
                (TextStyle::Heading, FontId::new(font::HEADING, FontFamily::Proportional)),
                (TextStyle::Monospace, FontId::new(font::MONO, FontFamily::Monospace)),
            ]
            .into();
            let spacing = &mut style.spacing;
            spacing.item_spacing = vec2(space::SM, 6.0);
            spacing.button_padding = vec2(10.0, 4.0);
            spacing.interact_size = vec2(40.0, size::CONTROL);
            spacing.window_margin = Margin::same(space::LG as i8);
            spacing.menu_margin = Margin::same(6);
            spacing.icon_width = 16.0;
            spacing.icon_width_inner = 9.0;
            spacing.icon_spacing = 6.0;
            spacing.slider_rail_height = 4.0;
            spacing.tooltip_width = 360.0;
            spacing.combo_height = 420.0;
            spacing.scroll = egui::style::ScrollStyle::thin();
            style.interaction.tooltip_delay = 0.35;
            style.animation_time = 0.12;
        });
    }
}

fn visuals(p: &Palette) -> Visuals {
    let mut visuals = if p.is_dark { Visuals::dark() } else { Visuals::light() };
    let widget = |fill: Color32, border: Color32, text: Color32| WidgetVisuals {
        bg_fill: fill,
        weak_bg_fill: fill,
        bg_stroke: Stroke::new(1.0, border),
        corner_radius: CornerRadius::same(radius::CONTROL),
        fg_stroke: Stroke::new(1.0, text),
        expansion: 0.0,
    };
    visuals.widgets.noninteractive = widget(p.card, p.border, p.text);
    visuals.widgets.inactive = widget(p.control, p.border_strong, p.text);
    visuals.widgets.hovered = widget(p.control_hover, p.text_weak, p.text_strong);
    visuals.widgets.active = widget(p.control_active, p.accent, p.text_strong);
    visuals.widgets.open = widget(p.control_hover, p.text_weak, p.text_strong);
    visuals.selection = Selection { bg_fill: p.accent_soft, stroke: Stroke::new(1.0, p.text_strong) };
    visuals.weak_text_color = Some(p.text_weak);
    visuals.hyperlink_color = if p.is_dark { p.full } else { p.accent };
    visuals.faint_bg_color = p.inset;
    visuals.extreme_bg_color = p.inset;
    visuals.text_edit_bg_color = Some(p.inset);
    visuals.code_bg_color = p.inset;
    visuals.warn_fg_color = p.warn;
    visuals.error_fg_color = p.bad;
    visuals.window_corner_radius = CornerRadius::same(radius::WINDOW);
    visuals.menu_corner_radius = CornerRadius::same(radius::CARD);
    visuals.window_fill = p.card;
    visuals.window_stroke = Stroke::new(1.0, p.border_strong);
    visuals.panel_fill = p.panel;
    let shadow = Shadow { offset: [0, 8], blur: 24, spread: 0, color: p.shadow };
    visuals.window_shadow = shadow;
    visuals.popup_shadow = shadow;
    visuals.slider_trailing_fill = true;
    visuals.handle_shape = HandleShape::Circle;
    visuals.indent_has_left_vline = false;
    visuals.striped = false;
    visuals.disabled_alpha = 0.45;
    visuals
}
