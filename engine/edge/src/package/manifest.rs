//! `manifest.json`: what a package holds and where it came from.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::files::{read_json, sha256, size};
use crate::EdgeError;

/// The version of the package format that we write and read.
pub const FORMAT_VERSION: u32 = 1;

/// Its name in a package.
pub(super) const MANIFEST_FILE: &str = "manifest.json";

/// The content of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] when it was written.
    pub format_version: u32,
    /// Name of the model.
    pub name: String,
    /// Name of the hardware target.
    pub target: String,
    /// How the weights are stored.
    pub scheme: String,
    /// Every other file of the package.
    pub files: Vec<PackagedFile>,
    /// Measured before and after quantization.
    #[serde(default)]
    pub metrics: Value,
    /// The run that the weights came from.
    #[serde(default)]
    pub provenance: Value,
}

/// A file of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackagedFile {
    /// Its name, without a folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its content, lower-case hexadecimal.
    pub sha256: String,
}

impl Manifest {
    /// Reads the manifest of the package in folder `dir`, and checks that the files are there in the sizes that it gives.
    ///
    /// Errors: [`EdgeError::Unsuited`] for another version; [`EdgeError::Format`] for a file of another size, or a name that
    /// leads out of the folder or comes twice; [`EdgeError::Read`].
    pub fn open(dir: &Path) -> Result<Self, EdgeError> {
        let path = dir.join(MANIFEST_FILE);
        let manifest = Self::parse(&read_json(&path)?, &path)?;
        for file in &manifest.files {
            let path = dir.join(&file.name);
            let found = size(&path)?;
            if found != file.bytes {
                let expected = format!("{} bytes by the manifest", file.bytes);
                return Err(EdgeError::format(&path, expected, found.to_string()));
            }
        }
        Ok(manifest)
    }

    /// Reads every file in folder `dir` and compares its SHA-256.
    ///
    /// Errors: [`EdgeError::Format`] for the first file that differs; [`EdgeError::Read`].
    pub fn verify_checksums(&self, dir: &Path) -> Result<(), EdgeError> {
        for file in &self.files {
            let path = dir.join(&file.name);
            let found = sha256(&path)?;
            if !found.eq_ignore_ascii_case(&file.sha256) {
                return Err(EdgeError::format(&path, format!("SHA-256 {}", file.sha256), found));
            }
        }
        Ok(())
    }

    /// Parses `text`, the content of the file at `path`.
    ///
    /// Errors: [`EdgeError::Unsuited`] for another version; [`EdgeError::Format`] for a file name that leads out of the
    /// folder or comes twice.
    pub(super) fn parse(text: &[u8], path: &Path) -> Result<Self, EdgeError> {
        let manifest: Self = serde_json::from_slice(text)
            .map_err(|error| EdgeError::format(path, "a manifest in JSON", error.to_string()))?;
        if manifest.format_version != FORMAT_VERSION {
            let found = format!("{}", manifest.format_version);
            return Err(EdgeError::unsuited(path, format!("format_version {FORMAT_VERSION}"), found));
        }
        let mut names = BTreeSet::new();
        for file in &manifest.files {
            let is_plain =
                !matches!(file.name.as_str(), "" | "." | "..") && !file.name.contains(['/', '\\', ':', '\0']);
            if !is_plain || !names.insert(&file.name) {
                return Err(EdgeError::format(path, "plain file names, each once", format!("{:?}", file.name)));
            }
        }
        Ok(manifest)
    }

    /// The entry of file `name`.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&PackagedFile> {
        self.files.iter().find(|file| file.name == name)
    }
}
