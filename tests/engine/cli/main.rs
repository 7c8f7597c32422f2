//! The command line as a script sees it: exit codes, the JSON line, closed pipes, odd paths. In three files, because every command
//! is tried on the same small run.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod fit;
mod shipping;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use foretrain_engine::data::DatasetSpec;
use foretrain_engine::device::has_cuda;
use foretrain_engine::session::RunConfig;
use foretrain_tests::write_idx;
use serde_json::{Value, json};

/// Two steps without a probe: well below a second.
const TRAIN: [&str; 15] = [
    "train",
    "--preset",
    "glyphs-mlp",
    "--tier",
    "vanilla",
    "--data",
    "data",
    "--runs",
    "runs",
    "--steps",
    "2",
    "--batch-size",
    "64",
    "--threads",
    "1",
];

/// A folder to work in, with a small IDX dataset in `data`.
fn workshop() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    write_idx(&data, 500, 100);
    folder
}

/// The program in `folder`, with a home of its own.
fn foretrain(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foretrain-under-test"));
    command.current_dir(folder).args(args).stdin(Stdio::null()).env("HOME", folder);
    for variable in ["FORETRAIN_RUNS", "XDG_CACHE_HOME", "XDG_DATA_HOME", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command
}

#[track_caller]
fn check_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
}

/// Runs the program, which must end with `code`; returns what it printed on standard error.
#[track_caller]
fn stderr_of(folder: &Path, args: &[&str], code: i32) -> String {
    let output = foretrain(folder, args).output().unwrap();
    check_code(&output, code);
    String::from_utf8(output.stderr).unwrap()
}

/// The object on the last line of standard output.
#[track_caller]
fn last_json(output: &Output) -> Value {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    let value: Value = serde_json::from_str(text.lines().last().unwrap_or_default()).expect(text);
    assert!(value.is_object(), "{value}");
    value
}

/// Runs the program, which must end with `code`; returns the object on its last line.
#[track_caller]
fn json_of(folder: &Path, args: &[&str], code: i32) -> Value {
    let output = foretrain(folder, args).output().unwrap();
    check_code(&output, code);
    last_json(&output)
}

/// Trains for two steps; returns the run's folder, seen from `folder`.
#[track_caller]
fn train(folder: &Path) -> String {
    let mut args = TRAIN.to_vec();
    args.push("--json");
    json_of(folder, &args, 0)["run"].as_str().unwrap().to_owned()
}

#[test]
fn runs_are_listed_and_shown_as_objects() {
    let workshop = workshop();
    let folder = workshop.path();
    assert_eq!(json_of(folder, &["runs", "list", "--runs", "runs", "--json"], 0), json!({ "runs": [] }));
    let run = train(folder);
    for args in [["runs", "list", "--json", "--runs", "runs"], ["runs", "--json", "--runs", "runs", "list"]] {
        let listed = json_of(folder, &args, 0);
        assert_eq!(listed["runs"].as_array().unwrap().len(), 1, "{listed}");
        assert_eq!(listed["runs"][0]["folder"], run.as_str());
    }
    let shown = json_of(folder, &["runs", "show", &run, "--json"], 0);
    assert_eq!((shown["folder"].as_str(), shown["step"].as_u64()), (Some(run.as_str()), Some(2)));
    assert_eq!(shown["num_divergences"], 0);
    // As the log of a run that diverged once tells it.
    let event = json!({"Diverged": {"divergence": {"kind": "NotFinite", "value": null, "limit": 1.0}, "recovery": "BackToFull"}});
    let line = json!({"step": 2, "unix_ms": 0, "kind": {"Hybrid": event}});
    let log = folder.join(&run).join("events.jsonl");
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(log, format!("{line}\n{text}")).unwrap();
    assert_eq!(json_of(folder, &["runs", "show", &run, "--json"], 0)["num_divergences"], 1);
    let output = foretrain(folder, &["runs", "show", &run]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("divergences: 1"), "{text}");
}

