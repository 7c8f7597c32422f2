//! Images from folders named for their classes, scaled to one size.

use std::ffi::OsString;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use image::imageops::FilterType;
use image::{ImageDecoder, ImageReader, Limits};
use rayon::prelude::*;

use super::files::{self, OpenFile};
use super::images::{self, RawImages, partition};
use super::text_files::Skipped;
use super::{DataError, Dataset, ImageSplit, split};
use crate::device::Watch;

/// Longest side of an image that is decoded.
const MAX_SIDE: u32 = 8192;
/// Most memory that decoding one image may take.
const MAX_DECODE_BYTES: u64 = 256 << 20;
/// Longest side that images are scaled to.
const MAX_TARGET_SIDE: usize = 1024;
/// Most images between two looks at the watch.
const SLAB: usize = 256;
/// Most bytes of scaled images between two looks at the watch.
const SLAB_BYTES: usize = 64 << 20;
const WHAT: &str = "an image folder";

/// Files of one part, with their classes.
type Listing = Vec<(PathBuf, u32)>;

/// A class: its name for people, and its folder as the system spells it, which need not be Unicode.
#[derive(Debug)]
struct Class {
    name: String,
    folder: OsString,
}

/// Loads `path`/class/*.png|jpg. Where `path` holds a folder `train`, that one has the classes, and `validation` (or
/// `val`, `valid`) and `test` beside it are parts of their own. Images are grey when all of them are, else RGB.
/// Files that cannot be decoded, and images of a class that the training part lacks, are left out with a warning.
/// Hidden files and folders are not looked at. Transparency is dropped, 16 bits become 8, and of an animation the
/// first picture is taken. Errors: no two classes, images of more than `max_bytes`, [`DataError::Cancelled`].
pub(super) fn load(
    path: &Path,
    image_size: (usize, usize),
    max_bytes: u64,
    watch: Watch<'_>,
) -> Result<Dataset, DataError> {
    let (height, width) = image_size;
    if !(1..=MAX_TARGET_SIDE).contains(&height) || !(1..=MAX_TARGET_SIDE).contains(&width) {
        let expected = format!("an image size of 1 to {MAX_TARGET_SIDE} pixels a side");
        return Err(DataError::format(WHAT, expected, format!("{height}x{width}"), "Choose another size", path));
    }
    let train_folder = subfolder(path, &["train"]);
    let root = train_folder.as_deref().unwrap_or(path);
    let classes = classes(root)?;
    let mut reader =
        Reader { image_size, classes: &classes, skipped: Skipped::default(), is_grey: true, left_bytes: max_bytes };
    let train = reader.read(root, watch)?;
    if train.labels.is_empty() {
        return Err(DataError::format(
            WHAT,
            "readable .png or .jpg files in a folder per class",
            std::mem::take(&mut reader.skipped).summary("such file"),
            "Choose the folder that holds one folder per class",
            path,
        ));
    }
    let (mut validation, mut test) = (None, ImageSplit::default());
    if train_folder.is_some() {
        if let Some(folder) = subfolder(path, &["validation", "val", "valid"]) {
            validation = Some(reader.read(&folder, watch)?).filter(|split| !split.labels.is_empty());
        }
        if let Some(folder) = subfolder(path, &["test"]) {
            test = reader.read(&folder, watch)?;
        }
    }
    let (train, validation, rule) = match validation {
        Some(validation) => (train, validation, "the folder for it".to_owned()),
        None => {
            let is_held_out = split::stratified(&train.labels, classes.len());
            let (train, validation) = partition(&train, 3 * height * width, &is_held_out);
            (train, validation, "a seeded tenth of each class".to_owned())
        }
    };
    let channels = if reader.is_grey { 1 } else { 3 };
    let narrow = |split: ImageSplit| if channels == 1 { first_plane(split, height * width) } else { split };
    let warnings = std::mem::take(&mut reader.skipped).warnings();
    images::finish(RawImages {
        name: files::file_name(path),
        channels,
        height,
        width,
        train: narrow(train),
        validation: Some((narrow(validation), rule)),
        test: narrow(test),
        num_held_out: None,
        rule_test: "the folder for it",
        warnings,
        path: path.to_owned(),
        classes: classes.into_iter().map(|class| class.name).collect(),
    })
}

fn subfolder(path: &Path, names: &[&str]) -> Option<PathBuf> {
    names.iter().map(|name| path.join(name)).find(|folder| folder.is_dir())
}

/// The folders in `root`, in order of name. Errors: fewer than two, or more than labels are kept for.
fn classes(root: &Path) -> Result<Vec<Class>, DataError> {
    let mut classes = Vec::new();
    for folder in files::list_folder(root)? {
        if let Some(name) = folder.file_name().filter(|_| folder.is_dir() && !is_clutter(&folder)) {
            classes.push(Class { name: files::file_name(&folder), folder: name.to_owned() });
        }
    }
    if (2..=10_000).contains(&classes.len()) {
        return Ok(classes);
    }
    let hint = "Choose the folder that holds one folder per class";
    Err(DataError::format(WHAT, "2 to 10000 folders, one per class", format!("{}", classes.len()), hint, root))
}

/// True for what systems and editors leave behind: `.DS_Store`, `.ipynb_checkpoints`, `__MACOSX`.
fn is_clutter(path: &Path) -> bool {
    let name = files::file_name(path);
    name.starts_with('.') || name == "__MACOSX"
}

fn is_image(path: &Path) -> bool {
    files::has_extension(path, &["png", "jpg", "jpeg"])
}

