//! `classify`: name what pictures show.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use clap::builder::TypedValueParser;
use foretrain_edge::Package;
use serde_json::json;

use super::PackageArguments;

/// Arguments of `classify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  foretrain-edge classify --package packages/digits-edge --image three.png seven.png"
)]
pub(super) struct ClassifyArguments {
    #[command(flatten)]
    pub(super) common: PackageArguments,
    /// PNG or JPEG pictures of any size; scaled, and turned gray if the model reads gray.
    #[arg(long = "image", value_name = "FILE", required = true, num_args = 1..)]
    images: Vec<PathBuf>,
    /// Classes to show for each picture.
    #[arg(long, default_value_t = 3, value_parser = at_least_one())]
    top: usize,
}

fn at_least_one() -> impl TypedValueParser<Value = usize> {
    clap::value_parser!(u16).range(1..).map(usize::from)
}

/// The answer for one picture.
struct Answer<'a> {
    path: &'a Path,
    /// Names with probabilities, likeliest first.
    classes: Vec<(String, f32)>,
    classify_ms: f64,
}

pub(super) fn run(arguments: &ClassifyArguments, out: &mut impl Write) -> anyhow::Result<()> {
    let ClassifyArguments { common, images, top } = arguments;
    let package = common.open()?;
    let answers = images.iter().map(|path| classify(&package, path, *top)).collect::<anyhow::Result<Vec<_>>>()?;
    if common.json {
        let answers = answers.iter().map(|Answer { path, classes, classify_ms }| {
            let classes: Vec<_> =
                classes.iter().map(|(name, probability)| json!({"class": name, "probability": probability})).collect();
            json!({"image": path.display().to_string(), "classes": classes, "classify_ms": classify_ms})
        });
        writeln!(out, "{}", json!({"images": answers.collect::<Vec<_>>()}))?;
        return Ok(());
    }
    for Answer { path, classes, classify_ms } in answers {
        writeln!(out, "{} ({classify_ms:.1} ms)", path.display())?;
        for (name, probability) in classes {
            writeln!(out, "  {:5.1} %  {name}", probability * 100.0)?;
        }
    }
    Ok(())
}

fn classify<'a>(package: &Package, path: &'a Path, top: usize) -> anyhow::Result<Answer<'a>> {
    let pixels = package.read_image(path)?;
    let start = Instant::now();
    let mut classes = package.classify(&pixels)?;
    let classify_ms = start.elapsed().as_secs_f64() * 1e3;
    classes.sort_by(|a, b| b.1.total_cmp(&a.1));
    classes.truncate(top);
    Ok(Answer { path, classes, classify_ms })
}
