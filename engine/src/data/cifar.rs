//! CIFAR-10 in its binary layout: an archive or the unpacked folder, whole or with some of its batches.
//!
//! Source: <https://www.cs.toronto.edu/~kriz/cifar.html>: records of one label byte and 3072 bytes of pixels, a
//! plane of 32x32 for each of red, green and blue.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::files::{self, Guarded, OpenFile};
use super::images::{self, RawImages};
use super::{DataError, Dataset, ImageSplit};
use crate::device::Watch;

const SIDE: usize = 32;
const IMAGE_BYTES: usize = 3 * SIDE * SIDE;
const RECORD_BYTES: usize = 1 + IMAGE_BYTES;
const NUM_CLASSES: usize = 10;
/// The original has 10,000 records in each file; ten times that is not CIFAR-10.
const MAX_FILE_BYTES: u64 = 10 * 10_000 * RECORD_BYTES as u64;
/// Most bytes of an unpacked archive: twice the files that are read from it.
const MAX_ARCHIVE_BYTES: u64 = 12 * MAX_FILE_BYTES;
/// Class names where there is no batches.meta.txt.
const CLASSES: [&str; NUM_CLASSES] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
const TEST: &str = "test_batch.bin";
const META: &str = "batches.meta.txt";
const WHAT: &str = "CIFAR-10";

/// Loads an archive (.tar.gz or .tar) or a folder. Training batches may be missing; one must be there.
/// The format itself bounds its memory: seven small files of a known size each.
pub(super) fn load(path: &Path, watch: Watch<'_>) -> Result<Dataset, DataError> {
    let metadata = std::fs::metadata(path).map_err(|source| DataError::io("looking at", path, source))?;
    let mut files = if metadata.is_dir() { read_folder(path, watch)? } else { read_archive(path, watch)? };
    let classes = classes(files.remove(META), path)?;
    let test = match files.remove(TEST) {
        Some(bytes) => records(TEST, &bytes, path)?,
        None => ImageSplit::default(),
    };
    let mut train = ImageSplit::default();
    let mut num_last = 0;
    let num_batches = files.len();
    let has_last = files.contains_key("data_batch_5.bin");
    for (name, bytes) in files {
        let batch = records(&name, &bytes, path)?;
        num_last = batch.labels.len();
        train.pixels.extend(batch.pixels);
        train.labels.extend(batch.labels);
    }
    if num_batches == 0 {
        return Err(missing(path, "none"));
    }
    images::finish(RawImages {
        name: files::file_name(path),
        channels: 3,
        height: SIDE,
        width: SIDE,
        classes,
        train,
        validation: None,
        test,
        // The fifth batch is for validation by custom; it is last in order of name.
        num_held_out: (has_last && num_batches > 1).then_some(num_last),
        rule_test: TEST,
        warnings: Vec::new(),
        path: path.to_owned(),
    })
}

fn missing(path: &Path, found: &str) -> DataError {
    let hint = "Choose cifar-10-binary.tar.gz or its unpacked folder cifar-10-batches-bin";
    DataError::format(WHAT, "data_batch_1.bin to data_batch_5.bin, or some of them", found, hint, path)
}

fn is_wanted(name: &str) -> bool {
    let is_batch = name.strip_prefix("data_batch_").and_then(|rest| rest.strip_suffix(".bin"));
    is_batch.is_some_and(|number| matches!(number, "1" | "2" | "3" | "4" | "5")) || name == TEST || name == META
}

/// The wanted files of a folder, or of the folder `cifar-10-batches-bin` in it, by name.
fn read_folder(path: &Path, watch: Watch<'_>) -> Result<BTreeMap<String, Vec<u8>>, DataError> {
    let inner = path.join("cifar-10-batches-bin");
    let folder = if inner.is_dir() { inner } else { path.to_owned() };
    let mut found = BTreeMap::new();
    for entry in files::list_folder(&folder)? {
        let name = files::file_name(&entry);
        if is_wanted(&name) {
            let mut open = OpenFile::open(&entry)?;
            check_size(&name, open.len, &entry)?;
            let bytes = open.read_all(&format!("reading {name}"), MAX_FILE_BYTES, watch)?;
            found.insert(name, bytes);
        }
    }
    Ok(found)
}

/// The wanted files of an archive, by name. Nothing is unpacked to disk.
fn read_archive(path: &Path, watch: Watch<'_>) -> Result<BTreeMap<String, Vec<u8>>, DataError> {
    let mut open = OpenFile::open(path)?;
    if open.is_gz()? {
        read_tar(MultiGzDecoder::new(BufReader::<File>::new(open.file)), MAX_ARCHIVE_BYTES, path, watch)
    } else {
        read_tar(BufReader::<File>::new(open.file), MAX_ARCHIVE_BYTES, path, watch)
    }
}

