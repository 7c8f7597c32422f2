//! Token embedding and head of ternary language models: stored in the smallest types that keep the quality, as measured.

use std::path::Path;
use std::process::{Command as Process, Stdio};

use foretrain_edge::Package;
use foretrain_edge::gguf::{GgufFile, TensorType};
use foretrain_engine::data::{DatasetSpec, TokenizerSpec};
use foretrain_engine::export::{
    ExportTarget, PackageFormat, TOKENIZER_FILE, TargetPreset, export_package, planned, predicted_bytes,
    predicted_range, read_checkpoint, resolve_checkpoint,
};
use foretrain_engine::models::{DataShape, GateActivation, LlamaConfig, ModelConfig, ModelPreset};
use foretrain_engine::quant::{PostTraining, QatConfig, QuantScheme, TableChoice, TableReason, TableType, Tables};
use foretrain_engine::session::{Command, EventKind, ExportJob, ExportReport, Naming, QuantizeJob, RunConfig};
use foretrain_engine::unwatched;
use foretrain_tests::{TestEngine, small_config};

use crate::fixtures;

/// A Llama whose rows fill blocks of 256, trained for ternary matrices on a text that repeats itself.
fn config(text: &Path, runs: &Path) -> RunConfig {
    let mut config = small_config(text, runs);
    std::fs::write(text, "abcdefghijklmnopqrstuvwxyz, ".repeat(600)).unwrap();
    config.data = DatasetSpec::Text { path: text.to_owned(), tokenizer: TokenizerSpec::Char };
    config.model = ModelConfig::Llama(LlamaConfig {
        vocab_size: 28,
        max_position_embeddings: 32,
        hidden_size: 256,
        intermediate_size: 256,
        num_hidden_layers: 1,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        tie_word_embeddings: false,
        initializer_range: 0.05,
        hidden_act: GateActivation::Silu,
        sub_norms: false,
    });
    config.qat = Some(QatConfig::fine_tuning(QuantScheme::Ternary));
    (config.num_steps, config.batch_size, config.sequence_length) = (40, 8, 32);
    (config.checkpoint_interval, config.num_threads) = (40, 2);
    config
}

fn export(test: &mut TestEngine, paths: (&Path, &Path), tables: Tables) -> Result<Box<ExportReport>, String> {
    export_with(test, paths, PostTraining { tables, ..PostTraining::default() })
}

fn export_with(
    test: &mut TestEngine,
    (input, output): (&Path, &Path),
    options: PostTraining,
) -> Result<Box<ExportReport>, String> {
    let job = ExportJob {
        format: None,
        input: input.to_owned(),
        target: "cpu-x86-64".to_owned(),
        scheme: Some(QuantScheme::TernaryBase3),
        options,
        output: output.to_owned(),
        data: None,
        naming: Naming::Exact,
    };
    let job = test.send(|id| Command::Export(id, job));
    test.wait(job, |kind| match kind {
        EventKind::Exported(report) => Some(Ok(report)),
        EventKind::Rejected(failure) => Some(Err(failure.message)),
        _ => None,
    })
}

