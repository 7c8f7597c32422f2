//! What a path holds, by its names and its first bytes.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::CliError;

/// A tar archive says what it is within its first block.
const HEAD_BYTES: u64 = 512;
/// Where in it.
const TAR_MAGIC_AT: std::ops::Range<usize> = 257..262;

/// What a path holds, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DataKind {
    /// MNIST-style IDX files, plain or .gz: their folder, or one of them.
    Idx,
    /// CIFAR-10 binaries: a .tar or .tar.gz archive, or their folder.
    #[value(name = "cifar10")]
    Cifar10,
    /// A folder with a folder of .png or .jpg files for each class.
    Images,
    /// A text file, or a folder of .txt files.
    Text,
    /// A file with one JSON object a line.
    Jsonl,
}

/// Recognizes what `path`, which exists, holds.
/// Errors: it cannot be read, or it looks like nothing that can be learned from.
pub(super) fn recognize(path: &Path) -> Result<DataKind, CliError> {
    if path.is_dir() { kind_of_folder(path) } else { kind_of_file(path) }
}

/// True for one of CIFAR-10's files, whatever is in it.
pub(super) fn is_cifar_name(name: &str) -> bool {
    name.starts_with("data_batch") || name == "test_batch.bin"
}

/// The last part of a path, in lower case.
pub(super) fn lower_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// A telling name comes first: the engine says best what is wrong with a file of that kind.
fn kind_of_file(path: &Path) -> Result<DataKind, CliError> {
    let name = lower_name(path);
    let is_archive = [".tar", ".tar.gz", ".tgz"].iter().any(|ending| name.ends_with(ending));
    if is_jsonl_name(&name) {
        Ok(DataKind::Jsonl)
    } else if is_idx_name(&name) {
        Ok(DataKind::Idx)
    } else if is_archive || is_cifar_name(&name) {
        Ok(DataKind::Cifar10)
    } else if path.is_file() {
        kind_of_bytes(&read_head(path)?, path)
    } else {
        // A pipe or a device, which the engine refuses; opening it could hang.
        Ok(DataKind::Text)
    }
}

fn kind_of_bytes(head: &[u8], path: &Path) -> Result<DataKind, CliError> {
    match head {
        [0, 0, 8, 1 | 3, ..] => Ok(DataKind::Idx),
        [0x1f, 0x8b, ..] => Err(unknown("a compressed file", "Unpack it, or say with --kind what it holds", path)),
        _ if head.get(TAR_MAGIC_AT).is_some_and(|magic| magic == b"ustar") => Ok(DataKind::Cifar10),
        _ if head.contains(&0) => Err(unknown("a binary file", "If it is one of these, say which with --kind", path)),
        _ => Ok(DataKind::Text),
    }
}

/// Class folders count before text, because a folder of images often has a labels.txt or README.txt beside them.
fn kind_of_folder(path: &Path) -> Result<DataKind, CliError> {
    let names: Vec<String> = list(path)?.iter().map(|entry| lower_name(entry)).collect();
    let has = |fits: fn(&str) -> bool| names.iter().any(|name| fits(name));
    if has(is_cifar_name) || path.join("cifar-10-batches-bin").is_dir() {
        return Ok(DataKind::Cifar10);
    }
    if has(is_idx_name) {
        return Ok(DataKind::Idx);
    }
    let num_classes = num_class_folders(path);
    if num_classes >= 2 {
        return Ok(DataKind::Images);
    }
    match (has(is_text_name), has(is_jsonl_name)) {
        (true, false) => Ok(DataKind::Text),
        (false, true) => Ok(DataKind::Jsonl),
        (true, true) => Err(unknown(
            "a folder with both .txt and .jsonl files",
            "Name one .jsonl file, or say --kind text for the others",
            path,
        )),
        // The engine says what an image folder lacks.
        (false, false) if num_classes == 1 || has(is_image_name) => Ok(DataKind::Images),
        (false, false) => Err(unknown("a folder without", "Is it the folder right above the files?", path)),
    }
}

/// Folders that directly hold images, below `path` or its folder `train`; not counted past two.
fn num_class_folders(path: &Path) -> usize {
    let train = path.join("train");
    let root = if train.is_dir() { train.as_path() } else { path };
    let holds_image = |folder: &PathBuf| {
        let mut entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.any(|entry| is_image_name(&lower_name(&entry.path())))
    };
    let folders = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    folders.filter(|entry| entry.is_dir()).filter(holds_image).take(2).count()
}

