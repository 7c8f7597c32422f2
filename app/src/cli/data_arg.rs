//! `--data` and `--tokenizer`: a built-in name, or a path whose kind is recognized by what is there.

use std::path::{Path, PathBuf};

use foretrain_engine::data::{DatasetSpec, TokenizerSpec};

use super::data_kind::{self, DataKind};
use super::{CliError, number_arg, path_arg};

/// Options that name a dataset.
#[derive(Debug, Clone, clap::Args)]
pub struct DataArgs {
    /// `glyphs`, `grammar`, `rounds`, or a path: MNIST-style IDX files, CIFAR-10 (.tar.gz or folder), folder of
    /// class folders with images, text file or folder, .jsonl file.
    #[arg(long, value_name = "NAME|PATH")]
    pub data: Option<PathBuf>,
    /// What the path holds, where that is not recognized; with it, --data is always a path.
    #[arg(long, value_enum, requires = "data")]
    pub kind: Option<DataKind>,
    /// How text becomes tokens: `byte`, `char`, a tokenizer.json, or a folder with GPT-2's BPE files.
    #[arg(long, value_name = "NAME|PATH", default_value = "char", requires = "data")]
    pub tokenizer: PathBuf,
    /// The field of a .jsonl file that holds the text.
    #[arg(long, value_name = "NAME", default_value = "text", requires = "data")]
    pub field: String,
    /// Height and width to which an image folder's images are scaled.
    #[arg(long, value_name = "PIXELS", default_value_t = 32, requires = "data")]
    #[arg(value_parser = number_arg::parse_count::<usize>)]
    pub image_size: usize,
}

impl DataArgs {
    /// The dataset named, if one is. Its paths are absolute, so that a run can be resumed from another folder.
    pub(super) fn spec(&self) -> Result<Option<DatasetSpec>, CliError> {
        let Some(data) = &self.data else { return Ok(None) };
        let spec = match (data.to_str(), self.kind) {
            (Some("glyphs"), None) => DatasetSpec::Glyphs,
            (Some("grammar"), None) => DatasetSpec::Grammar,
            (Some("rounds"), None) => DatasetSpec::Rounds,
            (_, kind) => self.spec_of_path(data, kind)?,
        };
        Ok(Some(spec))
    }

    fn spec_of_path(&self, path: &Path, kind: Option<DataKind>) -> Result<DatasetSpec, CliError> {
        // What is there and cannot be read, the engine says best.
        path_arg::check_there("--data", "glyphs, grammar, rounds or a path", path)?;
        let kind = kind.map_or_else(|| data_kind::recognize(path), Ok)?;
        let path = absolute("--data", path)?;
        Ok(match kind {
            DataKind::Idx => DatasetSpec::Idx { path },
            DataKind::Cifar10 => DatasetSpec::Cifar10 { path: cifar_place(path) },
            DataKind::Images => DatasetSpec::ImageFolder { path, image_size: (self.image_size, self.image_size) },
            DataKind::Text => DatasetSpec::Text { path, tokenizer: self.tokenizer_spec()? },
            DataKind::Jsonl if path.is_dir() => return Err(not_a_folder(&path)),
            DataKind::Jsonl => {
                DatasetSpec::Jsonl { path, field: self.field.clone(), tokenizer: self.tokenizer_spec()? }
            }
        })
    }

    fn tokenizer_spec(&self) -> Result<TokenizerSpec, CliError> {
        let path = &self.tokenizer;
        match path.to_str() {
            Some("byte") => Ok(TokenizerSpec::Byte),
            Some("char") => Ok(TokenizerSpec::Char),
            _ if path.is_dir() => Ok(TokenizerSpec::Gpt2 { folder: absolute("--tokenizer", path)? }),
            _ if path.is_file() => Ok(TokenizerSpec::File { path: absolute("--tokenizer", path)? }),
            _ => Err(CliError::Usage(format!(
                "--tokenizer: expected byte, char, a tokenizer.json or a folder with BPE files, found nothing at {}",
                path.display()
            ))),
        }
    }
}

/// The path from the root, links left as they are. Errors: the current folder is gone.
fn absolute(option: &str, path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path).map_err(|error| {
        CliError::Failed(format!(
            "{option}: finding the current folder: {error}. Does it still exist? {}",
            path.display()
        ))
    })
}

/// The folder, where one of its files is named, as for IDX files.
fn cifar_place(path: PathBuf) -> PathBuf {
    let is_one_of_several = path.is_file() && data_kind::is_cifar_name(&data_kind::lower_name(&path));
    match path.parent() {
        Some(folder) if is_one_of_several => folder.to_owned(),
        _ => path,
    }
}

fn not_a_folder(path: &Path) -> CliError {
    CliError::Usage(format!(
        "--data: expected one .jsonl file, found a folder. Name a file in it, or join its files into one. {}",
        path.display()
    ))
}
