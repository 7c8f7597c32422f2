//! A package with an ONNX file: written beside, read back, compared, renamed.

use std::io::Write;
use std::path::Path;

use prost::Message;
use serde_json::json;

use super::proto::ModelProto;
use super::readme::{OnnxReadme, run_command};
use super::{IR_VERSION, ONNX_FILE, OPSET, OnnxModel};
use crate::device::{Watch, atomic_file};
use crate::export::package::{SMALL_FILES_BYTES, file_sizes, manifest, packaged_files, write_json};
use crate::export::partial_folder::PartialFolder;
use crate::export::read_back::NUM_INPUTS;
use crate::export::{Checkpoint, ExportError, ExportTarget, Quality, ReadBack, TargetPreset, Written};

/// Runs the model in Python.
const RUN_SCRIPT: (&str, &str) = ("run.py", include_str!("run.py"));
/// Bytes written between two looks at the watch.
const CHUNK_BYTES: usize = 1 << 20;

/// Writes `model`, which was made of `checkpoint`, as a package for `target` into the new folder `output`: the ONNX file,
/// a script that runs it, README and manifest. The file is read back and compared with what was meant.
///
/// `quality`: what the caller measured with [`OnnxModel::evaluator`].
/// Errors: any [`ExportError`]; whatever happens, `output` is a whole verified package or does not exist.
pub fn write_onnx_package(
    checkpoint: &Checkpoint,
    target: &TargetPreset,
    model: &OnnxModel,
    output: &Path,
    quality: Option<&Quality>,
    watch: Watch<'_>,
) -> Result<Written, ExportError> {
    let card = &checkpoint.card;
    let blockers = target.blockers(card);
    if !blockers.is_empty() {
        return Err(ExportError::Blocked(blockers));
    }
    let proto = model.proto();
    let folder = PartialFolder::create(output, proto.encoded_len() as u64 + SMALL_FILES_BYTES)?;
    let path = folder.path().join(ONNX_FILE);
    write_file(&proto, &path, watch)?;
    compare_file(&proto, &path, watch)?;
    let notes = notes(model);
    atomic_file::write_bytes(&folder.path().join(RUN_SCRIPT.0), RUN_SCRIPT.1.as_bytes())?;
    let readme = OnnxReadme { card, target, model, quality, notes: &notes };
    atomic_file::write_bytes(&folder.path().join("README.md"), readme.text().as_bytes())?;
    let size = model.size();
    let metrics = json!({
        "quality": quality,
        "weight_bytes": size.bytes,
        "bits_per_weight": size.bits_per_weight(),
        "tensor_errors": model.tensor_errors(),
        "onnx": { "opset": OPSET, "ir_version": IR_VERSION, "calibration_images": model.num_calibration_images() },
    });
    let packaged = packaged_files(folder.path(), watch)?;
    write_json(&folder.path().join("manifest.json"), &manifest(card, target, metrics, packaged))?;
    let files = file_sizes(folder.path())?;
    let package = folder.publish()?;
    Ok(Written {
        run_command: run_command(&package),
        package,
        weight_file_bytes: files.iter().filter(|(name, _)| name == ONNX_FILE).map(|(_, bytes)| bytes).sum(),
        files,
        weight_bytes: size.bytes,
        bits_per_weight: size.bits_per_weight(),
        tensor_errors: model.tensor_errors().to_vec(),
        read_back: ReadBack { num_inputs: NUM_INPUTS, weights_distance: model.distance(), integers: None },
        notes,
    })
}

