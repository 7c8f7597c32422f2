//! MNIST-style IDX files, plain or gzip'd.
//!
//! Source: <http://yann.lecun.com/exdb/mnist/>: two zero bytes, a type byte (8: unsigned byte), the number of
//! dimensions, each dimension as a big-endian u32, then the values.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::files::{self, MAX_DATASET_BYTES, OpenFile};
use super::images::{self, RawImages};
use super::{DataError, Dataset, ImageSplit};
use crate::device::Watch;

/// An array of bytes as the file shapes it.
#[derive(Debug, PartialEq, Eq)]
struct IdxArray {
    dims: Vec<usize>,
    values: Vec<u8>,
}

/// Largest image side; a larger one in a header is a lie.
const MAX_SIDE: usize = 4096;

/// Loads the four files of `path`: a folder, or one of its files. The two test files may be absent.
pub(super) fn load(path: &Path, watch: Watch<'_>) -> Result<Dataset, DataError> {
    let folder = if path.is_file() { path.parent().unwrap_or(path) } else { path };
    let entries = files::list_folder(folder)?;
    let (shape, train) = read_pair(
        &require(&entries, folder, "train-images", "idx3-ubyte")?,
        &require(&entries, folder, "train-labels", "idx1-ubyte")?,
        watch,
    )?;
    let test_images =
        find(&entries, "t10k-images", "idx3-ubyte").or_else(|| find(&entries, "test-images", "idx3-ubyte"));
    let test_labels =
        find(&entries, "t10k-labels", "idx1-ubyte").or_else(|| find(&entries, "test-labels", "idx1-ubyte"));
    let test = match (test_images, test_labels) {
        (Some(images), Some(labels)) => {
            let (test_shape, test) = read_pair(&images, &labels, watch)?;
            if test_shape != shape {
                return Err(DataError::format(
                    "test images",
                    format!("{}x{} pixels as in the training images", shape.0, shape.1),
                    format!("{}x{}", test_shape.0, test_shape.1),
                    "Do the files belong together?",
                    &images,
                ));
            }
            test
        }
        (None, None) => ImageSplit::default(),
        (Some(_), None) => return Err(missing(folder, "t10k-labels-idx1-ubyte")),
        (None, Some(_)) => return Err(missing(folder, "t10k-images-idx3-ubyte")),
    };
    let num_classes = num_classes(&train.labels, folder)?;
    if let Some((i, label)) = test.labels.iter().enumerate().find(|&(_, &label)| label as usize >= num_classes) {
        return Err(DataError::format(
            "test labels",
            format!("labels 0 to {}, as in the training labels", num_classes - 1),
            format!("label {label} at record {i}"),
            "Do the files belong together?",
            folder,
        ));
    }
    images::finish(RawImages {
        name: files::file_name(folder),
        channels: 1,
        height: shape.0,
        width: shape.1,
        classes: (0..num_classes).map(|class| class.to_string()).collect(),
        train,
        validation: None,
        test,
        num_held_out: None,
        rule_test: "the t10k files",
        warnings: Vec::new(),
        path: folder.to_owned(),
    })
}

/// The number of classes: one more than the largest label.
/// Errors: more than half of them without a single image, which says that a label is wrong.
fn num_classes(labels: &[u32], folder: &Path) -> Result<usize, DataError> {
    let mut counts = [0_usize; 256];
    for &label in labels {
        counts[label as usize & 255] += 1;
    }
    let used = counts.iter().filter(|&&count| count > 0).count();
    let largest = counts.iter().rposition(|&count| count > 0).unwrap_or(0);
    if used * 2 < largest + 1 {
        let record = labels.iter().position(|&label| label as usize == largest).unwrap_or(0);
        return Err(DataError::format(
            "training labels",
            format!("labels that count up from 0 (there are {used} different ones)"),
            format!("label {largest} at record {record}"),
            "Is the labels file damaged?",
            folder,
        ));
    }
    Ok(largest + 1)
}

/// The file whose name ends in `stem` + `-` or `.` + `kind`, with or without `.gz`; the plain one when both are there.
fn find(entries: &[PathBuf], stem: &str, kind: &str) -> Option<PathBuf> {
    let names = [format!("{stem}-{kind}"), format!("{stem}.{kind}")];
    let is_it = |entry: &PathBuf| {
        let name = files::file_name(entry).to_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        names.iter().any(|wanted| name.ends_with(wanted.as_str()))
    };
    // Sorted: the plain file comes before the .gz of the same name.
    entries.iter().find(|entry| is_it(entry)).cloned()
}

fn require(entries: &[PathBuf], folder: &Path, stem: &str, kind: &str) -> Result<PathBuf, DataError> {
    find(entries, stem, kind).ok_or_else(|| missing(folder, &format!("{stem}-{kind}")))
}

