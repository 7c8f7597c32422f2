//! Text from the user's disk: one file, a folder of .txt files, or JSON lines; and its split.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::files::{self, OpenFile};
use super::text::RawText;
use super::{DataError, DataWarning};
use crate::device::Watch;

/// From this many documents on, whole documents are held out.
const SPLIT_DOCUMENTS_FROM: usize = 20;
/// How many skipped things are named.
const MAX_NAMED: usize = 5;

/// Reads a text file, or the .txt files of a folder, in order of name.
pub(super) fn read_text(path: &Path, watch: Watch<'_>) -> Result<RawText, DataError> {
    let metadata = std::fs::metadata(path).map_err(|source| DataError::io("looking at", path, source))?;
    let name = files::file_name(path);
    if !metadata.is_dir() {
        let text = read_file(path, watch)?;
        return split(RawText { name, path: path.to_owned(), ..RawText::default() }, vec![text]);
    }
    let entries: Vec<PathBuf> =
        files::list_folder(path)?.into_iter().filter(|entry| files::has_extension(entry, &["txt"])).collect();
    let mut skipped = Skipped::default();
    let mut texts = Vec::new();
    for entry in &entries {
        match read_file(entry, watch) {
            Ok(text) => texts.push((entry.as_path(), text)),
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
    match named_parts(&texts) {
        Some(parts) => split_named(raw, parts),
        None => split(raw, texts.into_iter().map(|(_, text)| text).collect()),
    }
}

/// Reads the texts in `field` of a file with one JSON object a line.
pub(super) fn read_jsonl(path: &Path, field: &str, watch: Watch<'_>) -> Result<RawText, DataError> {
    let text = read_file(path, watch)?;
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
        match document_of(line, field) {
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

fn document_of(line: &str, field: &str) -> Result<String, String> {
    match serde_json::from_str::<Value>(line) {
        Ok(Value::Object(mut object)) => match object.remove(field) {
            Some(Value::String(text)) if text.is_empty() => Err(format!("{field:?} is empty")),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(format!("{field:?} is not a string")),
            None => Err(format!("no field {field:?}")),
        },
        Ok(_) => Err("not an object".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn read_file(path: &Path, watch: Watch<'_>) -> Result<String, DataError> {
    let bytes = OpenFile::open(path)?.read_all(&format!("reading {}", files::file_name(path)), watch)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let hint = "Save it as UTF-8";
        DataError::format("text", "UTF-8", format!("other bytes from byte {at} on"), hint, path)
    })?;
    if text.trim().is_empty() {
        return Err(DataError::format("text", "some text", "none", "Choose another file", path));
    }
    // The mark of some editors is no part of the text.
    Ok(text.strip_prefix('\u{feff}').map_or_else(|| text.clone(), str::to_owned))
}

/// Files called train, valid and test, as many datasets have them.
#[derive(Debug, Default)]
struct NamedParts {
    train: Vec<String>,
    validation: Vec<String>,
    test: Vec<String>,
}

/// `None` unless each file is named for a part, and there is one to train or validate with beside another.
fn named_parts(texts: &[(&Path, String)]) -> Option<NamedParts> {
    let mut parts = NamedParts::default();
    for (path, text) in texts {
        let stem = path.file_stem()?.to_string_lossy().to_lowercase();
        let part = match stem.as_str() {
            "train" | "training" => &mut parts.train,
            "valid" | "val" | "validation" | "dev" => &mut parts.validation,
            "test" => &mut parts.test,
            _ => return None,
        };
        part.push(text.clone());
    }
    let has_two = texts.len() > 1 && !(parts.train.is_empty() && parts.validation.is_empty());
    has_two.then_some(parts)
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
        self.count += 1;
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
