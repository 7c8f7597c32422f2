//! The colors of both themes, all in one place.
//!
//! The eight series take the hues of Okabe and Ito's set for color-blind readers, in the window's order, each darkened
//! or lightened until it reaches a contrast of 3 on its background (tested below; WCAG 2.2, 1.4.11).
//! Source: Okabe and Ito 2008, "Color universal design", jfly.uni-koeln.de/color.

use serde::{Deserialize, Serialize};

/// Which background a chart stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Theme {
    /// White.
    #[default]
    Light,
    /// Nearly black.
    Dark,
}

/// Red, green, blue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rgb(pub(super) u32);

/// Colors by meaning.
#[derive(Debug)]
pub(super) struct Palette {
    pub(super) background: Rgb,
    pub(super) title: Rgb,
    pub(super) text: Rgb,
    pub(super) text_weak: Rgb,
    pub(super) axis: Rgb,
    pub(super) grid: Rgb,
    /// A limit not to be crossed, and values that are not numbers.
    pub(super) bad: Rgb,
    /// Lines that are no data.
    pub(super) reference: Rgb,
    /// Blue, orange, green, purple, yellow, vermilion, sky, violet; then gray.
    series: [Rgb; 9],
    /// Opacity of x ranges behind the curves.
    pub(super) tint: f64,
    /// Opacity of bands of uncertainty.
    pub(super) band: f64,
    /// Opacity of lines behind their smoothed form.
    pub(super) faint: f64,
}

static LIGHT: Palette = Palette {
    background: Rgb(0xff_ff_ff),
    title: Rgb(0x0c_12_1c),
    text: Rgb(0x23_2c_3a),
    text_weak: Rgb(0x56_61_74),
    axis: Rgb(0x8a_94_a4),
    grid: Rgb(0xe3_e7_ed),
    bad: Rgb(0xb3_26_1e),
    reference: Rgb(0x6b_76_87),
    series: [
        Rgb(0x00_67_ad),
        Rgb(0xc9_78_00),
        Rgb(0x00_7d_5c),
        Rgb(0xb0_4a_86),
        Rgb(0x8a_78_00),
        Rgb(0xd1_4f_00),
        Rgb(0x2b_8f_c0),
        Rgb(0x6a_4f_c4),
        Rgb(0x7b_87_98),
    ],
    tint: 0.07,
    band: 0.18,
    faint: 0.4,
};

static DARK: Palette = Palette {
    background: Rgb(0x13_17_1e),
    title: Rgb(0xf6_f8_fb),
    text: Rgb(0xd7_dd_e6),
    text_weak: Rgb(0x9a_a6_b7),
    axis: Rgb(0x66_72_87),
    grid: Rgb(0x30_38_46),
    bad: Rgb(0xff_7b_72),
    reference: Rgb(0x95_a1_b2),
    series: [
        Rgb(0x5a_a9_f0),
        Rgb(0xf0_a6_30),
        Rgb(0x46_c4_9a),
        Rgb(0xd9_87_c0),
        Rgb(0xec_e0_6a),
        Rgb(0xf0_76_4a),
        Rgb(0x8f_d3_f4),
        Rgb(0xb8_a1_ff),
        Rgb(0x88_94_a6),
    ],
    tint: 0.09,
    band: 0.24,
    faint: 0.5,
};

impl Palette {
    /// The colors of `theme`.
    pub(super) fn of(theme: Theme) -> &'static Self {
        match theme {
            Theme::Light => &LIGHT,
            Theme::Dark => &DARK,
        }
    }

    /// The color with this index; they repeat after the last.
    pub(super) fn series(&self, index: u8) -> Rgb {
        self.series[usize::from(index) % self.series.len()]
    }
}

impl Rgb {
    /// As bytes.
    pub(super) fn channels(self) -> [u8; 3] {
        let [_, red, green, blue] = self.0.to_be_bytes();
        [red, green, blue]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance. Source: WCAG 2.2.
    fn luminance(color: Rgb) -> f64 {
        let [red, green, blue] = color.channels().map(|channel| {
            let c = f64::from(channel) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        });
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    }

    #[track_caller]
    fn check(what: &str, front: Rgb, back: Rgb, least: f64) {
        let (front, back) = (luminance(front), luminance(back));
        let found = (front.max(back) + 0.05) / (front.min(back) + 0.05);
        assert!(found >= least, "{what}: contrast {found:.2}, expected at least {least}");
    }

    #[test]
    fn everything_stands_out() {
        for theme in [Theme::Light, Theme::Dark] {
            let p = Palette::of(theme);
            for (name, text) in [("title", p.title), ("text", p.text), ("weak", p.text_weak), ("bad", p.bad)] {
                check(&format!("{name}, {theme:?}"), text, p.background, 4.5);
            }
            for (index, color) in p.series.iter().chain([&p.reference, &p.axis]).enumerate() {
                check(&format!("color {index}, {theme:?}"), *color, p.background, 3.0);
            }
        }
    }

    #[test]
    fn an_index_past_the_last_begins_anew() {
        let p = Palette::of(Theme::Light);
        assert_eq!(p.series(9), p.series(0));
        assert_eq!(p.series(255), p.series(3));
    }
}
