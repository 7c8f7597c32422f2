//! Small files to load, and the folder of real data.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::data::load::load_within;
use crate::data::{DataError, Dataset, DatasetSpec, ImageDataset, TextDataset, TokenizerSpec, load};
use crate::unwatched;

/// Loads with a cache that no test shares.
pub fn load_from(spec: &DatasetSpec) -> Result<Dataset, DataError> {
    let cache = tempfile::tempdir().unwrap();
    load(spec, cache.path(), unwatched!())
}

#[track_caller]
pub fn images(spec: &DatasetSpec) -> ImageDataset {
    match load_from(spec) {
        Ok(Dataset::Images(images)) => images,
        other => panic!("expected images, found {other:?}"),
    }
}

#[track_caller]
pub fn text(spec: &DatasetSpec) -> TextDataset {
    match load_from(spec) {
        Ok(Dataset::Text(text)) => *text,
        other => panic!("expected text, found {other:?}"),
    }
}

/// The error's text, which must name the path, what was expected and what was found.
#[track_caller]
pub fn error_text(spec: &DatasetSpec) -> String {
    match load_from(spec) {
        Ok(_) => panic!("expected an error"),
        Err(error) => error.to_string(),
    }
}

/// The error's text on a machine that allows a dataset `max_bytes`.
#[track_caller]
pub fn error_within(spec: &DatasetSpec, max_bytes: u64) -> String {
    match load_within(spec, Path::new("no cache"), max_bytes, unwatched!()) {
        Ok(_) => panic!("expected an error"),
        Err(error) => error.to_string(),
    }
}

pub fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn idx(dims: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dims.len() as u8];
    for dim in dims {
        bytes.extend(dim.to_be_bytes());
    }
    bytes.extend(values);
    bytes
}

/// The four files of a small set: 30 + 10 images of 2x3 pixels in 3 classes.
pub fn idx_files() -> [(&'static str, Vec<u8>); 4] {
    let pixels = |n: u8| (0..n).flat_map(|i| [i; 6]).collect::<Vec<u8>>();
    let labels = |n: u8| (0..n).map(|i| i % 3).collect::<Vec<u8>>();
    [
        ("train-images-idx3-ubyte", idx(&[30, 2, 3], &pixels(30))),
        ("train-labels-idx1-ubyte", idx(&[30], &labels(30))),
        ("t10k-images-idx3-ubyte", idx(&[10, 2, 3], &pixels(10))),
        ("t10k-labels-idx1-ubyte", idx(&[10], &labels(10))),
    ]
}

pub fn write_all(folder: &Path, files: &[(&str, Vec<u8>)]) {
    for (name, bytes) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

pub fn idx_spec(folder: &Path) -> DatasetSpec {
    DatasetSpec::Idx { path: folder.to_owned() }
}

pub fn text_spec(path: &Path, tokenizer: TokenizerSpec) -> DatasetSpec {
    DatasetSpec::Text { path: path.to_owned(), tokenizer }
}

pub fn cifar_file(num_records: u8) -> Vec<u8> {
    (0..num_records).flat_map(|i| std::iter::once(i % 10).chain([i; 3072])).collect()
}

pub fn tar(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A file or folder of the real data beside the workspace, when it is there.
pub fn real(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(path);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: no real data at ../shared/data, this test checked nothing");
    None
}
