//! What a package holds.

use foretrain_edge::gguf::{Array, GgufFile, TensorType, Value};
use foretrain_edge::{Package, PackageKind};
use foretrain_engine::data::{DatasetSpec, TokenizerSpec};
use foretrain_engine::export::{
    CardRecipe, EdgeFigures, ExportTarget, PackageFormat, Quality, TOKENIZER_FILE, TargetPreset, WeightsReader,
    blockers, export_package, predicted_bytes, quantize_for_target, read_checkpoint,
};
use foretrain_engine::models::{DataShape, GateActivation, ModelConfig, ModelPreset, Network};
use foretrain_engine::quant::{QatConfig, QuantScheme};
use foretrain_engine::unwatched;
use foretrain_tests::small_config;

use crate::fixtures::{self, checkpoint, names, write_checkpoint};

/// All targets, and plain f32 and f16 packages, which no target uses.
fn targets() -> Vec<TargetPreset> {
    let extra = [QuantScheme::F32, QuantScheme::F16].map(TargetPreset::for_scheme);
    TargetPreset::all().unwrap().into_iter().chain(extra).collect()
}

/// Every family for every target: written, compared, opened by the runtime that ships, which answers like the trainer.
/// Export itself refuses answers that are too far away; the tighter limits here are what was measured, doubled.
#[test]
fn every_target_takes_every_family_and_answers_alike() {
    let root = tempfile::tempdir().unwrap();
    for (family, model) in fixtures::families() {
        let checkpoint = checkpoint(&root.path().join("checkpoints").join(family), &model);
        for target in targets() {
            let output = root.path().join(format!("{family} {}", target.id));
            let written = export_package(&checkpoint, &target, &output, None, unwatched!())
                .unwrap_or_else(|error| panic!("{family} for {}: {error}", target.id));
            let package = Package::open(&output).unwrap();
            assert_eq!(package.weight_bytes(), written.weight_bytes, "{family} for {}", target.id);
            assert_eq!(matches!(package.kind(), PackageKind::Text), checkpoint.card.is_language_model());
            assert_eq!(package.manifest().scheme, target.scheme.label());
            assert_eq!(written.files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), names(&output));
        }
    }
    assert!(names(root.path()).iter().all(|name| !name.contains("partial")));
}

/// The predicted size of the weight file, for models of the size that people train.
#[test]
fn predicted_size_is_within_two_percent() {
    let root = tempfile::tempdir().unwrap();
    let digits = DataShape::Images { channels: 1, height: 28, width: 28, num_classes: 10 };
    let letters = DataShape::Text { vocab_size: 65 };
    for preset in [ModelPreset::Mlp, ModelPreset::MnistCnn, ModelPreset::ResNet20, ModelPreset::Gpt2Char] {
        let model = preset.config(if preset.reads_images() { digits } else { letters }).unwrap();
        let checkpoint = checkpoint(&root.path().join(preset.label()), &model);
        for target in targets() {
            let predicted = predicted_bytes(&checkpoint.card, &target).unwrap() as f64;
            let output = root.path().join(format!("{} {}", preset.label(), target.id));
            let written = export_package(&checkpoint, &target, &output, None, unwatched!()).unwrap();
            let real = written.weight_file_bytes as f64;
            let off = (predicted - real).abs() / real;
            assert!(off <= 0.02, "{} for {}: predicted {predicted}, real {real}", preset.label(), target.id);
        }
    }
}

#[test]
fn float_targets_of_language_models_are_hugging_face_folders() {
    let root = tempfile::tempdir().unwrap();
    for (model, kind) in [(fixtures::gpt2(64), "gpt2"), (fixtures::llama(64, false), "llama")] {
        let checkpoint = checkpoint(&root.path().join("checkpoint"), &model);
        let output = root.path().join(kind);
        let target = TargetPreset::find("gpu-high").unwrap();
        export_package(&checkpoint, &target, &output, None, unwatched!()).unwrap();
        let expected = [
            "README.md",
            "config.json",
            "generation_config.json",
            "manifest.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        ];
        assert_eq!(names(&output), expected);
        let config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(output.join("config.json")).unwrap()).unwrap();
        assert_eq!((config["model_type"].as_str(), config["torch_dtype"].as_str()), (Some(kind), Some("bfloat16")));
        let mut reader = WeightsReader::open(&output.join("model.safetensors")).unwrap();
        assert_eq!(reader.metadata("format"), Some("pt"));
        let mut specs = Network::new(&model).unwrap().specs();
        specs.sort_by(|a, b| a.name.cmp(&b.name));
        let mut found = reader.names();
        found.sort();
        assert_eq!(found, specs.iter().map(|spec| spec.name.clone()).collect::<Vec<_>>());
        for spec in specs {
            assert_eq!(reader.read_tensor(&spec.name).unwrap().dims(), spec.shape, "{}", spec.name);
        }
        let copied = std::fs::read(output.join(TOKENIZER_FILE)).unwrap();
        assert_eq!(copied, fixtures::character_tokenizer().into_bytes());
    }
}