fn is_idx_name(name: &str) -> bool {
    name.strip_suffix(".gz").unwrap_or(name).ends_with("ubyte")
}

fn is_image_name(name: &str) -> bool {
    [".png", ".jpg", ".jpeg"].iter().any(|ending| name.ends_with(ending))
}

fn is_text_name(name: &str) -> bool {
    name.ends_with(".txt")
}

fn is_jsonl_name(name: &str) -> bool {
    name.ends_with(".jsonl")
}

fn list(path: &Path) -> Result<Vec<PathBuf>, CliError> {
    let entries = std::fs::read_dir(path).map_err(|error| unreadable(&error, path))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

fn read_head(path: &Path) -> Result<Vec<u8>, CliError> {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head));
    read.map_err(|error| unreadable(&error, path))?;
    Ok(head)
}

fn unreadable(error: &std::io::Error, path: &Path) -> CliError {
    CliError::Failed(format!("--data: looking at it: {error}. May you read it? {}", path.display()))
}

fn unknown(found: &str, hint: &str, path: &Path) -> CliError {
    CliError::Usage(format!(
        "--data: expected IDX files, CIFAR-10 binaries, class folders with images, text or a .jsonl file, \
         found {found}: {}. {hint}",
        path.display()
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Makes `files` and looks at `at` among them; `None` is an error.
    #[track_caller]
    fn check(at: &str, files: &[(&str, &[u8])], expected: Option<DataKind>) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("foretrain-data-kind-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        for (name, bytes) in files {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let found = recognize(&root.join(at)).ok();
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(found, expected);
    }

    #[track_caller]
    fn check_file(name: &str, bytes: &[u8], expected: Option<DataKind>) {
        check(name, &[(name, bytes)], expected);
    }

    #[test]
    fn files_are_recognized_by_name_or_first_bytes() {
        let mut tar = vec![b'x'; 512];
        tar[257..262].copy_from_slice(b"ustar");
        check_file("pictures", &[0, 0, 8, 3, 0, 0, 0, 1], Some(DataKind::Idx));
        check_file("labels", &[0, 0, 8, 1, 0, 0, 0, 1], Some(DataKind::Idx));
        check_file("train-images-idx3-ubyte.gz", &[0x1f, 0x8b, 8], Some(DataKind::Idx));
        check_file("cifar-10-binary.tar.gz", &[0x1f, 0x8b, 8], Some(DataKind::Cifar10));
        check_file("cifar.archive", &tar, Some(DataKind::Cifar10));
        check_file("cifar.tar", b"", Some(DataKind::Cifar10));
        check_file("data_batch_1.bin", &[0; 16], Some(DataKind::Cifar10));
        check_file("stories.JSONL", b"{}", Some(DataKind::Jsonl));
        check_file("story", b"Once upon a time", Some(DataKind::Text));
        check_file("story.gz", &[0x1f, 0x8b, 8], None);
        check_file("program", &[0x7f, b'E', b'L', b'F', 0, 0], None);
    }

    #[test]
    fn folders_are_recognized_by_what_is_in_them() {
        let idx: (&str, &[u8]) = ("train-images-idx3-ubyte", b"");
        check("", &[idx, ("README.txt", b"MNIST")], Some(DataKind::Idx));
        check("", &[("data_batch_1.bin", b""), ("batches.meta.txt", b"")], Some(DataKind::Cifar10));
        let classes: [(&str, &[u8]); 2] = [("cat/1.png", b""), ("dog/1.JPG", b"")];
        check("", &[classes[0], classes[1], ("labels.txt", b"cat dog")], Some(DataKind::Images));
        check("", &[("train/cat/1.png", b""), ("train/dog/1.png", b""), ("a.txt", b"")], Some(DataKind::Images));
        check("", &[("a.txt", b"text"), ("figures/1.png", b"")], Some(DataKind::Text));
        check("", &[("1.png", b"")], Some(DataKind::Images));
        check("", &[("a.jsonl", b"{}")], Some(DataKind::Jsonl));
        check("", &[("a.jsonl", b"{}"), ("a.txt", b"text")], None);
        check("", &[("a.docx", b"")], None);
        check("", &[], None);
    }
}
