//! Text from the user's disk: one file, a folder of .txt files, or JSON lines; and its split.

use std::path::{Path, PathBuf};

use super::files::{self, OpenFile, TOO_LARGE_HINT};
use super::json_line::text_in;
use super::text::RawText;
use super::{DataError, DataWarning, SplitPart};
use crate::device::Watch;

/// From this many documents on, whole documents are held out.
const SPLIT_DOCUMENTS_FROM: usize = 20;
/// How many skipped things are named.
const MAX_NAMED: usize = 5;

/// Mark of some editors at the start of a file; no part of the text.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Reads a text file, or the .txt files of a folder, in order of name.
/// Errors: no text, more than `max_bytes` of it, [`DataError::Cancelled`].
pub(super) fn read_text(path: &Path, max_bytes: u64, watch: Watch<'_>) -> Result<RawText, DataError> {
    let metadata = std::fs::metadata(path).map_err(|source| DataError::io("looking at", path, source))?;
    let name = files::file_name(path);
    if !metadata.is_dir() {
        let text = read_file(path, max_bytes, watch)?;
        return split(RawText { name, path: path.to_owned(), ..RawText::default() }, vec![text]);
    }
    let entries: Vec<PathBuf> =
        files::list_folder(path)?.into_iter().filter(|entry| files::has_extension(entry, &["txt"])).collect();
    check_total(&entries, max_bytes, path)?;
    let mut skipped = Skipped::default();
    let mut texts = Vec::new();
    for entry in entries {
        match read_file(&entry, max_bytes, watch) {
            Ok(text) => texts.push((entry, text)),
            Err(DataError::Cancelled(cancelled)) => return Err(cancelled.into()),
            Err(error) => skipped.push(error.to_string()),
        }
    }
    if texts.is_empty() {
        return Err(DataError::format(
            "a folder of text",
            "at least one readable .txt file",
            skipped.summary(".txt file"),
            "Choose a folder with .txt files in UTF-8",
            path,
        ));
    }
    let raw = RawText { name, path: path.to_owned(), warnings: skipped.warnings(), ..RawText::default() };
    match named_parts(texts) {
        Ok(parts) => split_named(raw, parts),
        Err(texts) => split(raw, texts),
    }
}

/// Errors: files that each may be read, and together may not.
fn check_total(files: &[PathBuf], max_bytes: u64, folder: &Path) -> Result<(), DataError> {
    let lengths = files.iter().filter_map(|file| std::fs::metadata(file).ok()).map(|metadata| metadata.len());
    let total = lengths.fold(0, u64::saturating_add);
    if total > max_bytes {
        return Err(files::too_large("a folder of text", max_bytes, total, TOO_LARGE_HINT, folder));
    }
    Ok(())
}

/// Reads the texts in `field` of a file with one JSON object a line.
/// Errors: no such text, a file of more than `max_bytes`, [`DataError::Cancelled`].
pub(super) fn read_jsonl(path: &Path, field: &str, max_bytes: u64, watch: Watch<'_>) -> Result<RawText, DataError> {
    let text = read_file(path, max_bytes, watch)?;
    let mut skipped = Skipped::default();
    let mut documents = Vec::new();
    let mut done = 0;
    for (i, line) in text.lines().enumerate() {
        if i % 4096 == 0 {
            watch.step("reading JSON lines", done, Some(text.len() as u64))?;
        }
        done += line.len() as u64 + 1;
        if line.trim().is_empty() {
            continue;
        }
        match text_in(line, field) {
            Ok(document) => documents.push(document),
            Err(reason) => skipped.push(format!("line {}: {reason}", i + 1)),
        }
    }
    if documents.is_empty() {
        return Err(DataError::format(
            "JSON lines",
            format!("objects with a string in {field:?}"),
            skipped.summary("line"),
            "Is the field's name right? One JSON object a line is expected",
            path,
        ));
    }
    let raw = RawText {
        name: files::file_name(path),
        path: path.to_owned(),
        warnings: skipped.warnings(),
        ..RawText::default()
    };
    split(raw, documents)
}

fn read_file(path: &Path, max_bytes: u64, watch: Watch<'_>) -> Result<String, DataError> {
    let bytes = OpenFile::open(path)?.read_all(&format!("reading {}", files::file_name(path)), max_bytes, watch)?;
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let hint = "Save it as UTF-8";
        DataError::format("text", "UTF-8", format!("other bytes from byte {at} on"), hint, path)
    })?;
    if text.starts_with(BYTE_ORDER_MARK) {
        // Moves the text down in place: a second copy may not fit.
        text.drain(..BYTE_ORDER_MARK.len_utf8());
    }
    if text.trim().is_empty() {
        return Err(DataError::format("text", "some text", "none", "Choose another file", path));
    }
    Ok(text)
}