#[test]
fn a_measurement_chooses_and_somebody_who_asks_is_heard() {
    let mut test = TestEngine::default();
    let runs = test.sub("runs");
    let text = test.sub("data").join("text.txt");
    let run = test.train(config(&text, &runs));
    let trained = read_checkpoint(&resolve_checkpoint(&run).unwrap()).unwrap();

    // The same vector in every row of the head raises all logits alike: the model stays as it is, but its head has become
    // one that three bits cannot hold.
    let mut weights = trained.weights.clone();
    let head = weights.get("lm_head.weight").unwrap();
    let most = head.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    let outliers: Vec<f32> = (0..256).map(|column| if column % 16 == 5 { 4.0 * most } else { 0.0 }).collect();
    let outliers = candle_core::Tensor::new(outliers, head.device()).unwrap();
    let raised = head.broadcast_add(&outliers).unwrap();
    weights.insert("lm_head.weight", raised);
    let checkpoint = test.folder.path().join("checkpoint");
    fixtures::write_checkpoint(&checkpoint, &trained.card, &weights);
    std::fs::copy(trained.tokenizer_json.unwrap(), checkpoint.join(TOKENIZER_FILE)).unwrap();

    let output = test.folder.path().join("measured");
    let report = export(&mut test, (&checkpoint, &output), Tables::default()).unwrap();
    let tables = report.quality.tables.clone().unwrap();
    let label = |tried: &foretrain_engine::quant::TriedTables| {
        (tried.embedding.clone(), tried.head.clone().unwrap_or_default())
    };
    assert_eq!(label(&tables.tried[0]), ("F16".to_owned(), "F16".to_owned()));
    let coarse = tables.tried.iter().find(|tried| label(tried) == ("F16".to_owned(), "Q3_K".to_owned())).unwrap();
    assert!(tables.growth(coarse) > TableChoice::MOST_GROWTH, "{tables:?}");
    let (embedding, head) = (tables.embedding.clone(), tables.head.clone().unwrap());
    assert_ne!(head.storage, "Q3_K");
    assert_eq!((embedding.reason, head.reason), (TableReason::Measured, TableReason::Measured));
    let chosen = tables.chosen().unwrap();
    assert!(tables.growth(chosen) <= TableChoice::MOST_GROWTH && chosen.bytes < tables.tried[0].bytes, "{tables:?}");
    assert_eq!(chosen.loss, report.quality.loss_after);
    // Nothing smaller that was measured together with what was chosen kept the quality.
    for tried in tables.tried.iter().filter(|tried| tried.bytes < chosen.bytes) {
        let is_alone = tried.embedding == "F16" || tried.head.as_deref() == Some("F16");
        assert!(is_alone || tables.growth(tried) > TableChoice::MOST_GROWTH, "{tables:?}");
    }
    let file = GgufFile::open(&output.join("model.gguf")).unwrap();
    let kind = |name: &str| file.tensors()[name].kind.label().to_owned();
    assert_eq!((kind("token_embd.weight"), kind("output.weight")), (embedding.storage, head.storage));
    assert_eq!(file.tensors()["blk.0.attn_q.weight"].kind, TensorType::Tq1_0);
    let manifest = Package::open(&output).unwrap().manifest().clone();
    // A reader of JSON may round the last digit of a number.
    let written = serde_json::to_string(&tables).unwrap();
    assert_eq!(manifest.metrics["tables"], serde_json::from_str::<serde_json::Value>(&written).unwrap());
    let readme = std::fs::read_to_string(output.join("README.md")).unwrap();
    assert!(readme.contains(&tables.markdown()), "{readme}");
    // The runtime that ships reads these tables as the trainer's network does, but for inputs in 8 bits.
    let edge = report.edge.unwrap();
    let (of_edge, measured) = (edge.metric, report.quality.loss_after);
    assert!((of_edge - measured).abs() < 0.05 * measured.max(1.0), "{of_edge} {measured}");
    // Both figures are in the package, each under its name.
    let in_manifest = &manifest.metrics["foretrain_edge"];
    assert_eq!(
        (in_manifest["metric"].as_str(), &in_manifest["num_examples"]),
        (Some("loss"), &edge.num_examples.into())
    );
    assert!((in_manifest["measured"].as_f64().unwrap() - of_edge).abs() < 1e-9, "{in_manifest}");
    let sentence = format!("run by foretrain-edge on {} validation tokens: loss {of_edge:.4}.", edge.num_examples);
    assert!(readme.contains(&sentence), "{readme}");

    let asked = Tables { embedding: Some(TableType::Int4K), head: Some(TableType::F16) };
    let output = test.folder.path().join("asked");
    let report = export(&mut test, (&checkpoint, &output), asked).unwrap();
    let tables = report.quality.tables.unwrap();
    assert_eq!((tables.embedding.storage.as_str(), tables.embedding.reason), ("Q4_K", TableReason::Asked));
    assert!(tables.tried.is_empty() && report.quality.notes.iter().any(|note| note.contains("as asked")));
    let file = GgufFile::open(&output.join("model.gguf")).unwrap();
    let kinds = ["token_embd.weight", "output.weight"].map(|name| file.tensors()[name].kind);
    assert_eq!(kinds, [TensorType::Q4K, TensorType::F16]);

    // One asked for, the other one measured; in our own container.
    let options =
        PostTraining { tables: Tables { embedding: Some(TableType::Int3K), head: None }, ..PostTraining::default() };
    let job = QuantizeJob {
        input: checkpoint,
        scheme: QuantScheme::Ternary,
        output: Some(test.folder.path().join("model.safetensors")),
        data: None,
        max_examples: 20,
        options,
        report: Some(test.folder.path().join("report")),
    };
    let job = test.send(|id| Command::Quantize(id, job));
    let report = test.wait(job, |kind| if let EventKind::Quantized(report) = kind { Some(report) } else { None });
    let tables = report.tables.unwrap();
    assert_eq!((tables.embedding.storage.as_str(), tables.embedding.reason), ("Q3_K", TableReason::Asked));
    assert_eq!(tables.head.as_ref().unwrap().reason, TableReason::Measured);
    assert!(tables.tried.iter().all(|tried| tried.embedding == "Q3_K") && tables.tried.len() > 1, "{tables:?}");
    let page = std::fs::read_to_string(test.folder.path().join("report/README.md")).unwrap();
    assert!(page.contains(&tables.markdown()), "{page}");
}

