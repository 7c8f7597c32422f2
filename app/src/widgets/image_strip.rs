//! Many small images as one texture.

use std::hash::{DefaultHasher, Hash, Hasher};

use egui::{Color32, ColorImage, Context, Painter, Rect, TextureHandle, TextureOptions, pos2, vec2};

/// Longest side of a stored image; larger ones are thinned.
const MAX_SIDE: usize = 96;

/// Images of one shape, uploaded once.
pub struct ImageStrip {
    /// Hash of what names the set of images.
    made_of: u64,
    texture: TextureHandle,
    num_images: usize,
    num_columns: usize,
}

impl std::fmt::Debug for ImageStrip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageStrip").field("made_of", &self.made_of).finish_non_exhaustive()
    }
}

impl ImageStrip {
    /// Uploads `images`, pixels (channels, height, width) each; `made_of` names this set of images, as an address
    /// cannot: another set may lie there later. What is missing at the end of an image is black.
    #[must_use]
    pub fn new<'a>(
        ctx: &Context,
        made_of: impl Hash,
        shape: (usize, usize, usize),
        images: impl ExactSizeIterator<Item = &'a [u8]>,
    ) -> Self {
        let (channels, height, width) = shape;
        let stride = height.max(width).div_ceil(MAX_SIDE).max(1);
        let (rows, columns) = (height.div_ceil(stride).max(1), width.div_ceil(stride).max(1));
        let num_images = images.len();
        // A square of images, so that neither side outgrows what a graphics card takes.
        let num_columns = (num_images as f64).sqrt().ceil().max(1.0) as usize;
        let size = [columns * num_columns, rows * num_images.div_ceil(num_columns).max(1)];
        let mut picture = ColorImage::filled(size, Color32::BLACK);
        for (index, image) in images.enumerate() {
            let (left, top) = (index % num_columns * columns, index / num_columns * rows);
            for y in 0..rows {
                for x in 0..columns {
                    let color = pixel_color(image, channels, height * width, y * stride * width + x * stride);
                    if let Some(pixel) = picture.pixels.get_mut((top + y) * size[0] + left + x) {
                        *pixel = color;
                    }
                }
            }
        }
        let texture = ctx.load_texture("images", picture, TextureOptions::NEAREST);
        Self { made_of: hash_of(made_of), texture, num_images, num_columns }
    }

    /// True for the images that `made_of` names.
    #[must_use]
    pub fn is_of(&self, made_of: impl Hash) -> bool {
        self.made_of == hash_of(made_of)
    }

    /// Paints an image into `rect`.
    pub fn paint(&self, painter: &Painter, rect: Rect, index: usize) {
        let (columns, rows) = (self.num_columns, self.num_images.div_ceil(self.num_columns).max(1));
        let size = vec2(1.0 / columns as f32, 1.0 / rows as f32);
        let corner = pos2((index % columns) as f32 * size.x, (index / columns) as f32 * size.y);
        painter.image(self.texture.id(), rect, Rect::from_min_size(corner, size), Color32::WHITE);
    }
}

fn hash_of(made_of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    made_of.hash(&mut hasher);
    hasher.finish()
}

/// The color of one pixel; images of one channel are grey.
pub(super) fn pixel_color(image: &[u8], channels: usize, plane: usize, at: usize) -> Color32 {
    let value = |channel: usize| image.get(channel * plane + at).copied().unwrap_or(0);
    if channels >= 3 { Color32::from_rgb(value(0), value(1), value(2)) } else { Color32::from_gray(value(0)) }
}