fn missing(folder: &Path, name: &str) -> DataError {
    DataError::format(
        "a folder of IDX files",
        format!("a file {name} or {name}.gz"),
        "none",
        "Choose the folder with train-images-idx3-ubyte and its three companions",
        folder,
    )
}

/// Reads images and their labels; returns (height, width) and the records.
fn read_pair(images: &Path, labels: &Path, watch: Watch<'_>) -> Result<((usize, usize), ImageSplit), DataError> {
    let pixels = read_file(images, 3, watch)?;
    let classes = read_file(labels, 1, watch)?;
    let (Some(&num_images), Some(&height), Some(&width), Some(&num_labels)) =
        (pixels.dims.first(), pixels.dims.get(1), pixels.dims.get(2), classes.dims.first())
    else {
        return Err(missing(images, "train-images-idx3-ubyte"));
    };
    if num_images != num_labels {
        return Err(DataError::format(
            "IDX labels",
            format!("{num_images} labels, one for each image"),
            format!("{num_labels}"),
            "Do the files belong together?",
            labels,
        ));
    }
    if num_images == 0 {
        return Err(DataError::format("IDX images", "at least one image", "none", "Choose another folder", images));
    }
    let labels = classes.values.into_iter().map(u32::from).collect();
    Ok(((height, width), ImageSplit { pixels: pixels.values, labels }))
}

fn read_file(path: &Path, num_dims: u8, watch: Watch<'_>) -> Result<IdxArray, DataError> {
    let mut open = OpenFile::open(path)?;
    let is_gz = open.is_gz()?;
    let limits = Limits { max_content: open.max_content(is_gz), is_exact: !is_gz };
    if is_gz {
        parse(MultiGzDecoder::new(std::io::BufReader::new(open.file)), num_dims, limits, path, watch)
    } else {
        parse(open.file, num_dims, limits, path, watch)
    }
}

/// How much a reader can hold.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Most bytes it can give.
    max_content: u64,
    /// True when it gives just as many.
    is_exact: bool,
}

fn parse(
    mut reader: impl Read,
    num_dims: u8,
    limits: Limits,
    path: &Path,
    watch: Watch<'_>,
) -> Result<IdxArray, DataError> {
    let what = if num_dims == 3 { "IDX images" } else { "IDX labels" };
    let lied = |expected: String, found: String| {
        DataError::format(what, expected, found, "Is the download complete and the right file?", path)
    };
    let header_len = 4 + 4 * usize::from(num_dims);
    let mut header = Vec::with_capacity(header_len);
    (&mut reader)
        .take(header_len as u64)
        .read_to_end(&mut header)
        .map_err(|source| DataError::io("reading", path, source))?;
    let (magic, sizes) = header.split_at(header.len().min(4));
    if magic != [0, 0, 8, num_dims] {
        let found = magic.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
        let found = if found.is_empty() { "an empty file".to_owned() } else { found };
        return Err(lied(format!("the first bytes 00 00 08 {num_dims:02x}"), found));
    }
    if header.len() < header_len {
        return Err(lied(format!("a header of {header_len} bytes"), format!("{} bytes", header.len())));
    }
    let dims: Vec<usize> = sizes
        .chunks_exact(4)
        .map(|size| size.iter().fold(0_usize, |value, &byte| (value << 8) | usize::from(byte)))
        .collect();
    if let Some(side) = dims.iter().skip(1).find(|&&side| side == 0 || side > MAX_SIDE) {
        return Err(lied(format!("images of 1 to {MAX_SIDE} pixels a side"), format!("{side}")));
    }
    // Three u32 may overflow 64 bits.
    let payload = dims.iter().try_fold(1_u64, |product, &dim| product.checked_mul(dim as u64));
    let room = limits.max_content.saturating_sub(header_len as u64);
    let payload = payload.filter(|&len| len <= room.min(MAX_DATASET_BYTES)).ok_or_else(|| {
        lied(format!("values for {dims:?}, as the header says"), format!("room for at most {room} bytes"))
    })?;
    if limits.is_exact && payload != room {
        return Err(lied(format!("{payload} bytes of values for {dims:?}"), format!("{room} bytes")));
    }
    let values = files::read_up_to(&mut reader, payload, &format!("reading {}", files::file_name(path)), path, watch)?;
    if (values.len() as u64) < payload {
        return Err(lied(format!("{payload} bytes of values for {dims:?}"), format!("{} bytes", values.len())));
    }
    let mut rest = [0_u8; 1];
    let has_more = reader.read(&mut rest).map_err(|source| DataError::io("reading", path, source))? > 0;
    if has_more {
        return Err(lied(format!("{payload} bytes of values for {dims:?}"), "more".to_owned()));
    }
    Ok(IdxArray { dims, values })
}