/// Exported without a measurement, in every type: each tensor takes what was predicted, and so does the file.
#[test]
fn sizes_are_as_predicted_in_every_type() {
    let root = tempfile::tempdir().unwrap();
    for (name, model) in [("llama", fixtures::llama(512, false)), ("tied", fixtures::llama(512, true))] {
        let checkpoint = fixtures::checkpoint(&root.path().join(name), &model);
        for format in [PackageFormat::Gguf, PackageFormat::Safetensors] {
            let target = TargetPreset::find("mobile").unwrap().with_format(format);
            let mut sizes = Vec::new();
            for table in TableType::ALL {
                let target = target.clone().with_tables(Tables::both(table));
                let output = root.path().join(format!("{name} {} {}", format.label(), table.label()));
                let written = export_package(&checkpoint, &target, &output, None, unwatched!()).unwrap();
                let plans = planned(&checkpoint.card, &target).unwrap();
                assert_eq!(written.weight_bytes, plans.iter().map(|plan| plan.num_bytes()).sum::<u64>());
                let predicted = target.predicted_bytes(&checkpoint.card).unwrap() as f64;
                let off = (predicted / written.weight_file_bytes as f64 - 1.0).abs();
                assert!(off <= 0.02, "{name} {}: {predicted}, {}", table.label(), written.weight_file_bytes);
                sizes.push(target.predicted_bytes(&checkpoint.card).unwrap());
            }
            assert!(sizes.is_sorted() && sizes[0] < sizes[3], "{sizes:?}");
            assert_eq!(predicted_range(&checkpoint.card, &target).unwrap(), Some((sizes[0], sizes[3])));
            assert_eq!(predicted_bytes(&checkpoint.card, &target).unwrap(), sizes[2], "8 bits are the default");
        }
    }
}

/// Whole files with their vocabulary, by the code that predicts what is written, against the same file in f32. The figures
/// are those of docs/quantization.md.
#[test]
fn ternary_files_are_sixteen_times_smaller() {
    let bytes = |(preset, vocab_size): (ModelPreset, usize), scheme: QuantScheme, tables: Tables| {
        let mut card = fixtures::card(&fixtures::llama(64, false));
        card.model = preset.config(DataShape::Text { vocab_size }).unwrap();
        card.data = DatasetSpec::Text { path: "text".into(), tokenizer: TokenizerSpec::Gpt2 { folder: "bpe".into() } };
        let target = TargetPreset::find("cpu-x86-64").unwrap().with_scheme(scheme).with_tables(tables);
        predicted_bytes(&card, &target).unwrap() as f64
    };
    let models = [(ModelPreset::Llama7B, 32_000), (ModelPreset::Llama1100M, 32_000), (ModelPreset::Gpt2_124M, 50_257)];
    let (base3, ternary) = (QuantScheme::TernaryBase3, QuantScheme::Ternary);
    let mut factors = Vec::new();
    for (scheme, table, expected) in [
        (base3, TableType::Int3K, ["1481 MB, 18.2", "262 MB, 16.8", "38 MB, 13.0"]),
        (base3, TableType::Int4K, ["1516 MB, 17.8", "280 MB, 15.7", "43 MB, 11.5"]),
        (base3, TableType::Int8, ["1647 MB, 16.4", "345 MB, 12.8", "63 MB, 8.0"]),
        (base3, TableType::F16, ["1893 MB, 14.2", "468 MB, 9.4", "99 MB, 5.0"]),
        (ternary, TableType::Int3K, ["1784 MB, 15.1", "308 MB, 14.3", "42 MB, 11.8"]),
        (ternary, TableType::F16, ["2196 MB, 12.3", "513 MB, 8.6", "103 MB, 4.9"]),
    ] {
        for (model, expected) in models.into_iter().zip(expected) {
            let small = bytes(model, scheme, Tables::both(table));
            let factor = bytes(model, QuantScheme::F32, Tables::default()) / small;
            let found = format!("{:.0} MB, {factor:.1}", small / 1e6);
            assert_eq!(found, expected, "{} {} {}", model.0.label(), scheme.label(), table.label());
            factors.push(factor);
        }
    }
    assert!(factors[0] >= 16.0 && factors[1] >= 16.0, "{factors:?}");
}

