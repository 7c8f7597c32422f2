//! The two palettes. Text reaches a contrast of 4.5 on every surface it stands on, the edge of a control one of 3
//! (tested below); the phases take hues from Okabe and Ito's set for color-blind readers, and differ in lightness.

use egui::Color32;
use foretrain_engine::hybrid::Phase;

const fn rgb(hex: u32) -> Color32 {
    Color32::from_rgb((hex >> 16) as u8, (hex >> 8) as u8, hex as u8)
}

/// The darkest text.
const INK: Color32 = rgb(0x0c121c);

/// Colors by meaning.
#[derive(Debug)]
#[allow(missing_docs, reason = "the names are the documentation where none is given")]
pub struct Palette {
    pub is_dark: bool,
    /// Behind everything, and the navigation rail.
    pub base: Color32,
    /// Side panels and bars.
    pub panel: Color32,
    /// Cards on panels.
    pub card: Color32,
    /// Fields, plots, logs: things sunk into a card.
    pub inset: Color32,
    /// A control at rest.
    pub control: Color32,
    pub control_hover: Color32,
    pub control_active: Color32,
    pub border: Color32,
    /// Around controls and whatever floats: seen on every surface.
    pub border_strong: Color32,
    pub text: Color32,
    pub text_weak: Color32,
    pub text_strong: Color32,
    /// The one color that asks to be clicked.
    pub accent: Color32,
    pub accent_hover: Color32,
    pub on_accent: Color32,
    /// Behind a selected thing.
    pub accent_soft: Color32,
    pub good: Color32,
    pub warn: Color32,
    pub bad: Color32,
    pub good_soft: Color32,
    pub warn_soft: Color32,
    pub bad_soft: Color32,
    pub warmup: Color32,
    pub full: Color32,
    pub predict: Color32,
    pub correct: Color32,
    /// Names of the phases on any surface: Warmup, Full, Predict, Correct.
    pub phase_text: [Color32; 4],
    /// Text on a phase's own color, in the same order.
    pub on_phase: [Color32; 4],
    /// Measured curves.
    pub measured: Color32,
    /// Forecast curves, always dashed.
    pub forecast: Color32,
    pub validation: Color32,
    /// Quantized weights, beside full precision in `validation`.
    pub quantized: Color32,
    /// A limit not to be crossed.
    pub limit: Color32,
    /// Any further curves, in order.
    pub series: [Color32; 8],
    pub grid: Color32,
    pub shadow: Color32,
}

/// Dark.
pub static DARK: Palette = Palette {
    is_dark: true,
    base: rgb(0x0d1015),
    panel: rgb(0x13171e),
    card: rgb(0x1a1f28),
    inset: rgb(0x0f1319),
    control: rgb(0x262d39),
    control_hover: rgb(0x303949),
    control_active: rgb(0x3a4558),
    border: rgb(0x272e3a),
    border_strong: rgb(0x667287),
    text: rgb(0xd7dde6),
    text_weak: rgb(0x95a1b2),
    text_strong: rgb(0xf6f8fb),
    accent: rgb(0x3a73d6),
    accent_hover: rgb(0x2f6bd0),
    on_accent: rgb(0xffffff),
    accent_soft: rgb(0x1c2f50),
    good: rgb(0x46c49a),
    warn: rgb(0xe9b24a),
    bad: rgb(0xff7b72),
    good_soft: rgb(0x12302a),
    warn_soft: rgb(0x35290f),
    bad_soft: rgb(0x3a1b1c),
    warmup: rgb(0x8894a6),
    full: rgb(0x5aa9f0),
    predict: rgb(0xf0a630),
    correct: rgb(0xd987c0),
    phase_text: [rgb(0x8894a6), rgb(0x5aa9f0), rgb(0xf0a630), rgb(0xd987c0)],
    on_phase: [INK; 4],
    measured: rgb(0x5aa9f0),
    forecast: rgb(0xf0a630),
    validation: rgb(0x46c49a),
    quantized: rgb(0xd987c0),
    limit: rgb(0xff7b72),
    series: [
        rgb(0x5aa9f0),
        rgb(0xf0a630),
        rgb(0x46c49a),
        rgb(0xd987c0),
        rgb(0xece06a),
        rgb(0xf0764a),
        rgb(0x8fd3f4),
        rgb(0xb8a1ff),
    ],
    grid: rgb(0x4a5568),
    shadow: Color32::from_black_alpha(110),
};

