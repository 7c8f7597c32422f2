//! A picture of any size as the pixels that a model reads.

use std::path::Path;

use image::imageops::FilterType;
use image::{ImageError, ImageReader, Limits};

use crate::EdgeError;

/// Longest side of a picture, in pixels.
const MAX_SIDE: u32 = 1 << 14;
/// Most memory for a decoded picture, in bytes: a small file can claim a huge one.
const MAX_DECODED_BYTES: u64 = 256 << 20;

/// Reads the PNG or JPEG file at `path`, scales it to `height` × `width` (without keeping its proportions) and
/// converts it to `channels` (1: gray, 3: red, green, blue). Returns (channels, height, width), 0 to 255.
///
/// Errors: [`EdgeError::Read`]; [`EdgeError::Unsuited`] for another sort of file; [`EdgeError::Format`] for a picture that is
/// damaged or too large; [`EdgeError::Input`] for another number of channels.
pub fn read_pixels(path: &Path, channels: usize, height: usize, width: usize) -> Result<Vec<u8>, EdgeError> {
    let failed = EdgeError::read(path, "Is this the path of a PNG or JPEG picture?");
    let mut reader = ImageReader::open(path).map_err(failed)?.with_guessed_format().map_err(failed)?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    reader.limits(limits);
    let picture = reader.decode().map_err(|error| {
        let expected = "a PNG or JPEG picture";
        match error {
            ImageError::Unsupported(other) => EdgeError::unsuited(path, expected, other.to_string()),
            damage => EdgeError::format(path, expected, damage.to_string()),
        }
    })?;
    // A config's sides are far below u32::MAX.
    let (height, width) = (u32::try_from(height).unwrap_or(u32::MAX), u32::try_from(width).unwrap_or(u32::MAX));
    let is_same_size = (picture.height(), picture.width()) == (height, width);
    let scaled = if is_same_size { picture } else { picture.resize_exact(width, height, FilterType::Triangle) };
    match channels {
        1 => Ok(scaled.to_luma8().into_raw()),
        3 => {
            let interleaved = scaled.to_rgb8().into_raw();
            Ok((0..3).flat_map(|channel| interleaved.iter().skip(channel).step_by(3).copied()).collect())
        }
        other => Err(EdgeError::input("reading a picture", "a model of 1 or 3 channels", other.to_string())),
    }
}