/// The wanted files in the first `max_bytes` of an archive. Errors: an archive that goes on after them, whatever it
/// goes on with.
fn read_tar(
    reader: impl Read,
    max_bytes: u64,
    path: &Path,
    watch: Watch<'_>,
) -> Result<BTreeMap<String, Vec<u8>>, DataError> {
    let failed = |source| files::read_failed("reading the archive", path, source, watch);
    let mut found = BTreeMap::new();
    let mut archive = tar::Archive::new(Guarded::new(reader, max_bytes, watch));
    // Raw: without the extensions for long names, whose length a hostile archive could choose.
    for entry in archive.entries().map_err(failed)?.raw(true) {
        let mut entry = entry.map_err(failed)?;
        watch.check()?;
        let name = entry.path().map(|name| files::file_name(&name)).unwrap_or_default();
        if !entry.header().entry_type().is_file() || !is_wanted(&name) {
            continue;
        }
        let size = entry.size();
        check_size(&name, size, path)?;
        let bytes = files::read_up_to(&mut entry, size, &format!("reading {name}"), path, watch)?;
        if (bytes.len() as u64) < size {
            return Err(DataError::format(
                WHAT,
                format!("{size} bytes of {name}"),
                format!("{} bytes", bytes.len()),
                "Is the download complete?",
                path,
            ));
        }
        found.insert(name, bytes);
    }
    Ok(found)
}

fn check_size(name: &str, size: u64, path: &Path) -> Result<(), DataError> {
    let (fits, expected) = if name == META {
        (size <= 4096, "a short list of names".to_owned())
    } else {
        let fits = size > 0 && size <= MAX_FILE_BYTES && size.is_multiple_of(RECORD_BYTES as u64);
        (fits, format!("records of {RECORD_BYTES} bytes, at most {MAX_FILE_BYTES} bytes"))
    };
    let found = || format!("{size} bytes in {name}");
    let hint = "Is the download complete, and the binary version?";
    if fits { Ok(()) } else { Err(DataError::format(WHAT, expected, found(), hint, path)) }
}

/// Cuts a file into labels and pixels. Errors: a label out of range.
fn records(name: &str, bytes: &[u8], path: &Path) -> Result<ImageSplit, DataError> {
    let mut split = ImageSplit::default();
    for (i, record) in bytes.chunks_exact(RECORD_BYTES).enumerate() {
        let Some((&label, pixels)) = record.split_first() else { continue };
        if usize::from(label) >= NUM_CLASSES {
            return Err(DataError::format(
                WHAT,
                "labels 0 to 9",
                format!("label {label} at record {i} of {name}"),
                "Is the file damaged, or CIFAR-100?",
                path,
            ));
        }
        split.labels.push(u32::from(label));
        split.pixels.extend_from_slice(pixels);
    }
    Ok(split)
}

/// Names from batches.meta.txt, or the known ones where there is none.
fn classes(meta: Option<Vec<u8>>, path: &Path) -> Result<Vec<String>, DataError> {
    let Some(meta) = meta else { return Ok(CLASSES.map(str::to_owned).to_vec()) };
    let text = String::from_utf8_lossy(&meta);
    let names: Vec<String> = text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect();
    if names.len() == NUM_CLASSES {
        return Ok(names);
    }
    let found = format!("{} in {META}", names.len());
    Err(DataError::format(WHAT, "10 class names", found, "Is the file damaged? It may be deleted", path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use super::*;
    use crate::device::{CancelFlag, Progress};
    use crate::unwatched;

    /// The start of an archive whose first file is none of CIFAR-10's and 4 GiB long.
    fn header() -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.set_path("unwanted.bin").unwrap();
        header.set_size(4 << 30);
        header.set_mode(0o644);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    #[test]
    fn an_endless_archive_is_refused() {
        let header = header();
        let reader = header.as_slice().chain(std::io::repeat(0));
        let error = read_tar(reader, 1 << 20, Path::new("c.tar"), unwatched!()).unwrap_err().to_string();
        assert!(error.contains("more than 1.0 MB") && error.contains("c.tar"), "{error}");
    }

    #[test]
    fn skipping_a_huge_file_looks_at_cancel() {
        /// Sets the flag on its tenth read, as a user would in the middle of a long one.
        struct CancelsLater<'a>(&'a CancelFlag, u32);
        impl Read for CancelsLater<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                self.1 += 1;
                if self.1 == 10 {
                    self.0.set();
                }
                buffer.fill(0);
                Ok(buffer.len())
            }
        }
        let cancel = CancelFlag::default();
        let ignore = |_: Progress| {};
        let header = header();
        let reader = header.as_slice().chain(CancelsLater(&cancel, 0));
        let result = read_tar(reader, u64::MAX, Path::new("c.tar"), Watch::new(&cancel, &ignore));
        assert!(matches!(result, Err(DataError::Cancelled(_))), "{result:?}");
    }

    #[test]
    fn a_folder_is_checked_like_an_archive() {
        let folder = tempfile::tempdir().unwrap();
        let write = |bytes: &[u8]| std::fs::write(folder.path().join("data_batch_1.bin"), bytes).unwrap();
        let error = || load(folder.path(), unwatched!()).unwrap_err().to_string();
        write(&[0; RECORD_BYTES + 1]);
        assert!(error().contains("records of 3073 bytes") && error().contains("3074 bytes in data_batch_1.bin"));
        write(&[10; 2 * RECORD_BYTES]);
        assert!(error().contains("label 10 at record 0 of data_batch_1.bin"), "{}", error());
        write(&[]);
        assert!(error().contains("0 bytes in data_batch_1.bin"), "{}", error());
    }
}
