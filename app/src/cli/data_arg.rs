//! `--data` and `--tokenizer`: a built-in name or a path whose kind is recognized by what is there.

use std::path::{Path, PathBuf};

use foretrain_engine::data::{DatasetSpec, TokenizerSpec};

use super::CliError;

/// Options that name a dataset.
#[derive(Debug, Clone, clap::Args)]
pub struct DataArgs {
    /// `glyphs`, `grammar`, or a path: MNIST-style IDX folder, CIFAR-10 (.tar.gz or folder), folder of class
    /// folders with images, text file or folder, .jsonl file.
    #[arg(long, value_name = "NAME|PATH")]
    pub data: Option<String>,
    /// How text becomes tokens: `byte`, `char`, a tokenizer.json, or a folder with GPT-2's BPE files.
    #[arg(long, value_name = "NAME|PATH", default_value = "char")]
    pub tokenizer: String,
    /// The field of a .jsonl file that holds the text.
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub field: String,
    /// Height and width to which an image folder's images are scaled.
    #[arg(long, value_name = "PIXELS", default_value_t = 32)]
    pub image_size: usize,
}

impl DataArgs {
    /// The dataset named, if one is.
    pub(super) fn spec(&self) -> Result<Option<DatasetSpec>, CliError> {
        self.data.as_deref().map(|data| self.recognize(data)).transpose()
    }

    fn recognize(&self, data: &str) -> Result<DatasetSpec, CliError> {
        match data {
            "glyphs" => return Ok(DatasetSpec::Glyphs),
            "grammar" => return Ok(DatasetSpec::Grammar),
            _ => {}
        }
        let path = PathBuf::from(data);
        if !path.exists() {
            return Err(CliError::Failed(format!(
                "--data: expected glyphs, grammar or a path, found nothing at {}",
                path.display()
            )));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if name.ends_with(".tar.gz")
            || name.ends_with(".tgz")
            || contains(&path, |file| file.starts_with("data_batch"))
            || path.join("cifar-10-batches-bin").is_dir()
        {
            Ok(DatasetSpec::Cifar10 { path })
        } else if name.ends_with(".jsonl") {
            Ok(DatasetSpec::Jsonl { path, field: self.field.clone(), tokenizer: self.tokenizer_spec()? })
        } else if contains(&path, |file| file.contains("ubyte")) {
            Ok(DatasetSpec::Idx { path })
        } else if path.is_file() || contains(&path, |file| file.ends_with(".txt")) {
            Ok(DatasetSpec::Text { path, tokenizer: self.tokenizer_spec()? })
        } else {
            Ok(DatasetSpec::ImageFolder { path, image_size: (self.image_size, self.image_size) })
        }
    }

    fn tokenizer_spec(&self) -> Result<TokenizerSpec, CliError> {
        let path = PathBuf::from(&self.tokenizer);
        match self.tokenizer.as_str() {
            "byte" => Ok(TokenizerSpec::Byte),
            "char" => Ok(TokenizerSpec::Char),
            _ if path.is_dir() => Ok(TokenizerSpec::Gpt2 { folder: path }),
            _ if path.is_file() => Ok(TokenizerSpec::File { path }),
            other => Err(CliError::Failed(format!(
                "--tokenizer: expected byte, char, a tokenizer.json or a folder with BPE files, found {other:?}"
            ))),
        }
    }
}

/// True when `folder` directly holds a file whose name fits.
fn contains(folder: &Path, fits: impl Fn(&str) -> bool) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| fits(&entry.file_name().to_string_lossy().to_lowercase()))
}
