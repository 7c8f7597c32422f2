//! The font that charts are written in: how wide a text is, and the outlines of its letters.

use std::sync::LazyLock;

use ttf_parser::OutlineBuilder;

/// What an SVG asks for, best first. All have the same widths, so what is laid out here fits there.
pub(super) const FAMILIES: &str = "Arimo,'Liberation Sans',Arial,Helvetica,sans-serif";

/// Weight of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Face {
    Regular,
    Bold,
}

static REGULAR: LazyLock<Font> = LazyLock::new(|| Font::of(include_bytes!("../../../assets/fonts/Arimo-Regular.ttf")));
static BOLD: LazyLock<Font> = LazyLock::new(|| Font::of(include_bytes!("../../../assets/fonts/Arimo-Bold.ttf")));

struct Font {
    /// `None` never: the fonts are built in, and tested below.
    face: Option<ttf_parser::Face<'static>>,
    units_per_em: f64,
}

impl Font {
    fn of(bytes: &'static [u8]) -> Self {
        let face = ttf_parser::Face::parse(bytes, 0).ok();
        let units_per_em = face.as_ref().map_or(1000.0, |face| f64::from(face.units_per_em()));
        Self { face, units_per_em }
    }

    fn get(face: Face) -> &'static Self {
        match face {
            Face::Regular => &REGULAR,
            Face::Bold => &BOLD,
        }
    }

    fn glyph(&self, c: char) -> ttf_parser::GlyphId {
        self.face.as_ref().and_then(|face| face.glyph_index(c)).unwrap_or_default()
    }

    /// Step to the next letter, em.
    fn advance(&self, glyph: ttf_parser::GlyphId) -> f64 {
        let units = self.face.as_ref().and_then(|face| face.glyph_hor_advance(glyph)).unwrap_or_default();
        f64::from(units) / self.units_per_em
    }
}

/// Width of `text` at `size` px, px.
pub(super) fn width(text: &str, face: Face, size: f64) -> f64 {
    let font = Font::get(face);
    text.chars().map(|c| font.advance(font.glyph(c))).sum::<f64>() * size
}

/// Draws the outlines of `text` whose baseline begins at `origin`, px, y down.
pub(super) fn outline(text: &str, face: Face, size: f64, origin: [f64; 2], path: &mut tiny_skia::PathBuilder) {
    let font = Font::get(face);
    let Some(parsed) = &font.face else { return };
    let scale = size / font.units_per_em;
    let [mut x, y] = origin;
    for c in text.chars() {
        let glyph = font.glyph(c);
        parsed.outline_glyph(glyph, &mut Pen { path, x, y, scale });
        x += font.advance(glyph) * size;
    }
}

/// Moves outlines from the font's units to their place.
struct Pen<'a> {
    path: &'a mut tiny_skia::PathBuilder,
    x: f64,
    y: f64,
    scale: f64,
}

impl Pen<'_> {
    fn at(&self, x: f32, y: f32) -> (f32, f32) {
        ((self.x + f64::from(x) * self.scale) as f32, (self.y - f64::from(y) * self.scale) as f32)
    }
}

impl OutlineBuilder for Pen<'_> {
    fn move_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.path.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.path.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let ((x1, y1), (x, y)) = (self.at(x1, y1), self.at(x, y));
        self.path.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let ((x1, y1), (x2, y2), (x, y)) = (self.at(x1, y1), self.at(x2, y2), self.at(x, y));
        self.path.cubic_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.path.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_fonts_hold_what_charts_say() {
        for face in [Face::Regular, Face::Bold] {
            let font = Font::get(face);
            assert!(font.face.is_some(), "{face:?}");
            for c in "AZaz09 …−×±ρσµ→≤≥·⁰¹²³⁴⁵⁶⁷⁸⁹⁻éßЖ".chars() {
                assert_ne!(font.glyph(c), ttf_parser::GlyphId(0), "{face:?} has no {c:?}");
            }
        }
    }

    /// Source: advance widths of Arial and Helvetica, Adobe's Helvetica.afm.
    #[test]
    fn letters_are_as_wide_as_those_of_the_named_families() {
        for (text, thousandths) in [("a", 556.0), ("W", 944.0), ("i", 222.0), ("0", 556.0), (" ", 278.0)] {
            assert!((width(text, Face::Regular, 1000.0) - thousandths).abs() < 1.0, "{text}");
        }
        assert!((width("a", Face::Bold, 1000.0) - 556.0).abs() < 1.0);
    }
}