#[test]
fn a_run_is_shown_by_path_folder_name_or_name() {
    let workshop = workshop();
    let folder = workshop.path();
    let train_as = |name: &str| {
        let mut args = TRAIN.to_vec();
        args.extend(["--json", "--name", name]);
        PathBuf::from(json_of(folder, &args, 0)["run"].as_str().unwrap())
    };
    let (digits, twin) = (train_as("digits"), [train_as("twin"), train_as("twin")]);
    let name_of = |run: &Path| run.file_name().unwrap().to_str().unwrap().to_owned();
    let show = |asked: &str, code| json_of(folder, &["runs", "show", asked, "--runs", "runs", "--json"], code);
    for asked in [digits.to_str().unwrap(), &name_of(&digits), "digits", "Digits"] {
        assert_eq!(show(asked, 0)["folder"], digits.to_str().unwrap(), "{asked}");
    }
    assert_eq!(show(&name_of(&twin[1]), 0)["folder"], twin[1].to_str().unwrap());
    let message = show("twin", 2)["error"].as_str().unwrap().to_owned();
    assert!(twin.iter().all(|run| message.contains(&name_of(run))), "{message}");
    let message = show("digts", 2)["error"].as_str().unwrap().to_owned();
    assert!(message.contains(&name_of(&digits)) && !message.contains("twin"), "{message}");
    let message = show("something else", 2)["error"].as_str().unwrap().to_owned();
    assert!(message.contains("runs list"), "{message}");
    // The folder above the runs, and a place that is not there.
    let message = show("runs", 2)["error"].as_str().unwrap().to_owned();
    assert!(message.contains("config.ron"), "{message}");
    let message = show("runs/nowhere", 2)["error"].as_str().unwrap().to_owned();
    assert!(message.contains("found nothing"), "{message}");
    // A run goes on by its name, too.
    assert_eq!(json_of(folder, &["train", "--resume", "digits", "--runs", "runs", "--json"], 0)["steps"], 2);
}

#[test]
fn a_run_ends_with_where_its_time_went() {
    let folder = workshop();
    let times = |steps: &str| {
        let mut args = TRAIN;
        let at = args.iter().position(|arg| *arg == "2").unwrap();
        args[at] = steps;
        json_of(folder.path(), &[&args[..], &["--json"]].concat(), 0)["times"].clone()
    };
    let short = times("2");
    assert_eq!(short["operations"], Value::Null, "no step was sampled");
    assert!(short["seconds"]["Validation"].as_f64().unwrap() > 0.0, "{short}");
    let long = times("12");
    assert_eq!(long["operations"]["num_sampled_steps"], 1);
    let shares = long["operations"]["shares"].as_object().unwrap();
    assert!(shares["Optimizer"].as_f64().unwrap() > 0.0, "{long}");
    let sum: f64 = shares.values().map(|share| share.as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-6, "{long}");
}

#[test]
fn presets_and_targets_are_listed_as_objects() {
    let folder = tempfile::tempdir().unwrap();
    let presets = json_of(folder.path(), &["train", "--preset", "list", "--json"], 0);
    assert!(presets["presets"].as_array().unwrap().iter().any(|preset| preset["name"] == "glyphs-cnn"), "{presets}");
    let targets = json_of(folder.path(), &["export", "--target", "list", "--json"], 0);
    assert!(targets["targets"].as_array().unwrap().iter().any(|target| target["id"] == "cpu-x86-64"), "{targets}");
}

#[test]
fn errors_are_objects_too() {
    let workshop = workshop();
    let folder = workshop.path();
    for args in [
        ["validate", "--checkpoint", "nowhere", "--json"],
        ["quantize", "--input=nowhere", "--scheme=int8", "--json"],
        ["infer", "--package=nowhere", "--prompt=Once", "--json"],
        ["runs", "show", "nowhere", "--json"],
        ["train", "--data", "nowhere", "--json"],
        ["train", "--resume", "nowhere", "--json"],
    ] {
        let output = foretrain(folder, &args).output().unwrap();
        check_code(&output, 2);
        let json = last_json(&output);
        assert_eq!(json["exit_code"], 2, "{args:?}");
        let message = json["error"].as_str().unwrap();
        assert!(message.contains("nowhere"), "{args:?}: {message}");
        assert!(String::from_utf8(output.stderr).unwrap().contains(message), "{args:?}");
    }
    let usage = json_of(folder, &["export", "--target", "toaster", "--json"], 2);
    assert_eq!(usage["exit_code"], 2);
    assert!(usage["error"].as_str().unwrap().contains("edge-board"), "{usage}");
}