#[test]
fn gguf_has_the_names_types_and_vocabulary_of_llama_cpp() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("checkpoint");
    let mut card = fixtures::card(&fixtures::llama(256, false));
    card.data = DatasetSpec::Text { path: "text".into(), tokenizer: TokenizerSpec::Gpt2 { folder: "bpe".into() } };
    write_checkpoint(&folder, &card, &fixtures::weights(&card.model));
    std::fs::write(folder.join(TOKENIZER_FILE), fixtures::byte_level_tokenizer("<|endoftext|>")).unwrap();
    let checkpoint = read_checkpoint(&folder).unwrap();
    let output = root.path().join("package");
    let target = TargetPreset::find("cpu-x86-64").unwrap();
    let written = export_package(&checkpoint, &target, &output, None, unwatched!()).unwrap();
    assert!(written.notes.iter().all(|note| !note.contains("no vocabulary")), "{:?}", written.notes);
    let file = GgufFile::open(&output.join("model.gguf")).unwrap();
    let get = |key: &str| file.metadata().get(key).unwrap_or_else(|| panic!("{key} is missing"));
    assert_eq!(get("general.architecture"), &Value::from("llama"));
    assert_eq!(get("llama.attention.head_count_kv"), &Value::U32(2));
    assert_eq!(get("llama.rope.dimension_count"), &Value::U32(64));
    assert_eq!(get("general.file_type"), &Value::U32(37));
    assert_eq!(get("tokenizer.ggml.merges"), &Value::Array(Array::String(vec!["A B".to_owned()])));
    let Value::Array(Array::String(tokens)) = get("tokenizer.ggml.tokens") else { panic!("strings expected") };
    assert_eq!(tokens.last().map(String::as_str), Some("<|endoftext|>"));
    let kinds: Vec<(&str, TensorType)> = ["blk.1.attn_q.weight", "blk.0.ffn_down.weight", "output.weight"]
        .into_iter()
        .chain(["token_embd.weight", "output_norm.weight"])
        .map(|name| (name, file.tensors()[name].kind))
        .collect();
    let expected = [TensorType::Tq2_0, TensorType::Tq2_0, TensorType::Q8_0, TensorType::Q8_0, TensorType::F32];
    assert_eq!(kinds.iter().map(|(_, kind)| *kind).collect::<Vec<_>>(), expected);
}

/// Every file of a package that names the token between documents names the one that training put there.
#[test]
fn the_end_of_a_document_is_the_same_everywhere() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("checkpoint");
    let model = fixtures::gpt2(64);
    let DataShape::Text { vocab_size } = model.data_shape() else { panic!("a language model") };
    let last = vocab_size as u64 - 1;
    write_checkpoint(&folder, &fixtures::card(&model), &fixtures::weights(&model));
    for (number, end) in ["</s>", "<eos>", "<|im_end|>", "<|end_of_text|>", "<|endoftext|>"].into_iter().enumerate() {
        std::fs::write(folder.join(TOKENIZER_FILE), fixtures::byte_level_tokenizer(end)).unwrap();
        let output = root.path().join(number.to_string());
        let target = TargetPreset::find("mobile").unwrap();
        export_package(&read_checkpoint(&folder).unwrap(), &target, &output, None, unwatched!()).unwrap();
        let read = |name: &str| -> serde_json::Value {
            serde_json::from_slice(&std::fs::read(output.join(name)).unwrap()).unwrap()
        };
        for name in ["config.json", "generation_config.json"] {
            let file = read(name);
            assert_eq!(
                (&file["bos_token_id"], &file["eos_token_id"]),
                (&last.into(), &last.into()),
                "{name} for {end}"
            );
        }
        let file = read("tokenizer_config.json");
        assert_eq!((&file["bos_token"], &file["eos_token"]), (&end.into(), &end.into()), "{end}");
        let file = GgufFile::open(&output.join("model.gguf")).unwrap();
        let found = file.metadata().get("tokenizer.ggml.eos_token_id").and_then(Value::as_u64);
        assert_eq!(found, Some(last), "{end}");
    }
}