/// What the user should know.
fn notes(model: &OnnxModel) -> Vec<String> {
    // Two digits are enough; "within 0.00%" would claim more than was measured.
    let percent = (model.distance() * 100.0).max(0.01);
    let mut notes = vec![
        format!(
            "ONNX opset {OPSET}, IR version {IR_VERSION}; any batch size; batch norm is folded into the convolutions"
        ),
        "The graph reads pixels divided by 255 and normalizes them itself".to_owned(),
        format!(
            "Read back: the file is what was meant, and its graph of floats answers {NUM_INPUTS} random images within \
             {percent:.2}% of the trainer's network"
        ),
    ];
    if model.num_calibration_images() > 0 {
        notes.push(format!(
            "8 bits in the QDQ form: weights around the zero point 128 with a scale per output channel, activations whose ranges \
             {} training images showed, biases of 32 bits, logits as floats",
            model.num_calibration_images()
        ));
    }
    notes
}

fn write_file(proto: &ModelProto, path: &Path, watch: Watch<'_>) -> Result<(), ExportError> {
    let bytes = proto.encode_to_vec();
    let mut cancelled = None;
    let written = atomic_file::write(path, |file| {
        for (number, chunk) in bytes.chunks(CHUNK_BYTES).enumerate() {
            let done = (number * CHUNK_BYTES) as u64;
            if let Err(error) = watch.step("writing weights", done, Some(bytes.len() as u64)) {
                cancelled = Some(error);
                return Err(std::io::Error::other(error));
            }
            file.write_all(chunk)?;
        }
        Ok(())
    });
    match cancelled {
        Some(cancelled) => Err(cancelled.into()),
        None => Ok(written?),
    }
}

/// Parses the file and compares it with `meant`, tensor by tensor, then the rest.
fn compare_file(meant: &ModelProto, path: &Path, watch: Watch<'_>) -> Result<(), ExportError> {
    let bytes = std::fs::read(path).map_err(|source| ExportError::read(path, source))?;
    let differs = |what: String, expected: String, found: String| ExportError::ReadBack { what, expected, found };
    let found = ModelProto::decode(bytes.as_slice())
        .map_err(|error| differs(ONNX_FILE.to_owned(), "an ONNX file".to_owned(), error.to_string()))?;
    let (wanted, read) = (tensors(meant), tensors(&found));
    if wanted.len() != read.len() {
        let (expected, found) = (wanted.len().to_string(), read.len().to_string());
        return Err(differs("number of tensors".to_owned(), expected, found));
    }
    for (done, (wanted_tensor, read_tensor)) in (0..).zip(wanted.iter().zip(read)) {
        watch.step("comparing weights", done, Some(wanted.len() as u64))?;
        if wanted_tensor != read_tensor {
            let (expected, found) = ("the numbers that were written".to_owned(), "others".to_owned());
            return Err(differs(format!("tensor {:?}", wanted_tensor.name), expected, found));
        }
    }
    if *meant == found {
        return Ok(());
    }
    Err(differs("the graph".to_owned(), "the one that was written".to_owned(), "another".to_owned()))
}

fn tensors(proto: &ModelProto) -> &[super::proto::TensorProto] {
    proto.graph.as_ref().map_or(&[], |graph| &graph.initializer)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::export::onnx::proto::{GraphProto, NodeProto, TensorProto};
    use crate::unwatched;

    #[test]
    fn another_file_than_the_one_meant_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(ONNX_FILE);
        let proto = |value: f32, op: &str, name: &str| ModelProto {
            graph: Some(GraphProto {
                node: vec![NodeProto::new(op, &["a"], "b")],
                initializer: vec![TensorProto::floats(name, &[1], &[value])],
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        };
        let meant = proto(1.5, "Relu", "fc.weight");
        write_file(&meant, &path, unwatched!()).unwrap();
        compare_file(&meant, &path, unwatched!()).unwrap();
        for (other, what) in
            [(proto(1.25, "Relu", "fc.weight"), "fc.weight"), (proto(1.5, "Tanh", "fc.weight"), "the graph")]
        {
            let error = compare_file(&other, &path, unwatched!()).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(matches!(compare_file(&meant, &path, unwatched!()), Err(ExportError::ReadBack { .. })));
    }
}
