//! Image models against the reference, in every storage format.

use foretrain_edge::{Activations, Package, PackageKind};
use serde_json::{Value, json};

use super::builder::{Array, Files, Random, Scheme, Weights, files, write};
use super::reference::{self, Arrays, Map, assert_near};

/// Integer inputs may round to the other neighbor in 32 bits, which moves a logit a little.
pub fn tolerance(scheme: Scheme) -> f64 {
    if scheme.is_integer() { 0.02 } else { 1e-4 }
}

/// The same numbers, multiplied with inputs as they are.
pub fn without_rounding(arrays: &Arrays) -> Arrays {
    let exact = |(name, array): (&String, &Array)| (name.clone(), Array { is_integer: false, ..array.clone() });
    arrays.iter().map(exact).collect()
}

fn ends(config: &mut Value, channels: usize, classes: usize) {
    config["image_mean"] = json!(vec![0.4; channels]);
    config["image_std"] = json!(vec![0.25; channels]);
    config["id2label"] = (0..classes).map(|c| (c.to_string(), json!(format!("kind {c}")))).collect();
}

fn image(seed: u64, size: [usize; 3]) -> (Vec<u8>, Map) {
    let pixels = Random::new(seed).bytes(size.iter().product());
    let values = pixels.iter().map(|&p| (f64::from(p) / 255.0 - 0.4) / 0.25).collect();
    (pixels, Map { size, values })
}

pub fn mlp(scheme: Scheme) -> (Value, Weights) {
    let mut config = json!({
        "model_type": "mlp", "in_channels": 1, "image_size": [5, 7], "hidden_sizes": [256, 130], "num_classes": 3,
        "activation": "Gelu",
    });
    ends(&mut config, 1, 3);
    let mut weights = Weights::new(1);
    // The first layer stays in floats; the others have rows of 256 (packed trits) and 130 (unpacked).
    for (number, (out, input, scheme)) in
        [(256, 35, Scheme::F16), (130, 256, scheme), (3, 130, scheme)].into_iter().enumerate()
    {
        weights.matrix(&format!("layers.{number}.weight"), &[out, input], scheme);
        weights.vector(&format!("layers.{number}.bias"), out, 0.0);
    }
    (config, weights)
}

pub fn cnn(scheme: Scheme) -> (Value, Weights) {
    let mut config = json!({
        "model_type": "cnn", "in_channels": 3, "image_size": [9, 12], "channels": [6, 10], "hidden_size": 16,
        "num_classes": 4,
    });
    ends(&mut config, 3, 4);
    let mut weights = Weights::new(2);
    weights.matrix("conv.0.weight", &[6, 3, 3, 3], Scheme::F16);
    weights.matrix("conv.1.weight", &[10, 6, 3, 3], scheme);
    weights.matrix("fc.weight", &[16, 10 * 2 * 3], scheme);
    weights.matrix("classifier.weight", &[4, 16], if scheme == Scheme::Ternary { Scheme::F16 } else { scheme });
    for (name, len) in [("conv.0.bias", 6), ("conv.1.bias", 10), ("fc.bias", 16), ("classifier.bias", 4)] {
        weights.vector(name, len, 0.1);
    }
    (config, weights)
}

fn conv_bn(weights: &mut Weights, name: &str, shape: [usize; 4], scheme: Scheme) {
    weights.matrix(&format!("{name}.convolution.weight"), &shape, scheme);
    for (part, center) in [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 2.0)] {
        weights.vector(&format!("{name}.normalization.{part}"), shape[0], center);
    }
}

pub fn resnet(scheme: Scheme) -> (Value, Weights) {
    let mut config = json!({
        "model_type": "resnet", "num_channels": 3, "image_size": [9, 7], "embedding_size": 4, "hidden_sizes": [4, 8],
        "depths": [1, 2], "num_classes": 5,
    });
    ends(&mut config, 3, 5);
    let mut weights = Weights::new(3);
    conv_bn(&mut weights, "resnet.embedder.embedder", [4, 3, 3, 3], Scheme::F32);
    for (stage, layer, input, out) in [(0, 0, 4, 4), (1, 0, 4, 8), (1, 1, 8, 8)] {
        let name = format!("resnet.encoder.stages.{stage}.layers.{layer}");
        conv_bn(&mut weights, &format!("{name}.layer.0"), [out, input, 3, 3], scheme);
        conv_bn(&mut weights, &format!("{name}.layer.1"), [out, out, 3, 3], scheme);
        if input != out {
            conv_bn(&mut weights, &format!("{name}.shortcut"), [out, input, 1, 1], scheme);
        }
    }
    weights.matrix("classifier.1.weight", &[5, 8], Scheme::F16);
    weights.vector("classifier.1.bias", 5, 0.0);
    (config, weights)
}