#[test]
fn notes_tell_fallbacks_and_missing_vocabularies() {
    let root = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(&root.path().join("checkpoint"), &fixtures::gpt2(64));
    let target = TargetPreset::find("mobile").unwrap();
    assert_eq!(target.format, PackageFormat::Gguf);
    let output = root.path().join("package");
    let written = export_package(&checkpoint, &target, &output, None, unwatched!()).unwrap();
    let notes = written.notes.join("\n");
    assert!(notes.contains("are Q8_0, not ternary") && notes.contains("holds no vocabulary"), "{notes}");
    let readme = std::fs::read_to_string(output.join("README.md")).unwrap();
    assert!(readme.contains("foretrain-edge run --package . --prompt"), "{readme}");
    // Building the studio does not build it.
    let build = "cargo build --release -p foretrain-edge";
    assert!(readme.contains(build) && notes.contains(build), "{readme} {notes}");
    assert!(readme.contains("trained on 12 tokens at a time"), "{readme}");
    assert!(readme.contains("Not measured for this package") && !readme.contains("llama-cli"), "{readme}");
    // What the caller measures is what the package stores.
    let measured = quantize_for_target(&checkpoint, &target, unwatched!()).unwrap();
    assert_eq!(measured.bytes(), written.weight_bytes);
}

#[test]
fn a_bitnet_names_llama_cpp_only_where_that_runs_it() {
    let root = tempfile::tempdir().unwrap();
    let target = TargetPreset::find("cpu-x86-64").unwrap();
    assert_eq!(target.format, PackageFormat::Gguf);
    for (act, architecture) in [(GateActivation::Silu, "bitnet"), (GateActivation::Relu2, "bitnet-b1.58")] {
        let checkpoint = checkpoint(&root.path().join(act.label()), &fixtures::bitnet(64, act));
        let output = root.path().join(architecture);
        let notes = export_package(&checkpoint, &target, &output, None, unwatched!()).unwrap().notes.join("\n");
        assert_eq!(notes.contains("llama.cpp does not run it"), act == GateActivation::Relu2, "{notes}");
        let file = GgufFile::open(&output.join("model.gguf")).unwrap();
        assert_eq!(file.metadata()["general.architecture"].as_str(), Some(architecture));
        assert!(file.tensors().contains_key("blk.1.ffn_sub_norm.weight"));
    }
}

#[test]
fn measured_quality_is_in_manifest_and_readme() {
    let root = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(&root.path().join("checkpoint"), &fixtures::cnn());
    let quality = Quality {
        metric: "accuracy".to_owned(),
        before: 0.9875,
        after: 0.75,
        loss_before: 0.04,
        loss_after: 0.9,
        num_examples: 4000,
        method: "gptq, calibrated on 200 images".to_owned(),
        tables: None,
    };
    let output = root.path().join("package");
    let target = TargetPreset::find("edge-board").unwrap();
    export_package(&checkpoint, &target, &output, Some(&quality), unwatched!()).unwrap();
    let manifest = Package::open(&output).unwrap().manifest().clone();
    assert_eq!(manifest.metrics["quality"]["after"], 0.75);
    assert_eq!(manifest.metrics["quality"]["method"], "gptq, calibrated on 200 images");
    assert_eq!(manifest.provenance["step"], 20);
    let readme = std::fs::read_to_string(output.join("README.md")).unwrap();
    assert!(readme.contains("| accuracy | 98.75% | 75.00% |"), "{readme}");
    assert!(readme.contains("Rounded by: gptq, calibrated on 200 images."), "{readme}");
    assert!(readme.contains("foretrain-edge classify --package . --image"), "{readme}");
    assert!(manifest.metrics["foretrain_edge"].is_null() && !readme.contains("read back and run"), "{readme}");

    // What foretrain-edge makes of it stands beside that, once somebody measured it; until then there is no package.
    let weights = quantize_for_target(&checkpoint, &target, unwatched!()).unwrap();
    let output = root.path().join("run");
    let draft = || target.draft(&checkpoint, &weights, &output, Some(&quality), unwatched!()).unwrap();
    drop(draft());
    assert_eq!(names(root.path()), ["checkpoint", "package"]);
    let draft = draft();
    assert!(draft.open().unwrap().manifest().metrics["foretrain_edge"].is_null() && !output.exists());
    let edge = EdgeFigures { metric: 0.7425, num_examples: 2000, ms_per_example: 0.5 };
    draft.publish(Some(&edge), unwatched!()).unwrap();
    let package = Package::open(&output).unwrap();
    package.verify_checksums().unwrap();
    let expected = serde_json::json!({ "metric": "accuracy", "measured": 0.7425, "num_examples": 2000 });
    assert_eq!(package.manifest().metrics["foretrain_edge"], expected);
    assert_eq!(package.manifest().metrics["quality"]["after"], 0.75);
    let readme = std::fs::read_to_string(output.join("README.md")).unwrap();
    assert!(readme.contains("run by foretrain-edge on 2000 validation images: accuracy 74.25%."), "{readme}");
    assert!(readme.contains("| accuracy | 98.75% | 75.00% |"), "{readme}");
}