/// Light.
pub static LIGHT: Palette = Palette {
    is_dark: false,
    base: rgb(0xeaedf3),
    panel: rgb(0xf2f4f8),
    card: rgb(0xffffff),
    inset: rgb(0xf6f8fb),
    control: rgb(0xdbe1eb),
    control_hover: rgb(0xcfd7e3),
    control_active: rgb(0xc2ccda),
    border: rgb(0xd8dee8),
    border_strong: rgb(0x788497),
    text: rgb(0x232c3a),
    text_weak: rgb(0x566174),
    text_strong: INK,
    accent: rgb(0x1f5fd0),
    accent_hover: rgb(0x1a54bb),
    on_accent: rgb(0xffffff),
    accent_soft: rgb(0xd6e4fb),
    good: rgb(0x0b6e4f),
    warn: rgb(0x8a5300),
    bad: rgb(0xb3261e),
    good_soft: rgb(0xdcf3ea),
    warn_soft: rgb(0xfdf0d5),
    bad_soft: rgb(0xfbe3e1),
    warmup: rgb(0x7b8798),
    full: rgb(0x0067ad),
    predict: rgb(0xc27d00),
    correct: rgb(0xa8447f),
    phase_text: [rgb(0x566174), rgb(0x0067ad), rgb(0x8f5d00), rgb(0xa8447f)],
    on_phase: [INK, rgb(0xffffff), INK, rgb(0xffffff)],
    measured: rgb(0x0067ad),
    forecast: rgb(0xb86e00),
    validation: rgb(0x00795a),
    quantized: rgb(0xa8447f),
    limit: rgb(0xb3261e),
    series: [
        rgb(0x0067ad),
        rgb(0xb86e00),
        rgb(0x00795a),
        rgb(0xa8447f),
        rgb(0x7a6a00),
        rgb(0xc14a00),
        rgb(0x2b8fc0),
        rgb(0x6a4fc4),
    ],
    grid: rgb(0x9aa6b8),
    shadow: Color32::from_black_alpha(40),
};

/// The color of a phase: for areas and marks. Its name on a surface takes [`phase_text`].
#[must_use]
pub fn phase_color(palette: &Palette, phase: Phase) -> Color32 {
    of_phase([palette.warmup, palette.full, palette.predict, palette.correct], phase)
}

/// The color of a phase's name on any surface.
#[must_use]
pub fn phase_text(palette: &Palette, phase: Phase) -> Color32 {
    of_phase(palette.phase_text, phase)
}

/// The color of text on an area in [`phase_color`].
#[must_use]
pub fn on_phase(palette: &Palette, phase: Phase) -> Color32 {
    of_phase(palette.on_phase, phase)
}

fn of_phase([warmup, full, predict, correct]: [Color32; 4], phase: Phase) -> Color32 {
    match phase {
        Phase::Warmup => warmup,
        Phase::Full => full,
        Phase::Predict => predict,
        Phase::Correct => correct,
    }
}

/// The color of text on an area of `color`, whichever of ink and white stands out more.
#[must_use]
pub fn text_on(color: Color32) -> Color32 {
    let white = rgb(0xffffff);
    if contrast(INK, color) >= contrast(white, color) { INK } else { white }
}

