//! MNIST-style IDX files, plain or gzip'd.
//!
//! Source: <http://yann.lecun.com/exdb/mnist/>: two zero bytes, a type byte (8: unsigned byte), the number of
//! dimensions, each dimension as a big-endian u32, then the values.

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::files::{self, OpenFile, TOO_LARGE_HINT};
use super::images::{self, RawImages};
use super::{DataError, Dataset, ImageSplit};
use crate::device::Watch;

/// Largest image side; a larger one in a header is a lie.
const MAX_SIDE: usize = 4096;

/// Loads the four files of `path`: a folder, or one of its files. The two test files may be absent.
/// Errors: files that lie or do not belong together, values of more than `max_bytes`, [`DataError::Cancelled`].
pub(super) fn load(path: &Path, max_bytes: u64, watch: Watch<'_>) -> Result<Dataset, DataError> {
    let folder = if path.is_file() { path.parent().unwrap_or(path) } else { path };
    let entries = files::list_folder(folder)?;
    let images = require(&entries, folder, "train-images", "idx3-ubyte")?;
    let labels = require(&entries, folder, "train-labels", "idx1-ubyte")?;
    let (shape, train) = read_pair(&images, &labels, max_bytes, watch)?;
    let num_classes = num_classes(&train.labels, &labels)?;
    let test_images =
        find(&entries, "t10k-images", "idx3-ubyte").or_else(|| find(&entries, "test-images", "idx3-ubyte"));
    let test_labels =
        find(&entries, "t10k-labels", "idx1-ubyte").or_else(|| find(&entries, "test-labels", "idx1-ubyte"));
    let test = match (test_images, test_labels) {
        (Some(images), Some(labels)) => {
            let left = max_bytes.saturating_sub(train.pixels.len() as u64);
            let (test_shape, test) = read_pair(&images, &labels, left, watch)?;
            if test_shape != shape {
                return Err(DataError::format(
                    "test images",
                    format!("{}x{} pixels as in the training images", shape.0, shape.1),
                    format!("{}x{}", test_shape.0, test_shape.1),
                    "Do the files belong together?",
                    &images,
                ));
            }
            check_test_labels(&test.labels, num_classes, &labels)?;
            test
        }
        (None, None) => ImageSplit::default(),
        (Some(_), None) => return Err(missing(folder, "t10k-labels-idx1-ubyte")),
        (None, Some(_)) => return Err(missing(folder, "t10k-images-idx3-ubyte")),
    };
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
/// Errors: a class below it without a single image, which says that a label is wrong. Class 0 may be empty: some sets,
/// EMNIST's letters among them, count from 1.
fn num_classes(labels: &[u32], path: &Path) -> Result<usize, DataError> {
    let mut counts = [0_usize; 256];
    for &label in labels {
        counts[label as usize & 255] += 1;
    }
    let largest = counts.iter().rposition(|&count| count > 0).unwrap_or(0);
    let Some(gap) = (1..largest).find(|&label| counts[label] == 0) else { return Ok(largest + 1) };
    let record = labels.iter().position(|&label| label as usize == largest).unwrap_or(0);
    Err(DataError::format(
        "training labels",
        "labels that count up without a gap (only 0 may be left out)",
        format!("label {largest} at record {record}, and no label {gap}"),
        "Is the file damaged? Classes without images must be numbered anew",
        path,
    ))
}

/// Errors: a label that training does not have.
fn check_test_labels(labels: &[u32], num_classes: usize, path: &Path) -> Result<(), DataError> {
    match labels.iter().enumerate().find(|&(_, &label)| label as usize >= num_classes) {
        None => Ok(()),
        Some((record, label)) => Err(DataError::format(
            "test labels",
            format!("labels 0 to {}, as in the training labels", num_classes - 1),
            format!("label {label} at record {record}"),
            "Do the files belong together?",
            path,
        )),
    }
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

/// Reads images and their labels; returns (height, width) and the records. The headers are compared before any value
/// is read.
fn read_pair(
    images: &Path,
    labels: &Path,
    max_bytes: u64,
    watch: Watch<'_>,
) -> Result<((usize, usize), ImageSplit), DataError> {
    let pixels = IdxFile::open(images, 3, max_bytes)?;
    let classes = IdxFile::open(labels, 1, max_bytes)?;
    let (&[num_images, height, width], &[num_labels]) = (pixels.dims.as_slice(), classes.dims.as_slice()) else {
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
    let pixels = pixels.values(watch)?;
    let labels = classes.values(watch)?.into_iter().map(u32::from).collect();
    Ok(((height, width), ImageSplit { pixels, labels }))
}

/// How much a reader can hold.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Most bytes it can give.
    max_content: u64,
    /// True when it gives just as many.
    is_exact: bool,
    /// Most bytes that its values may take in memory.
    max_bytes: u64,
}

/// A file whose header was read and found good.
struct IdxFile {
    reader: Box<dyn Read>,
    what: &'static str,
    path: PathBuf,
    dims: Vec<usize>,
    /// Bytes of values that the header promises.
    num_values: u64,
}

impl IdxFile {
    fn open(path: &Path, num_dims: u8, max_bytes: u64) -> Result<Self, DataError> {
        let mut open = OpenFile::open(path)?;
        let is_gz = open.is_gz()?;
        let limits = Limits { max_content: open.max_content(is_gz), is_exact: !is_gz, max_bytes };
        let mut reader: Box<dyn Read> =
            if is_gz { Box::new(MultiGzDecoder::new(BufReader::new(open.file))) } else { Box::new(open.file) };
        let what = if num_dims == 3 { "IDX images" } else { "IDX labels" };
        let dims = read_dims(&mut reader, num_dims, what, path)?;
        let num_values = num_values(&dims, limits, what, path)?;
        Ok(Self { reader, what, path: path.to_owned(), dims, num_values })
    }

    /// Errors: fewer or more than the header says, [`DataError::Cancelled`].
    fn values(self, watch: Watch<'_>) -> Result<Vec<u8>, DataError> {
        let Self { mut reader, what, path, dims, num_values } = self;
        let doing = format!("reading {}", files::file_name(&path));
        let values = files::read_up_to(&mut reader, num_values, &doing, &path, watch)?;
        let expected = || format!("{num_values} bytes of values for {dims:?}");
        if (values.len() as u64) < num_values {
            return Err(lied(what, expected(), format!("{} bytes", values.len()), &path));
        }
        let mut rest = [0_u8; 1];
        let has_more = reader.read(&mut rest).map_err(|source| DataError::io("reading", &path, source))? > 0;
        if has_more { Err(lied(what, expected(), "more".to_owned(), &path)) } else { Ok(values) }
    }
}

fn lied(what: &'static str, expected: String, found: String, path: &Path) -> DataError {
    DataError::format(what, expected, found, "Is the download complete and the right file?", path)
}

/// The dimensions that the header names. Errors: another kind of file, a side that no image has.
fn read_dims(reader: &mut impl Read, num_dims: u8, what: &'static str, path: &Path) -> Result<Vec<usize>, DataError> {
    let header_len = header_len(usize::from(num_dims));
    let mut header = Vec::with_capacity(header_len);
    reader.take(header_len as u64).read_to_end(&mut header).map_err(|source| DataError::io("reading", path, source))?;
    let (magic, sizes) = header.split_at(header.len().min(4));
    if magic != [0, 0, 8, num_dims] {
        let found = magic.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
        let found = if found.is_empty() { "an empty file".to_owned() } else { found };
        return Err(lied(what, format!("the first bytes 00 00 08 {num_dims:02x}"), found, path));
    }
    if header.len() < header_len {
        return Err(lied(what, format!("a header of {header_len} bytes"), format!("{} bytes", header.len()), path));
    }
    let dims: Vec<usize> = sizes
        .chunks_exact(4)
        .map(|size| size.iter().fold(0_usize, |value, &byte| (value << 8) | usize::from(byte)))
        .collect();
    match dims.iter().skip(1).find(|&&side| side == 0 || side > MAX_SIDE) {
        Some(side) => Err(lied(what, format!("images of 1 to {MAX_SIDE} pixels a side"), format!("{side}"), path)),
        None => Ok(dims),
    }
}

/// Bytes of the header of a file with so many dimensions.
fn header_len(num_dims: usize) -> usize {
    4 + 4 * num_dims
}

/// How many bytes of values the dimensions ask for. Errors: more than the file can hold, more than memory allows; for
/// a plain file also fewer than it holds.
fn num_values(dims: &[usize], limits: Limits, what: &'static str, path: &Path) -> Result<u64, DataError> {
    let room = limits.max_content.saturating_sub(header_len(dims.len()) as u64);
    // Three u32 may overflow 64 bits.
    let num_values = dims.iter().try_fold(1_u64, |product, &dim| product.checked_mul(dim as u64));
    let num_values = num_values.filter(|&len| len <= room).ok_or_else(|| {
        let expected = format!("values for {dims:?}, as the header says");
        lied(what, expected, format!("room for at most {room} bytes"), path)
    })?;
    if limits.is_exact && num_values != room {
        return Err(lied(what, format!("{num_values} bytes of values for {dims:?}"), format!("{room} bytes"), path));
    }
    if num_values > limits.max_bytes {
        return Err(files::too_large(what, limits.max_bytes, num_values, TOO_LARGE_HINT, path));
    }
    Ok(num_values)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use super::*;

    #[test]
    fn a_small_file_cannot_ask_for_all_memory() {
        let path = Path::new("train-images-idx3-ubyte.gz");
        // 17 MB of packed zeros hold what this header asks for, and it stays below 16 GiB.
        let limits = |max_bytes| Limits { max_content: 17_000_000 * 1040, is_exact: false, max_bytes };
        let dims = [1023, 4096, 4096];
        assert_eq!(num_values(&dims, limits(16 << 30), "IDX images", path).unwrap(), 1023 << 24);
        let error = num_values(&dims, limits(4 << 30), "IDX images", path).unwrap_err().to_string();
        assert!(error.contains("at most 4.3 GB, found 17.2 GB") && error.contains("memory"), "{error}");
    }

    #[test]
    fn classes_have_no_gaps() {
        let path = Path::new("train-labels-idx1-ubyte");
        let digits: Vec<u32> = (0..40).map(|i| i % 10).collect();
        assert_eq!(num_classes(&digits, path).unwrap(), 10);
        // One label of 15 among ten digits is damage, not six more classes.
        let error = num_classes(&[digits, vec![15]].concat(), path).unwrap_err().to_string();
        assert!(error.contains("label 15 at record 40, and no label 10"), "{error}");
        assert!(error.contains("train-labels-idx1-ubyte"), "{error}");
        // EMNIST's letters are 1 to 26.
        let letters: Vec<u32> = (1..=26).collect();
        assert_eq!(num_classes(&letters, path).unwrap(), 27);
        assert!(num_classes(&[2, 3, 2, 3], path).is_err());
    }
}