pub fn image_files((config, weights): &(Value, Weights)) -> Files {
    files(config, "model.safetensors", weights.safetensors(), None)
}

#[track_caller]
fn check(build: impl Fn(Scheme) -> (Value, Weights), size: [usize; 3], logits: impl Fn(&Arrays, &Map) -> Vec<f64>) {
    for scheme in Scheme::ALL {
        let built = build(scheme);
        let dir = write(&image_files(&built));
        let package = Package::open(dir.path()).unwrap();
        package.verify_checksums().unwrap();
        for seed in 0..3 {
            let (pixels, map) = image(seed, size);
            let found = package.logits(&pixels).unwrap();
            assert_near(&found, &logits(&built.1.arrays, &map), tolerance(scheme), &format!("{scheme:?}"));
            // As a check of a package computes: without the integer kernels, and without rounding, too.
            let checked = |activations| Package::open_with(dir.path(), activations).unwrap().logits(&pixels).unwrap();
            let rounded = checked(Activations::RoundedFloats);
            assert_near(&rounded, &logits(&built.1.arrays, &map), tolerance(scheme), &format!("{scheme:?} rounded"));
            let exact = logits(&without_rounding(&built.1.arrays), &map);
            assert_near(&checked(Activations::Floats), &exact, 1e-4, &format!("{scheme:?} exact"));
            let classes = package.classify(&pixels).unwrap();
            assert!((classes.iter().map(|(_, p)| p).sum::<f32>() - 1.0).abs() < 1e-5);
            assert_eq!(classes[1].0, "kind 1");
        }
        assert!(package.logits(&[0; 3]).unwrap_err().to_string().contains("found 3 bytes"));
    }
}

#[test]
fn mlp_computes_what_the_reference_computes() {
    check(mlp, [1, 5, 7], |arrays, image| {
        let mut x = reference::linear(arrays, "layers.0", &image.values);
        reference::gelu(&mut x);
        let mut x = reference::linear(arrays, "layers.1", &x);
        reference::gelu(&mut x);
        reference::linear(arrays, "layers.2", &x)
    });
}

#[test]
fn cnn_computes_what_the_reference_computes() {
    check(cnn, [3, 9, 12], |arrays, image| {
        let mut x = image.clone();
        for number in 0..2 {
            let mut y = reference::conv(arrays, &format!("conv.{number}.weight"), &x, 1);
            reference::add_bias(arrays, &format!("conv.{number}.bias"), &mut y);
            reference::relu(&mut y.values);
            x = reference::max_pool(&y);
        }
        let mut hidden = reference::linear(arrays, "fc", &x.values);
        reference::relu(&mut hidden);
        reference::linear(arrays, "classifier", &hidden)
    });
}

#[test]
fn resnet_computes_what_the_reference_computes() {
    let conv_bn = |arrays: &Arrays, name: &str, x: &Map, stride: usize| {
        let mut y = reference::conv(arrays, &format!("{name}.convolution.weight"), x, stride);
        reference::batch_norm(arrays, &format!("{name}.normalization"), &mut y);
        y
    };
    check(resnet, [3, 9, 7], |arrays, image| {
        let mut x = conv_bn(arrays, "resnet.embedder.embedder", image, 1);
        reference::relu(&mut x.values);
        for (stage, layer, stride) in [(0, 0, 1), (1, 0, 2), (1, 1, 1)] {
            let name = format!("resnet.encoder.stages.{stage}.layers.{layer}");
            let mut y = conv_bn(arrays, &format!("{name}.layer.0"), &x, stride);
            reference::relu(&mut y.values);
            let mut y = conv_bn(arrays, &format!("{name}.layer.1"), &y, 1);
            let shortcut = if stride == 2 { conv_bn(arrays, &format!("{name}.shortcut"), &x, 2) } else { x };
            y.values.iter_mut().zip(&shortcut.values).for_each(|(y, x)| *y += x);
            reference::relu(&mut y.values);
            x = y;
        }
        let [_, h, w] = x.size;
        let means: Vec<f64> = x.values.chunks(h * w).map(|c| c.iter().sum::<f64>() / (h * w) as f64).collect();
        reference::linear(arrays, "classifier.1", &means)
    });
}