/// The mobile target's image models, and what else may and may not be asked for.
#[test]
fn image_models_become_onnx_and_refusals_say_what_would_do() {
    let workshop = workshop();
    let folder = workshop.path();
    let run = train(folder);
    let export = |more: &[&str], code: i32| {
        let args = [&["export", "--input", &run, "--json"], more].concat();
        json_of(folder, &args, code)
    };
    for (name, more, bits) in
        [("int8", &["--target", "mobile"][..], 9.0), ("f32", &["--target", "mobile", "--scheme", "f32"], 32.0)]
    {
        let report = export(&[more, &["--output", name]].concat(), 0);
        let names: Vec<&str> =
            report["files"].as_array().unwrap().iter().map(|file| file[0].as_str().unwrap()).collect();
        assert!(names.contains(&"model.onnx") && names.contains(&"run.py"), "{names:?}");
        assert!(report["quality"]["bits_per_weight"].as_f64().unwrap() <= bits, "{report}");
        assert!(report["quality"]["scheme"].is_string() && report.get("edge_metric").is_none(), "{report}");
        let lost = report["quality"]["before"].as_f64().unwrap() - report["quality"]["after"].as_f64().unwrap();
        // Two steps leave near ties, which 8 bits may turn.
        assert!(name == "int8" || lost.abs() < 1e-9, "{report}");
    }
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/samples/seven.png"), folder.join("seven.png"))
        .unwrap();
    let refused = json_of(folder, &["infer", "--package", "int8", "--image", "seven.png", "--json"], 1);
    assert!(refused["error"].as_str().unwrap().contains("onnxruntime"), "{refused}");
    for (more, expected) in [
        (&["--target", "gpu-high", "--format", "onnx"][..], "f32 or int8, not bf16"),
        (&["--target", "gpu-low", "--format", "gguf"], "GGUF holds language models"),
    ] {
        let refused = export(&[more, &["--output", "refused"]].concat(), 2);
        assert!(refused["error"].as_str().unwrap().contains(expected), "{refused}");
        assert!(!folder.join("refused").exists());
    }
    // A scheme that ONNX lacks goes where it can be.
    let report = export(&["--target", "mobile", "--scheme", "ternary", "--output", "ternary"], 0);
    assert!(report["edge_metric"].is_f64() && folder.join("ternary/model.safetensors").is_file(), "{report}");
}

/// 2 where another command line would do, whoever finds out; 1 where the command line was right.
#[test]
fn wrong_arguments_exit_with_2_and_failures_with_1() {
    let workshop = workshop();
    let folder = workshop.path();
    let run = train(folder);
    let export = ["export", "--input", &run, "--target", "gpu-low", "--output", "package"];
    stderr_of(folder, &export, 0);
    std::fs::write(folder.join("file"), "text").unwrap();
    std::fs::write(folder.join("story.txt"), "Once upon a time. ".repeat(1000)).unwrap();
    let damaged = train(folder);
    let with = |args: &[&str], code: i32| {
        let line: Vec<&str> = TRAIN.iter().chain(args).copied().collect();
        (line.into_iter().map(str::to_owned).collect::<Vec<_>>(), code)
    };
    let line = |args: &[&str], code: i32| (args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>(), code);
    let image = ["infer", "--package", "package", "--image"];
    let resume = ["train", "--resume", &damaged];
    let cases = [
        // Found by clap.
        line(&["train", "--steps", "0"], 2),
        line(&["train", "--batch-size", "0"], 2),
        line(&["train", "--micro-batches", "0"], 2),
        line(&["train", "--learning-rate", "NaN"], 2),
        line(&["train", "--learning-rate", "0"], 2),
        line(&["train", "--validation-interval", "0"], 2),
        line(&["train", "--checkpoint-interval", "0"], 2),
        line(&["train", "--sequence-length", "0"], 2),
        line(&["train", "--preset", "glyphs-cnn", "--sequence-length", "64"], 2),
        line(&["quantize", "--input", &run, "--scheme", "int8", "--samples", "0"], 2),
        line(&["infer", "--package", "package", "--prompt", "a", "--temperature", "NaN"], 2),
        line(&["train", "--data", "data", "--image-size", "0"], 2),
        // Found by the command line after parsing.
        line(&["train", "--preset", "nowhere"], 2),
        line(&["train", "--tier", "nowhere"], 2),
        // Vanilla does not predict, whatever it is asked to predict by.
        line(&["train", "--tier", "vanilla", "--strategy", "frozen"], 2),
        line(&["train", "--strategy", "hope"], 2),
        line(&["train", "--model", "nowhere"], 2),
        line(&["train", "--preset", "shakespeare-gpt2-char", "--data", "file", "--tokenizer", "nowhere"], 2),
        line(&["train", "--preset", "grammar-gpt2-char", "--model", "mlp"], 2),
        line(&["train", "--runs", "file"], 2),
        line(&["runs", "list", "--runs", "file"], 2),
        line(&["demo", "--output", "file"], 2),
        line(&["export", "--target", "gpu-low"], 2),
        line(&["infer", "--package", "package", "--prompt", "Once"], 2),
        line(&["infer", "--package", "data", "--image", "file"], 2),
        line(&[&image[..], &["nowhere.png"]].concat(), 2),
        // Found by the engine.
        with(&["--micro-batches", "3"], 2),
        with(&["--micro-batches", "3", "--plan"], 2),
        line(&["train", "--preset", "grammar-gpt2-char", "--data", "data", "--runs", "runs"], 2),
        line(&["validate", "--checkpoint", "data"], 2),
        line(&["validate", "--checkpoint", &run, "--data", "story.txt"], 2),
        line(&["quantize", "--input", &run, "--scheme", "int8", "--output", "file"], 2),
        line(&["quantize", "--input", &run, "--scheme", "int8", "--output", "nowhere/file"], 2),
        line(&export, 2),
        // The command line is right, and what it names is damaged or taken by another process.
        line(&[&image[..], &["file"]].concat(), 1),
        line(&resume, 1),
        line(&["validate", "--checkpoint", &damaged], 1),
    ];
    // What a kill in the middle of a write never leaves, and a bad disk does.
    for entry in std::fs::read_dir(folder.join(&damaged).join("checkpoints")).unwrap() {
        let entry = entry.unwrap().path();
        for name in ["trainer.safetensors", "model.safetensors"] {
            if entry.join(name).exists() {
                std::fs::write(entry.join(name), "damaged").unwrap();
            }
        }
    }
    for (args, code) in cases {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = foretrain(folder, &args).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    }
}