#[test]
fn how_a_model_was_trained_is_in_manifest_and_readme() {
    let root = tempfile::tempdir().unwrap();
    let mut checkpoint = checkpoint(&root.path().join("checkpoint"), &fixtures::cnn());
    let target = TargetPreset::find("cpu-x86-64").unwrap();
    let mut readme_of = |name: &str, recipe, trained_for| {
        (checkpoint.card.recipe, checkpoint.card.trained_for) = (recipe, trained_for);
        let output = root.path().join(name);
        export_package(&checkpoint, &target, &output, None, unwatched!()).unwrap();
        let manifest = Package::open(&output).unwrap().manifest().clone();
        (std::fs::read_to_string(output.join("README.md")).unwrap(), manifest)
    };
    let (readme, _) = readme_of("plain", None, None);
    assert!(readme.contains("were rounded to three values after training"), "{readme}");
    let recipe = CardRecipe {
        optimizer: small_config(root.path(), root.path()).optimizer,
        batch_size: 24,
        seed: 77,
        qat: Some(QatConfig::new(QuantScheme::Ternary)),
        start_from: Some("first-run".into()),
    };
    let (readme, manifest) = readme_of("trained", Some(recipe), Some(QuantScheme::Ternary));
    for part in
        ["AdamW, peak learning rate 0.003; batches of 24 images; seed 77.", "Trained for ternary weights.", "first-run"]
    {
        assert!(readme.contains(part), "{part:?} is not in {readme}");
    }
    assert!(readme.contains("were trained for three values") && !readme.contains("after training"), "{readme}");
    assert_eq!(manifest.provenance["recipe"]["seed"], 77);
}

#[test]
fn the_same_checkpoint_gives_the_same_bytes() {
    let root = tempfile::tempdir().unwrap();
    for (family, model) in [("cnn", fixtures::cnn()), ("gpt2", fixtures::gpt2(256))] {
        let checkpoint = checkpoint(&root.path().join(format!("{family} checkpoint")), &model);
        for target in TargetPreset::all().unwrap() {
            let outputs = [1, 2].map(|n| root.path().join(format!("{family} {} {n}", target.id)));
            for output in &outputs {
                export_package(&checkpoint, &target, output, None, unwatched!()).unwrap();
            }
            for name in names(&outputs[0]) {
                let [first, second] =
                    [&outputs[0], &outputs[1]].map(|output| std::fs::read(output.join(&name)).unwrap());
                assert!(first == second, "{name} differs between two exports of {family} for {}", target.id);
            }
        }
    }
}

#[test]
fn a_model_that_does_not_fit_is_blocked_before_the_click() {
    let card = |preset: ModelPreset| {
        let mut card = fixtures::card(&fixtures::llama(64, false));
        card.model = preset.config(DataShape::Text { vocab_size: 32_000 }).unwrap();
        card
    };
    let find = |id: &str| TargetPreset::find(id).unwrap();
    let reasons = blockers(&card(ModelPreset::Llama7B), &find("gpu-low"));
    assert_eq!(reasons.len(), 1);
    assert!(reasons[0].what.contains("Low-end GPU has 4.3 GB") && reasons[0].remedy.contains("ternary"), "{reasons:?}");
    assert!(blockers(&card(ModelPreset::Llama7B), &find("gpu-high")).is_empty());
    assert!(blockers(&card(ModelPreset::Llama7B), &find("cpu-x86-64")).is_empty());
    // With embedding and head in 3 bits it fits there, half as large again it does not.
    assert!(blockers(&card(ModelPreset::Llama7B), &find("mobile")).is_empty());
    let mut larger = card(ModelPreset::Llama7B);
    if let ModelConfig::Llama(config) = &mut larger.model {
        config.num_hidden_layers = 48;
    }
    assert!(!blockers(&larger, &find("mobile")).is_empty());
    assert!(blockers(&card(ModelPreset::Llama1100M), &find("mobile")).is_empty());
}
