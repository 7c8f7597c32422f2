//! `info`: what a package holds.

use std::io::Write;

use clap::Args;
use foretrain_edge::PackageKind;
use serde_json::json;

use super::PackageArguments;

/// Arguments of `info`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  foretrain-edge info --package packages/digits-edge --verify")]
pub(super) struct InfoArguments {
    #[command(flatten)]
    pub(super) common: PackageArguments,
    /// Read every file and compare its checksum with the manifest.
    #[arg(long)]
    verify: bool,
}

pub(super) fn run(arguments: &InfoArguments, out: &mut impl Write) -> anyhow::Result<()> {
    let InfoArguments { common, verify } = arguments;
    let package = common.open()?;
    if *verify {
        package.verify_checksums()?;
    }
    let manifest = package.manifest();
    if common.json {
        let kind = match package.kind() {
            PackageKind::Image { channels, height, width, classes } => {
                json!({"reads": "images", "channels": channels, "height": height, "width": width, "classes": classes})
            }
            PackageKind::Text => json!({"reads": "text", "max_positions": package.max_positions()}),
        };
        let formats: serde_json::Map<_, _> =
            package.weight_formats().iter().map(|(format, bytes)| ((*format).to_owned(), json!(bytes))).collect();
        let answer = json!({
            "manifest": manifest, "kind": kind, "weight_bytes": package.weight_bytes(), "weight_formats": formats,
            "is_verified": verify,
        });
        writeln!(out, "{answer}")?;
        return Ok(());
    }
    writeln!(out, "{} for {}, weights {}", manifest.name, manifest.target, manifest.scheme)?;
    match package.kind() {
        PackageKind::Image { channels, height, width, classes } => {
            writeln!(out, "reads images of {width} x {height}, {channels} channel(s): {}", classes.join(", "))?;
        }
        PackageKind::Text => {
            writeln!(out, "reads text, {} tokens at most", package.max_positions().unwrap_or_default())?;
        }
    }
    let formats = package.weight_formats().iter().map(|(format, bytes)| format!("{format} {bytes}"));
    writeln!(out, "weights {} bytes ({})", package.weight_bytes(), formats.collect::<Vec<_>>().join(", "))?;
    for file in &manifest.files {
        writeln!(out, "  {:>12}  {}", file.bytes, file.name)?;
    }
    if *verify {
        writeln!(out, "all checksums match")?;
    }
    Ok(())
}