#[test]
fn a_refusal_for_memory_has_the_plan() {
    let workshop = workshop();
    for plan in [None, Some("--plan")] {
        let mut args = TRAIN.to_vec();
        args.extend(["--memory-budget", "0.000001", "--json"]);
        args.extend(plan);
        let json = json_of(workshop.path(), &args, 3);
        assert_eq!(json["exit_code"], 3);
        assert!(json["plan"]["items"].is_array(), "{json}");
    }
}

#[test]
fn a_memory_budget_is_a_number_above_zero() {
    let folder = tempfile::tempdir().unwrap();
    for budget in ["0", "-1", "NaN", "inf", "1e999", "much"] {
        let message = stderr_of(folder.path(), &["train", "--plan", "--memory-budget", budget], 2);
        assert!(message.contains("above 0"), "{budget}: {message}");
    }
}

#[test]
fn what_cannot_be_is_told_with_its_option_and_what_can() {
    let folder = tempfile::tempdir().unwrap();
    for (option, found, expected) in [
        ("--batch-size", "0", "a whole number of at least 1"),
        ("--batch-size", "x", "a whole number of at least 1"),
        ("--steps", "-1", "a whole number of at least 1"),
        ("--threads", "many", "a whole number of at least 0"),
        ("--learning-rate", "-1", "a number above 0"),
        ("--tier", "bogus", "one of vanilla, conservative, balanced, aggressive"),
        ("--preset", "bogus", "one of glyphs-cnn"),
    ] {
        let message = stderr_of(folder.path(), &["train", option, found], 2);
        let has_all = [option, found, "expected", expected].iter().all(|part| message.contains(part));
        assert!(has_all, "{option} {found}: {message}");
    }
}

#[test]
fn a_late_switch_to_quantized_weights_shortens_the_ramp() {
    let workshop = workshop();
    let folder = workshop.path();
    let late = [&TRAIN[..], &["--qat", "ternary", "--qat-start", "0.9", "--name", "late", "--json"]].concat();
    json_of(folder, &late, 0);
    let message = stderr_of(folder, &[&late[..], &["--qat-ramp", "0.3"]].concat(), 2);
    assert!(message.contains("found 0.3 after a start at 0.9"), "{message}");
}

#[test]
fn resume_refuses_options_that_it_would_not_heed() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["train", "--resume", "nowhere", "--seed", "3", "--tier", "vanilla", "--threads", "1", "--name", "new"];
    let message = stderr_of(folder.path(), &args, 2);
    for option in ["--seed", "--tier", "--threads", "--name"] {
        assert!(message.contains(option), "{option}: {message}");
    }
    for option in [["--preset", "glyphs-mlp"], ["--memory-budget", "2"], ["--optimizer", "muon"], ["--data", "glyphs"]]
    {
        let message = stderr_of(folder.path(), &["train", "--resume", "nowhere", option[0], option[1]], 2);
        assert!(message.contains(option[0]), "{option:?}: {message}");
    }
}

