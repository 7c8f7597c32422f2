//! Quantization-aware training through the session: both precisions measured, resumed, fine-tuned, shipped.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use foretrain_engine::export::ModelCard;
use foretrain_engine::models::ops::Activations;
use foretrain_engine::models::{Activation, MlpConfig, ModelConfig};
use foretrain_engine::quant::{PostTraining, QatConfig, QuantScheme};
use foretrain_engine::session::{
    Command, EventKind, ExportJob, LogEntry, Naming, QuantizeJob, QuantizeReport, RunConfig, ValidationPoint, open_run,
};
use foretrain_tests::{TestEngine, small_config, write_idx};

/// Two hidden layers: the second is the one that ternary takes.
fn config(data: &Path, runs: &Path, scheme: QuantScheme) -> RunConfig {
    let mut config = small_config(data, runs);
    config.model = ModelConfig::Mlp(MlpConfig {
        in_channels: 1,
        image_size: (8, 8),
        hidden_sizes: vec![32, 32],
        num_classes: 10,
        activation: Activation::Relu,
    });
    // With inputs as they are: a validation then measures what `quantize` measures.
    config.qat = Some(QatConfig {
        start_fraction: 0.3,
        ramp_fraction: 0.2,
        activations: Activations::Floats,
        ..QatConfig::new(scheme)
    });
    config.num_threads = 1;
    config
}

fn quantize(test: &mut TestEngine, input: &Path, scheme: QuantScheme) -> QuantizeReport {
    let input = input.to_owned();
    let job = QuantizeJob {
        input,
        scheme,
        output: None,
        data: None,
        max_examples: usize::MAX,
        options: PostTraining::default(),
        report: None,
    };
    let job = test.send(|id| Command::Quantize(id, job));
    *test.wait(job, |kind| if let EventKind::Quantized(report) = kind { Some(report) } else { None })
}

fn last_point(run: &Path) -> ValidationPoint {
    *open_run(run).unwrap().validations.last().unwrap()
}

fn rejection(test: &mut TestEngine, config: RunConfig) -> String {
    let job = test.send(|job| Command::Start(job, Box::new(config)));
    test.wait(job, |kind| if let EventKind::Rejected(failure) = kind { Some(failure.message) } else { None })
}

#[test]
fn both_precisions_are_measured_and_the_quantized_one_ships() {
    let mut test = TestEngine::default();
    let (data, runs) = (test.sub("data"), test.sub("runs"));
    write_idx(&data, 2_000, 200);
    for scheme in QatConfig::SCHEMES {
        let run = test.train(config(&data, &runs, scheme));
        let loaded = open_run(&run).unwrap();
        let strengths: Vec<f32> = loaded.history.iter().map(|row| row.quantization.unwrap()).collect();
        assert_eq!((strengths[35], strengths[59], strengths[119]), (0.0, 1.0, 1.0));
        assert!(strengths[40] > 0.0 && strengths[40] < strengths[50]);
        assert!(!loaded.log.iter().any(LogEntry::is_divergence));
        let seen: Vec<(u64, f64)> =
            loaded.validations.iter().map(|point| (point.step, point.quantized.unwrap().strength)).collect();
        assert_eq!(seen, [(30, 0.0), (60, 1.0), (90, 1.0), (120, 1.0)]);

        let last = last_point(&run);
        let quantized = last.quantized.unwrap();
        assert_eq!((quantized.scheme, last.figures()), (scheme, quantized.figures()));
        assert!(quantized.figures().accuracy.unwrap() > 0.85, "{scheme:?}: {last:?}");
        assert_ne!(quantized.curve.loss.to_bits(), last.loss.to_bits());

        // The checkpoint holds the quantized weights: as they are, by `quantize` and as a package they are worth the same.
        let checkpoint = run.join("checkpoints/step-00000120");
        let card = ModelCard::read(&checkpoint).unwrap();
        assert_eq!((card.trained_for, card.validation_loss), (Some(scheme), Some(quantized.figures().loss)));
        let report = quantize(&mut test, &checkpoint, scheme);
        let trained = quantized.figures().loss;
        assert!((report.loss_before - trained).abs() < 1e-6, "{} {trained}", report.loss_before);
        assert!((report.loss_after - trained).abs() < 1e-6, "{} {trained}", report.loss_after);
        assert_eq!(report.num_examples, quantized.figures().num_examples);

        // The best checkpoint is one of the quantized network.
        let best = std::fs::read_to_string(run.join("checkpoints/best")).unwrap();
        assert_eq!(ModelCard::read(&run.join("checkpoints").join(best)).unwrap().trained_for, Some(scheme));
    }
}

#[test]
fn a_ternary_package_runs_as_well_as_training_said() {
    let mut test = TestEngine::default();
    let (data, runs) = (test.sub("data"), test.sub("runs"));
    write_idx(&data, 2_000, 200);
    let run = test.train(config(&data, &runs, QuantScheme::Ternary));
    let job = ExportJob {
        format: None,
        input: run.join("checkpoints/step-00000120"),
        target: "edge-board".to_owned(),
        scheme: None,
        options: PostTraining::default(),
        output: test.folder.path().join("package"),
        data: None,
        naming: Naming::Exact,
    };
    let job = test.send(|id| Command::Export(id, job));
    let report = test.wait(job, |kind| if let EventKind::Exported(report) = kind { Some(report) } else { None });
    let trained = last_point(&run).figures();
    assert_eq!(report.quality.scheme, QuantScheme::Ternary);
    assert!((report.quality.loss_after - trained.loss).abs() < 1e-6, "{} {trained:?}", report.quality.loss_after);
    // Foretrain-edge computes with 8-bit activations on top.
    let edge = report.edge.unwrap().metric;
    assert!((edge - trained.accuracy.unwrap()).abs() < 0.02, "{edge} {trained:?}");
}