/// Relative luminance. Source: WCAG 2.2.
fn luminance(color: Color32) -> f64 {
    let linear = |channel: u8| {
        let c = f64::from(channel) / 255.0;
        if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * linear(color.r()) + 0.7152 * linear(color.g()) + 0.0722 * linear(color.b())
}

/// From 1, for equal colors, to 21.
fn contrast(a: Color32, b: Color32) -> f64 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

/// The name of a phase.
#[must_use]
pub fn phase_label(phase: Phase) -> &'static str {
    match phase {
        Phase::Warmup => "Warmup",
        Phase::Full => "Full",
        Phase::Predict => "Predict",
        Phase::Correct => "Correct",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(what: &str, front: Color32, back: Color32, least: f64) {
        let found = contrast(front, back);
        assert!(found >= least, "{what}: contrast {found:.2}, expected at least {least}");
    }

    const PHASES: [Phase; 4] = [Phase::Warmup, Phase::Full, Phase::Predict, Phase::Correct];

    fn surfaces(p: &Palette) -> [(&'static str, Color32); 4] {
        [("base", p.base), ("panel", p.panel), ("card", p.card), ("inset", p.inset)]
    }

    #[test]
    fn text_can_be_read_everywhere() {
        for p in [&DARK, &LIGHT] {
            for (name, back) in surfaces(p) {
                let texts = [("text", p.text), ("weak", p.text_weak), ("strong", p.text_strong)];
                let states = [("good", p.good), ("warn", p.warn), ("bad", p.bad)];
                for (text, front) in texts.into_iter().chain(states) {
                    check(&format!("{text} on {name}, dark {}", p.is_dark), front, back, 4.5);
                }
            }
            for back in [p.control, p.control_hover, p.control_active, p.accent_soft] {
                check("text on a control", p.text, back, 4.5);
            }
            check("bad", p.bad, p.bad_soft, 4.5);
            check("warn", p.warn, p.warn_soft, 4.5);
            check("good", p.good, p.good_soft, 4.5);
            for back in [p.good_soft, p.warn_soft, p.bad_soft] {
                check("a notice", p.text, back, 4.5);
            }
            check("accent button", p.on_accent, p.accent, 4.5);
            check("accent button, hovered", p.on_accent, p.accent_hover, 4.5);
        }
    }

    #[test]
    fn names_of_phases_can_be_read_everywhere() {
        for p in [&DARK, &LIGHT] {
            for phase in PHASES {
                let name = phase_label(phase);
                for (surface, back) in surfaces(p) {
                    check(&format!("{name} on {surface}, dark {}", p.is_dark), phase_text(p, phase), back, 4.5);
                }
                check(&format!("{name} on its color"), on_phase(p, phase), phase_color(p, phase), 4.5);
            }
        }
    }

    #[test]
    fn what_is_written_on_a_color_can_be_read() {
        for p in [&DARK, &LIGHT] {
            let areas = p.series.iter().chain([&p.warmup, &p.full, &p.predict, &p.correct, &p.validation]);
            for &color in areas.chain([&p.border_strong]) {
                check(&format!("text on {color:?}, dark {}", p.is_dark), text_on(color), color, 4.5);
            }
        }
    }

    /// Source: WCAG 2.2, 1.4.11: what shows a control, its state or a graph has a contrast of 3.
    #[test]
    fn controls_and_curves_stand_out() {
        for p in [&DARK, &LIGHT] {
            for (name, back) in surfaces(p) {
                check(&format!("edge of a control on {name}"), p.border_strong, back, 3.0);
                check(&format!("focus on {name}"), p.accent, back, 3.0);
            }
            for color in p.series.iter().chain([&p.warmup, &p.full, &p.predict, &p.correct, &p.limit]) {
                check("curve on a card", *color, p.card, 3.0);
                check("curve on an inset", *color, p.inset, 3.0);
            }
            for color in [p.accent, p.measured] {
                check("filled part of a meter", color, p.control, 3.0);
            }
        }
    }
}
