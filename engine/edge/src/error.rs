//! What can go wrong with a package.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

/// Errors of this crate: what was tried, what was expected and found, then the file.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// The operating system refused a file.
    #[error("reading {path:?}: {source}. {hint}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
        /// A question that helps with a file of this sort.
        hint: &'static str,
    },
    /// A file whose content is not what its name promises.
    #[error("reading {path:?}: expected {expected}, found {found}. Is the file complete and undamaged?")]
    Format {
        /// The file.
        path: PathBuf,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A file that is whole, as far as one can tell, but of a sort that is not taken here.
    #[error("reading {path:?}: expected {expected}, found {found}")]
    Unsuited {
        /// The file.
        path: PathBuf,
        /// What is taken.
        expected: String,
        /// What is there.
        found: String,
    },
    /// What an export has not finished writing, or left behind when it was killed.
    #[error(
        "opening a model: expected a whole one, found an export that is not finished. Wait for it or, if it was cut off, export again; nothing needs this folder then {path:?}"
    )]
    Unfinished {
        /// The folder or file.
        path: PathBuf,
    },
    /// A tensor that the config asks for is not in the weights.
    #[error("loading tensor {name:?}: not in {path:?}. Do config.json and the weights belong together?")]
    MissingTensor {
        /// The tensor.
        name: String,
        /// The weights file.
        path: PathBuf,
    },
    /// A tensor of another shape or type than the config asks for.
    #[error(
        "loading tensor {name:?}: expected {expected}, found {found}. Do config.json and {path:?} belong together?"
    )]
    Tensor {
        /// The tensor.
        name: String,
        /// What the config asks for.
        expected: String,
        /// What the weights hold.
        found: String,
        /// The weights file.
        path: PathBuf,
    },
    /// A call with something that this model cannot take.
    #[error("{tried}: expected {expected}, found {found}")]
    Input {
        /// What was tried.
        tried: String,
        /// What the model takes.
        expected: String,
        /// What was given.
        found: String,
    },
    /// The tokenizer failed on a text or token.
    #[error("{tried}: the tokenizer says {message:?}")]
    Tokenizer {
        /// What was tried.
        tried: String,
        /// The tokenizer's own words.
        message: String,
    },
    /// A GGUF writer was given something that the format cannot hold.
    #[error("writing GGUF: {what:?}: expected {expected}, found {found}")]
    Write {
        /// The key or tensor.
        what: String,
        /// What the format takes.
        expected: String,
        /// What was given.
        found: String,
    },
    /// The operating system refused to write a prompt cache.
    #[error("writing {path:?}: {source}. Is there such a folder, and room?")]
    Save {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The operating system refused to write.
    #[error("writing GGUF: {source}. Is the disk full?")]
    WriteFile {
        /// Why.
        #[from]
        source: std::io::Error,
    },
}

/// Characters of a file's content that a message quotes: more would hide what it says.
const MAX_QUOTED: usize = 400;

/// `text`, cut where it gets too long for a message.
fn quotable(text: impl Into<String>) -> String {
    let mut text = text.into();
    if let Some((end, _)) = text.char_indices().nth(MAX_QUOTED) {
        text.truncate(end);
        text.push('…');
    }
    text
}

impl EdgeError {
    /// Makes an [`EdgeError::Read`] of what the operating system says about the file at `path`.
    pub(crate) fn read(path: &Path, hint: &'static str) -> impl Fn(std::io::Error) -> Self + Copy {
        move |source| Self::Read { path: path.to_owned(), source, hint }
    }

    /// An [`EdgeError::Unsuited`]; what it quotes from the file is cut as in [`EdgeError::format`].
    pub(crate) fn unsuited(path: &Path, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Unsuited { path: path.to_owned(), expected: quotable(expected), found: quotable(found) }
    }

    /// A [`EdgeError::Format`]; what it quotes from the file is cut to some hundred characters.
    pub(crate) fn format(path: &Path, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Format { path: path.to_owned(), expected: quotable(expected), found: quotable(found) }
    }

    /// An [`EdgeError::Input`].
    pub(crate) fn input(tried: &str, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Input { tried: tried.to_owned(), expected: expected.into(), found: found.into() }
    }
}
