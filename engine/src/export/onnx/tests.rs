//! Whole graphs: what they answer, what they take, what they refuse.
#![allow(clippy::unwrap_used, reason = "tests")]

use candle_core::Tensor;
use prost::Message;

use super::compose::{OUTPUT, compose};
use super::fold::Source;
use super::proto::DimensionValue;
use super::{OnnxModel, pixels_tensor, predicted_bytes, write_onnx_package};
use crate::device::{CancelFlag, Watch};
use crate::export::read_back::{Input, image_logits, random_input, relative_distance};
use crate::export::test_model::{tiny_llama, tiny_resnet, tiny_vision};
use crate::export::{Checkpoint, ExportError, ExportTarget, PackageFormat, TargetPreset, export_package};
use crate::models::{Activation, CnnConfig, MlpConfig, ModelConfig, Network};
use crate::quant::QuantScheme;
use crate::unwatched;

/// One of each family; both activations.
fn families() -> Vec<Checkpoint> {
    let mlp = |activation| MlpConfig {
        in_channels: 3,
        image_size: (6, 5),
        hidden_sizes: vec![24, 16],
        num_classes: 3,
        activation,
    };
    // Sides that pooling does not divide.
    let cnn = CnnConfig { in_channels: 1, image_size: (13, 11), channels: vec![6, 8], hidden_size: 16, num_classes: 3 };
    vec![
        tiny_vision(ModelConfig::Mlp(mlp(Activation::Relu))),
        tiny_vision(ModelConfig::Mlp(mlp(Activation::Gelu))),
        tiny_vision(ModelConfig::Cnn(cnn)),
        tiny_resnet(),
    ]
}

/// Random images number `first` to `first + count`, each a batch of its own.
fn images(checkpoint: &Checkpoint, first: u64, count: u64) -> Vec<Tensor> {
    let image = |index| match random_input(checkpoint, index) {
        Input::Pixels { pixels, shape } => pixels_tensor(&[&pixels], shape).unwrap(),
        Input::Tokens(_) => panic!("an image model"),
    };
    (first..first + count).map(image).collect()
}

fn quantized(checkpoint: &Checkpoint) -> OnnxModel {
    let model = OnnxModel::new(checkpoint, unwatched!()).unwrap();
    model.quantized(images(checkpoint, 0, 16).into_iter().map(Ok), unwatched!()).unwrap()
}

fn target(scheme: QuantScheme) -> TargetPreset {
    TargetPreset::find("gpu-high").unwrap().with_scheme(scheme).with_format(PackageFormat::Onnx)
}

/// The float graph answers like the network, many images as each alone; the integer graph nearly, on images that the
/// calibration did not see.
#[test]
fn graphs_answer_like_the_network() {
    for checkpoint in families() {
        let family = checkpoint.card.family();
        let network = Network::new(&checkpoint.card.model).unwrap();
        let mut expected = Vec::new();
        for index in 100..108 {
            let Input::Pixels { pixels, shape } = random_input(&checkpoint, index) else { panic!("pixels") };
            let preprocessing = &checkpoint.card.preprocessing;
            expected.extend(image_logits(&network, &checkpoint.weights, preprocessing, &pixels, shape).unwrap());
        }
        let batch = Tensor::cat(&images(&checkpoint, 100, 8), 0).unwrap();
        let answers = |model: &OnnxModel| -> Vec<f32> {
            model.evaluator().unwrap().logits(&batch).unwrap().flatten_all().unwrap().to_vec1().unwrap()
        };
        let float = OnnxModel::new(&checkpoint, unwatched!()).unwrap();
        let distance = relative_distance(&answers(&float), &expected);
        assert!(distance < 1e-5, "{family}: {distance}");
        let integers = quantized(&checkpoint);
        let distance = relative_distance(&answers(&integers), &expected);
        assert!(distance > 0.0 && distance < 0.06, "{family}: {distance}");
        assert!(integers.size().bits_per_weight() < 14.0 && float.size().bits_per_weight() == 32.0);
        assert!(integers.tensor_errors().iter().all(|(_, error)| *error < 0.02), "{:?}", integers.tensor_errors());
    }
}

/// Any batch size in, a named first dimension out, and nodes only after what they read.
#[test]
fn the_graph_is_well_formed() {
    for checkpoint in families() {
        for model in [OnnxModel::new(&checkpoint, unwatched!()).unwrap(), quantized(&checkpoint)] {
            let proto = model.proto();
            let graph = proto.graph.as_ref().unwrap();
            let first = |info: &super::proto::ValueInfoProto| {
                let shape = info.kind.clone().unwrap().tensor_type.unwrap().shape.unwrap();
                shape.dim[0].value.clone().unwrap()
            };
            let batch = DimensionValue::Named("batch".to_owned());
            assert_eq!((first(&graph.input[0]), first(&graph.output[0])), (batch.clone(), batch));
            let mut known: Vec<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
            known.sort_unstable();
            assert!(known.windows(2).all(|pair| pair[0] != pair[1]), "a constant comes twice");
            known.push("images");
            for node in &graph.node {
                assert!(node.input.iter().all(|input| known.contains(&input.as_str())), "{node:?}");
                assert!(!known.contains(&node.result()), "{node:?}");
                known.push(node.result());
            }
            assert!(known.contains(&OUTPUT));
            let mut used = graph.node.iter().flat_map(|node| &node.input).collect::<Vec<_>>();
            used.sort();
            assert!(graph.initializer.iter().all(|tensor| used.binary_search(&&tensor.name).is_ok()));
        }
    }
}