/// Keeps the first of three equal planes.
fn first_plane(split: ImageSplit, plane: usize) -> ImageSplit {
    let pixels = split.pixels.chunks_exact(3 * plane).flat_map(|image| image.iter().take(plane).copied()).collect();
    ImageSplit { pixels, labels: split.labels }
}

/// Reads parts and remembers what it met.
#[derive(Debug)]
struct Reader<'a> {
    image_size: (usize, usize),
    classes: &'a [Class],
    skipped: Skipped,
    /// True while every image was grey.
    is_grey: bool,
    /// Bytes that further images may take.
    left_bytes: u64,
}

impl Reader<'_> {
    /// All images of a part, RGB, class by class. Errors: cancelled, too large, a folder that cannot be listed.
    fn read(&mut self, root: &Path, watch: Watch<'_>) -> Result<ImageSplit, DataError> {
        let listing = self.list(root)?;
        let what = format!("reading {}", files::file_name(root));
        let image_bytes = 3 * self.image_size.0 * self.image_size.1;
        let slab_len = (SLAB_BYTES / image_bytes).clamp(1, SLAB);
        let mut split = ImageSplit::default();
        for (i, slab) in listing.chunks(slab_len).enumerate() {
            watch.step(&what, (i * slab_len) as u64, Some(listing.len() as u64))?;
            let decoded: Vec<_> = slab.par_iter().map(|(path, _)| decode(path, self.image_size)).collect();
            for ((path, label), decoded) in slab.iter().zip(decoded) {
                match decoded {
                    Ok(decoded) => {
                        self.is_grey &= decoded.is_grey;
                        split.pixels.extend(decoded.pixels);
                        split.labels.push(*label);
                    }
                    Err(reason) => self.skipped.push(format!("{}: {reason}", files::file_name(path))),
                }
            }
        }
        Ok(split)
    }

    /// The images of the classes' folders in `root`. Errors: more than memory allows, a folder that cannot be listed.
    fn list(&mut self, root: &Path) -> Result<Listing, DataError> {
        let mut listing = Vec::new();
        for (class, label) in self.classes.iter().zip(0..) {
            let folder = root.join(&class.folder);
            if !folder.is_dir() {
                continue;
            }
            for entry in files::list_folder(&folder)? {
                if is_clutter(&entry) {
                    continue;
                }
                if is_image(&entry) {
                    listing.push((entry, label));
                } else {
                    self.skipped.push(format!("{}: not .png or .jpg", files::file_name(&entry)));
                }
            }
        }
        self.skip_strangers(root)?;
        let bytes = listing.len() as u64 * 3 * self.image_size.0 as u64 * self.image_size.1 as u64;
        self.left_bytes = self.left_bytes.checked_sub(bytes).ok_or_else(|| {
            DataError::format(
                WHAT,
                format!("at most {} of pixels", files::size(self.left_bytes)),
                format!("{} for {} files", files::size(bytes), listing.len()),
                "Choose a smaller image size, or fewer images: a dataset may take a quarter of this machine's memory",
                root,
            )
        })?;
        Ok(listing)
    }

    /// Notes the images in folders of `root` that are no class of the training part.
    fn skip_strangers(&mut self, root: &Path) -> Result<(), DataError> {
        for folder in files::list_folder(root)? {
            let is_class = self.classes.iter().any(|class| folder.file_name() == Some(class.folder.as_os_str()));
            if is_class || is_clutter(&folder) || !folder.is_dir() {
                continue;
            }
            let num_images = files::list_folder(&folder)?.iter().filter(|entry| is_image(entry)).count();
            if num_images > 0 {
                let name = format!("{}/{}", files::file_name(root), files::file_name(&folder));
                let reason = format!("{name}: no such class in the training part (images: {num_images})");
                self.skipped.push_many(num_images, reason);
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Decoded {
    /// (3, height, width).
    pixels: Vec<u8>,
    is_grey: bool,
}

/// Decodes and scales one image. Errors: why it is left out.
fn decode(path: &Path, (height, width): (usize, usize)) -> Result<Decoded, String> {
    let open = OpenFile::open(path).map_err(|error| error.to_string())?;
    let reader =
        ImageReader::new(BufReader::new(open.file)).with_guessed_format().map_err(|error| error.to_string())?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODE_BYTES);
    let mut reader = reader;
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder().map_err(|error| error.to_string())?;
    let (columns, rows) = decoder.dimensions();
    if columns == 0 || rows == 0 || columns > MAX_SIDE || rows > MAX_SIDE {
        return Err(format!("{columns}x{rows} pixels, at most {MAX_SIDE} a side are read"));
    }
    limits.reserve(decoder.total_bytes()).map_err(|error| error.to_string())?;
    decoder.set_limits(limits).map_err(|error| error.to_string())?;
    let is_grey = !decoder.color_type().has_color();
    let image = image::DynamicImage::from_decoder(decoder).map_err(|error| error.to_string())?;
    let image = if (columns as usize, rows as usize) == (width, height) {
        image.into_rgb8()
    } else {
        image::imageops::resize(&image.into_rgb8(), width as u32, height as u32, FilterType::Triangle)
    };
    let plane = height * width;
    let mut pixels = vec![0; 3 * plane];
    for (i, pixel) in image.pixels().enumerate() {
        for (channel, &value) in pixel.0.iter().enumerate() {
            pixels[channel * plane + i] = value;
        }
    }
    Ok(Decoded { pixels, is_grey })
}