#[test]
fn a_run_resumed_in_the_middle_of_the_ramp_ends_bit_for_bit_alike() {
    let mut test = TestEngine::default();
    let (data, runs) = (test.sub("data"), test.sub("runs"));
    write_idx(&data, 1_000, 200);
    let mut config = config(&data, &runs, QuantScheme::Ternary);
    config.keep_last = 100;
    let unbroken = test.train(config);
    let broken = test.sub("other").join("broken");
    copy(&unbroken, &broken);
    // As if it had been killed after step 50; the ramp goes from 36 to 60.
    for entry in std::fs::read_dir(broken.join("checkpoints")).unwrap().flatten() {
        if entry.path().is_dir() && entry.file_name().to_str().unwrap() > "step-00000050" {
            std::fs::remove_dir_all(entry.path()).unwrap();
        }
    }
    let job = test.send(|job| Command::ResumeRun(job, broken.clone()));
    test.wait(job, |kind| matches!(kind, EventKind::Ended(_)).then_some(()));
    for file in ["model.safetensors", "trainer.safetensors", "trainer.json"] {
        let read = |run: &Path| std::fs::read(run.join("checkpoints/step-00000120").join(file)).unwrap();
        assert!(read(&unbroken) == read(&broken), "{file} differs");
    }
    let losses = |run: &Path| -> Vec<u64> {
        let points = open_run(run).unwrap().validations;
        points.iter().flat_map(|point| [point.loss, point.quantized.unwrap().curve.loss]).map(f64::to_bits).collect()
    };
    assert_eq!(losses(&unbroken), losses(&broken));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let place = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &place);
        } else {
            std::fs::copy(entry.path(), place).unwrap();
        }
    }
}

#[test]
fn a_trained_model_is_fine_tuned_for_ternary_weights() {
    let mut test = TestEngine::default();
    let (data, runs) = (test.sub("data"), test.sub("runs"));
    write_idx(&data, 2_000, 200);
    let mut full = config(&data, &runs, QuantScheme::Ternary);
    full.qat = None;
    let trained = test.train(full.clone());
    let after_training = quantize(&mut test, &trained, QuantScheme::Ternary);

    let mut tuned = full.clone();
    tuned.start_from = Some(trained.clone());
    tuned.qat = Some(QatConfig::fine_tuning(QuantScheme::Ternary));
    (tuned.num_steps, tuned.validation_interval, tuned.seed) = (60, 20, 8);
    let run = test.train(tuned.clone());
    let first_loss = open_run(&run).unwrap().history.get(0).unwrap().loss;
    assert!(f64::from(first_loss) < 2.0, "weights drawn anew would give ln 10, found {first_loss}");
    let quantized = last_point(&run).quantized.unwrap();
    assert!(
        quantized.figures().loss < after_training.loss_after,
        "{} after fine-tuning, {} without",
        quantized.figures().loss,
        after_training.loss_after
    );

    // Of a quantized checkpoint it is the weights behind it that go on learning.
    let mut again = tuned.clone();
    (again.start_from, again.qat, again.num_steps) = (Some(run.clone()), None, 1);
    let once_more = test.train(again);
    let loss = open_run(&once_more).unwrap().history.get(0).unwrap().loss;
    assert!(f64::from(loss) < 1.0, "{loss}");

    // The model must be the checkpoint's.
    let mut other = tuned.clone();
    if let ModelConfig::Mlp(mlp) = &mut other.model {
        mlp.hidden_sizes = vec![32, 48];
    }
    let message = rejection(&mut test, other);
    assert!(message.contains("\"layers.1.weight\"") && message.contains("[48, 32]"), "{message}");
    let mut other = tuned.clone();
    if let ModelConfig::Mlp(mlp) = &mut other.model {
        mlp.activation = Activation::Gelu;
    }
    let message = rejection(&mut test, other);
    assert!(message.contains("a setting that no tensor shows"), "{message}");
    tuned.start_from = Some(PathBuf::from("nowhere"));
    let message = rejection(&mut test, tuned);
    assert!(message.contains("nowhere"), "{message}");
}

#[test]
fn settings_that_cannot_be_are_refused_before_anything_is_made() {
    let mut test = TestEngine::default();
    let (data, runs) = (test.sub("data"), test.sub("runs"));
    write_idx(&data, 500, 100);
    let mut config = config(&data, &runs, QuantScheme::Ternary);
    config.qat = Some(QatConfig { start_fraction: 1.0, ..QatConfig::new(QuantScheme::Ternary) });
    let message = rejection(&mut test, config.clone());
    assert!(message.contains("start") && message.contains("found 1"), "{message}");
    config.qat = Some(QatConfig::new(QuantScheme::F16));
    let message = rejection(&mut test, config);
    assert!(message.contains("ternary") && message.contains("f16"), "{message}");
    assert_eq!(std::fs::read_dir(&runs).unwrap().count(), 0);
}
