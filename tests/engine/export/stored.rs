//! What was stored is read again as the numbers that it means, or refused by tensor.

use foretrain_engine::export::{
    PackageFormat, TargetPreset, export_package, quantize_for_target, read_checkpoint, write_quantized,
};
use foretrain_engine::import::read_stored_model;
use foretrain_engine::models::Params;
use foretrain_engine::quant::QuantScheme;
use foretrain_engine::unwatched;

use crate::fixtures::{self, checkpoint};

#[track_caller]
fn check_same(found: &Params, expected: &Params, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let values =
        |params: &Params, name: &str| params.get(name).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (name, tensor) in expected.iter() {
        assert_eq!(found.get(name).unwrap().dims(), tensor.dims(), "{what}: {name}");
        assert_eq!(values(found, name), values(expected, name), "{what}: {name}");
    }
}

#[test]
fn packages_and_quantized_files_hold_what_was_measured() {
    let root = tempfile::tempdir().unwrap();
    let cache = root.path().join("cache");
    for (family, model) in fixtures::families() {
        let checkpoint = checkpoint(&root.path().join(family), &model);
        for scheme in QuantScheme::ALL {
            let what = format!("{family} in {}", scheme.label());
            let target = TargetPreset::for_scheme(scheme);
            let weights = quantize_for_target(&checkpoint, &target, unwatched!()).unwrap();
            let expected = weights.dequantized().unwrap();
            let file = root.path().join(format!("{what}.safetensors"));
            write_quantized(&weights, &checkpoint, &file, unwatched!()).unwrap();
            let found = read_stored_model(&file, &cache, unwatched!()).unwrap();
            check_same(&found.weights, &expected, &what);
            assert_eq!(found.card, checkpoint.card, "{what}");
            let text = |of: &foretrain_engine::export::Checkpoint| {
                of.tokenizer_json.as_ref().map(|path| std::fs::read_to_string(path).unwrap())
            };
            assert_eq!(text(&found), text(&checkpoint), "{what}");
            let package = root.path().join(format!("{what}, packed"));
            export_package(&checkpoint, &target, &package, None, unwatched!()).unwrap();
            let found = read_stored_model(&package, &cache, unwatched!()).unwrap();
            check_same(&found.weights, &expected, &format!("{what}, packed"));
            assert_eq!(found.card, checkpoint.card, "{what}");
        }
    }
}

#[test]
fn packages_for_others_know_what_they_were_trained_with() {
    let root = tempfile::tempdir().unwrap();
    let cache = root.path().join("cache");
    let checkpoint = checkpoint(&root.path().join("checkpoint"), &fixtures::llama(256, false));
    for (format, scheme) in [
        (PackageFormat::Transformers, QuantScheme::Ternary),
        (PackageFormat::Transformers, QuantScheme::Bf16),
        (PackageFormat::Gguf, QuantScheme::TernaryBase3),
        (PackageFormat::Gguf, QuantScheme::Int8),
    ] {
        let target = TargetPreset::for_scheme(scheme).with_format(format);
        let folder = root.path().join(target.format.label()).join(scheme.label());
        export_package(&checkpoint, &target, &folder, None, unwatched!()).unwrap();
        let found = read_stored_model(&folder, &cache, unwatched!()).unwrap();
        let expected = quantize_for_target(&checkpoint, &target, unwatched!()).unwrap().dequantized().unwrap();
        check_same(&found.weights, &expected, &format!("{} in {}", scheme.label(), format.label()));
        assert_eq!(found.card.sequence_length, Some(20));
        // The record of a package counts for its own network alone.
        if format == PackageFormat::Gguf {
            let manifest = folder.join("manifest.json");
            let text = std::fs::read_to_string(&manifest).unwrap();
            std::fs::write(&manifest, text.replace("\"intermediate_size\": 512", "\"intermediate_size\": 256"))
                .unwrap();
            let found = read_stored_model(&folder, &cache, unwatched!()).unwrap();
            assert_eq!(found.card.sequence_length, None);
        }
    }
}

#[test]
fn a_quantized_file_that_is_not_what_it_says_is_refused_by_tensor() {
    let root = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(&root.path().join("checkpoint"), &fixtures::mlp());
    let target = TargetPreset::for_scheme(QuantScheme::Int8);
    let weights = quantize_for_target(&checkpoint, &target, unwatched!()).unwrap();
    let file = root.path().join("q.safetensors");
    write_quantized(&weights, &checkpoint, &file, unwatched!()).unwrap();
    let bytes = std::fs::read(&file).unwrap();
    let header_len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&bytes[8..8 + header_len]).unwrap();
    let name = weights.tensors().iter().find(|tensor| !tensor.plan.storage.is_float()).unwrap().plan.name.clone();
    let scale = format!("\"{name}.scale\":");
    // Each of one length, so that the header's stays.
    for (from, to, parts) in [
        (format!("\"{name}.format\":\"INT8\""), format!("\"{name}.format\":\"Q4_K\""), [name.as_str(), "Q4_K"]),
        (format!("\"{name}.format\":\"INT8\""), format!("\"{name}.format\":\"INT9\""), [name.as_str(), "INT9"]),
        (scale.clone(), scale.replace(".scale", ".scald"), [name.as_str(), "found none"]),
    ] {
        assert!(header.contains(&from), "{from} in {header}");
        let changed = [&bytes[..8], header.replace(&from, &to).as_bytes(), &bytes[8 + header_len..]].concat();
        std::fs::write(&file, changed).unwrap();
        let error = read_stored_model(&file, root.path(), unwatched!()).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    read_checkpoint(&checkpoint.folder).unwrap();
}