#[test]
fn types_that_cannot_be_are_refused_before_anything_is_made() {
    let mut test = TestEngine::default();
    let runs = test.sub("runs");
    let text = test.sub("data").join("text.txt");
    let mut config = config(&text, &runs);
    if let ModelConfig::Llama(llama) = &mut config.model {
        llama.tie_word_embeddings = true;
    }
    (config.num_steps, config.checkpoint_interval) = (2, 2);
    let run = test.train(config);
    let output = test.folder.path().join("package");
    let head = Tables { embedding: None, head: Some(TableType::Int8) };
    let message = export(&mut test, (&run, &output), head).unwrap_err();
    assert!(message.contains("head type") && message.contains("token embedding is its head"), "{message}");
    assert!(!output.exists());
    // Of a tied model, the embedding alone is measured.
    let report = export(&mut test, (&run, &output), Tables::default()).unwrap();
    let tables = report.quality.tables.unwrap();
    assert!(tables.head.is_none() && tables.tried.iter().all(|tried| tried.head.is_none()), "{tables:?}");
}

/// Tables are tensors that a budget for the whole file is shared between, or take of it what was asked for.
#[test]
fn a_budget_counts_what_the_tables_take() {
    let mut test = TestEngine::default();
    let runs = test.sub("runs");
    let text = test.sub("data").join("text.txt");
    let run = test.train(config(&text, &runs));
    let folder = test.folder.path().to_owned();
    let mut mixed = |name: &str, bits: f64, tables: Tables| {
        let budget_bits = Some(bits);
        let options = PostTraining { tables, budget_bits, calibration_samples: 8, ..PostTraining::default() };
        let report = export_with(&mut test, (&run, &folder.join(name)), options)?;
        let file = GgufFile::open(&folder.join(name).join("model.gguf")).unwrap();
        let kinds = ["token_embd.weight", "output.weight"].map(|name| file.tensors()[name].kind.label().to_owned());
        Ok::<_, String>((report, kinds))
    };
    // In half precision tables take 0.56 of the 2.26 bits that the least file with such tables has.
    let refusal = mixed("refused", 2.0, Tables::both(TableType::F16)).unwrap_err();
    assert!(refusal.contains("budget") && refusal.contains("at least 2.2"), "{refusal}");
    for (name, bits) in [("narrow", 2.0), ("wide", 4.5)] {
        let (report, kinds) = mixed(name, bits, Tables::default()).unwrap();
        let used = report.quality.bits_per_weight;
        assert!(used <= bits, "{used} of {bits}");
        let tables = report.quality.tables.unwrap();
        assert!(tables.tried.is_empty() && tables.embedding.reason == TableReason::Budget, "{tables:?}");
        assert_eq!([tables.embedding.storage, tables.head.unwrap().storage], kinds);
        let notes = report.quality.notes.join("; ");
        assert!(notes.contains("of 9 tensors got more bits"), "both tables and seven matrices: {notes}");
    }
    let asked = Tables { embedding: Some(TableType::F16), head: Some(TableType::Int8) };
    let (report, kinds) = mixed("asked", 4.0, asked).unwrap();
    assert_eq!(kinds, ["F16", "Q8_0"]);
    assert!(report.quality.bits_per_weight <= 4.0, "{}", report.quality.bits_per_weight);
    assert!(report.quality.notes.join("; ").contains("of 7 tensors got more bits"), "{:?}", report.quality.notes);
}

/// Of all targets, those whose weights are floats get packages without types of tables; named alone, one is refused.
#[test]
fn types_are_left_out_where_they_mean_nothing_among_all_targets() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("checkpoint");
    fixtures::checkpoint(&folder, &fixtures::llama(256, false));
    let text = root.path().join("text.txt");
    std::fs::write(&text, "AB ".repeat(700)).unwrap();
    let export = |target: &str, code: i32| -> serde_json::Value {
        let mut command = Process::new(env!("CARGO_BIN_EXE_foretrain-under-test"));
        command.args(["export", "--embedding-type", "int4-k", "--head-type", "int8", "--json"]);
        command.args(["--target", target, "--input"]).arg(&folder).arg("--data").arg(&text);
        command.arg("--output").arg(root.path().join(target)).env("XDG_CACHE_HOME", root.path().join("cache"));
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(std::str::from_utf8(&output.stdout).unwrap().lines().last().unwrap()).unwrap()
    };
    let all = export("all", 0);
    let packages = all["packages"].as_array().unwrap();
    assert_eq!(packages.len(), TargetPreset::all().unwrap().len());
    for package in packages {
        let notes = package["quality"]["notes"].to_string();
        let is_float = package["target"] == "gpu-high";
        assert_eq!(notes.contains("types of token embedding and head were left out: bf16"), is_float, "{notes}");
        assert_eq!(package["quality"]["tables"]["embedding"]["storage"] == "Q4_K", !is_float, "{package}");
    }
    let refusal = export("gpu-high", 2)["error"].as_str().unwrap().to_owned();
    assert!(refusal.contains("embedding type") && refusal.contains("found bf16"), "{refusal}");
    assert!(!root.path().join("gpu-high").exists());
}