/// Files called train, valid and test, as many datasets have them.
#[derive(Debug, Default)]
struct NamedParts {
    train: Vec<String>,
    validation: Vec<String>,
    test: Vec<String>,
}

/// The part that a file is named for.
fn part_named(path: &Path) -> Option<SplitPart> {
    match path.file_stem()?.to_string_lossy().to_lowercase().as_str() {
        "train" | "training" => Some(SplitPart::Train),
        "valid" | "val" | "validation" | "dev" => Some(SplitPart::Validation),
        "test" => Some(SplitPart::Test),
        _ => None,
    }
}

/// The texts by the parts that their files are named for. The texts come back as they were unless each file is named
/// for a part, and there is one to train or validate with beside another.
fn named_parts(texts: Vec<(PathBuf, String)>) -> Result<NamedParts, Vec<String>> {
    let named: Vec<Option<SplitPart>> = texts.iter().map(|(path, _)| part_named(path)).collect();
    let can_train = named.iter().any(|part| matches!(part, Some(SplitPart::Train | SplitPart::Validation)));
    let texts = texts.into_iter().map(|(_, text)| text);
    if named.len() < 2 || !can_train || named.contains(&None) {
        return Err(texts.collect());
    }
    let mut parts = NamedParts::default();
    for (part, text) in named.into_iter().flatten().zip(texts) {
        match part {
            SplitPart::Train => parts.train.push(text),
            SplitPart::Validation => parts.validation.push(text),
            SplitPart::Test => parts.test.push(text),
        }
    }
    Ok(parts)
}

/// Takes parts as their files name them; a missing training or validation part comes off the other.
fn split_named(raw: RawText, parts: NamedParts) -> Result<RawText, DataError> {
    let NamedParts { train, validation, test } = parts;
    let test_rule = if test.is_empty() { "no test part" } else { "test: the test file" };
    if !train.is_empty() && !validation.is_empty() {
        let rule = format!("train and validation: the files of that name; {test_rule}");
        return Ok(RawText { train, validation, test, rule, ..raw });
    }
    let from = if train.is_empty() { "validation" } else { "training" };
    let mut halved = split(raw, if train.is_empty() { validation } else { train })?;
    halved.rule = format!("validation: last 10% of the {from} file's characters, training: the rest; {test_rule}");
    halved.test = test;
    Ok(halved)
}

/// Many documents: every tenth is held out. Few: the last tenth of each one's characters. Order stays as it is.
fn split(mut raw: RawText, documents: Vec<String>) -> Result<RawText, DataError> {
    let num_documents = documents.len();
    if num_documents >= SPLIT_DOCUMENTS_FROM {
        for (i, document) in documents.into_iter().enumerate() {
            if i % 10 == 9 { raw.validation.push(document) } else { raw.train.push(document) }
        }
        raw.rule = format!("validation: every tenth of {num_documents} documents; no test part");
        return Ok(raw);
    }
    for document in documents {
        let num_chars = document.chars().count();
        let cut = document.char_indices().nth(num_chars * 9 / 10).map_or(document.len(), |(at, _)| at);
        raw.validation.push(document[cut..].to_owned());
        let mut train = document;
        train.truncate(cut);
        raw.train.push(train);
    }
    raw.rule = match num_documents {
        1 => "validation: last 10% of the characters; no test part".to_owned(),
        _ => format!("validation: last 10% of the characters of each of {num_documents} documents; no test part"),
    };
    Ok(raw)
}

/// What was left out, and why.
#[derive(Debug, Default)]
pub(super) struct Skipped {
    count: usize,
    examples: Vec<String>,
}

impl Skipped {
    pub fn push(&mut self, reason: String) {
        self.push_many(1, reason);
    }

    /// So many things left out for one reason.
    pub fn push_many(&mut self, count: usize, reason: String) {
        self.count += count;
        if self.examples.len() < MAX_NAMED {
            self.examples.push(reason);
        }
    }

    /// As a warning, when there is anything.
    pub fn warnings(self) -> Vec<DataWarning> {
        if self.count == 0 {
            Vec::new()
        } else {
            vec![DataWarning::SkippedFiles { count: self.count, examples: self.examples }]
        }
    }

    /// In words, for an error about having nothing else.
    pub fn summary(&self, unit: &str) -> String {
        match self.examples.first() {
            None => format!("no {unit}"),
            Some(first) => format!("none in {} (first {unit}: {first})", self.count),
        }
    }
}