/// Without CUDA in the build: a GPU is refused with the way to one, and `auto` says why it is the processor.
#[test]
fn the_device_is_what_was_asked_for_or_the_reason_is_told() {
    let workshop = workshop();
    let folder = workshop.path();
    let asked = |options: &[&'static str]| [&TRAIN[..], options].concat();
    let message = stderr_of(folder, &asked(&["--device", "gpu"]), 2);
    assert!(message.contains("auto, cpu or cuda:N"), "{message}");
    let message = stderr_of(folder, &asked(&["--vram-limit", "2"]), 2);
    assert!(message.contains("--vram-limit") && message.contains("--device cuda:N"), "{message}");
    if has_cuda() {
        return;
    }
    let message = stderr_of(folder, &asked(&["--device", "cuda:0"]), 2);
    assert!(message.contains("GPU 0") && message.contains("packaging/cuda/build"), "{message}");
    assert!(message.contains("--device cpu"), "{message}");
    let message = stderr_of(folder, &asked(&["--device", "auto", "--vram-limit", "2", "--name", "there"]), 0);
    assert!(message.contains("Computing on the processor: this build"), "{message}");
    let run = std::fs::read_dir(folder.join("runs")).unwrap().next().unwrap().unwrap().path();
    let recipe = std::fs::read_to_string(run.join("config.ron")).unwrap();
    assert!(recipe.contains("device: Cpu,"), "the device is settled: {recipe}");
    // A run of a GPU goes on where there is none, when that is asked for.
    std::fs::write(run.join("config.ron"), recipe.replace("device: Cpu,", "device: Cuda(3),")).unwrap();
    let run = run.to_str().unwrap();
    let message = stderr_of(folder, &["train", "--resume", run], 2);
    assert!(message.contains("GPU 3"), "{message}");
    let message = stderr_of(folder, &["train", "--resume", run, "--device", "cpu"], 0);
    assert!(message.contains("Computing on cpu as asked, instead of cuda:3"), "{message}");
}

/// A run that ends, is given more steps in its recipe, and goes on: the terminal tells of the new ones only.
#[test]
fn a_resumed_run_does_not_tell_its_past_again() {
    let workshop = workshop();
    let folder = workshop.path();
    let mut args = TRAIN.to_vec();
    (args[4], args[10]) = ("conservative", "40");
    args.extend(["--name", "tale"]);
    let told = stderr_of(folder, &args, 0);
    assert!(told.contains("Warmup -> Full"), "{told}");
    let run = std::fs::read_dir(folder.join("runs")).unwrap().next().unwrap().unwrap().path();
    let recipe = std::fs::read_to_string(run.join("config.ron")).unwrap();
    assert!(recipe.contains("num_steps: 40,"), "{recipe}");
    std::fs::write(run.join("config.ron"), recipe.replace("num_steps: 40,", "num_steps: 44,")).unwrap();
    let told = stderr_of(folder, &["train", "--resume", run.to_str().unwrap()], 0);
    assert_eq!(told.matches("going on after step 40").count(), 1, "{told}");
    assert!(!told.contains("Warmup -> Full"), "{told}");
}

#[test]
fn a_closed_pipe_is_a_quiet_success() {
    let workshop = workshop();
    let folder = workshop.path();
    train(folder);
    for args in [
        vec!["runs", "list", "--runs", "runs"],
        vec!["runs", "list", "--runs", "runs", "--json"],
        vec!["train", "--preset", "list"],
        vec!["export", "--target", "list"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = foretrain(folder, &args).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        check_code(&output, 0);
        assert!(output.stderr.is_empty(), "{args:?}: {output:?}");
    }
}

#[test]
fn an_export_takes_a_free_name_and_its_package_runs() {
    let workshop = workshop();
    let folder = workshop.path();
    let run = train(folder);
    let export = ["export", "--input", &run, "--target", "gpu-low", "--json"];
    assert_eq!(json_of(folder, &export, 0)["package"], "package-gpu-low");
    assert_eq!(json_of(folder, &export, 0)["package"], "package-gpu-low-2");
    let mut named = export.to_vec();
    named.extend(["--output", "package-gpu-low"]);
    let refusal = json_of(folder, &named, 2);
    assert!(refusal["error"].as_str().unwrap().contains("existing"), "{refusal}");

    let image = folder.join(odd_name());
    image::GrayImage::new(8, 8).save_with_format(&image, image::ImageFormat::Png).unwrap();
    let mut infer = foretrain(folder, &["infer", "--package", "package-gpu-low", "--json", "--image"]);
    let output = infer.arg(&image).output().unwrap();
    check_code(&output, 0);
    let json = last_json(&output);
    assert_eq!(json["images"][0]["image"], image.display().to_string());
    assert!(json["images"][0]["class"].is_string(), "{json}");
}

#[test]
fn a_calibrated_quantization_tells_of_every_layer_and_leaves_a_report() {
    let workshop = workshop();
    let folder = workshop.path();
    let run = train(folder);
    let mut args = vec!["quantize", "--input", &run, "--scheme", "ternary", "--method", "gptq", "--json"];
    args.extend(["--calibration-samples", "1000", "--equalize", "--mixed", "--budget-bits", "12", "--report", "cost"]);
    let json = json_of(folder, &args, 0);
    assert!(json["bits_per_weight"].as_f64().unwrap() <= 12.0, "{json}");
    let layers = json["layers"].as_array().unwrap();
    let calibrated = layers.iter().filter(|layer| layer["output_error"].is_number());
    let mut num_calibrated = 0;
    for layer in calibrated {
        num_calibrated += 1;
        let (stored, nearest) = (layer["output_error"].as_f64(), layer["nearest_output_error"].as_f64());
        assert!(stored <= nearest && layer["loss_increase"].is_number(), "{layer}");
    }
    assert!(num_calibrated > 0, "{json}");
    let notes = json["notes"].to_string();
    // The training part has 450 images or fewer: some are held out.
    assert!(notes.contains("the training part has no more") && notes.contains("Equalized"), "{notes}");
    for file in ["report.json", "README.md", "sensitivity.svg", "outputs.svg"] {
        assert!(folder.join("cost").join(file).metadata().unwrap().len() > 100, "{file}");
    }
    let page = std::fs::read_to_string(folder.join("cost/README.md")).unwrap();
    assert!(page.contains("gptq, calibrated on") && page.contains("bits per weight"), "{page}");
    // Nothing is written over, and wrong settings are told before anything is computed.
    let refusal = json_of(folder, &args, 2);
    assert!(refusal["error"].as_str().unwrap().contains("free"), "{refusal}");
    for (wrong, named) in [
        (vec!["--mixed"], "--budget-bits"),
        (vec!["--mixed", "--budget-bits", "0.5"], "at least"),
        (vec!["--sparsity", "1.5"], "sparsity"),
        (vec!["--ternary-scales", "64"], "tensor, row, 256"),
    ] {
        let line = [&["quantize", "--input", &run, "--scheme", "ternary"][..], &wrong].concat();
        let message = stderr_of(folder, &line, 2);
        assert!(message.contains(named), "{message}");
    }
}

#[test]
fn an_export_may_be_calibrated() {
    let workshop = workshop();
    let folder = workshop.path();
    let run = train(folder);
    let export =
        ["export", "--input", &run, "--target", "edge-board", "--method", "gptq", "--sparsity", "2:4", "--json"];
    let json = json_of(folder, &export, 0);
    assert!(json["quality"]["method"].as_str().unwrap().starts_with("gptq, calibrated on"), "{json}");
    assert!(json["quality"]["notes"].to_string().contains("quantized weights are 0"), "{json}");
}

#[test]
fn every_target_gets_a_package_in_any_scheme() {
    let workshop = workshop();
    let folder = workshop.path();
    let run = train(folder);
    let export = ["export", "--input", &run, "--target", "all", "--scheme", "int4", "--output", "all", "--json"];
    let packages = json_of(folder, &export, 0)["packages"].as_array().unwrap().clone();
    let targets = json_of(folder, &["export", "--target", "list", "--json"], 0);
    assert_eq!(packages.len(), targets["targets"].as_array().unwrap().len());
    for package in &packages {
        let target = package["target"].as_str().unwrap();
        assert!(folder.join("all").join(target).join("manifest.json").is_file(), "{package}");
        assert_eq!(package["quality"]["scheme"], "int4", "{package}");
    }
    // Each name is taken now: nothing is begun, and all are told.
    let refusal = json_of(folder, &export, 2);
    let message = refusal["error"].as_str().unwrap();
    assert!(message.starts_with("0 of") && message.contains("edge-board") && message.contains("gpu-high"), "{message}");
    // transformers knows no image model of ours.
    let export = ["export", "--input", &run, "--target", "gpu-high", "--format", "transformers", "--json"];
    let refusal = json_of(folder, &export, 2);
    assert!(refusal["error"].as_str().unwrap().contains("transformers has no"), "{refusal}");
}

#[test]
fn a_run_starts_from_the_weights_of_another() {
    let workshop = workshop();
    let folder = workshop.path();
    let first = train(folder);
    let loss = |run: &str| {
        let json = json_of(folder, &["validate", "--checkpoint", run, "--json"], 0);
        json["measured"]["loss"].as_f64().unwrap()
    };
    // A rate that moves nothing leaves what it started from.
    let still = ["--from", &first, "--learning-rate", "1e-30", "--optimizer", "adamw", "--seed", "5", "--json"];
    let line: Vec<&str> = TRAIN.iter().chain(&still).copied().collect();
    let second = json_of(folder, &line, 0)["run"].as_str().unwrap().to_owned();
    assert!((loss(&second) - loss(&first)).abs() < 1e-4, "{} {}", loss(&second), loss(&first));
    // It goes on without what it started from.
    std::fs::remove_dir_all(folder.join(&first)).unwrap();
    assert_eq!(json_of(folder, &["train", "--resume", &second, "--json"], 0)["steps"], 2);
    let refusal = |args: &[&str]| {
        let line: Vec<&str> = TRAIN.iter().chain(args).chain(&["--json"]).copied().collect();
        json_of(folder, &line, 2)["error"].as_str().unwrap().to_owned()
    };
    assert!(refusal(&["--from", "nowhere"]).contains("--from"));
    assert!(refusal(&["--from", "data"]).contains("data"));
    assert!(refusal(&["--from", &second, "--model", "mlp"]).contains("--model"));
}

/// A file's name that is not UTF-8, where the file system takes one.
#[cfg(target_os = "linux")]
fn odd_name() -> std::ffi::OsString {
    std::os::unix::ffi::OsStringExt::from_vec(b"seven-\xff.png".to_vec())
}

#[cfg(not(target_os = "linux"))]
fn odd_name() -> std::ffi::OsString {
    "seven.png".into()
}

#[test]
fn a_relative_path_of_data_is_kept_whole() {
    let workshop = workshop();
    let run = train(workshop.path());
    let text = std::fs::read_to_string(workshop.path().join(run).join("config.ron")).unwrap();
    match ron::from_str::<RunConfig>(&text).unwrap().data {
        DatasetSpec::Idx { path } => assert!(path.is_absolute() && path.ends_with("data"), "{path:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn data_is_recognized_by_what_it_is() {
    let workshop = workshop();
    let folder = workshop.path();
    let plan = ["train", "--preset", "glyphs-mlp", "--batch-size", "8", "--image-size", "8", "--plan", "--json"];
    let plan_for = |place: &Path, data: &[&str]| {
        let args: Vec<&str> = plan.iter().chain(data).copied().collect();
        json_of(place, &args, 0)["num_params"].as_u64().unwrap()
    };
    // One of the files, by its bare name.
    assert!(plan_for(&folder.join("data"), &["--data", "train-images-idx3-ubyte"]) > 0);
    // Class folders with a text file beside them.
    for class in ["cat", "dog"] {
        let class = folder.join("animals").join(class);
        std::fs::create_dir_all(&class).unwrap();
        for number in 0..20_u32 {
            let pixels = image::GrayImage::from_fn(8, 8, |x, y| image::Luma([(x * 30 + y + number) as u8]));
            pixels.save(class.join(format!("{number}.png"))).unwrap();
        }
    }
    std::fs::write(folder.join("animals/labels.txt"), "cat\ndog\n").unwrap();
    assert!(plan_for(folder, &["--data", "animals"]) > 0);
    // The kind overrules, and what it cannot be is refused.
    let message = stderr_of(folder, &["train", "--plan", "--data", "animals", "--kind", "jsonl"], 2);
    assert!(message.contains("one .jsonl file"), "{message}");
    std::fs::write(folder.join("program"), [0x7f, b'E', b'L', b'F', 0, 0]).unwrap();
    let message = stderr_of(folder, &["train", "--plan", "--data", "program"], 2);
    assert!(message.contains("--kind"), "{message}");
    // A preset that needs data says so.
    let message = stderr_of(folder, &["train", "--preset", "mnist-cnn", "--plan"], 2);
    assert!(message.contains("--data"), "{message}");
}

#[test]
fn a_loss_that_is_no_number_is_an_error() {
    let workshop = workshop();
    let folder = workshop.path();
    let run = train(folder);
    assert!(json_of(folder, &["validate", "--checkpoint", &run, "--json"], 0)["measured"]["loss"].is_number());
    let checkpoint = PathBuf::from(run).join("checkpoints/step-00000002");
    fill_with_nan(&folder.join(&checkpoint).join("model.safetensors"));
    let checkpoint = checkpoint.to_str().unwrap();
    let json = json_of(folder, &["validate", "--checkpoint", checkpoint, "--json"], 1);
    let message = json["error"].as_str().unwrap();
    assert!(message.contains("finite") && message.contains(checkpoint), "{message}");
}

/// Makes every number of an f32 safetensors file NaN: 8 bytes of length, a header, the numbers.
fn fill_with_nan(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let header_len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[8 + header_len..].chunks_exact_mut(4).for_each(|number| number.copy_from_slice(&f32::NAN.to_le_bytes()));
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_second_demo_in_one_folder_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("out/packages/demo-grammar-gpu-low")).unwrap();
    let json = json_of(folder.path(), &["demo", "--output", "out", "--json"], 2);
    assert!(json["error"].as_str().unwrap().contains("earlier demo"), "{json}");
    assert!(!folder.path().join("out/runs").exists());
}

/// Ctrl-C during the steps: saved, said so, 130.
#[cfg(unix)]
#[test]
fn an_interrupted_run_is_saved() {
    let workshop = workshop();
    let folder = workshop.path();
    let mut args = TRAIN.to_vec();
    let steps = args.iter().position(|arg| *arg == "2").unwrap();
    args[steps] = "1000000";
    args.push("--json");
    let child = foretrain(folder, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let started = std::time::Instant::now();
    let has_steps = || {
        let runs = std::fs::read_dir(folder.join("runs")).into_iter().flatten().flatten();
        runs.filter_map(|run| run.path().join("metrics.jsonl").metadata().ok()).any(|metrics| metrics.len() > 0)
    };
    while !has_steps() {
        assert!(started.elapsed() < foretrain_tests::DEADLINE, "the run does not get anywhere");
        std::thread::yield_now();
    }
    let interrupt = format!("kill -INT {}", child.id());
    assert!(Command::new("sh").args(["-c", &interrupt]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    check_code(&output, 130);
    let answer = last_json(&output);
    assert_eq!(answer["exit_code"], 130);
    assert!(folder.join(answer["run"].as_str().unwrap()).is_dir() && answer["step"].as_u64().unwrap() > 0, "{answer}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("--resume"));
    let listed = json_of(folder, &["runs", "list", "--runs", "runs", "--json"], 0);
    assert_eq!(listed["runs"][0]["is_resumable"], true, "{listed}");
}

/// A ladder that nothing of fits into memory: a whole experiment without a step.
fn empty_ladder(output: &str) -> Vec<&str> {
    let args = ["experiment", "ladder", "--rungs", "100k", "--data", "story.txt", "--runs", "runs", "--threads", "1"];
    let mut args = args.to_vec();
    args.extend(["--memory-budget", "0.001", "--json", "--output", output]);
    args
}

#[test]
fn an_experiment_ends_with_an_object_and_its_report_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("story.txt"), "Once upon a time. ".repeat(1000)).unwrap();
    let found = json_of(folder, &empty_ladder("reports/first"), 0);
    assert_eq!((found["experiment"].as_str(), found["report"].as_str()), (Some("ladder"), Some("reports/first")));
    assert_eq!(found["rungs"][0]["outcome"], "no memory");
    assert!(found["verdict"].as_str().unwrap().contains("of memory"), "{found}");
    let again = ["experiment", "render", "reports/first", "--output", "reports/again", "--json"];
    assert_eq!(json_of(folder, &again, 0)["rungs"], found["rungs"]);
    for name in ["report.json", "README.md"] {
        let bytes = |report: &str| std::fs::read(folder.join("reports").join(report).join(name)).unwrap();
        assert_eq!(bytes("first"), bytes("again"), "{name}");
    }
    // Taken places, and what is no report.
    for args in [empty_ladder("reports/first"), again.to_vec()] {
        let refusal = json_of(folder, &args, 2);
        assert!(refusal["error"].as_str().unwrap().contains("a name that is free"), "{refusal}");
    }
    let render = |report| vec!["experiment", "render", report, "--output", "reports/new", "--json"];
    assert!(json_of(folder, &render("nowhere"), 2)["error"].as_str().unwrap().contains("nowhere"));
    std::fs::write(folder.join("reports/again/report.json"), "{\"experiment\":\"arena\"}").unwrap();
    let damaged = json_of(folder, &render("reports/again"), 1);
    assert!(damaged["error"].as_str().unwrap().contains("missing field"), "{damaged}");
    assert!(!folder.join("reports/new").exists());
}

#[test]
fn experiments_refuse_options_that_they_would_not_heed() {
    let folder = tempfile::tempdir().unwrap();
    for (args, option) in [
        (["experiment", "tiers", "--tier", "vanilla"], "--tier"),
        (["experiment", "ladder", "--model", "gpt2-char"], "--model"),
        (["experiment", "ladder", "--rungs", "7b"], "100k, 1m, 11m, 124m"),
        (["experiment", "ladder", "--minutes-per-rung", "0"], "--minutes-per-rung"),
        (["experiment", "corrections", "--confidence", "0.6,55"], "--confidence"),
        (["experiment", "corrections", "--horizons", "0"], "--horizons"),
        (["experiment", "features", "--optimizer-states", "8bit"], "--optimizer-states"),
        (["experiment", "features", "--seeds=1", "--optimizer-offload"], "--optimizer-offload"),
        (["experiment", "features", "--features", "magic"], "streamed-compact"),
    ] {
        let message = stderr_of(folder.path(), &args, 2);
        assert!(message.contains(option), "{args:?}: {message}");
    }
}

#[test]
fn every_experiment_has_examples() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["arena", "headline", "corrections", "tiers", "ladder", "growth", "quantization", "features", "render"]
    {
        let output = foretrain(folder.path(), &["experiment", name, "--help"]).output().unwrap();
        check_code(&output, 0);
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains(&format!("Examples:\n  foretrain experiment {name}")), "{help}");
    }
}