#[test]
fn predicted_size_is_near() {
    for checkpoint in families() {
        for model in [OnnxModel::new(&checkpoint, unwatched!()).unwrap(), quantized(&checkpoint)] {
            let real = model.proto().encoded_len() as f64;
            let predicted = predicted_bytes(&checkpoint.card, model.scheme()).unwrap() as f64;
            let off = (predicted - real).abs() / real;
            assert!(off < 0.02, "{}, {:?}: {predicted}, {real}", checkpoint.card.family(), model.scheme());
        }
    }
}

#[test]
fn packages_are_whole_and_name_what_they_hold() {
    let root = tempfile::tempdir().unwrap();
    let checkpoint = tiny_resnet();
    let int8 = root.path().join("int8");
    let model = quantized(&checkpoint);
    let written =
        write_onnx_package(&checkpoint, &target(QuantScheme::Int8), &model, &int8, None, unwatched!()).unwrap();
    let mut names: Vec<_> = written.files.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["README.md", "manifest.json", "model.onnx", "run.py"]);
    assert!(written.run_command.contains("run.py PICTURE.png"), "{}", written.run_command);
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(int8.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["metrics"]["onnx"]["calibration_images"], 16);
    assert_eq!((manifest["scheme"].as_str(), &manifest["metrics"]["onnx"]["opset"]), (Some("int8"), &13.into()));
    let readme = std::fs::read_to_string(int8.join("README.md")).unwrap();
    assert!(readme.contains("(batch, 3, 9, 8)") && readme.contains("16 training images"), "{readme}");
    let f32 = root.path().join("f32");
    let written = export_package(&checkpoint, &target(QuantScheme::F32), &f32, None, unwatched!()).unwrap();
    assert!(written.read_back.weights_distance < 1e-5);
    // Without images, integers are refused, and nothing is left.
    let again = root.path().join("again");
    let error = export_package(&checkpoint, &target(QuantScheme::Int8), &again, None, unwatched!()).unwrap_err();
    assert!(error.to_string().contains("images to calibrate on") && !again.exists(), "{error}");
}

/// Stopped at the n-th report, for every n there is: nothing is left.
#[test]
fn a_cancelled_package_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (checkpoint, target) = (tiny_resnet(), target(QuantScheme::F32));
    let output = root.path().join("package");
    for stop_at in 0.. {
        let (cancel, reports) = (CancelFlag::default(), std::sync::atomic::AtomicUsize::new(0));
        let on_progress = |_| {
            if reports.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == stop_at {
                cancel.set();
            }
        };
        match export_package(&checkpoint, &target, &output, None, Watch::new(&cancel, &on_progress)) {
            Err(ExportError::Cancelled(_)) => assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0),
            Err(other) => panic!("stopped at {stop_at}: {other}"),
            Ok(_) => {
                assert!(stop_at > 10, "stopped at {stop_at} places only");
                break;
            }
        }
    }
}

#[test]
fn language_models_and_other_schemes_are_blocked() {
    let root = tempfile::tempdir().unwrap();
    let text = tiny_llama(root.path());
    let blockers = target(QuantScheme::F32).blockers(&text.card);
    assert!(blockers.iter().any(|blocker| blocker.what.contains("this Llama reads text")), "{blockers:?}");
    let output = root.path().join("package");
    let error = export_package(&text, &target(QuantScheme::F32), &output, None, unwatched!()).unwrap_err();
    assert!(matches!(error, ExportError::Blocked(_)) && !output.exists(), "{error}");
    assert!(compose(&text.card, &Source::Weights(&text.weights)).is_err());
    let blockers = target(QuantScheme::Ternary).blockers(&tiny_resnet().card);
    assert!(blockers.iter().any(|blocker| blocker.what.contains("f32 or int8, not ternary")), "{blockers:?}");
    assert!(target(QuantScheme::Int8).blockers(&tiny_resnet().card).is_empty());
}

#[test]
fn what_is_no_number_is_named() {
    let mut checkpoint = tiny_resnet();
    let name = "resnet.encoder.stages.1.layers.0.shortcut.convolution.weight";
    let whole = checkpoint.weights.get(name).unwrap().clone();
    let mut values: Vec<f32> = whole.flatten_all().unwrap().to_vec1().unwrap();
    values[5] = f32::NAN;
    checkpoint.weights.insert(name, Tensor::from_vec(values, whole.shape(), whole.device()).unwrap());
    let error = OnnxModel::new(&checkpoint, unwatched!()).unwrap_err().to_string();
    assert!(error.contains(name) && error.contains("NaN at index 5"), "{error}");
    // No image, no range.
    let model = OnnxModel::new(&tiny_resnet(), unwatched!()).unwrap();
    let error = model.quantized(std::iter::empty(), unwatched!()).unwrap_err().to_string();
    assert!(error.contains("Is the training part empty?"), "{error}");
}