/// The same weights take an image of any size, so that only the config says how much memory an answer needs.
#[test]
fn configs_that_ask_for_more_memory_than_their_weights_justify_are_refused() {
    let mut config = json!({
        "model_type": "resnet", "num_channels": 3, "image_size": [9, 7], "embedding_size": 300, "hidden_sizes": [4],
        "depths": [1], "num_classes": 5,
    });
    ends(&mut config, 3, 5);
    let mut weights = Weights::new(6);
    conv_bn(&mut weights, "resnet.embedder.embedder", [300, 3, 3, 3], Scheme::F32);
    let name = "resnet.encoder.stages.0.layers.0";
    conv_bn(&mut weights, &format!("{name}.layer.0"), [4, 300, 3, 3], Scheme::F32);
    conv_bn(&mut weights, &format!("{name}.layer.1"), [4, 4, 3, 3], Scheme::F32);
    conv_bn(&mut weights, &format!("{name}.shortcut"), [4, 300, 1, 1], Scheme::F32);
    weights.matrix("classifier.1.weight", &[5, 4], Scheme::F32);
    weights.vector("classifier.1.bias", 5, 0.0);
    let mut built = (config, weights);
    let mut open = |key: &str, value: Value| {
        built.0[key] = value;
        let dir = write(&image_files(&built));
        Package::open(dir.path()).map(|package| package.kind()).map_err(|error| error.to_string())
    };
    assert!(open("image_size", json!([512, 512])).is_ok());
    for (key, value, found) in
        [("image_size", json!([1024, 1024]), "found 314572800"), ("embedding_size", json!(u64::MAX), "found more")]
    {
        let error = open(key, value).unwrap_err();
        assert!(error.contains("1 GiB") && error.contains(found) && error.contains("config.json"), "{error}");
    }
}

#[test]
fn weights_that_are_no_numbers_classify_nothing() {
    let check = |built: &(Value, Weights), pixels: &[u8]| {
        let dir = write(&image_files(built));
        let package = Package::open(dir.path()).unwrap();
        let error = package.classify(pixels).unwrap_err().to_string();
        assert!(error.contains("finite answers") && error.contains("model.safetensors"), "{error}");
    };
    let mut built = mlp(Scheme::F32);
    built.1.spoil("layers.1.weight", &f32::NAN.to_le_bytes());
    check(&built, &[100; 35]);
    // Beyond the upper border, 0 times infinity is NaN; elsewhere ReLU makes 0 of minus infinity, which a pool must not
    // prefer to it.
    let mut built = cnn(Scheme::F32);
    built.1.spoil("conv.0.weight", &half::f16::NEG_INFINITY.to_le_bytes());
    check(&built, &[255; 324]);
}

#[test]
fn a_package_says_what_it_reads() {
    let built = cnn(Scheme::Ternary);
    let dir = write(&image_files(&built));
    let package = Package::open(dir.path()).unwrap();
    let PackageKind::Image { channels, height, width, classes } = package.kind() else { panic!("an image model") };
    assert_eq!((channels, height, width), (3, 9, 12));
    assert_eq!(classes, ["kind 0", "kind 1", "kind 2", "kind 3"]);
    let ternary = package.weight_formats().iter().find(|(format, _)| *format == "TQ2_0").unwrap().1;
    assert_eq!(ternary, 66 * (540_u64.div_ceil(256) + 960_u64.div_ceil(256)));
    assert!(package.token_losses(&[0, 1]).unwrap_err().to_string().contains("language model"));
    assert!(package.tokenizer().is_none());
}

#[test]
fn pictures_are_scaled_and_converted() {
    let built = cnn(Scheme::F32);
    let dir = write(&image_files(&built));
    let package = Package::open(dir.path()).unwrap();
    let path = dir.path().join("gray.png");
    image::GrayImage::from_pixel(40, 30, image::Luma([77])).save(&path).unwrap();
    assert_eq!(package.read_image(&path).unwrap(), vec![77; 3 * 9 * 12]);
    let path = dir.path().join("exact.png");
    image::RgbImage::from_fn(12, 9, |x, y| image::Rgb([x as u8, y as u8, 9])).save(&path).unwrap();
    let pixels = package.read_image(&path).unwrap();
    assert_eq!((pixels[5], pixels[108 + 12 * 4], pixels[216]), (5, 4, 9));
    std::fs::write(&path, b"no picture").unwrap();
    assert!(package.read_image(&path).unwrap_err().to_string().contains("exact.png"));
}
